"""Lays the slice before or after over a slice, for a network that looks at both."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from analysis.align import moved_onto, shift_between
from analysis.ometiff import Slice

if TYPE_CHECKING:
    from analysis.network import Channels

#: Shifts are measured on about so many pixels; one of more than this share of the picture is no drift but a mistake.
_PIXELS, _FARTHEST = 1_000_000, 0.1
#: Edge (pixels) of what a mean is taken of, against noise, before slices are compared; the least correlation of
#: neighbours: simulated ones up to 150 nm apart have 0.93 and more, other places of one electrode 0.71 and less.
_MEAN_PX, _ALIKE = 4, 0.8


def laid_over(this: Slice, beside: Slice) -> Channels | None:
    """Return the greys of a slice beside `this` one, moved onto its pixels; None where they can't be laid over it.

    Slices of another size or pixel, without a common detector, or moved by more than a tenth of the picture, can't.
    """
    from analysis.network import ALONE, detector_of

    first = next(iter(this.channels.values()))
    common = [name for name in this.channels if name in beside.channels and detector_of(name) is not None]
    if not any(detector_of(name) in ALONE for name in common):
        return None
    if not math.isclose(this.pixel_m, beside.pixel_m, rel_tol=1e-3):
        return None
    if any(image.shape != first.shape for image in beside.channels.values()):
        return None
    stride = max(1, math.ceil(math.sqrt(first.size / _PIXELS)))
    coarse = (slice(None, None, stride), slice(None, None, stride))
    off = shift_between(this.channels[common[0]][coarse], beside.channels[common[0]][coarse], upsample=2)
    back = (-round(stride * off[0]), -round(stride * off[1]))
    if max(abs(back[0]) / first.shape[0], abs(back[1]) / first.shape[1]) > _FARTHEST:
        return None
    if back == (0, 0):
        return {name: beside.channels[name] for name in common}
    # where the neighbour shows nothing this slice stands in for it
    return {name: moved_onto(this.channels[name].copy(), beside.channels[name], back) for name in common}


def alike(this: Channels, beside: Channels) -> bool:
    """Tell whether slices that were laid over each other show one place: images that just have numbers in turn may not.

    A face just filled doesn't count as alike to the one before either: its pores were others.
    """
    from analysis.network import ALONE, detector_of

    name = next(name for name in beside if detector_of(name) in ALONE)
    greys = []
    for image in (this[name], beside[name]):
        height, width = (size // _MEAN_PX for size in image.shape)
        cut = image[: height * _MEAN_PX, : width * _MEAN_PX]
        mean = cut.reshape(height, _MEAN_PX, width, _MEAN_PX).mean(axis=(1, 3))
        greys.append(mean - mean.mean())
    a, b = greys
    scale = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
    return scale > 0.0 and float((a * b).sum()) / scale > _ALIKE
