"""Fractions against the height above the current collector, so that a binder gradient shows.

The collector isn't flat: particles were pressed into it. So its line is found in every slice, and heights are counted
from it in each column of pixels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from analysis.phases import NAMES, Phase
from analysis.sampling import Estimate, estimate, from_samples, ratio_variance

Labels = NDArray[np.uint8]
Floats = NDArray[np.float64]
Side = Literal["above", "below"]

COATING: tuple[Phase, ...] = (Phase.PORE, Phase.CBD, Phase.ACTIVE)
_SMOOTH_M = 1e-6
_LEAST_COLUMNS = 0.5
_LEAST_FULL = 0.2


@dataclass(frozen=True)
class CollectorLine:
    """The upper edge of the collector in one slice.

    row : row (pixels, from the top edge of the first row) at which the collector begins, by column, float64 (x,)
    found : share of the columns in which it was seen; the others are interpolated
    inclination_rad : of the straight line through it, against the rows
    roughness_m : root mean square distance from that straight line, metres
    """

    row: Floats
    found: float
    inclination_rad: float
    roughness_m: float


class Bin(BaseModel):
    """Fractions of the coating between two heights above the collector (m); area (m2) counted, over all slices."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    low_m: float
    high_m: float
    area_m2: float
    fractions: dict[str, Estimate]


class HeightProfile(BaseModel):
    """Fractions of pore, cbd, active against height above the collector, with sampling errors.

    Parameters
    ----------
    bins : from the collector upwards; bins of which less than a fifth was seen are left out
    near, beyond : the same below and above `near_m` (m)
    planes : slices that count; `without_collector` more showed too little of it
    roughness_m, inclination_rad : means of the collector's lines
    coating_m, coating_sd_m : the coating's thickness, mean and scatter over columns and slices, metres; None where the
        picture doesn't reach its upper end
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    bins: tuple[Bin, ...]
    near_m: float = Field(gt=0)
    near: dict[str, Estimate]
    beyond: dict[str, Estimate]
    planes: int
    without_collector: int
    roughness_m: float
    inclination_rad: float
    coating_m: float | None
    coating_sd_m: float | None


def collector_line(labels: Labels, pixel_m: float, side: Side = "above") -> CollectorLine | None:
    """Find where the collector begins in each column, None when fewer than half of the columns show it.

    In a column the line is the split that misnames fewest pixels: no collector above it, nothing else below it. Specks
    labelled collector inside the coating, or active material inside the foil, don't move it.

    Parameters
    ----------
    labels : phases, uint8 (y, x)
    pixel_m : the pixel's edge, metres
    side : which face of the foil, where there is coating on both; rows are counted from that side's end of the picture
    """
    from scipy import ndimage

    seen = (labels if side == "above" else labels[::-1]) == Phase.COLLECTOR
    thick = max(3, round(0.5e-6 / pixel_m))
    enough = seen.sum(axis=0) >= thick
    if enough.mean() < _LEAST_COLUMNS:
        return None
    middle = seen.shape[0]
    if seen[-thick:].mean() < 0.5:  # a second coating begins below: only what lies above the foil's middle decides
        middle = int(np.median(np.repeat(np.arange(middle), seen.sum(axis=1)))) + 1
    part = seen[:middle]
    gain = np.zeros((middle + 1, seen.shape[1]), np.int32)
    np.cumsum(np.where(part, -1, 1), axis=0, out=gain[1:])
    # of several equally good splits, the middle one
    best = gain.max(axis=0)
    first = np.argmax(gain == best, axis=0)
    last = middle - np.argmax(gain[::-1] == best, axis=0)
    row = (first + last) / 2.0
    good = enough & (last < middle)
    if good.mean() < _LEAST_COLUMNS:
        return None
    columns = np.arange(seen.shape[1], dtype=np.float64)
    row = np.interp(columns, columns[good], row[good])
    width = 2 * max(1, round(_SMOOTH_M / pixel_m / 2)) + 1
    row = ndimage.median_filter(row, min(width, seen.shape[1]), mode="nearest").astype(np.float64)
    slope, offset = np.polyfit(columns, row, 1)
    off = row - (slope * columns + offset)
    return CollectorLine(row, float(good.mean()), math.atan(slope), float(np.sqrt((off**2).mean())) * pixel_m)


def heights(shape: tuple[int, int], line: CollectorLine, pixel_m: float) -> Floats:
    """Return every pixel's height above the collector (m; negative below its line), float64 (y, x)."""
    centres = np.arange(shape[0], dtype=np.float64)[:, None] + 0.5
    return (line.row[None, :] - centres) * pixel_m


