"""Slice-to-slice registration: how far the picture moved from one slice to the next, and moving it back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

_UPSAMPLE = 20


def shift_between(
    reference: NDArray[np.generic], moved: NDArray[np.generic], *, upsample: int = _UPSAMPLE
) -> tuple[float, float]:
    """Return (dy, dx), pixels, by which the content of `moved` lies off that of `reference`; both (y, x), one shape.

    Phase correlation with a Hann window, to 1/`upsample` pixel. ValueError when the shapes differ.
    """
    from skimage.registration import phase_cross_correlation

    if reference.shape != moved.shape or reference.ndim != 2:
        msg = f"images to be registered have one shape (y, x); these are {reference.shape} and {moved.shape}"
        raise ValueError(msg)
    found = phase_cross_correlation(windowed(reference), windowed(moved), upsample_factor=upsample)
    shift = found[0]
    return -float(shift[0]), -float(shift[1])


def windowed(image: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return an image (y, x) about its mean, faded out towards its edges (Hann), for phase correlation."""
    grey = image.astype(np.float64)
    window = np.outer(np.hanning(grey.shape[0] + 2)[1:-1], np.hanning(grey.shape[1] + 2)[1:-1])
    result: NDArray[np.float64] = (grey - grey.mean()) * window
    return result


def shifts(images: Iterable[NDArray[np.generic]]) -> list[tuple[float, float]]:
    """Return (dy, dx), pixels, of every image against the first, added up from neighbour to neighbour.

    Neighbours are alike where the first and the last are not; the first image's own shift is (0, 0).
    """
    total = [0.0, 0.0]
    result: list[tuple[float, float]] = []
    before: NDArray[np.generic] | None = None
    for image in images:
        if before is not None:
            step = shift_between(before, image)
            total = [total[0] + step[0], total[1] + step[1]]
        result.append((total[0], total[1]))
        before = image
    return result


def moved(picture: NDArray[Any], shift_px: tuple[int, int], shape: tuple[int, int] | None = None) -> NDArray[Any]:
    """Return a picture (..., y, x) moved by whole pixels, onto `shape` or its own; what comes in from outside is 0."""
    across = picture.shape[-2:] if shape is None else shape
    return moved_onto(np.zeros((*picture.shape[:-2], *across), picture.dtype), picture, shift_px)


def moved_onto(out: NDArray[Any], picture: NDArray[Any], shift_px: tuple[int, int]) -> NDArray[Any]:
    """Lay a picture (..., y, x), moved by whole pixels, onto another, which is returned; the rest of it stays."""
    dy, dx = shift_px
    height, width = (min(sides) for sides in zip(out.shape[-2:], picture.shape[-2:], strict=True))
    y0, y1, x0, x1 = max(0, dy), min(height, height + dy), max(0, dx), min(width, width + dx)
    if y1 > y0 and x1 > x0:
        out[..., y0:y1, x0:x1] = picture[..., y0 - dy : y1 - dy, x0 - dx : x1 - dx]
    return out


def shifted_back(
    image: NDArray[np.generic], shift: tuple[float, float], *, labels: bool = False
) -> NDArray[np.generic]:
    """Return an image (y, x) moved back by its (dy, dx) shift, pixels; 0 where nothing is known.

    Labels keep their values (nearest pixel), greys are interpolated.
    """
    from scipy import ndimage

    back = (-shift[0], -shift[1])
    result: NDArray[np.generic] = ndimage.shift(image, back, order=0 if labels else 1, mode="constant", cval=0)
    return result
