"""Grows platinum films and lets platinum into the pores that are open to the face.

Models of physics.md section 3: the film's growth is deposition less its own sputtering (3.1); inside pores the walls
grow more slowly the deeper they lie, narrow mouths close and shut off what is behind them, wide pores keep a dark core
inside a ring (3.2, measured on the published faces of Cooper et al. 2022). Transport of gas is not the limit,
activation by the beam is: depth is counted in widths of the narrowest passage on the way in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from instrument.process import ELECTRON_FILM_YIELD, FILM_HALF_DENSITY, FILM_SPUTTER_EXPONENT, FILM_YIELD, MILL_RATES
from simulator import materials as m
from simulator.distances import to_wall
from simulator.randomness import rng
from simulator.sidebyside import parts, side_by_side
from simulator.volume import Volume
from simulator.widths import passages, spread

Float32 = NDArray[np.float32]
Bools = NDArray[np.bool_]
_Cells3 = tuple[NDArray[np.intp], ...]  # cells by their layers, rows and columns

WALL_SHARE = 0.30
"""Growth of a wide pore's wall at its mouth over that of the film (physics.md 3.2: fw)."""
LIP_M = 0.6e-6
"""Up to here a mouth's lip grows as fast as the film; then its own overhang shades the wall, and `WALL_SHARE` holds.

Joins two findings: a film of d/2 closes mouths of d up to 1.2 um, and 2 um films leave rings of 0.6 um.
"""
DECAY = 1.2
"""Depth in widths of the passage over which wall growth falls to 1/e (physics.md 3.2: k)."""
PLUG = 1.0
"""A closed mouth is solid to at least this many of its widths (physics.md 3.2: 1 to 1.3), hair cracks deeper."""
LIT_SHARE = 0.30
"""Growth of a wall that a slanted beam lights directly over that of the film (physics.md 3.2: fl)."""
REACH_M = 5e-6
"""Growth is followed this far below the face."""
ROUGHNESS_M = 20e-9
"""Deviation of the grown surface inside pores (physics.md 3.1: nodules of 20-100 nm)."""

_CELL_M = 110e-9  # grid of the growth; its level set is interpolated to the voxels, so that outlines stay clean
_MARGIN_M = 1.0e-6
_NOWHERE_M = -1e-6  # level where nothing grows
_SLANT = 0.1  # a beam nearer to the face's normal than this (sine) lights no wall


@dataclass(frozen=True)
class Infill:
    """What a film has changed.

    index : flat indices into the whole electrode's voxels that turn from pore to platinum, ascending, int64
    film_m : platinum on the face afterwards, metres, float32 on the grid of the maps given; 0 over open mouths
    """

    index: NDArray[np.int64]
    film_m: Float32

    def write(self, volume: Volume) -> None:
        """Write the platinum into the volume's labels."""
        before = volume.first_layer * volume.labels[0].size
        volume.labels.reshape(-1)[self.index - before] = m.PT


def film_rate(density: float, voltage_v: float, *, yield_factor: float = 1.0, gas: float = 1.0) -> float:
    """Return how fast an ion beam's film grows, m/s; negative where the beam takes more away than it lays down.

    Parameters
    ----------
    density : current over the true area, A/m2 (= pA/um2)
    voltage_v : of the ion beam, volts
    yield_factor : this machine's deposited volume over the nominal one
    gas : precursor at the surface, 0 (none) .. 1 (valve open, source warm, needle in place)
    """
    grown = gas * yield_factor * FILM_YIELD / (1.0 + density / FILM_HALF_DENSITY)
    lost = MILL_RATES["film"] * (voltage_v / 30e3) ** FILM_SPUTTER_EXPONENT
    return float(density * (grown - lost))


def electron_film_rate(density: float, *, yield_factor: float = 1.0, gas: float = 1.0) -> float:
    """Return how fast an electron beam's film grows, m/s, at a current over true area of `density`, A/m2."""
    return density * gas * yield_factor * ELECTRON_FILM_YIELD


