"""The block under the beams: voxels, the maps of its face, and what stands on its top; how patterns change them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulator import materials as m
from simulator.deposition import infiltrate
from simulator.options import Options
from simulator.randomness import rng
from simulator.slab import Slab
from simulator.top import Top
from simulator.topside import Feature, added, relief
from simulator.volume import Volume

Float32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]

#: Grid of the face's maps, metres: a whole number of voxels near this.
GRID_M = 100e-9
#: What is thinner than this share of a film is its halo.
HALO = 0.1
#: A film leaves platinum no deeper than so many times its thickness and this, metres: walls of a pore of width d grow
#: by 0.3 of it at the mouth and by 1/e of that every 1.2 d (physics.md 3.2), and no pore is wider than some microns.
FILM_REACHES, FILM_REACH_M = 4.0, 0.8e-6
#: A cut face is even to this, metres, and its middle part (shares) to less: what stands this much before or behind that
#: is the flank of an uncut part.
EVEN_M, MIDDLE_PART, BESIDE_M = 1.5e-6, (0.02, 0.98), 0.3e-6
#: Deviation of a film's nodular surface, as far as the maps' grid can show it (physics.md 3.1, 8.3), metres.
NODULES_M = 1.5e-9
#: Columns that have gone back this much further than the face are no part of it: trenches.
FACE_REACH_M = 5e-6
#: A cut of this depth takes most of what an electron dose has done to the surface (physics.md 4.1: 10 kV), metres.
DOSED_M = 0.3e-6
#: What electron beams crack onto a surface is thinner than this, and gone with it: our assumption (nanometres), metres.
CRACKED_M = 5e-9


@dataclass
class Maps:
    """The face, (y, x), metres, float32.

    surface : z of the outermost surface, films included; face : z of the electrode or cap under it
    relief : of the curtains; pending : film laid since platinum was last let into the pores
    dose : of the electron beam on what lies at the surface, C/m2; cracked : the part of it that the outermost
    nanometres have had, which is what darkens pictures
    """

    surface: Float32
    face: Float32
    relief: Float32
    pending: Float32
    dose: Float32
    cracked: Float32

    def copies(self) -> dict[str, Float32]:
        """Return the arrays by name."""
        return {
            "surface": self.surface, "face": self.face, "relief": self.relief, "pending": self.pending,
            "dose": self.dose, "cracked": self.cracked,
        }  # fmt: skip


@dataclass
class Block:
    """The virtual block.

    slab : makes its layers; volume, top : those around the face, and what stands on them
    x, y : the maps' axes, metres; features : all that stands on its top; film_beam : direction that the last film
    came from; fills : how often platinum was let in; changes : voxels turned to platinum that nobody has kept yet,
    flat indices into the whole electrode, newest last
    """

    slab: Slab
    volume: Volume
    top: Top
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    maps: Maps
    features: tuple[Feature, ...] = ()
    film_beam: tuple[float, float, float] = (0.0, 0.0, 1.0)
    fills: int = 0
    changes: list[NDArray[np.int64]] = field(default_factory=list)

    @property
    def pixel(self) -> float:
        """Grid of the maps, metres."""
        return float(self.x[1] - self.x[0])

    @property
    def film(self) -> Float32:
        """Film on the face, metres."""
        return np.asarray(np.maximum(self.maps.face - self.maps.surface, 0), np.float32)

    def add(self, feature: Feature) -> None:
        """Put a feature, or a further piece of one, on the top."""
        self.features, piece = added(self.features, feature)
        self.top.write(piece)

    def open_pit(self, piece: Feature) -> None:
        """Put a pit, or a further piece of one, on the top; the face goes back where the pit has reached it."""
        self.add(piece)
        pit = next(one for one in reversed(self.features) if one.same(piece))
        layer = self.volume.layer
        columns = slice(*np.searchsorted(self.x, (pit.x0, pit.x1)))
        x, z = self.x[columns], np.arange(pit.z0 + layer / 2, pit.z1, layer)
        if not x.size:
            return
        place = x[None, :], z[:, None]
        depth = pit.amount * pit.outline(*place) * pit.profile(*place)
        floor = np.where(depth > 0, depth - relief(self.features, *place)[0], -np.inf)
        surface = self.maps.surface.copy()
        part = surface[:, columns]
        for at, its_floor in zip(z, floor, strict=True):
            gone = (np.abs(part - at) <= layer) & (self.y[:, None] < its_floor)
            part[gone] = np.maximum(part[gone], at + layer / 2)
        if (surface > self.maps.surface).any():
            self.cut_to(surface)

    def bury_marks(self, thickness: Callable[[float, float], float]) -> None:
        """Let a film come down on the lines that lie open, as thick (m) as is told for their middles' x and z (m)."""
        found = []
        for place, one in enumerate(self.features):
            later = [cap for cap in self.features[place + 1 :] if cap.kind == "cap"]
            hidden = any(cap.near(one.x0, one.x0, one.z0, one.z0) for cap in later)
            open_line = one.kind == "groove" and not hidden
            if open_line:
                one = one.replace(worn=one.worn + thickness((one.x0 + one.x1) / 2, (one.z0 + one.z1) / 2))
            found.append(one)
        self.features = tuple(found)

    def middle_z(self, rows: slice = slice(None), columns: slice = slice(None)) -> float:
        """Return the plane of the face there, metres: the median of what is part of it."""
        part = self.maps.face[rows, columns]
        return float(np.median(part)) if part.size else float(np.median(self.maps.face))

    def front(self) -> Float32:
        """Return z of the front edge of the top surface by column, metres, (x,)."""
        rows = (self.y > -0.5e-6) & (self.y < 1.0e-6)
        return np.asarray(np.median(self.maps.surface[rows], axis=0), np.float32)

    def materials(self, under: Bytes) -> Bytes:
        """Return what lies at the surface, by map pixel, given what lies under any film; PT where film is."""
        found = under.copy()
        found[(self.film > 5e-9) & (found != m.VACUUM)] = m.PT
        return found

    def material_at(self, z: Float32) -> Bytes:
        """Return the material at the maps' pixels at depth z, metres, pore behind the volume."""
        x0, y0, z0 = self.volume.origin
        depth, rows, columns = self.volume.labels.shape
        layer = np.floor((z - z0) / self.volume.layer + 0.5).astype(np.int64)
        row = np.clip(np.rint((self.y - y0) / self.volume.voxel).astype(np.int64), 0, rows - 1)[:, None]
        column = np.clip(np.rint((self.x - x0) / self.volume.voxel).astype(np.int64), 0, columns - 1)[None, :]
        at = (np.clip(layer, 0, depth - 1) * rows + row) * columns + column
        found: Bytes = self.volume.labels.reshape(-1).take(at)
        found[layer >= depth] = m.PORE
        return found

    def cut_to(self, surface: Float32) -> None:
        """Let the surface be here: what lay before it is gone."""
        if self.maps.dose.any():
            gone = np.exp((self.maps.surface - surface) * np.float32(1 / DOSED_M))
            self.maps.dose = (self.maps.dose * np.minimum(gone, 1)).astype(np.float32)
        self._renewed(surface - self.maps.surface)
        self.maps.surface = surface.astype(np.float32)
        self.maps.face = np.maximum(self.maps.face, self.maps.surface)
        self._follow()

    def expose(self, x: NDArray[np.floating], y: NDArray[np.floating], dose: float) -> None:
        """Give the face an electron dose, C/m2, in the box of these axes, metres."""
        columns = slice(*np.searchsorted(self.x, (float(x.min()), float(x.max()))))
        rows = slice(*np.searchsorted(self.y, (float(y.min()), float(y.max()))))
        for name in ("dose", "cracked"):
            more = getattr(self.maps, name).copy()
            more[rows, columns] += np.float32(dose)
            setattr(self.maps, name, more)

    def _renewed(self, by: Float32) -> None:
        """Let what was cracked onto the surface be gone where so much (m) of it is, or lies on it now."""
        if self.maps.cracked.any():
            self.maps.cracked = np.where(by > CRACKED_M, np.float32(0), self.maps.cracked)

    def _follow(self) -> None:
        """Have layers enough ahead of the face."""
        some = self.maps.face[::4, ::4]
        plane = float(np.median(some))
        near = some[some < plane + FACE_REACH_M]
        deepest = float(near.max()) if near.size else plane
        first = self.slab.next_first(self.volume, plane, deepest)
        if first > self.volume.first_layer:
            self.volume, self.top = self.slab.moved(self.volume, self.top, first, self.features)

    def lay_film(self, thickness: Float32, beam: tuple[float, float, float]) -> None:
        """Lay film on the face, metres, (y, x); negative where the beam takes more than it lays."""
        there = self.on_face()
        self.film_beam = beam
        laid = np.where(there, np.maximum(thickness, 0), 0).astype(np.float32)
        self.maps.pending = self.maps.pending + laid
        self.maps.surface = self.maps.surface - laid
        self._renewed(laid)
        if float(thickness.min()) < 0:
            self.cut_to(self.maps.surface - np.where(there, np.minimum(thickness, 0), 0))

    def on_face(self) -> NDArray[np.bool_]:
        """Return where the maps show the face: neither beside nor above the block."""
        near = self.maps.face < self.middle_z() + FACE_REACH_M
        return np.asarray(near & (self.material_at(self.maps.face) != m.VACUUM))

    def settle_film(self) -> None:
        """Let the platinum of the film laid since the last time into the open pores, once for the whole film."""
        if not float(self.maps.pending.max()) > 0:
            return
        before = np.maximum(self.film - self.maps.pending, 0)
        laid = np.minimum(self.maps.pending, self.film)
        # its thin halo lets nothing in; nor do the slopes beside the cut, which no picture shows
        counts = (laid > HALO * laid.max()) & (np.abs(self.maps.face - self.middle_z()) < EVEN_M)
        if counts.any():
            low, high = np.quantile(self.maps.face[counts], MIDDLE_PART)
            counts &= (self.maps.face > low - BESIDE_M) & (self.maps.face < high + BESIDE_M)
        film = np.where(counts, laid, np.float32(0))
        part = self._reached(film)
        infill = infiltrate(part, self.x, self.y, self.maps.face, film, before, beam=self.film_beam)
        infill.write(part)
        self.changes.append(infill.index)
        self.fills += 1
        covered = np.where(film > 0, infill.film_m, before + laid)
        self.maps.surface = (self.maps.face - covered).astype(np.float32)
        self.maps.pending = np.zeros_like(self.maps.pending)
        draw = rng(self.volume.electrode.seed, "nodules", self.fills)
        nodules = NODULES_M * draw.standard_normal(laid.shape, dtype=np.float32)
        self.maps.relief = (self.maps.relief + np.where(laid > 0.1e-6, nodules, 0)).astype(np.float32)

    def _reached(self, film: Float32) -> Volume:
        """Return the layers in which a film, metres, (y, x), can leave any platinum; they are the same voxels."""
        deepest = float(self.maps.face[film > 0].max()) + FILM_REACHES * float(film.max()) + FILM_REACH_M
        last = math.ceil((deepest - self.volume.origin[2]) / self.volume.layer)
        return dataclasses.replace(self.volume, labels=self.volume.labels[: max(1, last)])

    def at(self, values: Float32, x_m: NDArray[np.floating], y_m: NDArray[np.floating]) -> Float32:
        """Return a map on other axes, linearly interpolated, its edge values beyond it, (y, x)."""
        out = values
        for axis, (own, wanted) in enumerate(((self.y, y_m), (self.x, x_m))):
            place = np.clip((np.asarray(wanted) - own[0]) / (own[1] - own[0]), 0, own.size - 1.001)
            low = place.astype(np.intp)
            share = (place - low).astype(np.float32)
            share = share[:, None] if axis == 0 else share[None, :]
            first = out.take(low, axis=axis)
            out = first + share * (out.take(low + 1, axis=axis) - first)
        return np.asarray(out, np.float32)


