"""Where a run stands, read from its folder while it goes on or long after."""

from __future__ import annotations

from typing import Any

from instrument.durable import FileLock
from workflows.journal import Journal
from workflows.plan import Plan
from workflows.results import fills
from workflows.store import RunFolder


def status_of(folder: RunFolder) -> dict[str, Any]:
    """Return where a run stands as plain values; reads only, so it may be asked at any time.

    Keys: run, state (running, done, stopped, paused, held, failed, interrupted), why, step, slices_acquired,
    slices_planned, slices_labelled, infiltrations, acts, sessions (how often it began or went on, with the instrument
    in hand), unsettled (keys of acts without outcome), last_act, request, pid, started, armed_until, virtual.
    Raises JournalDamaged, JournalTooNew.
    """
    with Journal(folder.journal, read_only=True) as journal:
        states = journal.events(kind="state")
        steps = journal.events(kind="step")
        acts = journal.acts()
        meta = {key: journal.meta(key) for key in ("run_id", "created", "instrument", "armed_until", "plan")}
    last = states[-1].data if states else {}
    held = FileLock.is_held(folder.lock)
    state = str(last.get("to", "new"))
    if state == "running" and not held:
        state = "interrupted"
    asked = folder.asked()
    return {
        "run": meta["run_id"],
        "folder": str(folder.root),
        "state": state,
        "why": str(last.get("why", "")),
        "step": str(steps[-1].data) if steps else "",
        "slices_acquired": len(folder.slice_names()),
        "slices_planned": _planned(meta["plan"]),
        "slices_labelled": len(folder.label_names()),
        "infiltrations": len(fills(acts)),
        "acts": len(acts),
        "sessions": sum(event.data["to"] == "running" for event in states),
        "unsettled": [act.key for act in acts if not act.has_outcome],
        "last_act": acts[-1].key if acts else "",
        "request": None if asked is None else asked.model_dump(),
        "pid": FileLock.owner_of(folder.lock).get("pid") if held else None,
        "started": meta["created"],
        "armed_until": meta["armed_until"],
        "virtual": bool((meta["instrument"] or {}).get("virtual", False)),
    }


def _planned(plan: dict[str, Any] | None) -> int | None:
    """Return how many images the kept plan is for, None before there is one."""
    return None if plan is None else Plan.model_validate(plan).images_planned


def sentences(status: dict[str, Any]) -> list[str]:
    """Return the status as lines for a person."""
    lines = [f"{status['folder']}: {status['state']}" + (f" ({status['why']})" if status["why"] else "")]
    if status["virtual"]:
        lines.insert(0, "VIRTUAL: a simulated microscope")
    lines.append(f"step {status['step'] or '-'}, last act {status['last_act'] or '-'}")
    planned = f" of {status['slices_planned']}" if status["slices_planned"] else ""
    lines.append(
        f"{status['slices_acquired']}{planned} slices, {status['slices_labelled']} of them labelled; "
        f"{status['infiltrations']} fills"
    )
    if status["unsettled"]:
        lines.append(f"without outcome yet: {', '.join(status['unsettled'])}")
    if status["request"]:
        lines.append(f"asked to {status['request']['what']} after the {status['request']['after']} in hand")
    if status["state"] in ("interrupted", "stopped", "paused", "failed"):
        lines.append(f"`kintsugi resume {status['folder']}` goes on with it")
    return lines
