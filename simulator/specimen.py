"""The virtual electrode: particles, cracks, carbon-binder, pores and foil as voxels, made from a seed.

Block frame: x across the face, y down it (0 = bare top surface), z into the block. Targets and sizes are those of
physics.md section 6 (measured on the faces of Cooper et al. 2022): active material 0.72, carbon-binder domain 0.10 and
pore 0.18 of the coating, large particles that touch, small shattered ones between them, cracks 60-500 nm wide that are
open or filled with binder, a binder-rich film on the collector.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from simulator import materials as m
from simulator.electrode import Electrode
from simulator.model import Axes, Bools, Labels, Model
from simulator.particles import clusters, main_cracks, packed, slivers
from simulator.randomness import rng
from simulator.textures import Float32, grains, look_up, look_up_smooth, noise

_FINE_SHAPE = (64, 192, 192)
_COARSE_SHAPE = (48, 96, 96)
_COARSE_STEP = (4, 4, 4)
_SEAM_M = 0.09e-6  # where two particles touch, this much difference of their distances is a seam
_HAIR_M = 110e-9  # cracks narrower than this may hold residue (physics.md 6)
_REACH_M = 1.1e-6  # beyond a particle's surface to which distances are kept


def model_of(electrode: Electrode) -> Model:
    """Return what makes the voxels of an electrode."""
    if electrode.preset == "porous-carbon":
        from simulator.porous import PorousModel

        return PorousModel(electrode)
    if electrode.preset == "from-volume":
        from simulator.labelvolume import LabelVolumeModel

        return LabelVolumeModel(electrode)
    return ParticleModel(electrode)


class ParticleModel:
    """Particles, thresholds and noise of one electrode, from which any voxels can be made."""

    def __init__(self, electrode: Electrode) -> None:
        self.electrode = electrode
        self.x0, self.y0, self.z0 = electrode.origin_m
        offsets = rng(electrode.seed, "specimen tiles").integers(0, 10_000, (3, 3))
        self.offsets: list[tuple[int, int, int]] = [(int(a), int(b), int(c)) for a, b, c in offsets]
        size = float(np.clip(0.24 * electrode.small_diameter_m, 0.3e-6, 0.6e-6)) / electrode.voxel_m
        ratio = round(electrode.layer_m / electrode.voxel_m * 4) / 4 or 0.25
        self.gap, grain = grains(_FINE_SHAPE, max(3.0, round(size)), ratio)
        shift = self.offsets[2]
        self.grain = np.roll(grain, tuple(-o for o in shift), (0, 1, 2))
        bump = max(2.0, round(0.16e-6 / electrode.voxel_m))
        self.fine = noise("fine", _FINE_SHAPE, (bump / ratio, bump, bump))
        body = float(np.clip(0.11 * electrode.large_diameter_m, 0.35e-6, 1.0e-6))
        wide = max(1.0, round(4 * body / electrode.voxel_m / _COARSE_STEP[1]) / 4)
        self.coarse = noise("coarse", _COARSE_SHAPE, (wide / ratio, wide, wide))
        self.body = body
        self.particles = packed(electrode)
        self.slivers = slivers(electrode)
        self.main = main_cracks(electrode, self.particles)
        self.clusters = clusters(electrode, self.particles)
        self.grow = np.float32(0.0)
        self.cut = np.float32(0.0)
        self._calibrate()

    def _coordinates(self, axes: Axes) -> tuple[Float32, Float32, Float32]:
        """Return block x, y, z of voxel indices (z, y, x)."""
        e = self.electrode
        return (
            (self.x0 + axes[2] * e.voxel_m).astype(np.float32),
            (self.y0 + axes[1] * e.voxel_m).astype(np.float32),
            (self.z0 + axes[0] * e.layer_m).astype(np.float32),
        )

    def _distances(self, axes: Axes) -> tuple[Float32, Float32, NDArray[np.int32]]:
        """Return the signed distance to the nearest and second nearest particle, metres, and the nearest one."""
        x, y, z = self._coordinates(axes)
        nearest = np.full((z.size, y.size, x.size), _REACH_M, np.float32)
        second = np.full_like(nearest, 2 * _REACH_M)
        owner = np.zeros(nearest.shape, np.int32)
        p = self.particles
        reach = p.radius[:, None] / p.stretch + _REACH_M
        low, high = p.centre - reach, p.centre + reach
        spans = [
            np.stack([np.searchsorted(a, low[:, i]), np.searchsorted(a, high[:, i])]) for i, a in enumerate((x, y, z))
        ]
        inside = np.logical_and.reduce([span[1] > span[0] for span in spans])
        for index in np.flatnonzero(inside):
            cx, cy, cz = p.centre[index]
            sx, sy, sz = p.stretch[index]
            (i0, i1), (j0, j1), (k0, k1) = ((int(s[0, index]), int(s[1, index])) for s in spans)
            dx = ((x[i0:i1] - cx) * sx).astype(np.float32) ** 2
            dy = ((y[j0:j1] - cy) * sy).astype(np.float32) ** 2
            dz = ((z[k0:k1] - cz) * sz).astype(np.float32) ** 2
            distance = dz[:, None, None] + (dy[:, None] + dx[None])[None]
            np.sqrt(distance, out=distance)
            distance -= np.float32(p.radius[index])
            box = (slice(k0, k1), slice(j0, j1), slice(i0, i1))
            one, two = nearest[box], second[box]
            closer = distance < one
            np.minimum(two, np.maximum(one, distance), out=two)
            np.minimum(one, distance, out=one)
            owner[box][closer] = index
        return nearest, second, owner

    def _fields(self, axes: Axes) -> tuple[Float32, Float32, NDArray[np.int32], Float32, Float32]:
        """Return distances with bumps, owner, fine and coarse noise."""
        nearest, second, owner = self._distances(axes)
        fine: Float32 = np.asarray(look_up(self.fine, self.offsets[0], axes), np.float32)
        coarse = look_up_smooth(self.coarse, self.offsets[1], axes, _COARSE_STEP)
        bump = self.particles.bumps[owner]
        bump *= fine
        bump *= nearest < _REACH_M  # nothing is near: no particle's own roughness
        nearest += bump
        return nearest, second, owner, fine, coarse

    def _score(self, nearest: Float32, second: Float32, fine: Float32, coarse: Float32, height: Float32) -> Float32:
        """Return how much a voxel between particles is binder: near two surfaces, by the foil, in clusters."""
        body = np.float32(self.body)
        score = nearest + np.minimum(second, 3 * body)
        score *= np.float32(-0.55) / body
        score += coarse
        score += np.float32(0.35) * fine
        coat = np.exp(-np.maximum(nearest, 0) / np.float32(60e-9))
        score += np.float32(0.8) * coat
        film = 2.8 * np.exp(-((np.maximum(height, 0) / 0.6e-6) ** 2))
        score += film.astype(np.float32)[None, :, None]
        return score

    def _height(self, y: Float32) -> Float32:
        """Return the height above the nearer side of the foil, metres; negative inside the foil."""
        e = self.electrode
        return np.where(y <= e.coating_m + e.foil_m / 2, e.coating_m - y, y - e.coating_m - e.foil_m).astype(np.float32)

    def _calibrate(self) -> None:
        """Find the growth of the particles and the binder's threshold that give the wanted shares."""
        e = self.electrode
        depth, rows, columns = e.shape
        axes = (
            np.arange(0, depth, max(1, depth // 24)),
            np.arange(0, rows, max(1, rows // 130)),
            np.arange(0, columns, max(1, columns // 130)),
        )
        y = self._coordinates(axes)[1]
        inner = np.flatnonzero((y > 0.4e-6) & (y < e.coating_m - 0.1e-6))
        if inner.size == 0:
            seen = f"{e.height_m * 1e6:.3g} um"
            msg = f"a coating of {e.coating_m * 1e6:.3g} um has no row of voxels within the height of {seen}"
            raise ValueError(msg)
        axes = (axes[0], axes[1][inner], axes[2])
        nearest, second, owner, fine, coarse = self._fields(axes)
        low, high = -0.4e-6, 0.6e-6
        for _ in range(12):
            self.grow = np.float32((low + high) / 2)
            kept = (nearest < self.grow) & ~self._cracked(nearest, second, owner, fine, coarse, axes)[0]
            low, high = (float(self.grow), high) if float(kept.mean()) < e.active else (low, float(self.grow))
        cracked, binder, inside = self._cracked(nearest, second, owner, fine, coarse, axes)
        active = inside & ~cracked
        cracks = float(binder.mean())
        between = nearest >= self.grow
        score = self._score(nearest, second, fine, coarse, self._height(y[inner]))[between]
        wanted = max(0.01, e.cbd - cracks) * active.size
        self.cut = np.float32(np.quantile(score, max(0.0, 1 - wanted / max(1, score.size))))

    def _cracked(
        self, nearest: Float32, second: Float32, owner: NDArray[np.int32], fine: Float32, coarse: Float32, axes: Axes
    ) -> tuple[Bools, Bools, Bools]:
        """Return where a particle is open, where binder has got in, and where a particle is at all.

        Open: along grain boundaries, through main cracks, where a grain fell out, in closed pores, and in the seam
        where two particles touch.
        """
        p = self.particles
        inside = nearest < self.grow
        gap = np.asarray(look_up(self.gap, self.offsets[2], axes), np.float32)
        gap *= np.float32(self.electrode.voxel_m)
        width = p.crack[owner]
        near = (nearest - self.grow) / p.rim[owner]
        near += np.float32(1.0)
        near += np.float32(0.45) * coarse
        width *= np.clip(near, 0, 1, out=near)
        open_ = gap < width
        number = np.asarray(look_up(self.grain, (0, 0, 0), axes), np.int8)
        open_ |= number > (127 - 254 * p.lost[owner])
        self._open_clusters(open_, owner, gap, axes)
        binder = open_ & (coarse > p.filled[owner])
        seam = (second - nearest) < np.float32(_SEAM_M) * (1 + coarse)
        seam &= second < self.grow
        binder |= seam & (fine > np.float32(0.3))
        open_ |= seam
        dots = fine > p.dots[owner]
        dots &= nearest < self.grow - np.float32(0.3e-6)
        open_ |= dots
        self._open_main(open_, binder, owner, fine, coarse, axes)
        open_ &= inside
        binder &= inside
        return open_, binder, inside

    def _open_clusters(self, open_: Bools, owner: NDArray[np.int32], gap: Float32, axes: Axes) -> None:
        """Part the grains on one side of some particles, widest at the rim."""
        x, y, z = self._coordinates(axes)
        for index, centre, radius, width in self.clusters:
            box, (dx, dy, dz) = _around((x, y, z), centre, radius)
            if box is None:
                continue
            off = np.sqrt((dz**2)[:, None, None] + ((dy**2)[:, None] + (dx**2)[None])[None])
            off *= np.float32(-width / radius)
            off += np.float32(width)
            open_[box] |= (gap[box] < off) & (owner[box] == index)

    def _open_main(
        self, open_: Bools, binder: Bools, owner: NDArray[np.int32], fine: Float32, coarse: Float32, axes: Axes
    ) -> None:
        """Open the main cracks: bent planes that narrow inward, empty, full of binder, or full deep in alone."""
        x, y, z = self._coordinates(axes)
        p = self.particles
        for crack in self.main:
            index, radius = crack.particle, 1.25 * p.radius[crack.particle]
            box, (dx, dy, dz) = _around((x, y, z), p.centre[index], float(radius))
            if box is None:
                continue
            across = _plane(crack.normal, dx, dy, dz)
            across += np.float32(0.10 * radius) * coarse[box] + np.float32(0.07e-6) * fine[box]
            outward = _plane(crack.along / radius, dx, dy, dz) - np.float32(crack.depth)
            half = np.float32(crack.width / 2) * np.clip(outward * np.float32(1.6), 0, 1)
            half += np.float32(0.03e-6) * fine[box] * (half > 0)
            here = (np.abs(across) < half) & (owner[box] == index)
            open_[box] |= here
            full = outward < np.float32(crack.filled_to * (0.8 - crack.depth))
            binder[box] = np.where(here, full, binder[box])

    def voxels(self, axes: Axes) -> Labels:
        """Return the materials at voxel indices (z, y, x)."""
        e = self.electrode
        y = self._coordinates(axes)[1]
        labels = np.full(tuple(a.size for a in axes), m.VACUUM, np.uint8)
        depth = -self._height(y)
        rows = np.flatnonzero((y > -4 * e.roughness_m - 1e-9) & (depth < 0.2 * e.large_diameter_m + 0.5e-6))
        labels[:, depth > 0] = e.collector
        for some in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
            if some.size:
                part = slice(int(some[0]), int(some[-1]) + 1)
                labels[:, part] = self._coating((axes[0], axes[1][part], axes[2]))
        self._lay_slivers(labels, axes)
        return labels

    def _coating(self, axes: Axes) -> Labels:
        """Return the materials of rows in or near a coating."""
        e, p = self.electrode, self.particles
        y = self._coordinates(axes)[1]
        nearest, second, owner, fine, coarse = self._fields(axes)
        height = self._height(y)
        cracked, binder, solid = self._cracked(nearest, second, owner, fine, coarse, axes)
        labels = np.zeros(nearest.shape, np.uint8)
        labels[self._score(nearest, second, fine, coarse, height) > self.cut] = m.CBD
        labels[solid] = e.material
        labels[cracked] = m.PORE
        np.copyto(labels, m.CBD, where=binder & cracked, casting="unsafe")
        residue = cracked & ~binder & (coarse > p.filled[owner] - np.float32(0.3)) & (p.crack[owner] < _HAIR_M)
        np.copyto(labels, m.CRACK_RESIDUE, where=residue, casting="unsafe")
        self._lay_foil(labels, nearest, coarse, height)
        rough = np.float32(e.roughness_m) * coarse + np.float32(0.3 * e.roughness_m) * fine
        top = int(np.searchsorted(y, 4 * e.roughness_m + 1e-9))
        above = y[None, :top, None] < rough[:, :top]
        head = labels[:, :top]
        head[above & (head != e.material)] = m.VACUUM
        head[(y[None, :top, None] < rough[:, :top] - np.float32(2 * e.roughness_m + 1e-9))] = m.VACUUM
        return labels

    def _lay_foil(self, labels: Labels, nearest: Float32, coarse: Float32, height: Float32) -> None:
        """Write the foil under its film of binder, embossed by the particles."""
        rows = np.flatnonzero(height < 1.2e-6)
        if rows.size == 0:
            return
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        depth = -height[None, part, None] + np.float32(0.15e-6) * coarse[:, part]
        beside = nearest[:, part] - self.grow
        known = np.float32(0.9 * (_REACH_M - 0.1e-6)) - max(self.grow, np.float32(0))  # farther than that none is told
        film = np.minimum(np.float32(0.27e-6) + np.float32(0.10e-6) * coarse[:, part], known)
        inside = labels[:, part]
        foil = (depth > 0) & (beside > np.maximum(film, np.float32(0.05e-6)))
        inside[foil] = self.electrode.collector
        inside[(depth > 0) & ~foil & (inside == m.PORE) & (beside > 0)] = m.CBD

    def _lay_slivers(self, labels: Labels, axes: Axes) -> None:
        """Write the foil's inclusions."""
        x, y, z = self._coordinates(axes)
        for centre, half in zip(*self.slivers, strict=True):
            spans = [
                slice(int(np.searchsorted(a, c - h)), int(np.searchsorted(a, c + h)))
                for a, c, h in zip((x, y, z), centre, half, strict=True)
            ]
            if any(span.stop <= span.start for span in spans):
                continue
            dx, dy, dz = (((a[s] - c) / h) ** 2 for a, s, c, h in zip((x, y, z), spans, centre, half, strict=True))
            within = dz[:, None, None] + (dy[:, None] + dx[None])[None] < 1
            box = labels[spans[2], spans[1], spans[0]]
            box[within & (box == self.electrode.collector)] = m.SLIVER


def _around(
    axes: tuple[Float32, Float32, Float32], centre: NDArray[np.float64], radius: float
) -> tuple[tuple[slice, slice, slice] | None, tuple[Float32, Float32, Float32]]:
    """Return the box of voxels (z, y, x) around a point of axes x, y, z, None for none, and the offsets from it."""
    spans = [
        slice(int(np.searchsorted(a, c - radius)), int(np.searchsorted(a, c + radius)))
        for a, c in zip(axes, centre, strict=True)
    ]
    dx, dy, dz = ((a[s] - np.float32(c)).astype(np.float32) for a, s, c in zip(axes, spans, centre, strict=True))
    box = (spans[2], spans[1], spans[0])
    return (None if any(span.stop <= span.start for span in spans) else box), (dx, dy, dz)


def _plane(normal: NDArray[np.float64], dx: Float32, dy: Float32, dz: Float32) -> Float32:
    """Return the projection of every offset (z, y, x) on a direction (x, y, z)."""
    a, b, c = (np.float32(v) for v in normal)
    out: Float32 = (c * dz)[:, None, None] + ((b * dy)[:, None] + (a * dx)[None])[None]
    return out
