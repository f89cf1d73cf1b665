"""What is measured on pictures: a cross, a shift between two of them, sharpness, streaks."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.signal import fftconvolve

Picture = NDArray[np.floating[Any]]

#: Arms of the cross that is looked for: half their length and half their width, metres.
_ARM_M, _HALF_M = 0.75e-6, 0.12e-6


def cross_at(picture: Picture, pixel: float) -> tuple[float, float]:
    """Return where a dark cross lies, metres right of and below the picture's middle."""
    reach = int(_ARM_M / pixel)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1] * pixel
    template = -(np.minimum(np.abs(x - y), np.abs(x + y)) / np.sqrt(2) < _HALF_M).astype(float)
    score = fftconvolve(picture - picture.mean(), (template - template.mean())[::-1, ::-1], mode="same")
    row, column = np.unravel_index(int(np.argmax(score)), score.shape)
    height, width = picture.shape
    return float(column - (width - 1) / 2) * pixel, float(row - (height - 1) / 2) * pixel


def cross_depth(picture: Picture, pixel: float) -> float:
    """Return how much darker a cross in the middle is than what is beside it, greys."""
    height, width = picture.shape
    y, x = (np.mgrid[:height, :width] - np.array([(height - 1) / 2, (width - 1) / 2])[:, None, None]) * pixel
    arms = np.minimum(np.abs(x - y), np.abs(x + y)) / np.sqrt(2)
    near = np.hypot(x, y) < _ARM_M
    return float(np.median(picture[near & (arms > 3 * _HALF_M)]) - picture[near & (arms < _HALF_M / 2)].mean())


def shift(one: Picture, other: Picture, pixel: float) -> tuple[float, float]:
    """Return how far (x, y) the second picture's content lies from the first one's, metres, to a tenth of a pixel."""
    spectra = [np.fft.rfft2(ndimage.gaussian_filter(p, 1.5) - ndimage.gaussian_filter(p, 8.0)) for p in (one, other)]
    peak = np.fft.fftshift(np.fft.irfft2(spectra[1] * np.conj(spectra[0]), s=one.shape))
    row, column = np.unravel_index(int(peak.argmax()), peak.shape)
    y, x = float(row), float(column)
    if 0 < row < peak.shape[0] - 1 and 0 < column < peak.shape[1] - 1:
        y += _vertex(peak[row - 1 : row + 2, column])
        x += _vertex(peak[row, column - 1 : column + 2])
    return (x - one.shape[1] // 2) * pixel, (y - one.shape[0] // 2) * pixel


def _vertex(three: NDArray[np.floating[Any]]) -> float:
    curve = three[0] - 2 * three[1] + three[2]
    return float(0.5 * (three[0] - three[2]) / curve) if curve < 0 else 0.0


def detail(picture: Picture) -> float:
    """Return how much there is at the scale of one to three pixels, greys."""
    soft = ndimage.gaussian_filter(picture, 1.0)
    return float((soft - ndimage.gaussian_filter(picture, 3.0)).std())


def mode(greys: NDArray[np.floating[Any]]) -> float:
    """Return the histogram's peak of 8-bit greys."""
    counts = np.bincount(np.clip(np.rint(greys), 0, 255).astype(int), minlength=256).astype(float)
    return float(np.argmax(ndimage.gaussian_filter1d(counts, 2.0, mode="nearest")))
