"""Whether detectors show the same place: a picture of another slice, mirrored, or moved, is believed by no network.

A phase may be bright to one detector and dark to another, but its edges lie in the same places: how steep greys are is
correlated, on coarse pixels, at all displacements. Pictures of one place correlate best where they lie, and clearly;
pictures of two places don't, or elsewhere. What has little structure, as a face under platinum film, or noise alone,
tells nothing and is taken to be of one place.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Grey = NDArray[np.float32]

#: Coarse pixels along the edge of a square image, pixels of the image that are looked at for each of them along it, and
#: the smoothing (sigma, coarse pixels).
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
    from scipy import ndimage

    edge = math.sqrt(image.size) / _EDGE
    step = max(1, round(edge / _LOOKED_AT))
    factor = max(1, round(edge / step))
    coarse = np.asarray(Image.fromarray(np.ascontiguousarray(image[::step, ::step])).reduce(factor))
    steep = ndimage.gaussian_gradient_magnitude(coarse, _SMOOTH)
    steep = np.minimum(steep, np.percentile(steep, 95))
    steep -= steep.mean()
    found: Grey = steep / max(1e-12, float(np.linalg.norm(steep)))
    return found


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
