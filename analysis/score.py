"""How well labels agree with a reference: confusion, intersection over union."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analysis.phases import IGNORE, NAMES, Phase

_COUNT = len(Phase)
SCORED: tuple[Phase, ...] = (Phase.PORE, Phase.CBD, Phase.ACTIVE, Phase.COLLECTOR)


def confusion(labels: NDArray[np.uint8], reference: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return pixel counts (5, 5), [reference, label], of phases; pixels where the reference is IGNORE are left out.

    ValueError when the shapes differ.
    """
    if labels.shape != reference.shape:
        msg = f"labels {labels.shape} and reference {reference.shape} differ in shape"
        raise ValueError(msg)
    known = reference != IGNORE
    index = reference[known].astype(np.int64) * _COUNT + labels[known]
    return np.bincount(index, minlength=_COUNT * _COUNT).reshape(_COUNT, _COUNT)


def iou(counts: NDArray[np.int64]) -> dict[str, float]:
    """Return the intersection over union of pore, cbd, active, collector that the reference has, by name."""
    result: dict[str, float] = {}
    for phase in SCORED:
        union = counts[phase].sum() + counts[:, phase].sum() - counts[phase, phase]
        if counts[phase].sum():
            result[NAMES[phase]] = float(counts[phase, phase] / union)
    return result


def mean_iou(counts: NDArray[np.int64]) -> float:
    """Return the mean of `iou` over the phases that the reference has, 0 when it has none."""
    values = list(iou(counts).values())
    return sum(values) / len(values) if values else 0.0
