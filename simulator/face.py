"""What the electron beam meets at each pixel of an image: the face, films on it, and the backs of open pores."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulator import materials as m
from simulator.distances import to_wall
from simulator.sidebyside import beside
from simulator.volume import Volume

Float32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]

PORE_REACH_M = 7.5e-6
"""A pore's back is looked for this far below the face: less than the layers that are there (`simulator.slab`), and
enough, as TLD sees pores of 2.6 um to there and CBS those of 4 um (physics.md 4.2)."""

FILM_SEEN_M = 20e-9
"""A film thicker than this counts as film still covering the face."""

NORMAL_VIEW = (0.0, 0.0, 1.0)
#: A view that leans less than this is straight: down to PORE_REACH_M it goes aside by less than a nanometre.
_STRAIGHT = 1e-4


@dataclass(frozen=True)
class FaceScene:
    """A face on an image grid, arrays (y, x).

    material : at the face, codes of simulator.materials, uint8
    film_m : platinum film on it, metres, float32; none over open pores
    back : first solid behind an open pore along the view, PORE where none is within PORE_REACH_M; elsewhere = material
    depth_m : how deep below the face that solid lies (0 at solids, PORE_REACH_M where none), float32
    half_width_m : half width of the pore that a pixel lies in, in the plane of the face, float32
    half_below, tenth_below : material at the depths above which half and 90 % of the backscattered electrons turn
    grain : channelling contrast of the solid that is seen, -1..1, float32
    slope : tangent of the local surface's tilt against the face, along y and x, float32 (2, y, x)
    pixel_m : (y, x) distance between grid points on the face, metres
    y_m : block y of the rows, metres
    binder : weight share of PVDF in binder, by row, float32
    """

    material: Bytes
    film_m: Float32
    back: Bytes
    depth_m: Float32
    half_width_m: Float32
    half_below: Bytes
    tenth_below: Bytes
    grain: Float32
    slope: Float32
    pixel_m: tuple[float, float]
    y_m: NDArray[np.float64]
    binder: Float32


HALF_DEPTH_M = {
    m.NMC: 29e-9, m.CBD: 157e-9, m.AL: 54e-9, m.PT: 14e-9, m.CAP: 18e-9, m.RESIDUE: 30e-9, m.SLIVER: 40e-9,
    m.GRAPHITE: 73e-9, m.COPPER: 15e-9, m.CRACK_RESIDUE: 75e-9,
}  # fmt: skip
TENTH_DEPTH_M = {
    m.NMC: 57e-9,
    m.CBD: 290e-9,
    m.AL: 102e-9,
    m.PT: 32e-9,
    m.CAP: 40e-9,
    m.RESIDUE: 60e-9,
    m.SLIVER: 80e-9,
    m.GRAPHITE: 134e-9,
    m.COPPER: 33e-9,
    m.CRACK_RESIDUE: 138e-9,
}
"""Depths of the backscattered electrons' turning points at 5 kV (physics.md 4.1, Monte Carlo)."""


