"""One table: what is done about a symptom. A recipe may only make it stricter."""

from __future__ import annotations

from typing import Literal

from instrument.errors import InstrumentError, Refused
from instrument.settings import Beam

Action = Literal["note", "retry", "recover", "hold", "stop"]

#: What an error of the electron beam's current is looked up by, whoever has found it.
ELECTRON_CURRENT = "electron-current-off"

#: note: kept in journal and report; retry: done again where harmless; recover: mended first, then done again (what
#: mends it is in `mending`); hold: a person looks, blanked and safe until then; stop: ended safe.
POLICY: dict[str, Action] = {
    # of pictures and planes
    "identical": "hold",
    "nothing-milled": "hold",
    "blank": "hold",
    "saturated": "note",
    "missed": "note",
    "shifted": "note",
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
    "another-hand": "hold",
    "connection-lost": "stop",
    "not-in-control": "stop",
    "unsafe": "stop",
    # of the guard, by the rule that refused
    "current-as-asked": "recover",
    # of the electron beam, whose apertures are no matter of a run
    ELECTRON_CURRENT: "hold",
    "vacuum-recovered": "recover",
    "stage-needs-devices-out": "retry",
    "refused": "hold",
}


def symptom_of(error: InstrumentError) -> str:
    """Return what is looked up for an error: the guard's rule where the table has it, else the error's symptom."""
    symptom = error.rule if isinstance(error, Refused) and error.rule in POLICY else error.symptom
    if symptom in ("current-off", "current-as-asked") and _of_electrons(error):
        return ELECTRON_CURRENT
    return symptom


def action(symptom: str) -> Action:
    """Return what is done about a symptom; what is not in the table holds the run."""
    return POLICY.get(symptom, "hold")


def _of_electrons(error: InstrumentError) -> bool:
    return Beam.ELECTRON in str(error.evidence.get("beam", error.evidence.get("field", "")))
