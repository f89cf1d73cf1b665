"""Element maps against the labels: aluminium in the collector, nickel in the active material, platinum in the pores.

A kintsugi map has two or three counts a pixel, all elements together. It can't name a pixel, and nothing here tries:
counts are added up over all pixels of a phase, or of a height above the collector, and errors are those of counting
(Poisson).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from analysis.heights import collector_line, heights
from analysis.phases import NAMES, Phase
from analysis.register import ElementMap, Labels, Placement, labels_on, on_map, place

EXPECTED: dict[str, Phase] = {
    "Al": Phase.COLLECTOR,
    "Ni": Phase.ACTIVE,
    "Pt": Phase.PORE,
    "C": Phase.CBD,
    "F": Phase.CBD,
}
"""Where each element should be, in an oxide cathode on aluminium with platinum in its pores."""

_COUNTED: tuple[Phase, ...] = (Phase.PORE, Phase.CBD, Phase.ACTIVE, Phase.COLLECTOR)
_SURE = 3.0
_ENRICHED = 1.5
_LEAST_COUNTS = 25
_LEAST_IN_BIN = 10

Verdict = Literal["agrees", "weak", "disagrees", "too few counts"]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")


class Mean(_Model):
    """Counts of one element over all pixels of one phase: their sum, the pixels, mean per pixel, its Poisson error."""

    counts: float = Field(ge=0)
    pixels: int = Field(ge=0)
    mean: float = Field(ge=0)
    sigma: float = Field(ge=0)


class Pair(_Model):
    """An element and the phase it should lie in.

    Parameters
    ----------
    element, phase : such as Ni and active
    inside, elsewhere : counts in the phase, and in the other phases together
    enrichment, enrichment_sigma : ratio of the two means; None where elsewhere has no counts
    separation : difference of the means over its error
    highest : the phase with the highest mean
    patch_px : pixels that must be added up before the phase stands out from the rest by three errors; None where it
        doesn't
    verdict : `agrees` when the phase has the highest mean, at least 1.5 times that of the rest, by three errors; `weak`
        when it has more than the rest, but less than that; `disagrees` when it has no more than the rest, or another
        phase has 1.5 times as much, if there are counts enough to say so
    """

    element: str
    phase: str
    inside: Mean
    elsewhere: Mean
    enrichment: float | None
    enrichment_sigma: float | None
    separation: float
    highest: str
    patch_px: int | None
    verdict: Verdict


class Level(_Model):
    """F and C counts in the CBD between two heights (m); ratio None where one has fewer than 10 counts."""

    low_m: float
    high_m: float
    pixels: int
    f_counts: float
    c_counts: float
    ratio: float | None
    sigma: float | None


class Gradient(_Model):
    """Fluorine over carbon in the CBD against height above the collector: binder against carbon.

    Parameters
    ----------
    levels : from the collector upwards
    near, beyond : all CBD below and above `near_m`
    factor, factor_sigma : ratio near the collector over the ratio beyond; None where one is unknown
    """

    levels: tuple[Level, ...]
    near_m: float
    near: Level
    beyond: Level
    factor: float | None
    factor_sigma: float | None


class EdsResult(_Model):
    """What a map says about the labels.

    Parameters
    ----------
    placement : how the map lies over the labels
    means : counts by element and phase
    pairs : one for each element with an expected phase
    gradient : F over C against height; None without F, C, CBD or collector
    counts_per_pixel, pixels, pixel_m : of the map, all elements together
    compared : part of the map that lies on labelled electrode or collector
    remarks : sentences on what limits the comparison
    """

    placement: Placement
    means: dict[str, dict[str, Mean]]
    pairs: tuple[Pair, ...]
    gradient: Gradient | None
    counts_per_pixel: float
    pixels: int
    pixel_m: float
    compared: float
    remarks: tuple[str, ...]

    @property
    def agrees(self) -> bool:
        """Whether the map was placed and no pair disagrees."""
        return self.placement.found and all(pair.verdict != "disagrees" for pair in self.pairs)


def compare(
    element_map: ElementMap,
    labels: Labels,
    pixel_m: float,
    *,
    expected: Mapping[str, Phase] = EXPECTED,
    search_m: float = 4e-6,
    bin_m: float = 1e-6,
    near_m: float = 3e-6,
    placement: Placement | None = None,
) -> EdsResult:
    """Hold an element map against the labels of the same face.

    Parameters
    ----------
    element_map : the map
    labels : phases, uint8 (y, x)
    pixel_m : the labels' pixel edge, metres
    expected : the phase that each element should lie in
    search_m : how far off the map may lie, metres
    bin_m, near_m : height of the gradient's bins, and where `near` ends, metres
    placement : how the map lies over the labels, where that is known; else it is searched for
    """
    where = place(element_map, labels, pixel_m, search_m=search_m) if placement is None else placement
    seen = labels_on(element_map, labels, pixel_m, where)
    means = {
        element: {NAMES[phase]: _mean(image, seen == phase) for phase in _COUNTED}
        for element, image in element_map.counts.items()
    }
    pairs = tuple(
        _pair(element, expected[element], image, seen, means[element])
        for element, image in element_map.counts.items()
        if element in expected
    )
    counted = np.isin(seen, _COUNTED)
    gradient = _gradient(element_map, labels, pixel_m, where, seen, bin_m, near_m)
    return EdsResult(
        placement=where,
        means=means,
        pairs=pairs,
        gradient=gradient,
        counts_per_pixel=element_map.counts_per_pixel,
        pixels=seen.size,
        pixel_m=element_map.pixel_m,
        compared=float(counted.mean()),
        remarks=_remarks(element_map, where, pairs, gradient),
    )


def _mean(image: NDArray[np.generic], where: NDArray[np.bool_]) -> Mean:
    counts, pixels = float(image.astype(np.float64)[where].sum()), int(where.sum())
    if not pixels:
        return Mean(counts=0.0, pixels=0, mean=0.0, sigma=0.0)
    return Mean(counts=counts, pixels=pixels, mean=counts / pixels, sigma=math.sqrt(counts) / pixels)


def _pair(element: str, phase: Phase, image: NDArray[np.generic], seen: Labels, means: Mapping[str, Mean]) -> Pair:
    inside = means[NAMES[phase]]
    elsewhere = _mean(image, np.isin(seen, [other for other in _COUNTED if other is not phase]))
    difference = inside.mean - elsewhere.mean
    error = math.hypot(inside.sigma, elsewhere.sigma)
    ratio = inside.mean / elsewhere.mean if elsewhere.mean > 0 else None
    ratio_sigma = None
    if ratio is not None and inside.counts > 0:
        ratio_sigma = ratio * math.sqrt(1.0 / inside.counts + 1.0 / elsewhere.counts)
    highest = max(means, key=lambda name: means[name].mean)
    separation = difference / error if error > 0 else 0.0
    top = means[highest]
    beaten = top.mean >= _ENRICHED * inside.mean and top.mean - inside.mean > _SURE * math.hypot(
        top.sigma, inside.sigma
    )
    patch = math.ceil(_SURE**2 * (inside.mean + elsewhere.mean) / difference**2) if separation > _SURE else None
    enough = inside.counts + elsewhere.counts >= _LEAST_COUNTS and inside.pixels > 0 and elsewhere.pixels > 0
    verdict: Verdict
    if not enough or (abs(separation) < _SURE and _SURE * error > 0.5 * max(inside.mean, elsewhere.mean)):
        verdict = "too few counts"
    elif separation < _SURE or beaten:
        verdict = "disagrees"
    elif highest == NAMES[phase] and (ratio is None or ratio >= _ENRICHED):
        verdict = "agrees"
    else:
        verdict = "weak"
    return Pair(
        element=element,
        phase=NAMES[phase],
        inside=inside,
        elsewhere=elsewhere,
        enrichment=ratio,
        enrichment_sigma=ratio_sigma,
        separation=separation,
        highest=highest,
        patch_px=patch,
        verdict=verdict,
    )


def _gradient(
    element_map: ElementMap,
    labels: Labels,
    pixel_m: float,
    where: Placement,
    seen: Labels,
    bin_m: float,
    near_m: float,
) -> Gradient | None:
    """Return F over C by height above the collector, counted in pixels of CBD only."""
    line = collector_line(labels, pixel_m)
    if line is None or not {"F", "C"} <= set(element_map.counts):
        return None
    height = on_map(element_map, heights((labels.shape[0], labels.shape[1]), line, pixel_m), pixel_m, where)
    binder = (seen == Phase.CBD) & np.isfinite(height) & (height > 0)
    if not binder.any():
        return None
    at = height[binder]
    f, c = (element_map.counts[name].astype(np.float64)[binder] for name in ("F", "C"))

    def level(low: float, high: float) -> Level:
        inside = (at >= low) & (at < high)
        f_sum, c_sum = float(f[inside].sum()), float(c[inside].sum())
        known = min(f_sum, c_sum) >= _LEAST_IN_BIN
        ratio = f_sum / c_sum if known else None
        return Level(
            low_m=low,
            high_m=high,
            pixels=int(inside.sum()),
            f_counts=f_sum,
            c_counts=c_sum,
            ratio=ratio,
            sigma=ratio * math.sqrt(1.0 / f_sum + 1.0 / c_sum) if ratio is not None else None,
        )

    top = float(at.max())
    levels = tuple(level(k * bin_m, (k + 1) * bin_m) for k in range(math.ceil(top / bin_m)))
    near, beyond = level(0.0, near_m), level(near_m, max(top, near_m) + bin_m)
    factor = factor_sigma = None
    if near.ratio is not None and near.sigma is not None and beyond.ratio and beyond.sigma is not None:
        factor = near.ratio / beyond.ratio
        factor_sigma = factor * math.hypot(near.sigma / near.ratio, beyond.sigma / beyond.ratio)
    return Gradient(
        levels=tuple(item for item in levels if item.pixels),
        near_m=near_m,
        near=near,
        beyond=beyond,
        factor=factor,
        factor_sigma=factor_sigma,
    )


def _remarks(
    element_map: ElementMap, where: Placement, pairs: tuple[Pair, ...], gradient: Gradient | None
) -> tuple[str, ...]:
    said = [
        f"The map has {element_map.counts_per_pixel:.2f} counts a pixel, all elements together: it tells regions, "
        "never single pixels. Errors are those of counting."
    ]
    patches = [(pair.patch_px, pair.element) for pair in pairs if pair.patch_px]
    if patches:
        most, element = max(patches)
        edge = math.sqrt(most) * element_map.pixel_m * 1e6
        said.append(
            f"The least clear element, {element}, needs {most} pixels (a patch of {edge:.1f} µm) to stand out by three "
            "errors."
        )
    if not where.found:
        said.append(
            "The map could not be placed on the labels; it is compared where the stage said it lies, which may be "
            "microns off."
        )
    if gradient is not None:
        said.append(
            "F over C is not corrected for the manganese line under fluorine's, nor for fluorine lost under the beam."
        )
    return tuple(said)
