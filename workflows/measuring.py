"""Numbers of a run from its folder: by its labels, or its labels against the simulator's truth."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from instrument.errors import Refused
from workflows.journal import Journal
from workflows.results import slices
from workflows.store import RunFolder


def against_truth(folder: RunFolder) -> dict[str, Any]:
    """Return mean IoU and IoU per phase of all labelled slices against the truth that the simulator left.

    The truth lies on each frame's own grid; z of the planes is compared as steps, for the ruler's zero is a convention.

    Raises
    ------
    Refused
        When the run has no truth: it was no simulation, or truth/ was deleted.
    """
    import tifffile

    from analysis.phases import NAMES, Phase, merged
    from analysis.score import confusion, iou, mean_iou

    with Journal(folder.journal, read_only=True) as journal:
        rows = slices(folder, journal)
    counts = np.zeros((5, 5), np.int64)
    fractions: dict[str, list[float]] = {NAMES[phase]: [] for phase in Phase if phase is not Phase.OUTSIDE}
    planes: list[tuple[float, float]] = []
    used = 0
    for row in rows:
        truth_path = folder.truth / f"{row['uid']}.tif"
        labels_path = folder.labels / f"{row['name']}.tif"
        if not truth_path.exists() or not labels_path.exists():
            continue
        truth = merged(np.asarray(tifffile.imread(truth_path), np.uint8))
        counts += confusion(np.asarray(tifffile.imread(labels_path), np.uint8), truth)
        inside = truth[(truth != Phase.OUTSIDE)]
        for phase in Phase:
            if phase is not Phase.OUTSIDE:
                fractions[NAMES[phase]].append(float((inside == phase).mean()) if inside.size else 0.0)
        about = json.loads(truth_path.with_suffix(".json").read_text(encoding="utf-8"))
        planes.append((row["z_m"], float(about["z_m"])))
        used += 1
    if not used:
        msg = (
            f"{folder.root} has no truth to hold its labels against ({folder.truth} is empty): only a virtual "
            "microscope leaves one"
        )
        raise Refused(msg, rule="truth", field="--truth", value=str(folder.truth), remedy="measure without --truth")
    return {
        "mean_iou": mean_iou(counts),
        "iou": iou(counts),
        "slices": used,
        "pixels": int(counts.sum()),
        "accuracy": float(np.trace(counts) / counts.sum()),
        "truth_fractions": {name: float(np.mean(values)) for name, values in fractions.items()},
        "step_error_sd_m": _step_error(planes),
    }


def _step_error(planes: list[tuple[float, float]]) -> float | None:
    """Return the standard deviation (m) of measured minus true thickness between neighbouring planes."""
    if len(planes) < 3:
        return None
    measured, true = (np.diff([plane[side] for plane in planes]) for side in (0, 1))
    return float(np.std(measured - true))
