"""How right labels are by how sure they are: the reliability curve, and by how much it is off on average."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from analysis.phases import IGNORE

BINS = 15


class Reliability(BaseModel):
    """Of labels about as sure as each other: their mean confidence, how many are right, their share of all; 0..1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    confidence: float = Field(ge=0, le=1)
    right: float = Field(ge=0, le=1)
    share: float = Field(ge=0, le=1)


def reliability_of(
    labels: NDArray[np.uint8], confidence: NDArray[np.uint8], reference: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """Return how sure and how right labels are, (3, bins): pixels, sum of confidence, and right ones by confidence."""
    known = reference != IGNORE
    sure = confidence[known] / 255.0
    right = labels[known] == reference[known]
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    return np.stack([np.bincount(place, weight, BINS) for weight in (np.ones(sure.size), sure, right)])


def reliability_curve(sums: NDArray[np.float64]) -> tuple[Reliability, ...]:
    """Return the curve of `reliability_of`'s sums, a point for each bin that has pixels, the least sure first."""
    total = max(1.0, float(sums[0].sum()))
    found = [(sure / pixels, right / pixels, pixels / total) for pixels, sure, right in sums.T if pixels]
    return tuple(
        Reliability(confidence=round(sure, 4), right=round(right, 4), share=round(share, 6))
        for sure, right, share in found
    )


def calibration_error(curve: Iterable[Reliability]) -> float:
    """Return the expected calibration error, 0..1: by how much labels are less often right than said, or more often."""
    return sum(point.share * abs(point.confidence - point.right) for point in curve)
