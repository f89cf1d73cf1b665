"""What stands on the top surface of the block or is cut into it: caps, grooves, pits. Kept as a list, in order.

The list alone says what is there; voxels follow from it, so a saved machine needs no copy of them. Coordinates are the
block's: x across, z into it; heights grow upwards, against y.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from instrument.settings import Model

Float32 = NDArray[np.float32]

#: Two features are one, written in pieces, when their outlines differ by less than this, metres.
SAME_M = 0.15e-6
#: A film on top fills a groove up to this many times its own thickness, from both walls (physics.md 3.2).
GROOVE_FILLED = 4.0
#: Share of what looks take off that a groove loses in depth: its edges go faster than its floor.
WORN_SHARE = 0.5


class Feature(Model):
    """One feature. Metres.

    kind : cap (raises), pit (a box that is cut), groove (a line that is cut), trench (a box open to the front)
    x0, z0, x1, z1 : corners of the box, or the ends of the line; width : of the line
    amount : height of a cap, depth of the others; soft : standard deviation of its edges; worn : taken off by looks
    shares : of the amount, by part of a pit's box, rows along z, columns along x; none: it is as deep everywhere
    """

    kind: Literal["cap", "pit", "groove", "trench"]
    x0: float
    z0: float
    x1: float
    z1: float
    width: float = 0.0
    amount: float
    soft: float = 50e-9
    worn: float = 0.0
    shares: tuple[tuple[float, ...], ...] = ()

    def same(self, other: Feature) -> bool:
        """Tell whether the other one is a further piece of this one."""
        mine, theirs = (np.array([f.x0, f.z0, f.x1, f.z1, f.width]) for f in (self, other))
        alike = self.kind == other.kind and self.shares == other.shares
        return alike and bool(np.all(np.abs(mine - theirs) < SAME_M))

    def outline(self, x: NDArray[np.floating], z: NDArray[np.floating]) -> Float32:
        """Return how much of the feature is at each place, 0..1, for coordinate arrays that broadcast."""
        if self.kind == "groove":
            return _edge(self.width / 2 - self._distance(x, z), self.soft)
        across = _edge(x - self.x0, self.soft) * _edge(self.x1 - x, self.soft)
        return np.asarray(across * _edge(z - self.z0, self.soft) * _edge(self.z1 - z, self.soft), np.float32)

    def profile(self, x: NDArray[np.floating], z: NDArray[np.floating]) -> NDArray[np.float64] | float:
        """Return the share of the amount at each place, 0..1, for coordinate arrays that broadcast."""
        if not self.shares:
            return 1.0
        return stepped(np.array(self.shares), (self.x0, self.z0, self.x1, self.z1), x, z)

    def near(self, low_x: float, high_x: float, low_z: float, high_z: float) -> bool:
        """Tell whether any of it lies in a box."""
        reach = self.width / 2 + 4 * self.soft
        xs, zs = sorted((self.x0, self.x1)), sorted((self.z0, self.z1))
        return xs[0] - reach < high_x and xs[1] + reach > low_x and zs[0] - reach < high_z and zs[1] + reach > low_z

    def _distance(self, x: NDArray[np.floating], z: NDArray[np.floating]) -> Float32:
        dx, dz = self.x1 - self.x0, self.z1 - self.z0
        length = dx * dx + dz * dz
        along = np.clip(((x - self.x0) * dx + (z - self.z0) * dz) / length, 0, 1) if length > 0 else 0.0
        return np.asarray(np.hypot(x - self.x0 - along * dx, z - self.z0 - along * dz), np.float32)


def stepped(
    shares: NDArray[np.float64], box: tuple[float, float, float, float], across: NDArray[np.floating],
    down: NDArray[np.floating],
) -> NDArray[np.float64]:  # fmt: skip
    """Return the share (rows, columns) of a box, (x0, y0, x1, y1) in metres, in whose part each place lies."""
    x0, y0, x1, y1 = box
    rows, columns = shares.shape
    row = np.clip(np.floor((down - y0) / (y1 - y0) * rows), 0, rows - 1).astype(np.intp)
    column = np.clip(np.floor((across - x0) / (x1 - x0) * columns), 0, columns - 1).astype(np.intp)
    found: NDArray[np.float64] = shares[row, column]
    return found


def _edge(inward: NDArray[np.floating], soft: float) -> Float32:
    """Return a soft edge: 0 outside, 1 inside, the error function within four deviations of it."""
    away = np.asarray(inward, np.float32)
    out = (away > 0).astype(np.float32)
    near = np.abs(away) < np.float32(4 * soft)
    out[near] = 0.5 + 0.5 * erf(away[near] / np.float32(np.sqrt(2) * soft))
    return out


def added(features: tuple[Feature, ...], new: Feature) -> tuple[tuple[Feature, ...], Feature]:
    """Return the list with a feature more, and what to write for it.

    A further piece of the newest feature, or of the one before it, is added to that one and has its outline: the list
    then stands for exactly the voxels that the pieces have changed.
    """
    for back in (1, 2):
        if len(features) >= back and features[-back].same(new) and (back == 1 or features[-1].kind == new.kind):
            old = features[-back]
            place = len(features) - back
            grown = old.replace(amount=old.amount + new.amount)
            return (*features[:place], grown, *features[place + 1 :]), old.replace(amount=new.amount)
    return (*features, new), new


def relief(
    features: tuple[Feature, ...], x: NDArray[np.floating], z: NDArray[np.floating]
) -> tuple[Float32, Float32, Float32]:
    """Return what stands on the top surface at places: cap height, depth cut below it, share of cap.

    x, z are arrays that broadcast. Later caps fill earlier grooves.
    """
    shape = np.broadcast_shapes(x.shape, z.shape)
    cap, cut, share = (np.zeros(shape, np.float32) for _ in range(3))
    if not x.size or not z.size:
        return cap, cut, share
    grid = [np.broadcast_to(np.asarray(at, np.float32), shape) for at in (x, z)]
    reached = _extremes(grid)
    for one in features:
        part = _part(one, reached)
        if part is None:
            continue
        outline = one.outline(grid[0][part], grid[1][part])
        if one.kind == "cap":
            height = np.float32(max(0.0, one.amount - one.worn)) * outline
            filled = np.minimum(cut[part], np.float32(GROOVE_FILLED) * height)
            cap[part] += height
            cut[part] -= filled
            np.maximum(share[part], outline, out=share[part])
        elif one.kind == "trench":
            np.maximum(cut[part], np.float32(one.amount) * outline, out=cut[part])
        else:
            depth = np.float32(max(0.0, one.amount - WORN_SHARE * one.worn)) * outline
            cut[part] += depth * one.profile(grid[0][part], grid[1][part])
    return cap, cut, share


#: Of x and of z: by axis of a grid, the lowest and the highest value at every index.
Extremes = list[list[tuple[Float32, Float32]]]


def _extremes(grid: list[Float32]) -> Extremes:
    """Return the extremes of every row and column of x and z: a grid may be a little askew."""
    found: Extremes = []
    for at in grid:
        others = [tuple(other for other in range(at.ndim) if other != axis) for axis in range(at.ndim)]
        found.append([(at.min(axis=which), at.max(axis=which)) for which in others])
    return found


def _part(one: Feature, reached: Extremes) -> tuple[slice, ...] | None:
    """Return the part of a grid that a feature reaches, from the grid's extremes, None for none."""
    reach = one.width / 2 + 4 * one.soft
    (x0, x1), (z0, z1) = sorted((one.x0, one.x1)), sorted((one.z0, one.z1))
    found = []
    for (x_low, x_high), (z_low, z_high) in zip(*reached, strict=True):
        line = np.flatnonzero(
            (x_high > x0 - reach) & (x_low < x1 + reach) & (z_high > z0 - reach) & (z_low < z1 + reach)
        )
        if line.size == 0:
            return None
        found.append(slice(int(line[0]), int(line[-1]) + 1))
    return tuple(found)
