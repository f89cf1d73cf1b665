"""Labels as evidence: frames handed to the segmentation core, their numbers from its answers or from the run folder."""

from __future__ import annotations

from typing import Any

from instrument.frame import FrameRef
from workflows.follower import Follower
from workflows.store import RunFolder


def unfamiliar(numbers: dict[str, Any]) -> bool:
    """Tell whether labels are no evidence: their image is unlike all that the network knows, or of two places."""
    from analysis.core import UNFAMILIAR

    return float(numbers.get("novelty") or 0.0) > UNFAMILIAR or bool(of_two_places(numbers))


def of_two_places(numbers: dict[str, Any]) -> list[str]:
    """Return the detectors of a slice that showed another place than its first one: either may be the wrong one."""
    return [name for name in numbers.get("elsewhere") or () if not name.startswith(("before ", "after "))]


class Labels:
    """What the core says about frames; what lies in the folder already is not asked for again.

    Parameters
    ----------
    folder : where frames and labels lie
    follower : the core's process; None: no labels will come
    fillable_m : width (m) below which a pore counts as one that platinum could fill
    """

    def __init__(self, folder: RunFolder, follower: Follower | None, fillable_m: float) -> None:
        self._folder = folder
        self._follower = follower
        self._fillable_m = fillable_m
        self._handed: set[str] = set()

    def submit(self, name: str, ref: FrameRef, before: FrameRef | None = None) -> None:
        """Hand a frame over, with the slice before it where that may help; returns at once."""
        if name in self._handed or self._follower is None or self._folder.numbers(name) is not None:
            return
        self._handed.add(name)
        earlier = None if before is None else self._folder.root / before.name
        self._follower.submit(name, self._folder.root / ref.name, self._fillable_m, before=earlier)

    def finish(self, name: str, ref: FrameRef, before: FrameRef | None, after: FrameRef | None) -> None:
        """Ask for a slice's final labels, by the slices on both sides; nothing where they are there already."""
        if self._follower is None or (before is None and after is None):
            return
        beside = [place for place, one in (("before", before), ("after", after)) if one is not None]
        for made in (self._folder.final_numbers(name), self._folder.numbers(name)):
            known = made is not None and made["frame_sha256"] == ref.sha256
            if made is not None and known and set(beside) <= set(made.get("beside", ())):
                return
        earlier, later = (None if one is None else self._folder.root / one.name for one in (before, after))
        path = self._folder.root / ref.name
        self._follower.submit(name, path, self._fillable_m, before=earlier, after=later, final=True)

    def numbers(self, name: str, *, wait: bool = True) -> dict[str, Any] | None:
        """Return a frame's numbers; waits at most three times the core's own estimate, or a minute (DESIGN 2)."""
        found = self._folder.numbers(name)
        if found is not None or self._follower is None or name not in self._handed:
            return found
        if wait:
            self._follower.wait([name], self._follower.patience_s())
        return self._folder.numbers(name)
