"""Draws what stands in a coating: particles of two families, what cracks they have, inclusions in the foil.

Sizes and shares: physics.md section 6 (measured on the published faces of Cooper et al. 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from simulator.electrode import Electrode
from simulator.packing import Spheres, pack
from simulator.randomness import rng
from simulator.textures import Float32


@dataclass(frozen=True)
class Particles:
    """All particles of both coatings in block coordinates, large first; tables are by particle."""

    centre: NDArray[np.float64]  # (n, 3) x, y, z
    radius: NDArray[np.float64]
    stretch: NDArray[np.float64]  # (n, 3) of the distance in x, y, z
    bumps: Float32  # of the surface, metres
    crack: Float32  # width of grain boundary cracks, metres; 0 none
    rim: Float32  # cracks reach this far below the surface, metres
    lost: Float32  # share of grains fallen out
    filled: Float32  # cracks are binder where noise lies above this
    dots: Float32  # closed pores where fine noise lies above this
    large: NDArray[np.bool_]


@dataclass(frozen=True)
class Crack:
    """A crack through a particle: bent plane with a normal, wide at the rim where `along` points, narrowing inward.

    `depth` (of the radius) is where it ends; binder fills it from there to `filled_to` of its way out: -1 none, 2 all.
    """

    particle: int
    normal: NDArray[np.float64]
    along: NDArray[np.float64]
    width: float
    depth: float
    filled_to: float


def packed(e: Electrode) -> Particles:
    """Pack the coating and, if the height reaches it, the one below the foil."""
    x0, _, z0 = e.origin_m
    x = (x0, x0 + e.width_m)
    z = (z0, z0 + e.depth_m)
    sides = [(0, e.coating_m)] + ([(1, e.coating_m)] if e.height_m > e.coating_m + e.foil_m else [])
    centres, radii, kinds = [], [], []
    for side, thickness in sides:
        spheres: Spheres = pack(
            rng(e.seed, "packing", side),
            x,
            thickness,
            z,
            large_m=e.large_diameter_m,
            small_m=e.small_diameter_m,
            spread=e.spread,
            small_share=e.small_share,
            void_m=0.9 * e.small_diameter_m,
            void_share=0.03,
            solid=min(0.76, e.active + 0.03),
        )
        centre = spheres.centre_m.copy()
        centre[:, 1] = e.coating_m - centre[:, 1] if side == 0 else e.coating_m + e.foil_m + centre[:, 1]
        keep = spheres.kind < 2
        centres.append(centre[keep])
        radii.append(spheres.radius_m[keep])
        kinds.append(spheres.kind[keep])
    centre, radius, kind = np.concatenate(centres), np.concatenate(radii), np.concatenate(kinds)
    draw = rng(e.seed, "particles")
    count = radius.size
    large = kind == 0
    shattered = ~large & (draw.random(count) < 0.6)
    uneven = np.where(large, 0.05, np.where(shattered, 0.16, 0.12))[:, None]
    stretch = np.exp(uneven * draw.normal(0, 1, (count, 3)).clip(-2, 2))
    flat = e.flatten ** (1 / 3)  # thinner down y, wider in x and z, of the same volume
    stretch *= np.array([1 / flat, flat**2, 1 / flat])
    bumps = np.where(large, 0.03e-6 + 0.006 * radius, 0.05e-6 + (0.03 + 0.05 * shattered) * radius)
    some = draw.random(count)
    width = np.exp(draw.normal(math.log(85e-9), math.log(1.35), count)).clip(60e-9, 160e-9)
    width = np.where(shattered, 0.7 * width, np.where(some < 0.4, width, 0.0)) * min(e.cracks, 1.5)
    rim = np.where(large, draw.uniform(0.05, 0.30, count) * radius, 1.2 * radius)
    lost = np.where(shattered, draw.uniform(0.0, 0.08, count), 0.0) * min(e.cracks, 1.0)
    filled = draw.normal(0.2, 0.9, count) - 0.2 * shattered  # small grains stand in binder more often
    dots = np.where(large, draw.uniform(2.8, 3.8, count), draw.uniform(3.2, 4.2, count))
    return Particles(
        centre,
        radius,
        stretch,
        bumps.astype(np.float32),
        width.astype(np.float32),
        rim.astype(np.float32),
        lost.astype(np.float32),
        filled.astype(np.float32),
        dots.astype(np.float32),
        large,
    )


def main_cracks(e: Electrode, p: Particles) -> list[Crack]:
    """Return cracks through particles, from hair to 0.7 um (physics.md 6), and what is in them."""
    draw = rng(e.seed, "main cracks")
    found = []
    for index in np.flatnonzero(p.radius > 0.35 * e.large_diameter_m):
        for _ in range(int(draw.poisson(0.45 * e.cracks))):
            normal = draw.normal(0, 1, 3) * (1.0, 1.0, 0.35)
            normal /= np.linalg.norm(normal)
            along = np.cross(normal, draw.normal(0, 1, 3))
            along /= np.linalg.norm(along)
            width = float(np.exp(draw.normal(math.log(190e-9), 0.55)).clip(70e-9, 700e-9))
            depth = float(draw.uniform(-0.6, 0.6))
            filled_to = float(draw.choice([-1.0, 0.5, 2.0], p=[0.4, 0.25, 0.35]))
            found.append(Crack(int(index), normal, along, width, depth, filled_to))
    return found


def clusters(e: Electrode, p: Particles) -> list[tuple[int, NDArray[np.float64], float, float]]:
    """Return where primary grains have parted on one side of a particle: particle, centre, radius, width."""
    draw = rng(e.seed, "crack clusters")
    found = []
    for index in np.flatnonzero(p.large):
        if draw.random() < 0.35 * e.cracks:
            side = draw.normal((0.0, 0.8, 0.0), 1.0)  # more often towards the foil, where calendering presses
            centre = p.centre[index] + 0.85 * p.radius[index] * side / np.linalg.norm(side)
            reach = float(draw.uniform(0.35, 0.65) * p.radius[index])
            found.append((int(index), centre, reach, float(draw.uniform(90e-9, 220e-9))))
    return found


def slivers(e: Electrode) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return centres and half axes (n, 3) of the iron-rich inclusions in the foil: 1-8 um x 0.3-1 um."""
    draw = rng(e.seed, "slivers")
    seen = min(e.foil_m, e.height_m - e.coating_m)
    if seen <= 1e-6:
        return np.empty((0, 3)), np.empty((0, 3))
    count = int(draw.poisson(0.010 * e.width_m * seen * (e.depth_m + 4e-6) / 4e-18))
    x0, _, z0 = e.origin_m
    low = (x0, e.coating_m + 1e-6, z0 - 2e-6)
    high = (x0 + e.width_m, e.coating_m + e.foil_m - 1e-6, z0 + e.depth_m + 2e-6)
    centre = draw.uniform(low, high, (count, 3))
    half = np.column_stack([draw.uniform(0.5e-6, 4e-6, count), draw.uniform(0.15e-6, 0.5e-6, count)])
    return centre, np.column_stack([half, draw.uniform(0.5e-6, 2e-6, count)])
