"""Takes an instrument back from whoever had it in hand since a run left it: changes are adopted, or restored."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from instrument.errors import BadData
from instrument.frame import Frame, FrameRef
from instrument.microscope import Microscope
from instrument.settings import Setup, State
from workflows.handover import Change, Choice, a_hand, changes, focus_by_hand, ion_focus_by_hand, restore
from workflows.journal import Act, Journal

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Left:
    """How a run left its instrument, and what tells, from that and how it stands now, what was changed."""

    state: State
    differing: Callable[[State, State], list[Change]]


def how_left(journal: Journal, load: Callable[[FrameRef], Frame]) -> Left | None:
    """Return how a run left its instrument before it goes on, None where nothing says so.

    Parameters
    ----------
    journal, load : of the run; loads a frame of it, BadData where it is missing
    """
    begun = [event.seq for event in journal.events(kind="state") if event.data["to"] == "running"]
    left = journal.events(begun[-1], kind="left") if begun else []
    if left:
        return Left(State.model_validate(left[-1].data), changes)
    # it ended and could not say how it left: what no act sets stands in its newest picture, or was adopted since
    newest = _newest(_looks(journal))
    taken = [event.data for event in journal.events(kind="taken back") if "adopted" in event.data]
    if taken and taken[-1]["picture"] == ("" if newest is None else newest.key):
        return Left(State.model_validate(taken[-1]["adopted"]), a_hand)
    if newest is None:
        return None
    try:
        return Left(load(FrameRef.model_validate(newest.result)).meta.state, a_hand)
    except BadData:
        return None


def take_back(left: Left, journal: Journal, instrument: Microscope, choose: Callable[[list[Change]], Choice]) -> None:
    """See what somebody has changed since the run left the instrument, and adopt or restore it, as `choose` says."""
    now = instrument.state()
    found = left.differing(left.state, now)
    if not found:
        return
    choice = choose(found)
    log.warning("changed since the run left it, %s: %s", choice, "; ".join(map(str, found)))
    data: dict[str, Any] = {"choice": choice, "changes": [str(one) for one in found]}
    if choice == "restore":
        journal.note("taken back", data)
        restore(instrument, left.state)
        return
    looks = _looks(journal)
    newest = _newest(looks)
    data |= {"adopted": now.model_dump(mode="json"), "picture": "" if newest is None else newest.key}
    focused = ion_focus_by_hand(left.state, now)
    if focused is not None:
        data["ion"] = focused.model_dump(mode="json", exclude_none=True)
    journal.note("taken back", data)
    focus = focus_by_hand(left.state, now, Setup.model_validate(looks[0].setup)) if looks else None
    if focus is not None:
        journal.note("focused", focus)


# -- private ----------------------------------------------------------------------------------------------------------


def _looks(journal: Journal) -> list[Act]:
    """Return the acts that take a picture of the face, the newest first; that one may have come to nothing."""
    acts = reversed(journal.acts(kind="frame"))
    return [act for act in acts if act.setup is not None and act.setup.get("focus_z_m") is not None]


def _newest(looks: list[Act]) -> Act | None:
    """Return the newest that has its picture."""
    return next((act for act in looks if act.has_outcome), None)
