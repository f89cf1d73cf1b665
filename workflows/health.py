"""Judges: before a slice, whether it may be cut; after it, whether its picture shows what it should."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from instrument.frame import Frame
from instrument.settings import State
from workflows import tracking
from workflows.policy import Action, action

#: A picture whose greys differ by less than this share of their range is blank.
LEAST_SPREAD = 0.02
#: More of a picture than this at black or white is clipped too far to mean a phase.
MOST_CLIPPED = 0.35
#: A picture whose last rows, this share of it, are all zero in all detectors has broken off.
LEAST_LOST = 0.05
#: What is to come may take this much more than forecast, and so many bytes are left for labels and report.
RESERVE, RESERVE_BYTES = 1.2, 200e6
#: A picture that lies farther beside the last one than this share of its size is told. Laid over each other pictures
#: are this much more alike than as they lie, or show no shift: cap, coating and foil are alike wherever they lie.
SHIFTED, MORE_ALIKE = 0.1, 0.3
#: A shift of that size is seen on every n-th pixel, so that no more than so many are left each way.
_SEEN_PX = 512
#: A plane farther than this share of the spacing from where it should be is told.
MOST_OFF = 0.5
#: A picture with less than this share of the detail that is usual is blurred; usual is the upper quartile of all before
#: (a focus that drifts slowly takes the median with it), and of no fewer than three. After so many in a row, each
#: focused anew, it is the sample that is like this.
BLURRED, LEAST_USUAL, ALL_LIKE_THIS = 0.78, 3, 3
#: A face that has come less than this share of its way was not cut. It is measured over a way of so many sigmas of the
#: ruler. Once, the next cuts make up for it; twice in a row, no further cut is worth its dose.
NOT_CUT, TOLD = 0.2, 4.0


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
    frame: Frame, before: Frame | None, *, off_m: float, spacing_m: float, come: tuple[float, float] = (1.0, 1.0)
) -> list[Finding]:
    """Return what is wrong with a slice's frame; what is wrong with a picture names its detector.

    Parameters
    ----------
    frame, before : the newest slice and the one before, None for the first
    off_m : measured minus wanted plane (m)
    spacing_m : between two images (m)
    come : share of its way that the face has come with this slice, and with the one before: see `ways_come`
    """
    found: list[Finding] = []
    top = np.iinfo(frame.pixels.dtype).max
    seen = list(zip(frame.meta.channels, frame.pixels, strict=True))
    blank = [name for name, picture in seen if int(picture.max()) - int(picture.min()) < LEAST_SPREAD * top]
    if blank:
        what = f"the picture of {' and '.join(blank)} is blank"
        found.append(_finding("blank", what, "look at beam, detector and blanking"))
        return found
    shares = {name: float(((picture == 0) | (picture == top)).mean()) for name, picture in seen}
    clipped = [f"{100 * share:.0f} % of {name}" for name, share in shares.items() if share > MOST_CLIPPED]
    if clipped:
        found.append(_finding("saturated", f"{' and '.join(clipped)} is clipped", "see contrast"))
    if before is not None and np.array_equal(before.pixels, frame.pixels):
        found.append(_finding("identical", "the picture is the last one again", "look at the scan and the image"))
    found += _shifted(frame, before) if before is not None else []
    if off_m < -0.8 * spacing_m and abs(come[0]) < NOT_CUT:  # no face goes back: such a plane was misread
        found.append(_not_cut(again=abs(come[1]) < NOT_CUT))
    if abs(off_m) > MOST_OFF * spacing_m:
        found.append(_finding("plane-off", f"the plane is {off_m * 1e9:+.0f} nm off", "the next cuts correct it"))
    return found


@dataclass
class Sharpness:
    """The detail of a run's pictures so far: tells one that is blurred, whose successor wants a focus of its own."""

    usual: list[float] = field(default_factory=list)
    in_a_row: int = 0

    def blurred(self, detail: float) -> bool:
        """Tell by its detail (`tracking.detail`) whether the newest picture is blurred."""
        return self._poor(detail) and self.in_a_row < ALL_LIKE_THIS

    def take(self, detail: float) -> None:
        """Take the newest picture's detail into account for those that follow."""
        if not self._poor(detail):
            self.usual.append(detail)
            self.in_a_row = 0
        elif self.in_a_row < ALL_LIKE_THIS:
            self.in_a_row += 1
        else:
            self.usual, self.in_a_row = [detail], 0

    def _poor(self, detail: float) -> bool:
        return len(self.usual) >= LEAST_USUAL and detail < BLURRED * float(np.quantile(self.usual, 0.75))


def whole(frame: Frame) -> bool:
    """Tell whether a picture shows all of its scan: one that broke off has nothing at all in its last rows."""
    rows = max(2, round(LEAST_LOST * frame.pixels.shape[1]))
    return bool((frame.pixels[:, -rows:] != 0).any())


def ways_come(seen: Sequence[tuple[float, float]], target: float, z: float, sigma: float) -> tuple[float, float]:
    """Return which share of its way the face has come with the newest slice, and with the one before; see `way_come`.

    Both have to be small for nothing to be milled: the first cuts after a fill take what is left of its film.
    """
    return way_come(seen, target, z, sigma), way_come(seen[:-1], *seen[-1], sigma) if seen else 1.0


def way_come(seen: Sequence[tuple[float, float]], target: float, z: float, sigma: float) -> float:
    """Return which share of its way the face has come; 1 where the ruler can't tell.

    Parameters
    ----------
    seen : target and measured z (m) of the planes before that the ruler has told, oldest first
    target, z, sigma : of the newest (m)
    """
    for target_then, z_then in reversed(seen):
        if target - target_then > TOLD * sigma:
            return (z - z_then) / (target - target_then)
    return 1.0


def _shifted(frame: Frame, before: Frame) -> list[Finding]:
    """Return how far a picture lies beside the last one, where that is far."""
    if before.pixels.shape != frame.pixels.shape:
        return []
    size = frame.pixels.shape[1:]
    every = -(-max(size) // _SEEN_PX)
    one, other = (picture.pixels[0, ::every, ::every] for picture in (before, frame))
    by = tracking.moved(one, other)
    share = max(abs(part) * every / length for part, length in zip(by, size, strict=True))
    if share < SHIFTED or tracking.alike_when_moved(one, other, by) < tracking.alike(one, other) + MORE_ALIKE:
        return []
    down, right = (part * every * frame.meta.pixel_x_m * 1e6 for part in by)
    what = f"the picture lies {right:+.1f} um in x and {down:+.1f} um in y beside the last one"
    return [_finding("shifted", what, "look at ruler and cap in its picture")]


def _not_cut(*, again: bool) -> Finding:
    if again:
        return _finding(
            "nothing-milled", "the face has not moved in two slices: nothing is milled", "look at the ion source"
        )
    return _finding("missed", "this is the last plane again: a cut took nothing", "the next cuts make up for it")


def _finding(symptom: str, what: str, remedy: str) -> Finding:
    return Finding(symptom, what, remedy, action(symptom))
