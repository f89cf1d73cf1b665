"""What stands on the top surface of the block or is cut into it: caps, grooves, pits. Kept as a list, in order.

The list alone says what is there; voxels follow from it, so a saved machine needs no copy of them. Coordinates are the
block's: x across, z into it; heights grow upwards, against y.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import erf

from instrument.settings import Model
from simulator import materials as m
from simulator.volume import Volume

Float32 = NDArray[np.float32]

#: Two features are one, written in pieces, when their outlines differ by less than this, metres.
SAME_M = 0.15e-6
#: A film on top fills a groove up to this many times its own thickness, from both walls (physics.md 3.2).
GROOVE_FILLED = 4.0
#: Share of what looks take off that a groove loses in depth: its edges go faster than its floor.
WORN_SHARE = 0.5
_TEXTURE_M = 0.35e-6  # where the particles of the bare surface are looked for
_BRIDGED_M = 0.8e-6  # holes of the bare surface narrower than this are bridged by a film on it
_SEARCHED_M = 3e-6  # the bare surface lies no lower than this


class Feature(Model):
    """One feature. Metres.

    kind : cap (raises), pit (a box that is cut), groove (a line that is cut), trench (a box open to the front)
    x0, z0, x1, z1 : corners of the box, or the ends of the line; width : of the line
    amount : height of a cap, depth of the others; soft : standard deviation of its edges; worn : taken off by looks
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

    def same(self, other: Feature) -> bool:
        """Tell whether the other one is a further piece of this one."""
        mine, theirs = (np.array([f.x0, f.z0, f.x1, f.z1, f.width]) for f in (self, other))
        return self.kind == other.kind and bool(np.all(np.abs(mine - theirs) < SAME_M))

    def outline(self, x: NDArray[np.floating], z: NDArray[np.floating]) -> Float32:
        """Return how much of the feature is at each place, 0..1, for coordinate arrays that broadcast."""
        if self.kind == "groove":
            return _edge(self.width / 2 - self._distance(x, z), self.soft)
        across = _edge(x - self.x0, self.soft) * _edge(self.x1 - x, self.soft)
        return np.asarray(across * _edge(z - self.z0, self.soft) * _edge(self.z1 - z, self.soft), np.float32)

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


def _edge(inward: NDArray[np.floating], soft: float) -> Float32:
    return np.asarray(0.5 + 0.5 * erf(np.asarray(inward, np.float32) / np.float32(np.sqrt(2) * soft)), np.float32)


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
    box = (float(x.min()), float(x.max()), float(z.min()), float(z.max()))
    for one in features:
        if not one.near(*box):
            continue
        outline = one.outline(x, z)
        if one.kind == "cap":
            height = np.float32(max(0.0, one.amount - one.worn)) * outline
            filled = np.minimum(cut, np.float32(GROOVE_FILLED) * height)
            cap += height
            cut -= filled
            np.maximum(share, outline, out=share)
        elif one.kind == "trench":
            np.maximum(cut, np.float32(one.amount) * outline, out=cut)
        else:
            cut += np.float32(max(0.0, one.amount - WORN_SHARE * one.worn)) * outline
    return cap, cut, share


