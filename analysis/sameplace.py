"""Whether detectors show the same place: a picture of another slice, mirrored, or far off, is believed by no network.

A phase may be bright to one detector and dark to another, but its edges lie in the same places: how steep greys are is
correlated, on coarse pixels, at all displacements. Pictures of one place correlate best where they lie, and clearly;
pictures of two places don't, or elsewhere. What has little structure, as a face under platinum film, or noise alone,
tells nothing and is taken to be of one place. A detector that lies a few pixels off is laid over the other one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.float32]

#: Coarse pixels along the edge of a square image, pixels of the image that are looked at for each of them along it, and
#: the smoothing (sigma) before steepness is told, pixels.
_EDGE, _LOOKED_AT, _SMOOTH = 160, 4, 1.5
#: A smaller image (coarse pixels) tells nothing.
_LEAST_EDGE = 24
#: Coarse pixels by which detectors of one place may be misregistered.
_NEAR = 1
#: Detectors that show one place correlate by 0.57 or more where they lie (simulated), those of two by 0.25 or less.
_ALIKE = 0.3
#: Correlations are by chance as large as those at other displacements: so many of their deviations are no chance.
_NO_CHANCE = 5.0
#: With structure, correlations at other displacements deviate by more than this; noise has many independent pixels.
_STRUCTURE = 0.03
#: A picture that was moved correlates by so much, and by so much better than where it lies.
_SURE, _BETTER = 0.5, 0.08
#: Patches of the image along each of its sides, and their edge, that tell how far a detector lies off (pixels).
_PATCHES, _PATCH = 3, 128
#: A detector lies off by so many pixels at most; one alone is less than the steepness of two detectors can tell.
_REACH, _LEAST = 8, 2
#: Where it lies off, the patches correlate by so much, by so much better than where it lies, and not by chance.
#: Of 240 simulated pictures moved at random, with noise and without, none that passes this was told wrong by over 1 px.
_SHARP, _SHARPER = 0.3, 0.03


def laid_over(images: Mapping[str, Grey]) -> tuple[dict[str, Grey], dict[str, tuple[int, int]]]:
    """Return the images, laid over the first one, and by how many pixels (y, x) the others lay off, where they did.

    images : greys (y, x) of one shape, by detector; what comes in from beyond an edge is as the edge is
    """
    laid = dict(images)
    if len(laid) < 2:
        return laid, {}
    first, *others = images
    off = {name: shift for name in others if max(map(abs, shift := _off(images[first], images[name]))) >= _LEAST}
    return laid | {name: _moved_back(images[name], shift) for name, shift in off.items()}, off


def _moved_back(image: Grey, shift: tuple[int, int]) -> Grey:
    rows, columns = (
        np.clip(np.arange(size) + step, 0, size - 1) for size, step in zip(image.shape, shift, strict=True)
    )
    return image[np.ix_(rows, columns)]


def _off(first: Grey, other: Grey) -> tuple[int, int]:
    """Return by how many pixels (y, x) an image lies off the first one; (0, 0) where that can't be told."""
    from scipy import fft

    if min(first.shape) < _PATCH:
        return 0, 0
    correlation = np.zeros((_PATCH, _PATCH), np.float32)
    powers = np.zeros(2)
    window = np.outer(np.hanning(_PATCH), np.hanning(_PATCH)).astype(np.float32)
    for patch in _patches(first.shape):
        one, two = (window * _steepness(image[patch]) for image in (first, other))
        correlation += fft.irfft2(fft.rfft2(two) * np.conj(fft.rfft2(one)), one.shape)
        powers += (one**2).sum(), (two**2).sum()
    correlation /= max(1e-12, math.sqrt(powers.prod()))
    steps = np.arange(-_REACH, _REACH + 1)
    near = correlation[np.ix_(steps, steps)]
    y, x = np.unravel_index(near.argmax(), near.shape)
    best = float(near[y, x])
    sure = best > max(_SHARP, float(near[_REACH, _REACH]) + _SHARPER, _NO_CHANCE * float(correlation.std()))
    return (int(steps[y]), int(steps[x])) if sure else (0, 0)


def _patches(shape: tuple[int, ...]) -> Iterator[tuple[slice, slice]]:
    """Yield where the patches lie that are looked at, spread over an image (y, x)."""
    rows, columns = (np.linspace(0, size - _PATCH, _PATCHES).round().astype(int) for size in shape)
    for top in rows:
        for left in columns:
            yield slice(top, top + _PATCH), slice(left, left + _PATCH)


def agreeing(images: Mapping[str, Grey]) -> tuple[dict[str, Grey], tuple[str, ...]]:
    """Return the images that show the place which the first one shows, and the names of the others.

    images : greys (y, x) of one shape, by detector
    """
    names = list(images)
    if len(names) < 2:
        return dict(images), ()
    first, *others = (_edges(image) for image in images.values())
    elsewhere = tuple(name for name, one in zip(names[1:], others, strict=True) if not _same_place(first, one))
    return {name: image for name, image in images.items() if name not in elsewhere}, elsewhere


def _edges(image: Grey) -> Grey:
    """Return how steep the greys of an image are, about their mean and of unit norm, on coarse pixels."""
    from PIL import Image

    edge = math.sqrt(image.size) / _EDGE
    step = max(1, round(edge / _LOOKED_AT))
    factor = max(1, round(edge / step))
    coarse = np.asarray(Image.fromarray(np.ascontiguousarray(image[::step, ::step])).reduce(factor))
    steep = _steepness(coarse)
    found: Grey = steep / max(1e-12, float(np.linalg.norm(steep)))
    return found


def _steepness(image: Grey) -> Grey:
    """Return how steep the greys of an image are, about their mean; the steepest ones don't decide alone."""
    from scipy import ndimage

    steep: Grey = ndimage.gaussian_gradient_magnitude(image, _SMOOTH)
    steep = np.minimum(steep, np.percentile(steep, 95))
    steep -= steep.mean()
    return steep


def _same_place(one: Grey, other: Grey) -> bool:
    from scipy import fft

    if min(one.shape) < _LEAST_EDGE:
        return True
    correlation = fft.irfft2(fft.rfft2(one) * np.conj(fft.rfft2(other)), one.shape)
    chance = float(correlation.std())
    near = np.ix_(*(np.arange(-_NEAR, _NEAR + 1) for _ in one.shape))
    here = float(correlation[near].max())
    correlation[near] = -1.0
    away = float(correlation.max())
    unlike = chance > _STRUCTURE and here < min(_ALIKE, _NO_CHANCE * chance)
    moved = away > max(_SURE, here + _BETTER)
    return not (unlike or moved)
