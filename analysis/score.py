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


def boundary_f(labels: NDArray[np.uint8], reference: NDArray[np.uint8], tolerance_px: int = 2) -> float:
    """Return how well boundaries between phases agree, 0..1: the F-score of boundary pixels within a tolerance.

    Pixels where the reference is IGNORE, and their neighbours, are left out.
    """
    from scipy import ndimage

    known = ndimage.binary_erosion(reference != IGNORE, np.ones((3, 3)), border_value=1)
    found, wanted = (_edges(image) & known for image in (labels, reference))
    if not wanted.any() or not found.any():
        return float(not wanted.any() and not found.any())
    disk = ndimage.iterate_structure(ndimage.generate_binary_structure(2, 1), tolerance_px)
    precision = (found & ndimage.binary_dilation(wanted, disk)).sum() / found.sum()
    recall = (wanted & ndimage.binary_dilation(found, disk)).sum() / wanted.sum()
    return float(2 * precision * recall / max(1e-12, precision + recall))


def _edges(image: NDArray[np.uint8]) -> NDArray[np.bool_]:
    edges = np.zeros(image.shape, np.bool_)
    edges[:, 1:] |= image[:, 1:] != image[:, :-1]
    edges[1:] |= image[1:] != image[:-1]
    return edges


def mean_iou(counts: NDArray[np.int64]) -> float:
    """Return the mean of `iou` over the phases that the reference has, 0 when it has none."""
    values = list(iou(counts).values())
    return sum(values) / len(values) if values else 0.0