def sample_face(
    volume: Volume,
    face_z: NDArray[np.floating],
    film_m: NDArray[np.floating] | float,
    x_m: NDArray[np.floating],
    y_m: NDArray[np.floating],
    view: tuple[float, float, float] = NORMAL_VIEW,
    *,
    relief_m: NDArray[np.floating] | None = None,
) -> FaceScene:
    """Return what is seen at the grid points of an image.

    Parameters
    ----------
    volume : the specimen
    face_z : z of the face at every grid point, metres, (y, x)
    film_m : thickness of platinum film on it, metres, (y, x)
    x_m, y_m : block coordinates of the columns and rows, metres, ascending
    view : unit vector of the electron beam in block coordinates (x, y, z), pointing into the sample: (0, 0, 1) face-on,
        (0, sin 38 deg, cos 38 deg) in the milling pose
    relief_m : curtains and roughness on top of face_z that only tilt the surface, metres, (y, x)

    Raises
    ------
    ValueError : a view that doesn't point into the sample; arrays that don't fit each other
    """
    shape = (y_m.size, x_m.size)
    face = np.broadcast_to(np.asarray(face_z, np.float32), shape)
    if view[2] < 0.1:
        msg = f"the view {view} doesn't point into the sample: its z component must be 0.1 or more"
        raise ValueError(msg)
    grid = _Grid(volume, np.asarray(x_m, float), np.asarray(y_m, float))
    layer = grid.layers(face)
    material = grid.on_image(layer)
    pores = np.flatnonzero(material == m.PORE)
    pixel = (_step(y_m), _step(x_m))
    half_width = beside(_half_widths, material, pores, pixel)  # takes nearly as long as all the rest
    film = np.where(material == m.VACUUM, 0, np.broadcast_to(film_m, shape)).astype(np.float32)
    film.put(pores, 0)
    back, depth, grain = material.copy(), np.zeros(shape, np.float32), grid.grain(layer)
    seen, how_deep, its_grain = _backs(grid, face, pores, view)
    back.put(pores, seen)
    depth.put(pores, how_deep)
    grain.put(pores, its_grain)
    half_below = grid.below(face, material, HALF_DEPTH_M)
    tenth_below = grid.below(face, material, TENTH_DEPTH_M)
    slope = _slopes(depth, pores, pixel)
    scene = FaceScene(
        material,
        film,
        back,
        depth,
        half_width(),
        half_below,
        tenth_below,
        grain,
        slope,
        pixel,
        np.asarray(y_m, float),
        volume.binder_share(np.asarray(y_m, float)),
    )
    return scene if relief_m is None else roughen(scene, relief_m)


def roughen(scene: FaceScene, relief_m: NDArray[np.floating]) -> FaceScene:
    """Return a scene whose solids are tilted by curtains and roughness on them, metres, (y, x); no plane changes."""
    rise = np.asarray(relief_m, np.float32)
    slope = scene.slope.copy()
    pores = np.flatnonzero(scene.material == m.PORE)
    for axis in (0, 1):
        if rise.shape[axis] > 1:
            tilt = np.gradient(rise, scene.pixel_m[axis], axis=axis)
            tilt.put(pores, 0)
            slope[axis] += tilt
    return replace(scene, slope=slope)


class _Grid:
    """Nearest-voxel look-ups on an image grid."""

    def __init__(self, volume: Volume, x_m: NDArray[np.float64], y_m: NDArray[np.float64]) -> None:
        self.volume = volume
        self.depth, self.height, self.width = volume.labels.shape
        self.flat = volume.labels.reshape(-1)
        x0, y0, self.z0 = volume.origin
        self.rows = np.floor((y_m - y0) / volume.voxel + 0.5).astype(np.int32)[:, None]
        self.columns = np.floor((x_m - x0) / volume.voxel + 0.5).astype(np.int32)[None, :]
        inside = (self.rows >= 0) & (self.rows < self.height) & (self.columns >= 0) & (self.columns < self.width)
        self._outside = None if inside.all() else ~inside
        row, column = np.clip(self.rows, 0, self.height - 1), np.clip(self.columns, 0, self.width - 1)
        self._in_layer = row.astype(np.intp) * self.width + column
        self.row_place = ((y_m - y0) / volume.voxel + 0.5).astype(np.float32)
        self.column_place = ((x_m - x0) / volume.voxel + 0.5).astype(np.float32)

    def layers(self, z_m: Float32) -> NDArray[np.int32]:
        """Return the layer of a z, clamped to the first and one past the last."""
        layer = np.floor((z_m - np.float32(self.z0)) / np.float32(self.volume.layer) + np.float32(0.5))
        held: NDArray[np.int32] = np.clip(layer, 0, self.depth).astype(np.int32)
        return held

    def on_image(self, layer: NDArray[np.int32]) -> Bytes:
        """Return the material at a layer of every pixel; VACUUM outside the array, PORE behind it."""
        held = np.minimum(layer, self.depth - 1).astype(np.intp)
        held *= self.height * self.width
        held += self._in_layer
        found: Bytes = self.flat.take(held)
        if int(layer.max(initial=0)) >= self.depth:
            found[layer >= self.depth] = m.PORE
        if self._outside is not None:
            found[self._outside] = m.VACUUM
        return found

    def below(self, face: Float32, material: Bytes, depths: dict[int, float]) -> Bytes:
        """Return the material at each pixel's own depth below the face."""
        table = np.zeros(256, np.float32)
        for code, depth in depths.items():
            table[code] = depth
        return self.on_image(self.layers(face + table.take(material)))

    def grain(self, layer: NDArray[np.int32]) -> Float32:
        """Return the grain contrast at the face."""
        return self.volume.grain_at(layer, self.rows, self.columns)