def wall_growth(film_m: Float32) -> Float32:
    """Return how much a mouth's wall has grown when the film on the face is `film_m` thick, metres."""
    grown: Float32 = np.maximum(np.minimum(film_m, np.float32(LIP_M)), np.float32(WALL_SHARE) * film_m)
    return grown


def infiltrate(
    volume: Volume,
    x_m: NDArray[np.floating],
    y_m: NDArray[np.floating],
    face_m: NDArray[np.floating],
    laid_m: NDArray[np.floating],
    before_m: NDArray[np.floating] | float = 0.0,
    *,
    beam: tuple[float, float, float] = (0.0, 0.0, 1.0),
) -> Infill:
    """Lay a film on the face and return what it does to pores and face; the volume itself is not changed.

    A film laid in pieces fills a little less than one laid at once, as each piece starts from the walls that the one
    before has left: call this once a film, with its whole thickness, and not for every piece of a pattern.

    Parameters
    ----------
    volume : the specimen; only voxels that are PORE can be filled
    x_m, y_m : block coordinates of the maps' columns and rows, metres, ascending and evenly spaced
    face_m : z of the face under any film, metres, (y, x)
    laid_m : thickness that the film has, on flat ground, at each place, metres, (y, x); 0 outside its box
    before_m : platinum that lay there before, metres, (y, x)
    beam : unit vector of the beam that makes the film, block coordinates, pointing into the sample

    Raises
    ------
    ValueError : maps that don't fit their axes, a beam that doesn't point into the sample
    """
    x, y = np.asarray(x_m, float), np.asarray(y_m, float)
    shape = (y.size, x.size)
    face, laid = (np.asarray(a, np.float32) for a in (face_m, laid_m))
    before = np.broadcast_to(np.asarray(before_m, np.float32), shape)
    if face.shape != shape or laid.shape != shape:
        msg = f"face {face.shape} and film {laid.shape} don't fit axes of {shape[0]} rows and {shape[1]} columns"
        raise ValueError(msg)
    if beam[2] <= 0.05:
        msg = f"the beam {beam} doesn't point into the sample: its z component must be above 0.05"
        raise ValueError(msg)
    cells = _Cells.around(volume, x, y, face, laid, before)
    film = (before + laid).astype(np.float32)
    if cells is None:
        return Infill(np.empty(0, np.int64), film)
    level, accessible, mouth = _grown(cells, beam)
    index = cells.filled(level, accessible)
    film *= 1 - cells.on_map(mouth & (level[cells.first] < 0), x, y)
    return Infill(index, film)


