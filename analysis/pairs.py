"""The same plane before and after a fill: what platinum shows then is the truth about pores that stood open before.

An open pore shows its back, which may look just like binder. Once it is filled there is no doubt about it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from scipy import ndimage

from analysis.align import moved_onto, shift_between
from analysis.phases import IGNORE, NAMES, Phase

#: Labels of the picture after the fill with this confidence or more are believed, at least this far (px) from any
#: boundary, and as far as the planes lie apart, for boundaries run aslant.
_SURE, _LEAST_INSIDE_PX = 0.9, 2
#: Active material covers at least this much of what it covers in either picture: else they show two planes.
_SAME_PLANE = 0.6
#: Platinum is brighter than this part of the active material.
_BRIGHTER = 0.95


@dataclass(frozen=True)
class Side:
    """One picture of a pair: greys of one detector, phases, their confidence (0..255), all (y, x)."""

    grey: NDArray[np.float32]
    labels: NDArray[np.uint8]
    confidence: NDArray[np.uint8]
    pixel_m: float

    @classmethod
    def of(
        cls,
        channels: Mapping[str, NDArray[np.float32]],
        labels: NDArray[np.uint8],
        confidence: NDArray[np.uint8],
        pixel_m: float,
    ) -> Side:
        """Take the greys of CBS, which shows platinum best, or of the first detector there is."""
        return cls(channels.get("CBS", next(iter(channels.values()))), labels, confidence, pixel_m)


class OpenPores(BaseModel):
    """How right labels are about pores that stood open, by pictures of the same planes after they were filled.

    Parameters
    ----------
    pairs : planes that were compared
    pixels : of pores that were open before the fill and hold platinum after it, beyond doubt
    missed : share of them that the picture before the fill is labelled otherwise, 0 where there are none
    taken_for : that share by what they are labelled
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: int = Field(ge=0)
    pixels: int = Field(ge=0)
    missed: float = Field(ge=0, le=1)
    taken_for: dict[str, float]

    @classmethod
    def of(cls, counts: Sequence[NDArray[np.int64]]) -> OpenPores:
        """Add up what `open_pores` counted of each pair."""
        total = np.sum(counts, axis=0) if counts else np.zeros(len(Phase), np.int64)
        pixels = int(total.sum())
        shares = {NAMES[phase]: int(total[phase]) / max(1, pixels) for phase in Phase if phase is not Phase.PORE}
        return cls(pairs=len(counts), pixels=pixels, missed=sum(shares.values()), taken_for=shares)


def known_before(before: Side, after: Side, apart_m: float | None = None) -> NDArray[np.uint8] | None:
    """Return what the picture after a fill tells about the one before: label codes on its pixels, 255 where it doesn't.

    Told are pores that platinum has filled, and the solid phases where both pictures say so. `apart_m` is how far the
    planes lie apart (m). None where the two don't show one plane.
    """
    if before.labels.shape != after.labels.shape:
        return None
    solid = [(side.labels == Phase.ACTIVE).astype(np.float32) for side in (before, after)]
    if not all(mask.any() for mask in solid):
        return None
    off = shift_between(solid[0], solid[1], upsample=1)
    back = (-round(off[0]), -round(off[1]))
    nothing = np.full(before.labels.shape, IGNORE, np.uint8)
    labels = moved_onto(nothing.copy(), after.labels, back)
    both = (labels != IGNORE) & ((before.labels == Phase.ACTIVE) | (labels == Phase.ACTIVE))
    if ((before.labels == Phase.ACTIVE) & (labels == Phase.ACTIVE)).sum() < _SAME_PLANE * both.sum():
        return None
    sure = after.confidence >= 255 * _SURE
    bright = _is_platinum(after)
    sure &= np.where(after.labels == Phase.PORE, bright, after.labels != Phase.OUTSIDE)
    inside = max(_LEAST_INSIDE_PX, math.ceil(abs(apart_m or 0.0) / before.pixel_m))
    wide = 2 * inside + 1
    sure &= ndimage.maximum_filter(after.labels, wide) == ndimage.minimum_filter(after.labels, wide)
    known = moved_onto(nothing, np.where(sure, after.labels, np.uint8(IGNORE)), back)
    known[(known != Phase.PORE) & (known != before.labels)] = IGNORE
    return known


def open_pores(before: Side, known: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return how often each phase is the label, (5,), where a pore stood open before its fill, by `known_before`."""
    was_open = (known == Phase.PORE) & ~_is_platinum(before)
    return np.bincount(before.labels[was_open], minlength=len(Phase))


def _is_platinum(side: Side) -> NDArray[np.bool_]:
    """Tell where a picture is brighter than active material is, (y, x); noise is averaged over 3 x 3 pixels."""
    grey = ndimage.uniform_filter(side.grey, 3)
    active = grey[side.labels == Phase.ACTIVE]
    limit = float(np.quantile(active[:: max(1, active.size // 100_000)], _BRIGHTER)) if active.size else 1.0
    found: NDArray[np.bool_] = grey > limit
    return found
