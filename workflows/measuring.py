"""Numbers of a run from its folder: by its labels, or its labels against the simulator's truth."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from instrument.errors import Refused
from workflows.journal import Journal
from workflows.labelled import labels_of, labels_of_all, reliability, truth_of
from workflows.pairs import open_pores
from workflows.results import slices
from workflows.store import RunFolder


def measures(folder: RunFolder) -> dict[str, Any]:
    """Return what a run's labels say: fractions with sampling errors, height above the collector, slice spacing.

    `open_pores` says how right labels are about pores that stood open, by the planes before and after fills.

    Raises
    ------
    Refused
        When no slice has labels.
    """
    from analysis.heights import height_profile
    from analysis.measure import phase_fractions, spacing

    with Journal(folder.journal, read_only=True) as journal:
        rows = slices(folder, journal)
        open_before = open_pores(folder, journal)
    names = [row["name"] for row in rows if folder.label_path(row["name"]).exists()]
    if not names:
        msg = f"{folder.root} has no labelled slice to measure"
        raise Refused(msg, rule="labels", field="DIR", value=str(folder.root), remedy="run or resume it first")
    pixel = next(float(numbers["pixel_m"]) for row in rows if (numbers := folder.numbers(row["name"])) is not None)
    profile = height_profile(labels_of_all(folder, names), pixel)
    steps = spacing([row["z_m"] for row in rows], [row["z_sigma_m"] for row in rows], [row["name"] for row in rows])
    return {
        "slices": len(rows),
        "labelled": len(names),
        "fractions": phase_fractions(labels_of_all(folder, names), pixel).model_dump(mode="json"),
        "spacing": steps.model_dump(mode="json"),
        "height_profile": None if profile is None else profile.model_dump(mode="json"),
        "unfilled_share": {row["name"]: row["unfilled_share"] for row in rows},
        "open_pores": None if open_before is None else open_before.model_dump(mode="json"),
    }


def against_truth(folder: RunFolder) -> dict[str, Any]:
    """Return mean IoU and IoU per phase of all labelled slices against the truth that the simulator left.

    The best labels count, those of the second pass where there are any; `mean_iou_live` is that of those given live,
    `mean_iou_inner` leaves out the pixels beside a boundary, `calibration_error` says how honest the confidence is, and
    `reliability` how right labels are by how sure they are. The truth lies on each frame's own grid; z of the planes is
    compared as steps, for the ruler's zero is a convention.

    Raises
    ------
    Refused
        When the run has no truth: it was no simulation, or truth/ was deleted.
    """
    import tifffile

    from analysis.evaluate import at_boundary
    from analysis.phases import IGNORE, NAMES, Phase
    from analysis.reliability import calibration_error
    from analysis.score import confusion, iou, mean_iou

    with Journal(folder.journal, read_only=True) as journal:
        rows = slices(folder, journal)
    counts, inner, live = (np.zeros((5, 5), np.int64) for _ in range(3))
    fractions: dict[str, list[float]] = {NAMES[phase]: [] for phase in Phase if phase is not Phase.OUTSIDE}
    planes: list[tuple[float, float]] = []
    used = 0
    for row in rows:
        live_path = folder.labels / f"{row['name']}.tif"
        truth, labels = truth_of(folder, row["uid"]), labels_of(folder, row["name"])
        if truth is None or labels is None or not live_path.exists():
            continue
        counts += confusion(labels, truth)
        inner += confusion(labels, np.where(at_boundary(truth), np.uint8(IGNORE), truth))
        live += confusion(np.asarray(tifffile.imread(live_path), np.uint8), truth)
        inside = truth[(truth != Phase.OUTSIDE)]
        for phase in Phase:
            if phase is not Phase.OUTSIDE:
                fractions[NAMES[phase]].append(float((inside == phase).mean()) if inside.size else 0.0)
        about = json.loads((folder.truth / f"{row['uid']}.json").read_text(encoding="utf-8"))
        planes.append((row["z_m"], float(about["z_m"])))
        used += 1
    if not used:
        msg = (
            f"{folder.root} has no truth to hold its labels against ({folder.truth} is empty): only a virtual "
            "microscope leaves one"
        )
        raise Refused(msg, rule="truth", field="--truth", value=str(folder.truth), remedy="measure without --truth")
    curve = reliability(folder, rows)
    return {
        "mean_iou": mean_iou(counts),
        "mean_iou_live": mean_iou(live),
        "mean_iou_inner": mean_iou(inner),
        "iou": iou(counts),
        "calibration_error": calibration_error(curve),
        "reliability": [point.model_dump() for point in curve],
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
