"""Element maps for tests: Poisson counts of a drawn face, taken with another pixel, shifted, scaled and sheared."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from analysis.phases import Phase
from analysis.register import ElementMap

# counts per pixel of 54 nm, 1 ms, 1.6 nA (physics.md section 5)
RATES: dict[str, dict[Phase, float]] = {
    "Al": {Phase.COLLECTOR: 5.9},
    "Ni": {Phase.ACTIVE: 0.66},
    "Pt": {Phase.PORE: 1.6, Phase.OUTSIDE: 1.9},
    "C": {Phase.CBD: 0.95, Phase.PORE: 0.27, Phase.OUTSIDE: 0.5},
    "F": {Phase.CBD: 1.1, Phase.ACTIVE: 0.25, Phase.COLLECTOR: 0.10, Phase.PORE: 0.12},
}
RESOLUTION_M = 0.3e-6


def mapped(
    labels: NDArray[np.uint8],
    pixel_m: float,
    map_pixel_m: float,
    shape: tuple[int, int],
    *,
    shift_m: tuple[float, float] = (0.0, 0.0),
    scale: tuple[float, float] = (1.0, 1.0),
    shear: float = 0.0,
    live: float = 1.0,
    binder: NDArray[np.float64] | None = None,
    seed: int = 0,
) -> ElementMap:
    """Return a map whose pixel at (v, u) from its centre shows the face at shift + (sy v, sx u + shear v).

    `binder` (rows of labels,) multiplies fluorine and divides carbon of CBD; `live` multiplies all counts.
    """
    rng = np.random.default_rng(seed)
    v = (np.arange(shape[0]) - (shape[0] - 1) / 2) * map_pixel_m
    u = (np.arange(shape[1]) - (shape[1] - 1) / 2) * map_pixel_m
    y = shift_m[0] + scale[0] * v[:, None] + 0 * u[None, :]
    x = shift_m[1] + scale[1] * u[None, :] + shear * v[:, None]
    rows = y / pixel_m + (labels.shape[0] - 1) / 2
    columns = x / pixel_m + (labels.shape[1] - 1) / 2
    counts = {}
    for element, rates in RATES.items():
        mean = np.zeros(labels.shape)
        for phase, rate in rates.items():
            mean[labels == phase] = rate
        if binder is not None and element in ("F", "C"):
            factor = binder if element == "F" else 1.0 / binder
            mean = np.where(labels == Phase.CBD, mean * factor[:, None], mean)
        soft = ndimage.gaussian_filter(mean, RESOLUTION_M / 2.355 / pixel_m, mode="nearest")
        seen = ndimage.map_coordinates(soft, [rows, columns], order=1, mode="nearest")
        counts[element] = rng.poisson(seen * live).astype(np.uint16)
    return ElementMap(counts, map_pixel_m)
