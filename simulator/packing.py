"""Packs the particles of an electrode: two families of spheres, pushed apart until they touch, and voids between them.

Sizes and shares: physics.md section 6 (measured on the published faces of Cooper et al. 2022).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Floats = NDArray[np.float64]

_ROUNDS = 120
_SPREAD_LIMITS = (0.55, 1.75)  # of the median: the largest particle of the paper is 19-20 um at a median of 11 um


@dataclass(frozen=True)
class Spheres:
    """Spheres of one coating.

    centre_m : (n, 3) as (x, height above the collector, z), metres
    radius_m : (n,)
    kind : (n,) uint8, 0 large, 1 small, 2 void
    """

    centre_m: Floats
    radius_m: Floats
    kind: NDArray[np.uint8]


def pack(
    rng: np.random.Generator,
    x_m: tuple[float, float],
    thickness_m: float,
    z_m: tuple[float, float],
    *,
    large_m: float,
    small_m: float,
    spread: float,
    small_share: float,
    void_m: float,
    void_share: float,
    solid: float,
) -> Spheres:
    """Return spheres whose volume is `solid` of the coating, overlaps pushed apart.

    Parameters
    ----------
    rng : draws sizes and first places
    x_m, z_m : the box, which is packed a largest particle beyond its sides, metres
    thickness_m : of the coating, metres
    large_m, small_m : median diameters of the two families, metres
    spread : geometric standard deviation of both
    small_share : of the solid volume that the small family has
    void_m, void_share : diameter of voids that the packing keeps free, and their share of the coating
    solid : share of the coating that the spheres fill before they are grown
    """
    margin = _SPREAD_LIMITS[1] * large_m / 2
    low = np.array([x_m[0] - margin, 0.0, z_m[0] - margin])
    high = np.array([x_m[1] + margin, thickness_m, z_m[1] + margin])
    volume = float(np.prod(high - low))
    largest = 0.45 * thickness_m
    families = (
        (large_m, solid * (1 - small_share), spread),
        (small_m, solid * small_share, spread),
        (void_m, void_share, 1.25),
    )
    radii, kinds = [], []
    for kind, (median, share, sigma) in enumerate(families):
        some = _radii(rng, min(median / 2, largest), sigma, share * volume)
        radii.append(np.minimum(some, largest))
        kinds.append(np.full(some.size, kind, np.uint8))
    radius, kind_of = np.concatenate(radii), np.concatenate(kinds)
    order = np.argsort(-radius, kind="stable")
    radius, kind_of = radius[order], kind_of[order]
    centre = low + rng.random((radius.size, 3)) * (high - low)
    return Spheres(_relaxed(centre, radius, kind_of, low, high), radius, kind_of)


def _radii(rng: np.random.Generator, median: float, sigma: float, volume: float) -> Floats:
    """Draw log-normal radii until their spheres have this volume."""
    mean = 4 / 3 * math.pi * median**3 * math.exp(4.5 * math.log(sigma) ** 2)
    draws = np.exp(rng.normal(0.0, math.log(sigma), int(1.6 * volume / mean) + 8))
    some: Floats = median * np.clip(draws, *_SPREAD_LIMITS)
    total = np.cumsum(4 / 3 * math.pi * some**3)
    return some[: int(np.searchsorted(total, volume)) + 1]


def _relaxed(centre: Floats, radius: Floats, kind: NDArray[np.uint8], low: Floats, high: Floats) -> Floats:
    """Push overlapping spheres apart, the lighter one more; walls hold them, the collector gives way a little."""
    big = int(np.count_nonzero(radius > 1.6 * np.median(radius)))
    weight = radius**2
    sink = np.where(kind == 0, 0.25 * radius, 0.0)  # calendering presses particles 1-2 um into the foil (section 6)
    floor = np.column_stack(
        [np.broadcast_to(low[0], radius.shape), radius - sink, np.broadcast_to(low[2], radius.shape)]
    )
    ceiling = np.column_stack(
        [np.broadcast_to(high[0], radius.shape), high[1] - 0.9 * radius, np.broadcast_to(high[2], radius.shape)]
    )
    for _ in range(_ROUNDS):
        first, second = _near(centre, radius, big)
        between = centre[second] - centre[first]
        distance = np.maximum(np.linalg.norm(between, axis=1), 1e-12)
        overlap = radius[first] + radius[second] - distance
        touching = overlap > 0
        if not touching.any():
            break
        first, second = first[touching], second[touching]
        push = (0.9 * overlap[touching] / distance[touching])[:, None] * between[touching]
        share = (weight[second] / (weight[first] + weight[second]))[:, None]
        for axis in range(3):
            centre[:, axis] -= np.bincount(first, 0.5 * (push * share)[:, axis], radius.size)
            centre[:, axis] += np.bincount(second, 0.5 * (push * (1 - share))[:, axis], radius.size)
        centre = np.clip(centre, floor, np.maximum(ceiling, floor))
    return centre


def _near(centre: Floats, radius: Floats, big: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return pairs that may overlap; the `big` first spheres are searched apart, so that small ones stay cheap."""
    firsts, seconds = [], []
    parts = [(0, big), (big, radius.size)]
    trees = [cKDTree(centre[a:b]) if b > a else None for a, b in parts]
    for (start, _), tree, reach in zip(parts, trees, (radius[:1], radius[big : big + 1]), strict=True):
        if tree is not None:
            pairs = tree.query_pairs(2 * float(reach[0]), output_type="ndarray")
            firsts.append(pairs[:, 0] + start)
            seconds.append(pairs[:, 1] + start)
    if trees[0] is not None and trees[1] is not None:
        across = trees[0].sparse_distance_matrix(trees[1], float(radius[0] + radius[big]), output_type="ndarray")
        firsts.append(across["i"])
        seconds.append(across["j"] + big)
    return np.concatenate(firsts).astype(np.intp), np.concatenate(seconds).astype(np.intp)
