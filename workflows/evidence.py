"""Labels as evidence: frames handed to the segmentation core, their numbers from its answers or from the run folder."""

from __future__ import annotations

from typing import Any

from instrument.frame import FrameRef
from workflows.follower import Follower
from workflows.store import RunFolder


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

    def submit(self, name: str, ref: FrameRef) -> None:
        """Hand a frame over; returns at once."""
        if name in self._handed or self._follower is None or self._folder.numbers(name) is not None:
            return
        self._handed.add(name)
        self._follower.submit(name, self._folder.root / ref.name, self._fillable_m)

    def numbers(self, name: str, *, wait: bool = True) -> dict[str, Any] | None:
        """Return a frame's numbers; waits at most three times the core's own estimate, or a minute (DESIGN 2)."""
        found = self._folder.numbers(name)
        if found is not None or self._follower is None or name not in self._handed:
            return found
        if wait:
            self._follower.wait([name], self._follower.patience_s())
        return self._folder.numbers(name)
