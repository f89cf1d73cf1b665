"""Judges: before a slice, whether it may be cut; after it, whether its picture shows what it should."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from instrument.frame import Frame
from instrument.settings import State
from workflows.policy import Action, action
from workflows.tracking import SAME_PLANE, alike

#: More of a picture than this at black or white is clipped too far to mean a phase.
MOST_CLIPPED = 0.35
#: A picture whose last rows, this share of it, are all zero in all detectors has broken off.
LEAST_LOST = 0.05
#: What is to come may take this much more than forecast, and so many bytes are left for labels and report.
RESERVE, RESERVE_BYTES = 1.2, 200e6
#: A plane farther than this share of the spacing from where it should be is told.
MOST_OFF = 0.5
#: A face that has come less than this share of its way was not cut. It is measured over a way of so many sigmas of the
#: ruler. Once, the next cuts make up for it; more than so many spacings behind, no further cut is worth its dose.
NOT_CUT, TOLD, BEHIND = 0.2, 4.0, 1.6


@dataclass(frozen=True)
class Finding:
    """Something about a frame: symptom, in words, what to do, and what the policy says."""

    symptom: str
    what: str
    remedy: str
    action: Action


def gate(state: State, *, free_bytes: int, needed_bytes: float) -> list[Finding]:
    """Return what keeps the next slice from being cut.

    Parameters
    ----------
    state : of the instrument
    free_bytes, needed_bytes : what the disk has free, and what all that is still to come will take
    """
    found = []
    if free_bytes < needed_bytes * RESERVE + RESERVE_BYTES:
        what = f"{free_bytes / 1e9:.2f} GB are free and what is to come takes {needed_bytes / 1e9:.2f} GB and a reserve"
        found.append(_finding("disk-short", what, "make room on the run folder's disk, then `kintsugi resume`"))
    if not state.stage_homed:
        found.append(
            _finding("not-homed", "the stage has lost its reference", "home it with nothing under the pole piece")
        )
    return found


def judge(
    frame: Frame, before: Frame | None, *, off_m: float, spacing_m: float, come: float | None = None
) -> list[Finding]:
    """Return what is wrong with a slice's frame.

    Parameters
    ----------
    frame, before : the newest slice and the one before, None for the first
    off_m : measured minus wanted plane (m)
    spacing_m : between two images (m)
    come : share of its way that the face has come, as measured; None where only pictures tell
    """
    found: list[Finding] = []
    first = frame.pixels[0]
    top = np.iinfo(first.dtype).max
    if int(first.max()) - int(first.min()) < 0.02 * top:
        found.append(_finding("blank", "the picture is blank", "look at beam, detector and blanking"))
        return found
    clipped = float(((first == 0) | (first == top)).mean())
    if clipped > MOST_CLIPPED:
        found.append(_finding("saturated", f"{100 * clipped:.0f} % of the picture is clipped", "see contrast"))
    if before is not None and before.pixels.shape == frame.pixels.shape:
        if np.array_equal(before.pixels, frame.pixels):
            found.append(_finding("identical", "the picture is the last one again", "look at the scan and the image"))
        elif off_m < -0.8 * spacing_m and _stands(before, frame, come):
            found.append(_not_cut(again=off_m < -BEHIND * spacing_m))
    if abs(off_m) > MOST_OFF * spacing_m:
        found.append(_finding("plane-off", f"the plane is {off_m * 1e9:+.0f} nm off", "the next cuts correct it"))
    return found


def whole(frame: Frame) -> bool:
    """Tell whether a picture shows all of its scan: one that broke off has nothing at all in its last rows."""
    rows = max(2, round(LEAST_LOST * frame.pixels.shape[1]))
    return bool((frame.pixels[:, -rows:] != 0).any())


def way_come(seen: Sequence[tuple[float, float]], target: float, z: float, sigma: float) -> float:
    """Return which share of its way the face has come, 1 where the ruler is too coarse to tell.

    Parameters
    ----------
    seen : target and measured z (m) of the planes before that the ruler has told, oldest first
    target, z, sigma : of the newest (m)
    """
    for target_then, z_then in reversed(seen):
        if target - target_then > TOLD * sigma:
            return (z - z_then) / (target - target_then)
    return 1.0


def _stands(before: Frame, frame: Frame, come: float | None) -> bool:
    """Tell whether the face stands where it stood: by the ruler, else by pictures that are clean enough to tell."""
    if come is not None:
        return abs(come) < NOT_CUT  # no face goes back: such a plane was misread
    return alike(before.pixels[0], frame.pixels[0]) > SAME_PLANE


def _not_cut(*, again: bool) -> Finding:
    if again:
        return _finding(
            "nothing-milled", "the face has not moved in two slices: nothing is milled", "look at the ion source"
        )
    return _finding("missed", "this is the last plane again: a cut took nothing", "the next cuts make up for it")


def _finding(symptom: str, what: str, remedy: str) -> Finding:
    return Finding(symptom, what, remedy, action(symptom))
