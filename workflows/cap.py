"""The cap's cross-section in a picture of the face: its grey, and how high it stands."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float64]

#: The cap is brighter than this share of the brightest there is; what lies under it is darker than this share of it.
_BRIGHT, _STILL_CAP = 0.4, 0.8
#: Rows below the cap's upper edge that are still blurred by it.
_EDGE_ROWS = 2
#: A height is told where so much of the picture's width shows the cap whole, alike to this (quartiles, shares).
_SEEN, _ALIKE = 0.5, 0.3


@dataclass(frozen=True)
class CapHeight:
    """The median height of the cap over its width, and how sure that is, metres."""

    height_m: float
    sigma_m: float


def cap_grey(window: Float, depth_px: float) -> float:
    """Return the cap's grey: that of what is met first from above, for below it lies the electrode; 0 for nothing."""
    return _grey_under(window, *_upper_edge(window), depth_px)


def _grey_under(window: Float, columns: NDArray[np.intp], first: NDArray[np.intp], depth_px: float) -> float:
    """Return the median grey of some rows under an edge, 0 where there is none."""
    if columns.size == 0:
        return 0.0
    steps = np.arange(_EDGE_ROWS, _EDGE_ROWS + max(2, round(depth_px)))
    rows = np.minimum(first[:, None] + steps, window.shape[0] - 1)
    return float(np.median(window[rows, columns[:, None]]))


def cap_height(image: NDArray[np.generic], pixel_m: float, planned_m: float) -> CapHeight | None:
    """Measure the cap's height in a picture square on the face that shows it whole, from the dark above it.

    Parameters
    ----------
    image : picture (y, x), its first rows above the cap
    pixel_m : distance of its rows on the face, metres
    planned_m : the height that was asked for, metres

    Returns None where the picture doesn't tell: no cap over half of its width, one that reaches its first row, heights
    too unlike each other.
    """
    from scipy import ndimage

    window = ndimage.gaussian_filter(image.astype(float), 0.7)
    columns, first = _upper_edge(window)
    grey = _grey_under(window, columns, first, 0.25 * planned_m / pixel_m)
    whole = first > 0
    columns, first = columns[whole], first[whole]
    if grey <= 0 or columns.size < _SEEN * image.shape[1]:
        return None
    rows = np.arange(window.shape[0])[:, None]
    ended = (rows >= first + _EDGE_ROWS) & (window[:, columns] < _STILL_CAP * grey)
    ends = ended.any(axis=0)
    if ends.sum() < _SEEN * image.shape[1]:
        return None
    heights = (ended.argmax(axis=0) - first)[ends] * pixel_m
    low, middle, high = (float(one) for one in np.quantile(heights, (0.25, 0.5, 0.75)))
    if middle < 3 * pixel_m or high - low > _ALIKE * middle:
        return None
    return CapHeight(middle, float(np.hypot(0.5 * pixel_m, 0.5 * (high - low))))


def _upper_edge(window: Float) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the columns that show something bright, and the first row of it in each."""
    bright = window > _BRIGHT * np.percentile(window, 95)
    columns = np.flatnonzero(bright.any(axis=0))
    return columns, bright.argmax(axis=0)[columns]
