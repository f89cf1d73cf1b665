"""One table: what is done about a symptom. A recipe may only make it stricter."""

from __future__ import annotations

from typing import Literal

from instrument.errors import InstrumentError, Refused

Action = Literal["note", "retry", "recover", "hold", "stop"]

#: note: kept in journal and report; retry: done again where harmless; recover: mended first, then done again (what
#: mends it is in `mending`); hold: a person looks, blanked and safe until then; stop: ended safe.
POLICY: dict[str, Action] = {
    # of pictures and planes
    "identical": "hold",
    "nothing-milled": "hold",
    "blank": "hold",
    "saturated": "note",
    "missed": "note",
    "plane-off": "note",
    # before a slice
    "disk-short": "hold",
    "not-homed": "hold",
    # of the instrument
    "source-off": "recover",
    "current-off": "recover",
    "device-fault": "retry",
    "timed-out": "retry",
    "bad-data": "hold",
    "not-reached": "hold",
    "connection-lost": "stop",
    "not-in-control": "stop",
    "unsafe": "stop",
    # of the guard, by the rule that refused
    "current-as-asked": "recover",
    "vacuum-recovered": "recover",
    "stage-needs-devices-out": "retry",
    "refused": "hold",
}


def symptom_of(error: InstrumentError) -> str:
    """Return what is looked up for an error: the guard's rule where the table has it, else the error's symptom."""
    if isinstance(error, Refused) and error.rule in POLICY:
        return error.rule
    return error.symptom


def action(symptom: str) -> Action:
    """Return what is done about a symptom; what is not in the table holds the run."""
    return POLICY.get(symptom, "hold")
