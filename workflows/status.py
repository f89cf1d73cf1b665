"""Where a run stands, read from its folder while it goes on or long after."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from instrument.durable import FileLock
from workflows.journal import Journal
from workflows.plan import Plan
from workflows.results import fills
from workflows.store import RunFolder


def status_of(folder: RunFolder) -> dict[str, Any]:
    """Return where a run stands as plain values; reads only, so it may be asked at any time.

    Keys: run, state (running, done, stopped, paused, held, failed, interrupted), why, until and default (of a run that
    is held: when its time is over, and what becomes of it if nobody comes; else None), step, slices_acquired,
    slices_planned, slices_labelled, infiltrations, acts, sessions (how often it began or went on, with the instrument
    in hand), unsettled (keys of acts without outcome), last_act, request, pid, making_results (it has ended, and its
    process makes the results), closing_s (how long a stop after the slice in hand takes), started, armed_until,
    virtual.
    Raises JournalDamaged, WrongSchema.
    """
    with Journal(folder.journal, read_only=True) as journal:
        states = journal.events(kind="state")
        steps = journal.events(kind="step")
        acts = journal.acts()
        meta = {key: journal.meta(key) for key in ("run_id", "created", "instrument", "armed_until", "plan")}
    last = states[-1].data if states else {}
    held = FileLock.is_held(folder.lock)
    pid = FileLock.owner_of(folder.lock).get("pid") if held else None
    state = str(last.get("to", "new"))
    if state == "running" and not held:
        state = "interrupted"
    asked = folder.asked()
    planned = None if meta["plan"] is None else Plan.model_validate(meta["plan"])
    return {
        "run": meta["run_id"],
        "folder": str(folder.root),
        "state": state,
        "why": str(last.get("why", "")),
        "until": last.get("until"),
        "default": last.get("default"),
        "step": str(steps[-1].data) if steps else "",
        "slices_acquired": len(folder.slice_names()),
        "slices_planned": None if planned is None else planned.images_planned,
        "slices_labelled": len(folder.label_names()),
        "infiltrations": len(fills(acts)),
        "acts": len(acts),
        "sessions": sum(event.data["to"] == "running" for event in states),
        "unsettled": [act.key for act in acts if not act.has_outcome],
        "last_act": acts[-1].key if acts else "",
        "request": None if asked is None else asked.model_dump(),
        "pid": pid,
        "making_results": held and _has_ended([event.data for event in states], pid),
        "closing_s": 0.0 if planned is None else planned.closing_s,
        "started": meta["created"],
        "armed_until": meta["armed_until"],
        "virtual": bool((meta["instrument"] or {}).get("virtual", False)),
    }


def _has_ended(states: list[dict[str, Any]], pid: Any) -> bool:
    """Tell whether a process that works on a run is past its end; one that resumes it comes to that only later."""
    if not states or states[-1]["to"] == "running":
        return False
    begun = [one for one in states if one["to"] == "running"]
    return states[-1]["to"] == "done" or bool(begun and begun[-1].get("pid") == pid)


def unless_answered(status: dict[str, Any], ends: datetime | None = None) -> str:
    """Return what becomes of a run that is held if nobody comes, and when its time is over.

    `ends` : the end of its night's window, where it has one
    """
    armed = status["until"]
    times = [one for one in (ends, None if armed is None else datetime.fromisoformat(armed)) if one is not None]
    over = f"; its night ends {min(times):%Y-%m-%d %H:%M}" if times else ""
    return f"unless a person answers or resumes it, {status['default']}{over}"


def sentences(status: dict[str, Any]) -> list[str]:
    """Return the status as lines for a person."""
    lines = [f"{status['folder']}: {status['state']}" + (f" ({status['why']})" if status["why"] else "")]
    if status["virtual"]:
        lines.insert(0, "VIRTUAL: a simulated microscope")
    if status["default"]:
        lines.append(unless_answered(status))
    lines.append(f"step {status['step'] or '-'}, last act {status['last_act'] or '-'}")
    planned = f" of {status['slices_planned']}" if status["slices_planned"] else ""
    lines.append(
        f"{status['slices_acquired']}{planned} slices, {status['slices_labelled']} of them labelled; "
        f"{status['infiltrations']} fills"
    )
    if status["unsettled"]:
        lines.append(f"without outcome yet: {', '.join(status['unsettled'])}")
    if status["making_results"]:
        lines.append("it has ended, and its results are being made")
    if status["request"]:
        lines.append(f"asked to {status['request']['what']} after the {status['request']['after']} in hand")
    if status["state"] in ("interrupted", "stopped", "paused", "failed") and not status["making_results"]:
        lines.append(f"`kintsugi resume {status['folder']}` goes on with it")
    return lines
