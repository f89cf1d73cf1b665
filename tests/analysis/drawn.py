"""Drawn electrodes for the tests: disks of active material, binder, pores with and without platinum, foil."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from analysis.phases import Fine

# Greys of the published micrographs (physics: CBD 35, Al 79, NMC 125, Pt 248; TLD 35, 69, 105, 225; deep pores dark)
CBS = {
    Fine.OUTSIDE: 5,
    Fine.PT_PORE: 248,
    Fine.OPEN_PORE: 12,
    Fine.CBD: 35,
    Fine.ACTIVE: 125,
    Fine.COLLECTOR: 79,
    Fine.FILM: 245,
}
TLD = {
    Fine.OUTSIDE: 8,
    Fine.PT_PORE: 225,
    Fine.OPEN_PORE: 60,
    Fine.CBD: 36,
    Fine.ACTIVE: 105,
    Fine.COLLECTOR: 69,
    Fine.FILM: 222,
}


@dataclass(frozen=True)
class Drawn:
    channels: dict[str, NDArray[np.float32]]
    fine: NDArray[np.uint8]
    pixel_m: float
    beside: dict[str, Drawn] = field(default_factory=dict)


def drawn(seed: int, size: tuple[int, int] = (256, 256), pixel_m: float = 60e-9, film: bool = False) -> Drawn:
    """Draw one electrode: a cap above, foil below; the same seed draws the same."""
    rng = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width]
    fine = np.full(size, Fine.PT_PORE, np.uint8)
    soft = ndimage.gaussian_filter(rng.standard_normal(size), 5)
    fine[soft > np.quantile(soft, 0.55)] = Fine.CBD
    fine[soft < np.quantile(soft, 0.2)] = Fine.OPEN_PORE
    for _ in range(int(24 * height * width / 256**2)):
        cy, cx, radius = rng.uniform(0, height), rng.uniform(0, width), rng.lognormal(3.0, 0.4)
        fine[(y - cy) ** 2 + (x - cx) ** 2 < radius**2] = Fine.ACTIVE
    foil = int(height * rng.uniform(0.75, 0.9))
    fine[foil:] = Fine.COLLECTOR
    fine[: int(height * rng.uniform(0.0, 0.12))] = Fine.OUTSIDE
    if film or rng.random() < 0.15:
        patch = ndimage.gaussian_filter(rng.standard_normal(size), (30, 8))
        fine[(patch > np.quantile(patch, 0.7)) & (fine != Fine.OUTSIDE)] = Fine.FILM
    channels: dict[str, NDArray[np.float32]] = {}
    for name, greys, noise in (("CBS", CBS, 0.02), ("TLD", TLD, 0.05)):
        table = np.array([greys[code] for code in Fine], np.float32) / 255
        image = ndimage.gaussian_filter(table[fine], 0.8) + rng.normal(0, noise, size)
        channels[name] = image.clip(0, 1).astype(np.float32)
    return Drawn(channels, fine, pixel_m)


def samples(seed: int, count: int) -> Iterator[Drawn]:
    for index in range(count):
        yield drawn(seed * 10_000 + index)


def opened(sample: Drawn) -> Drawn:
    """The same plane before its fill: in place of platinum one sees pore backs, most of them as grey as binder."""
    filled = sample.fine == Fine.PT_PORE
    rng = np.random.default_rng(7)
    channels = {}
    for name, grey in sample.channels.items():
        back = (CBS[Fine.CBD] + 14 + rng.normal(0.0, 4.0, grey.shape)) / 255
        channels[name] = np.where(filled, back, grey).clip(0, 1).astype(np.float32)
    return replace(sample, channels=channels, fine=np.where(filled, np.uint8(Fine.OPEN_PORE), sample.fine))