@dataclass(frozen=True)
class _Cells:
    """The part of the volume that a film can reach, on a coarser grid (z, y, x).

    start : first voxel of the part; step : voxels a cell has; size : cell edges, metres
    pore : share of pore of every cell; depth : below the face, metres; laid, before : film by column, metres
    first : the first cell behind the face in every column, as an index
    """

    volume: Volume
    start: tuple[int, int, int]
    step: tuple[int, int, int]
    size: tuple[float, float, float]
    pore: Float32
    depth: Float32
    laid: Float32
    before: Float32
    first: tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]

    @classmethod
    def around(
        cls,
        volume: Volume,
        x: NDArray[np.float64],
        y: NDArray[np.float64],
        face: Float32,
        laid: Float32,
        before: Float32,
    ) -> _Cells | None:
        """Cut out what lies under the film; None where no film is laid on the volume."""
        under = laid > 0
        if not under.any():
            return None
        step_x, step_y = (max(1, round(_CELL_M / volume.voxel)),) * 2
        step = (max(1, round(_CELL_M / volume.layer)), step_y, step_x)
        rows, columns = np.flatnonzero(under.any(1)), np.flatnonzero(under.any(0))
        lows = (
            float(face[under].min()) - 2 * step[0] * volume.layer,
            float(y[rows[0]]) - _MARGIN_M,
            float(x[columns[0]]) - _MARGIN_M,
        )
        highs = (float(face[under].max()) + REACH_M, float(y[rows[-1]]) + _MARGIN_M, float(x[columns[-1]]) + _MARGIN_M)
        edges = (volume.layer, volume.voxel, volume.voxel)
        start, count = [], []
        for low, high, origin, edge, voxels, s in zip(
            lows, highs, volume.origin[::-1], edges, volume.labels.shape, step, strict=True
        ):
            first = min(max(0, math.floor((low - origin) / edge)), voxels)
            last = min(max(first, math.ceil((high - origin) / edge)), voxels)
            start.append(first)
            count.append((last - first) // s)
        if min(count) < 2:
            return None
        part = tuple(slice(a, a + n * s) for a, n, s in zip(start, count, step, strict=True))
        pore = _shares(volume.labels[part] == m.PORE, step)
        middle = [
            origin + edge * (a + s * (np.arange(n) + 0.5) - 0.5)
            for origin, edge, a, n, s in zip(volume.origin[::-1], edges, start, count, step, strict=True)
        ]
        column_maps = [_at(field, x, y, middle[2], middle[1]) for field in (face, laid, before)]
        depth = (middle[0].astype(np.float32)[:, None, None] - column_maps[0]).astype(np.float32)
        behind = np.argmax(depth >= _front(edges[0] * step[0]), axis=0)
        row, column = np.indices(behind.shape)
        size = (edges[0] * step[0], edges[1] * step[1], edges[2] * step[2])
        return cls(
            volume,
            (start[0], start[1], start[2]),
            step,
            size,
            pore,
            depth,
            column_maps[1],
            column_maps[2],
            (behind, row, column),
        )

    def filled(self, level: Float32, accessible: Bools) -> NDArray[np.int64]:
        """Return flat voxel indices where the level set, interpolated to the voxels, is 0 or more."""
        wanted = ndimage.maximum_filter(level.max(axis=(1, 2)), 3) >= 0
        voxels = np.flatnonzero(np.repeat(wanted, self.step[0]))
        found = side_by_side(lambda voxel: self._filled_at(int(voxel), level, accessible), voxels)
        return np.concatenate(found).astype(np.int64) if found else np.empty(0, np.int64)

    def _filled_at(self, voxel: int, level: Float32, accessible: Bools) -> NDArray[np.intp]:
        """Return what is filled of one layer of voxels."""
        _, rows, columns = self.volume.labels.shape
        own, place = voxel // self.step[0], (voxel + 0.5) / self.step[0] - 0.5
        low = min(max(0, math.floor(place)), level.shape[0] - 1)
        high = min(low + 1, level.shape[0] - 1)
        share = np.float32(min(max(0.0, place - low), 1.0))
        plane = _finer(level[low] + share * (level[high] - level[low]), self.step[1], self.step[2])
        layer = self.start[0] + voxel
        at = (
            layer,
            slice(self.start[1], self.start[1] + plane.shape[0]),
            slice(self.start[2], self.start[2] + plane.shape[1]),
        )
        inside = accessible[own].repeat(self.step[1], 0).repeat(self.step[2], 1)
        row, column = np.nonzero((plane >= 0) & inside & (self.volume.labels[at] == m.PORE))
        whole = layer + self.volume.first_layer
        found: NDArray[np.intp] = ((whole * rows) + row + self.start[1]) * columns + column + self.start[2]
        return found

    def on_map(self, columns: Bools, x: NDArray[np.float64], y: NDArray[np.float64]) -> Float32:
        """Return a mask of cell columns on the caller's maps, 0 or 1, False beyond the cells."""
        _, y0, x0 = (
            o + e * (a + 0.5 * s - 0.5)
            for o, e, a, s in zip(
                self.volume.origin[::-1],
                (self.volume.layer, self.volume.voxel, self.volume.voxel),
                self.start,
                self.step,
                strict=True,
            )
        )
        row = np.rint((y - y0) / self.size[1]).astype(int)[:, None]
        column = np.rint((x - x0) / self.size[2]).astype(int)[None, :]
        inside = (row >= 0) & (row < columns.shape[0]) & (column >= 0) & (column < columns.shape[1])
        at = columns[np.clip(row, 0, columns.shape[0] - 1), np.clip(column, 0, columns.shape[1] - 1)]
        mask: Float32 = (inside & at).astype(np.float32)
        return mask


def _grown(cells: _Cells, beam: tuple[float, float, float]) -> tuple[Float32, Bools, Bools]:
    """Return how far each cell lies inside the grown platinum, metres; what is open to the face; where mouths are."""
    half_cell = np.float32(0.5 * cells.size[1])
    front = cells.depth < _front(cells.size[0])
    any_pore = (cells.pore > 0) & ~front
    wall = np.maximum(_walls((cells.pore >= 0.5) | front, any_pore, cells.size) - half_cell, 0)
    own = np.where(any_pore, np.maximum(2 * wall, 2 * half_cell * cells.pore), 0).astype(np.float32)
    mouth = any_pore[cells.first] & ~front[cells.first] & (cells.laid > 0)
    seeds = np.zeros_like(own)
    seeds[cells.first] = np.where(mouth, own[cells.first], 0)
    reached = passages(seeds, own)
    accessible = reached > 0
    width = spread(reached, cells.size)
    # from here on for the cells that platinum can get to alone: one in six
    at = np.nonzero(accessible & (cells.laid > 0))
    throat, depth, to_wall = width[at], np.maximum(cells.depth[at], 0), wall[at]
    grown = (wall_growth(cells.before + cells.laid) - wall_growth(cells.before))[at[1:]]
    scale = np.maximum(np.float32(DECAY) * throat, np.float32(1e-9))
    shared = grown * np.exp(-depth / scale)
    ring = shared - to_wall
    roughness = rng(0, "deposit roughness").standard_normal((16, 64, 64), dtype=np.float32)
    ring += np.float32(ROUGHNESS_M) * roughness[at[0] % 16, at[1] % 64, at[2] % 64]
    ring = np.maximum(ring, _floor(any_pore, cells.size[0], at, throat, depth, grown))
    ring = np.maximum(ring, _lit(cells, any_pore, at, throat, depth, shared, beam))
    ratio = np.maximum(2 * grown / np.maximum(throat, np.float32(1e-9)), 1)
    solid = np.maximum(scale * np.log(ratio), np.maximum(np.float32(PLUG) * throat, 2 * half_cell))
    # behind a plug grows what grew before it closed, thinning out within a width
    thins = np.maximum(np.float32(0.4) * throat, half_cell)
    tail = 0.5 * throat * np.exp(-np.maximum(depth - solid, 0) / thins) - to_wall
    plug = np.where(depth <= solid, 2 * half_cell, tail - 0.25 * half_cell)
    level = np.full(width.shape, np.float32(_NOWHERE_M))
    level[at] = np.where(2 * grown >= throat, np.maximum(plug, np.float32(_NOWHERE_M)), ring)
    return np.where(any_pore, level, _highest_near(level)), accessible, mouth


def _highest_near(level: Float32) -> Float32:
    """Return the highest level of each cell and those around it."""
    out = np.empty_like(level)

    def part(first: int, last: int) -> None:
        low = max(0, first - 1)
        out[:, first:last] = ndimage.maximum_filter(level[:, low : last + 1], 3)[:, first - low : last - low]

    side_by_side(part, *zip(*parts(level.shape[1]), strict=True))
    return out


def _walls(open_: Bools, wanted: Bools, size: tuple[float, float, float]) -> Float32:
    """Return the distance of wanted cells to the nearest that is not open, else 0, in the unit of `size`."""
    wall = np.zeros(open_.shape, np.float32)
    here = np.nonzero(wanted & open_)
    wall[here] = to_wall(open_, here, size)
    return wall


def _floor(pore: Bools, edge_m: float, at: _Cells3, width: Float32, depth: Float32, grown: Float32) -> Float32:
    """Return the level of what grows on the floors of open pores: the film times the sky that they see."""
    edge = np.float32(edge_m)
    below = np.empty(pore.shape, np.float32)
    below[-1] = np.float32(1)
    for layer in range(pore.shape[0] - 2, -1, -1):
        below[layer] = np.where(pore[layer + 1], below[layer + 1] + edge, 0.5 * edge)
    down = below[at]
    bottom = np.maximum(depth + down, np.float32(1e-9))
    sky = np.sin(np.arctan(0.5 * width / bottom)) ** 2
    level: Float32 = sky * grown - down
    return level


def _lit(
    cells: _Cells,
    pore: Bools,
    at: _Cells3,
    width: Float32,
    depth: Float32,
    shared: Float32,
    beam: tuple[float, float, float],
) -> Float32:
    """Return the level of what a slanted beam grows on the walls that it meets below the mouth, along y or x.

    `shared` is what grows there as on every wall.
    """
    axis = 1 if abs(beam[1]) >= abs(beam[0]) else 2
    slant = beam[1] if axis == 1 else beam[0]
    if abs(slant) < _SLANT:
        return np.full(width.shape, np.float32(_NOWHERE_M))
    edge = np.float32(cells.size[axis])
    to_wall = np.full(pore.shape, np.float32(1))
    order = range(pore.shape[axis] - 2, -1, -1) if slant > 0 else range(1, pore.shape[axis])
    ahead = 1 if slant > 0 else -1
    for place in order:
        here, there = (_plane(axis, place), _plane(axis, place + ahead))
        to_wall[here] = np.where(pore[there], to_wall[there] + edge, 0.5 * edge)
    seen = depth < np.float32(beam[2] / abs(slant)) * width
    level: Float32 = np.where(
        seen, shared + np.float32(LIT_SHARE) * cells.laid[at[1:]] - to_wall[at], np.float32(_NOWHERE_M)
    )
    return level


def _plane(axis: int, place: int) -> tuple[slice | int, ...]:
    return (slice(None), place) if axis == 1 else (slice(None), slice(None), place)


def _front(thickness_m: float) -> np.float32:
    """Return the depth of a cell's middle from which on the face does not lie behind all of the cell, metres."""
    return np.float32(1e-9 - 0.5 * thickness_m)


def _shares(pore: Bools, step: tuple[int, int, int]) -> Float32:
    """Return the mean of blocks of `step` voxels."""
    out = np.zeros(tuple(n // s for n, s in zip(pore.shape, step, strict=True)), np.uint8)
    for dz in range(step[0]):
        for dy in range(step[1]):
            for dx in range(step[2]):
                out += pore[dz :: step[0], dy :: step[1], dx :: step[2]]
    return out.astype(np.float32) / np.float32(math.prod(step))


def _at(
    field: Float32,
    x: NDArray[np.float64],
    y: NDArray[np.float64],
    to_x: NDArray[np.float64],
    to_y: NDArray[np.float64],
) -> Float32:
    """Return a map at other columns and rows, linearly interpolated, the nearest value beyond its edges."""
    out = field
    for axis, (at, to) in enumerate(((y, to_y), (x, to_x))):
        place = np.interp(to, at, np.arange(at.size)) if at.size > 1 else np.zeros(to.size)
        low = np.minimum(place.astype(int), max(0, at.size - 2))
        share = (place - low).astype(np.float32)
        share = share[:, None] if axis == 0 else share[None, :]
        high = np.minimum(low + 1, at.size - 1)
        out = out.take(low, axis) * (1 - share) + out.take(high, axis) * share
    return out.astype(np.float32)


def _finer(plane: Float32, rows: int, columns: int) -> Float32:
    """Enlarge by whole numbers, linear between the cells' middles."""
    out = plane
    for axis, factor in ((0, rows), (1, columns)):
        if factor > 1:
            count = out.shape[axis]
            place = np.clip((np.arange(count * factor) + 0.5) / factor - 0.5, 0, count - 1)
            low = np.minimum(place.astype(int), max(0, count - 2))
            share = (place - low).astype(np.float32)
            share = share[:, None] if axis == 0 else share[None, :]
            high = np.minimum(low + 1, count - 1)
            out = out.take(low, axis) * (1 - share) + out.take(high, axis) * share
    return out
