"""The plane of a face, read on the ruler: two buried grooves in the cap whose distance grows by 2t per t removed.

A groove shows as a dark box of known size with cap to its left, to its right and above it. What is below it may be
cap, electrode or platinum, for the top is uneven; what is dark without cap around it is no groove.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from analysis.align import moved
from workflows.cap import cap_grey

Float = NDArray[np.float64]

#: A groove is this much darker than the cap around it, at the least and at the most (a hole shows black): shares.
_CONTRAST = (0.12, 0.65)
#: What lies around a groove has the cap's grey to this share: platinum is brighter, electrode darker.
_CAP_GREY = 0.13
#: The ruler's two grooves lie level to this (m): the top that they follow is uneven.
_LEVEL_M = 1.2e-6
#: A groove's darkness spreads as a box of its width does, to this share; a cap this near to white is clipped.
_SPREAD, _CLIPPED = 0.4, 0.97
#: Beside noise, a groove's own shape makes its middle uncertain by so much of a pixel.
_EDGE_PX = 0.5
#: A picture may lie this far aside of where it should (m).
_ASIDE_M = 3e-6
#: Of a groove's width and depth, what is compared: clear of its blurred sides; its upper part alone, deep in the cap.
_ACROSS, _DOWN = 0.75, 0.5
#: On a slope a groove's section is slanted, its sides upright: it is so much taller and wider at most.
_TALLER, _WIDER = 3.0, 1.5
#: At most so many dark spots on a side are held against those of the other.
_MOST_SPOTS = 20


@dataclass(frozen=True)
class Reading:
    """What the ruler says: z (m) of the plane and its uncertainty, from the grooves' half distance (m).

    `middle_m` and `row_m` are where the ruler lies in the picture, from its centre, right and down.
    """

    z_m: float
    sigma_m: float
    half_spacing_m: float
    middle_m: float
    row_m: float


@dataclass(frozen=True)
class _Groove:
    """A dark box in the cap: column and row of its middle and their uncertainty in pixels; contrast, 0..1.

    `spread` is that of its darkness over that of a box as wide as a groove; it is `alone` with cap all around it.
    """

    column: float
    row: float
    sigma: float
    spread: float
    contrast: float
    alone: bool


def read_ruler(
    image: NDArray[np.generic],
    pixel_m: tuple[float, float],
    *,
    rows: slice,
    expected_half_m: float,
    search_m: float,
    groove_m: tuple[float, float],
    half_at_zero_m: float,
    aside_m: float = _ASIDE_M,
) -> Reading | None:
    """Measure the plane on the ruler's two grooves.

    Parameters
    ----------
    image : face picture (y, x)
    pixel_m : (y, x), metres on the face
    rows : the rows in which the cap's cross-section lies
    expected_half_m : half the distance that the grooves should have, metres
    search_m : how far from there it may be, metres
    groove_m : width and depth of a groove on the face, metres
    half_at_zero_m : half the distance at block z = 0; z = half - half_at_zero
    aside_m : how far both may lie to the side, metres

    Returns None where the two grooves are not seen: then there is no measurement.
    """
    band = image[rows].astype(float)
    white = _CLIPPED * float(np.iinfo(str(image.dtype)).max) if image.dtype.kind in "iu" else np.inf
    size = (groove_m[1] / pixel_m[0], groove_m[0] / pixel_m[1])
    if band.shape[0] < 1.5 * size[0] or size[0] < 2 or size[1] < 2:
        return None
    middle = (image.shape[1] - 1) / 2
    reach = (search_m + aside_m) / pixel_m[1]
    left, right = (
        _grooves(band, middle + sign * expected_half_m / pixel_m[1], reach, size, white) for sign in (-1.0, 1.0)
    )
    likely: tuple[float, Reading] | None = None
    for one, other in product(left, right):
        half = 0.5 * (other.column - one.column) * pixel_m[1]
        reading = Reading(
            z_m=half - half_at_zero_m,
            sigma_m=0.5 * float(np.hypot(one.sigma, other.sigma)) * pixel_m[1],
            half_spacing_m=half,
            middle_m=(0.5 * (one.column + other.column) - middle) * pixel_m[1],
            row_m=(0.5 * (one.row + other.row) + (rows.start or 0) - (image.shape[0] - 1) / 2) * pixel_m[0],
        )
        if half < groove_m[0]:  # one spot can't be both
            continue
        level = abs(one.row - other.row) * pixel_m[0] / _LEVEL_M
        off, aside = abs(half - expected_half_m) / search_m, abs(reading.middle_m) / aside_m
        if level >= 1 or off > 1 or aside > 1:
            continue
        # two grooves stand out and alone, are as wide as they should be, lie level, are alike, and about where they
        # should be
        alike = abs(np.log(one.contrast / other.contrast))
        touching = (not one.alone) + (not other.alone)
        misshapen = abs(np.log(one.spread)) + abs(np.log(other.spread))
        unlikely = (
            level + alike + touching + 2 * misshapen + 0.5 * aside + 2 * off - np.log(one.contrast * other.contrast)
        )
        if likely is None or unlikely < likely[0]:
            likely = float(unlikely), reading
    return None if likely is None else likely[1]


def _grooves(band: Float, at_px: float, reach_px: float, size_px: tuple[float, float], white: float) -> list[_Groove]:
    """Return the dark boxes of a groove's size (down, across) near column `at_px`, those that stand out most first."""
    from scipy import ndimage

    low = max(0, round(at_px - reach_px - 3 * size_px[1]))
    high = min(band.shape[1], round(at_px + reach_px + 3 * size_px[1]) + 1)
    if high - low < 4 * size_px[1]:
        return []
    window = ndimage.gaussian_filter(band[:, low:high], 0.7)
    cap = cap_grey(window, size_px[0])
    if not 0 < cap < white:
        return []
    down, across = max(1, round(_DOWN * size_px[0])), max(1, round(_ACROSS * size_px[1]))
    # what lies around it is clear of its blurred edge
    beside, above = round(0.5 * size_px[1] + 1.5 + 0.25 * across), round(down + 1.5)
    core = ndimage.uniform_filter(window, (down, across), mode="nearest")
    flank = ndimage.uniform_filter(window, (down, max(1, across // 2)), mode="nearest")
    around = np.stack([moved(flank, (0, beside)), moved(flank, (0, -beside)), moved(core, (above, 0))])
    contrast = (around.min(axis=0) - core) / cap
    capped = (around.min(axis=0) > (1 - _CAP_GREY) * cap) & (around.max(axis=0) < (1 + _CAP_GREY) * cap)
    seen = np.where(capped & (contrast > _CONTRAST[0]) & (contrast < _CONTRAST[1]), contrast, 0.0)
    peaks = (seen > 0) & (seen == ndimage.maximum_filter(seen, (2 * down + 1, 2 * across + 1)))
    spots = [
        _measured(window, int(row), int(column), low, size_px, cap)
        for row, column in np.argwhere(peaks)
        if abs(column + low - at_px) <= reach_px
    ]
    # a spot that is bright in its very middle is none
    found = [spot for spot in spots if spot.contrast > 0.0 and abs(spot.spread - 1.0) < _SPREAD]
    return sorted(found, key=lambda groove: -groove.contrast)[:_MOST_SPOTS]


def _measured(window: Float, row: int, column: int, low: int, size_px: tuple[float, float], cap: float) -> _Groove:
    """Return a groove with its middle to a fraction of a pixel: the centroid of what is darker than the cap."""
    across = round(size_px[1])
    start, end = max(0, column - across), min(window.shape[1], column + across + 1)
    first, last, alone = _rows(window, row, column, size_px, cap)
    dark = np.clip(cap - window[first:last, start:end].mean(axis=0), 0.0, None)
    depth = float(dark[max(0, column - start - 1) : column - start + 2].mean())
    # noise of the cap's own grey left and right is no groove
    dark = np.where(dark > 0.25 * depth, dark, 0.0)
    columns = np.arange(start, end)
    centre = float((dark * columns).sum() / dark.sum())
    spread = float(np.sqrt((dark * (columns - centre) ** 2).sum() / dark.sum()))
    sigma = float(np.hypot(spread / np.sqrt((last - first) * size_px[1]), _EDGE_PX))
    taller = max(
        1.0, (last - first) / size_px[0]
    )  # a slanted one is as dark, over more rows than each column has of it
    contrast = taller * depth / cap
    return _Groove(centre + low, float(row), sigma, spread / (size_px[1] / np.sqrt(12.0)), contrast, alone)


def _rows(window: Float, row: int, column: int, size_px: tuple[float, float], cap: float) -> tuple[int, int, bool]:
    """Return the rows of a groove, and whether it stands alone in the cap: then all of its rows, else its upper part's.

    Every column of a groove is as tall as the other, whatever it lies on: so all its rows tell its middle, and a part
    of them a middle that is off where it lies on a slope.
    """
    from scipy import ndimage

    tallest, widest = round(_TALLER * size_px[0]), round(_WIDER * size_px[1])
    top, left = max(0, row - tallest), max(0, column - widest)
    spots, _ = ndimage.label(window[top : row + tallest, left : column + widest] < 0.5 * (cap + window[row, column]))
    own = spots[row - top, column - left]
    if own:
        down, across = ndimage.find_objects(spots)[own - 1]
        touches = 0 in (down.start, across.start) or down.stop == spots.shape[0] or across.stop == spots.shape[1]
        if not touches and down.stop - down.start <= tallest and across.stop - across.start <= widest:
            return top + down.start, top + down.stop, True
    half = max(1, round(_DOWN * size_px[0] / 2))
    return max(0, row - half), min(window.shape[0], row + half + 1), False
