"""One table: what is done about a symptom. A recipe may only make it stricter."""

from __future__ import annotations

from typing import Literal

Action = Literal["note", "retry", "hold", "stop"]

#: note: kept in journal and report; retry: done again where harmless; hold: a person looks, blanked and safe until
#: then; stop: ended safe.
POLICY: dict[str, Action] = {
    "identical": "hold",
    "nothing-milled": "hold",
    "blank": "hold",
    "saturated": "note",
    "plane-off": "note",
    "refused": "stop",
    "not-reached": "hold",
    "timed-out": "hold",
    "connection-lost": "stop",
    "not-in-control": "stop",
    "device-fault": "hold",
    "bad-data": "hold",
    "unsafe": "stop",
}


def action(symptom: str) -> Action:
    """Return what is done about a symptom; what is not in the table holds the run."""
    return POLICY.get(symptom, "hold")