def _backs(
    grid: _Grid, face: Float32, pores: NDArray[np.intp], view: tuple[float, float, float]
) -> tuple[Bytes, Float32, Float32]:
    """March along the view from pore pixels (flat) to the first solid: its material, depth and grain contrast."""
    back = np.zeros(pores.size, np.uint8)
    depth = np.full(pores.size, np.float32(PORE_REACH_M))
    grain = np.zeros(pores.size, np.float32)
    left = np.arange(pores.size)
    row, column = np.unravel_index(pores, face.shape)
    layer = (face[row, column] - np.float32(grid.z0)) / np.float32(grid.volume.layer) + np.float32(0.5)
    y, x = grid.row_place[row], grid.column_place[column]
    if abs(view[0]) + abs(view[1]) < _STRAIGHT:
        return _straight_backs(grid, np.floor(layer).astype(np.intp), y.astype(np.intp), x.astype(np.intp))
    ratio = grid.volume.layer / grid.volume.voxel / view[2]
    dy, dx = np.float32(view[1] * ratio), np.float32(view[0] * ratio)
    for step in range(1, int(PORE_REACH_M / grid.volume.layer)):
        layer, y, x = layer + np.float32(1), y + dy, x + dx
        k, j, i = layer.astype(np.int32), y.astype(np.int32), x.astype(np.int32)
        inside = (k < grid.depth) & (j >= 0) & (j < grid.height) & (i >= 0) & (i < grid.width)
        if not inside.all():
            left, layer, y, x, k, j, i = (each[inside] for each in (left, layer, y, x, k, j, i))
        found = grid.flat.take((np.maximum(k, 0).astype(np.intp) * grid.height + j) * grid.width + i)
        hit = (found != m.PORE) & (found != m.VACUUM)
        if hit.any():
            where = left[hit]
            back[where] = found[hit]
            depth[where] = step * grid.volume.layer
            grain[where] = grid.volume.grain_at(k[hit], j[hit], i[hit])
            going = ~hit
            left, layer, y, x = left[going], layer[going], y[going], x[going]
        if left.size == 0:
            break
    return back, depth, grain