def height_profile(
    planes: Iterable[Labels],
    pixel_m: float,
    *,
    bin_m: float = 1e-6,
    near_m: float = 3e-6,
    side: Side = "above",
) -> HeightProfile | None:
    """Return fractions against height above the collector, None when no slice shows enough of it.

    Slices are taken one at a time. The sampling error of a bin comes from its covariance along x, all slices added up
    column by column first: slices of a thin volume show the same particles again.

    Parameters
    ----------
    planes : phases, uint8 (y, x), all of one shape
    pixel_m : the pixel's edge, metres
    bin_m : height of a bin, metres
    near_m : height that divides `near` from `beyond`, metres, rounded to whole bins
    side : which face of the foil
    """
    if bin_m <= 0 or near_m <= 0 or pixel_m <= 0:
        msg = f"bin_m, near_m and pixel_m are positive lengths (m), not {bin_m}, {near_m}, {pixel_m}"
        raise ValueError(msg)
    total: NDArray[np.int64] | None = None
    lines: list[CollectorLine] = []
    thickness: list[Floats] = []
    without = 0
    for labels in planes:
        line = collector_line(labels, pixel_m, side)
        if line is None:
            without += 1
            continue
        upright = labels if side == "above" else labels[::-1]
        counts = _counted(upright, line, pixel_m, bin_m)
        if total is not None and counts.shape != total.shape:
            msg = f"slices differ in shape: {labels.shape} among others"
            raise ValueError(msg)
        total = counts if total is None else total + counts
        lines.append(line)
        thickness.append(_thickness(upright, line, pixel_m))
    if total is None:
        return None
    share = total.sum(axis=(1, 2)) / (len(lines) * total.shape[2] * (bin_m / pixel_m))
    number = max(1, round(near_m / bin_m))
    coating = np.concatenate(thickness)
    return HeightProfile(
        bins=tuple(
            Bin(
                low_m=index * bin_m,
                high_m=(index + 1) * bin_m,
                area_m2=float(part.sum()) * pixel_m**2,
                fractions=_fractions(part, pixel_m),
            )
            for index, part in enumerate(total)
            if share[index] >= _LEAST_FULL
        ),
        near_m=number * bin_m,
        near=_fractions(total[:number].sum(axis=0), pixel_m),
        beyond=_fractions(total[number:].sum(axis=0), pixel_m),
        planes=len(lines),
        without_collector=without,
        roughness_m=float(np.mean([line.roughness_m for line in lines])),
        inclination_rad=float(np.mean([line.inclination_rad for line in lines])),
        coating_m=float(coating.mean()) if len(coating) else None,
        coating_sd_m=float(coating.std()) if len(coating) else None,
    )


def _counted(labels: Labels, line: CollectorLine, pixel_m: float, bin_m: float) -> NDArray[np.int64]:
    """Return pixel counts (bin, phase of COATING, x) above the line."""
    height = heights((labels.shape[0], labels.shape[1]), line, pixel_m)
    number = math.ceil(labels.shape[0] * pixel_m / bin_m)
    table = np.full(256, -1, np.int64)
    table[list(COATING)] = range(len(COATING))
    phase = table[labels]
    index = np.floor(height / bin_m).astype(np.int64)
    keep = (phase >= 0) & (height > 0)
    column = np.broadcast_to(np.arange(labels.shape[1]), labels.shape)[keep]
    flat = (index[keep] * len(COATING) + phase[keep]) * labels.shape[1] + column
    size = number * len(COATING) * labels.shape[1]
    return np.bincount(flat, minlength=size).reshape(number, len(COATING), labels.shape[1])


def _fractions(counts: NDArray[np.int64], pixel_m: float) -> dict[str, Estimate]:
    """Return estimates of counts (phase, x); empty where nothing was counted."""
    whole = counts.sum(axis=0).astype(np.float64)
    if whole.sum() == 0:
        return {}
    found = {}
    for phase, part in zip(COATING, counts.astype(np.float64), strict=True):
        found[NAMES[phase]] = estimate(float(part.sum() / whole.sum()), ratio_variance(part, whole, pixel_m))
    return completed(found)


def completed(found: dict[str, Estimate]) -> dict[str, Estimate]:
    """Give an interval to phases that are absent (or alone): the place is worth as many samples as for the others."""
    samples = [item.samples for item in found.values() if item.samples is not None]
    if not samples:
        return found
    least = min(samples)
    return {
        name: item if item.samples is not None else from_samples(item.value, least, sigma=0.0)
        for name, item in found.items()
    }


def _thickness(labels: Labels, line: CollectorLine, pixel_m: float) -> Floats:
    """Return the coating's thickness (m) in the columns that show its upper end, (n,)."""
    rows = np.arange(labels.shape[0])[:, None]
    outside = (labels == Phase.OUTSIDE) & (rows < np.floor(line.row)[None, :])
    # a speck called outside within the coating doesn't end it: the best split again
    top = np.argmax(np.cumsum(np.where(outside, 1, -1), axis=0), axis=0) + 1
    shown = outside[0] & (top < line.row)
    thickness: Floats = np.asarray((line.row - top)[shown] * pixel_m, np.float64)
    return thickness


def levels(profile: HeightProfile, phase: str) -> Sequence[tuple[float, Estimate]]:
    """Return (middle height in m, estimate) of one phase, bin by bin."""
    return [((item.low_m + item.high_m) / 2, item.fractions[phase]) for item in profile.bins if phase in item.fractions]