class Top:
    """The top surface over the volume, and the writing of features into its voxels.

    Attributes
    ----------
    height : y of the topmost solid in each voxel column, metres, (z, x)
    hollow : depth of grooves that no film has filled yet, metres, (z, x)
    rim : y of the surface that a groove was cut into, metres, (z, x)
    texture : how the bare surface's particles and binder stand out, about -1..1, as built, (z, x)
    """

    def __init__(self, volume: Volume) -> None:
        self._volume = volume
        x0, y0, z0 = volume.origin
        depth, rows, columns = volume.labels.shape
        self.x: NDArray[np.float64] = x0 + volume.voxel * np.arange(columns, dtype=float)
        self.z: NDArray[np.float64] = z0 + volume.layer * np.arange(depth, dtype=float)
        self.y: NDArray[np.float64] = y0 + volume.voxel * np.arange(rows, dtype=float)
        # double precision: a feature written in pieces must give the voxels that it gives when written at once
        self.height = self._bridged()
        self.hollow = np.zeros_like(self.height)
        self.rim = self.height.copy()
        row = int(np.clip(np.searchsorted(self.y, _TEXTURE_M), 0, rows - 1))
        solid = ndimage.gaussian_filter(
            (volume.labels[:, row] == m.NMC).astype(np.float32), (0.15e-6 / volume.layer, 0.15e-6 / volume.voxel)
        )
        self.texture: Float32 = np.clip((solid - solid.mean()) * 1.5, -1, 1).astype(np.float32)

    def _bridged(self) -> NDArray[np.float64]:
        """Return the height of the surface as a film would bridge it; holes narrower than that become pores."""
        volume, rows = self._volume, int(np.searchsorted(self.y, _SEARCHED_M))
        solid = volume.labels[:, :rows] != m.VACUUM
        first = np.where(solid.any(axis=1), np.argmax(solid, axis=1), rows)
        size = tuple(2 * round(_BRIDGED_M / 2 / step) + 1 for step in (volume.layer, volume.voxel))
        bridged = ndimage.maximum_filter(ndimage.minimum_filter(first, size), size)
        soft = [0.25 * part for part in size]
        bridged = np.minimum(first, np.rint(ndimage.gaussian_filter(bridged.astype(np.float32), soft)))
        for row in range(int(bridged.min()), rows):
            part = volume.labels[:, row]
            part[(part == m.VACUUM) & (row >= bridged)] = m.PORE
        return np.asarray(self.y[0] + volume.voxel * (bridged - 0.5), float)

    def write(self, feature: Feature) -> None:
        """Write a feature, or a further piece of one, into the voxels."""
        if feature.kind == "trench":
            return
        reach = feature.width + 2 * feature.soft
        rows = self._span(self.z, min(feature.z0, feature.z1) - reach, max(feature.z0, feature.z1) + reach)
        columns = self._span(self.x, min(feature.x0, feature.x1) - reach, max(feature.x0, feature.x1) + reach)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return
        here = feature.outline(self.x[None, columns], self.z[rows, None])
        place = (rows, columns)
        if feature.kind == "cap":
            self._raise(place, np.where(here > 0.02, feature.amount * here.astype(float), 0.0))
        else:
            self._cut(place, np.where(here > 0.5, feature.amount, 0.0))

    def _span(self, at: NDArray[np.floating], low: float, high: float) -> slice:
        return slice(int(np.searchsorted(at, low)), int(np.searchsorted(at, high)))

    def _raise(self, place: tuple[slice, slice], by: NDArray[np.float64]) -> None:
        """Grow by a height; a groove grows from its walls as well until it is level, and shows what filled it."""
        old, hollow = self.height[place], self.hollow[place]
        grown = np.minimum((1 + GROOVE_FILLED) * by, hollow + by)
        new, level = old - grown, self.rim[place]
        for row in range(*self._rows(float(new.min()), float(old.max()))):
            y = float(self.y[row])
            labels = self._volume.labels[place[0], row, place[1]]
            fresh = (y >= new) & (y < old) & (labels == m.VACUUM)
            labels[fresh] = np.where((y >= level) & (hollow > 0), m.RESIDUE, m.CAP)[fresh]
        self.height[place] = new
        self.hollow[place] = hollow - (grown - by)

    def _cut(self, place: tuple[slice, slice], by: NDArray[np.float64]) -> None:
        old = self.height[place]
        new = old + by
        for row in range(*self._rows(float(old.min()), float(new.max()))):
            y = float(self.y[row])
            labels = self._volume.labels[place[0], row, place[1]]
            labels[(y >= old) & (y < new)] = m.VACUUM
        self.rim[place] = np.where((self.hollow[place] > 0) | (by == 0), self.rim[place], old)
        self.height[place] = new
        self.hollow[place] += by

    def _rows(self, low: float, high: float) -> tuple[int, int]:
        return int(np.searchsorted(self.y, low)), int(np.searchsorted(self.y, high))