def _straight_backs(
    grid: _Grid, layer: NDArray[np.intp], row: NDArray[np.intp], column: NDArray[np.intp]
) -> tuple[Bytes, Float32, Float32]:
    """March straight down from voxels, as `_backs` does: each step is one layer on."""
    back = np.zeros(layer.size, np.uint8)
    depth = np.full(layer.size, np.float32(PORE_REACH_M))
    grain = np.zeros(layer.size, np.float32)
    plane = grid.height * grid.width
    left = np.flatnonzero((row >= 0) & (row < grid.height) & (column >= 0) & (column < grid.width))
    at = (layer[left] * grid.height + row[left]) * grid.width + column[left]
    for step in range(1, int(PORE_REACH_M / grid.volume.layer)):
        at += plane
        held = at < grid.flat.size
        if not held.all():
            left, at = left[held], at[held]
        found = grid.flat.take(at if at.min(initial=0) >= 0 else np.where(at < 0, at % plane, at))
        hit = (found != m.PORE) & (found != m.VACUUM)
        if hit.any():
            where = left[hit]
            back[where] = found[hit]
            depth[where] = step * grid.volume.layer
            grain[where] = grid.volume.grain_at(at[hit] // plane, row[where], column[where])
            going = ~hit
            left, at = left[going], at[going]
        if left.size == 0:
            break
    return back, depth, grain


def _half_widths(material: Bytes, pores: NDArray[np.intp], pixel: tuple[float, float]) -> Float32:
    """Return the half width of the pore around each pixel: mostly the widest distance to its wall near by.

    What a detector sees of a back is the mean over all directions: off the middle one wall is near, the other far.
    """
    half = np.zeros(material.shape, np.float32)
    if pores.size == 0:
        return half
    distance = to_wall(material == m.PORE, np.unravel_index(pores, material.shape), pixel)
    everywhere = np.zeros(material.shape, np.float32)
    everywhere.put(pores, distance)
    wide = distance
    for reach_m in (0.3e-6, 0.8e-6):
        size = tuple(max(1, 2 * round(reach_m / p) + 1) for p in pixel)
        grown = ndimage.maximum_filter(everywhere, size).take(pores)
        wide = np.maximum(wide, np.minimum(grown, distance + np.float32(reach_m)))
    half.put(pores, 0.25 * distance + 0.75 * wide)
    return half


def _slopes(depth: Float32, pores: NDArray[np.intp], pixel: tuple[float, float]) -> Float32:
    """Return the tilt of pore backs from their depths, tangents limited to 60 degrees, flat at solids.

    What `np.gradient` gives, for pores (flat) alone: at the picture's edges there is a step on one side only.
    """
    out = np.zeros((2, *depth.shape), np.float32)
    if pores.size == 0 or min(depth.shape) < 2:
        return out
    soft = ndimage.uniform_filter(depth, 3).reshape(-1)
    at, stride = np.unravel_index(pores, depth.shape), (depth.shape[1], 1)
    for axis in (0, 1):
        after = np.where(at[axis] < depth.shape[axis] - 1, stride[axis], 0)
        before = np.where(at[axis] > 0, stride[axis], 0)
        apart = np.where(after == before, np.float32(2.0 * pixel[axis]), np.float32(pixel[axis]))
        rise = soft.take(pores + after) - soft.take(pores - before)
        out[axis].put(pores, np.clip(rise / apart, -1.7, 1.7))
    return out


def _step(at_m: NDArray[np.floating]) -> float:
    """Return the distance between grid points, metres."""
    return float((at_m[-1] - at_m[0]) / (at_m.size - 1)) if at_m.size > 1 else 1e-6


def truth(scene: FaceScene) -> Bytes:
    """Return the fine class of every pixel, uint8 (y, x): what a perfect segmentation would answer."""
    table = np.full(256, m.TRUTH_OUTSIDE, np.uint8)
    table[m.PORE] = m.TRUTH_OPEN_PORE
    table[m.NMC] = m.TRUTH_ACTIVE
    table[m.CBD] = m.TRUTH_CBD
    table[m.AL] = m.TRUTH_COLLECTOR
    table[m.PT] = m.TRUTH_PT_PORE
    table[m.RESIDUE] = m.TRUTH_OUTSIDE
    table[m.SLIVER] = m.TRUTH_COLLECTOR
    table[m.GRAPHITE] = m.TRUTH_ACTIVE
    table[m.COPPER] = m.TRUTH_COLLECTOR
    table[m.CRACK_RESIDUE] = m.TRUTH_CBD
    fine: Bytes = table[scene.material]
    covered = (scene.film_m > FILM_SEEN_M) & (scene.material != m.PORE) & (fine != m.TRUTH_OUTSIDE)
    fine[covered] = m.TRUTH_FILM
    return fine