def new_block(options: Options) -> Block:
    """Build the block of a virtual microscope, its front uneven and uncut."""
    slab = Slab(options.electrode())
    volume, top = slab.make(0, slab.length, ())
    x, y = _axes(slab)
    front = _ragged(options, x, y)
    nothing = np.zeros_like(front)
    return Block(slab, volume, top, x, y, Maps(front.copy(), front, *(nothing.copy() for _ in range(4))))


def block_again(
    options: Options, maps: Maps, features: tuple[Feature, ...], changes: Iterator[NDArray[np.int64]]
) -> Block:
    """Build a block as it was: the layers around its face, with what stands on them and what was let into them."""
    slab = Slab(options.electrode())
    first = slab.first_for(float(np.median(maps.face)))
    volume, top = slab.make(first, first + slab.length, features)
    layer = volume.labels[0].size
    flat = volume.labels.reshape(-1)
    fills = 0
    for index in changes:
        own = slice(*np.searchsorted(index, (first * layer, first * layer + flat.size)))
        flat[index[own] - first * layer] = np.uint8(m.PT)
        fills += 1
    x, y = _axes(slab)
    return Block(slab, volume, top, x, y, maps, features=features, fills=fills)


def _axes(slab: Slab) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y of the face's maps, metres."""
    electrode = slab.electrode
    step = electrode.voxel_m * max(1, round(GRID_M / electrode.voxel_m))
    _, rows, columns = electrode.shape
    x0, y0, _ = electrode.origin_m
    return (
        x0 + np.arange(0, columns * electrode.voxel_m - step / 2, step),
        y0 + np.arange(0, rows * electrode.voxel_m - step / 2, step),
    )


def _ragged(options: Options, x: NDArray[np.float64], y: NDArray[np.float64]) -> Float32:
    """Return the front as it was before any milling: 0 to `ragged` deep, rough over microns, metres, (y, x)."""
    draw = rng(options.seed, "ragged front")
    step = float(x[1] - x[0])
    coarse = ndimage.gaussian_filter(draw.standard_normal((y.size, x.size)), 3e-6 / step, mode="nearest")
    fine = ndimage.gaussian_filter(draw.standard_normal((y.size, x.size)), 0.5e-6 / step, mode="nearest")
    rough = coarse / max(float(coarse.std()), 1e-12) + 0.4 * fine / max(float(fine.std()), 1e-12)
    low, high = float(rough.min()), float(rough.max())
    return np.asarray(options.ragged * (rough - low) / max(high - low, 1e-12), np.float32)
