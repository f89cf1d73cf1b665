"""Labels of a run's frames as arrays, and the simulator's truth beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from workflows.store import RunFolder

if TYPE_CHECKING:
    from analysis.reliability import Reliability

Labels = NDArray[np.uint8]


def labels_of(folder: RunFolder, name: str) -> Labels | None:
    """Return a frame's phases, uint8 (y, x), None where it has none."""
    import tifffile

    path = folder.label_path(name)
    return np.asarray(tifffile.imread(path), np.uint8) if path.exists() else None


def labels_of_all(folder: RunFolder, names: Iterable[str]) -> Iterator[Labels]:
    """Yield the phases of those frames that have any, uint8 (y, x), one read at a time: all are gigabytes."""
    for name in names:
        if (found := labels_of(folder, name)) is not None:
            yield found


def confidence_of(folder: RunFolder, name: str) -> Labels | None:
    """Return how sure a frame's phases are, uint8 (y, x), 255 is certain; None where nothing says so."""
    import tifffile

    path = folder.label_path(name).with_name(f"{name}-confidence.tif")
    return np.asarray(tifffile.imread(path), np.uint8) if path.exists() else None


def truth_of(folder: RunFolder, uid: str) -> Labels | None:
    """Return the simulator's phases of a frame, uint8 (y, x), None where there is no truth."""
    import tifffile

    from analysis.phases import merged

    path = folder.truth / f"{uid}.tif"
    return merged(np.asarray(tifffile.imread(path), np.uint8)) if path.exists() else None


def reliability(folder: RunFolder, rows: Iterable[dict[str, Any]]) -> tuple[Reliability, ...]:
    """Return how right labels are by how sure they are, of those slices whose truth the simulator left."""
    from analysis.reliability import BINS, reliability_curve, reliability_of

    total = np.zeros((3, BINS))
    for row in rows:
        truth = truth_of(folder, row["uid"])
        labels, sure = labels_of(folder, row["name"]), confidence_of(folder, row["name"])
        if truth is not None and labels is not None and sure is not None:
            total += reliability_of(labels, sure, truth)
    return reliability_curve(total)
