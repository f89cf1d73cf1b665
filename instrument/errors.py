"""What can go wrong with an instrument, typed by what happened; what to do about it is decided elsewhere."""

from __future__ import annotations

import numbers
from collections.abc import Mapping
from typing import Any, ClassVar


class InstrumentError(Exception):
    """Something about the instrument is not as it should be.

    Parameters
    ----------
    message : one sentence for the person at the microscope
    evidence : plain values (numbers, strings) that a log, a journal or another process can keep
    """

    symptom: ClassVar[str] = "instrument"

    def __init__(self, message: str, **evidence: Any) -> None:
        super().__init__(message)
        self.message = message
        self.evidence = evidence

    def to_plain(self) -> dict[str, Any]:
        """Return the error as plain values that cross a wire; `from_plain` is its inverse."""
        return {"symptom": self.symptom, "message": self.message, "evidence": _plain(self.evidence)}


class Refused(InstrumentError):
    """A rule forbids it; nothing was done. Name the field, its value, the limit and the remedy.

    Parameters
    ----------
    message : what is refused and why, in one sentence
    rule : name of the rule that refused
    field, value, limit, remedy : what was asked, what is allowed, and what to do
    """

    symptom = "refused"

    def __init__(
        self, message: str, *, rule: str = "", field: str = "", value: Any = None, limit: Any = None, remedy: str = ""
    ) -> None:
        super().__init__(message, rule=rule, field=field, value=value, limit=limit, remedy=remedy)
        self.rule = rule
        self.remedy = remedy


class NotReached(InstrumentError):
    """A value was asked for and another one was reached (a current, a stage position, a temperature)."""

    symptom = "not-reached"


class TimedOut(InstrumentError):
    """A wait ended without its event; what the instrument does now is not known from this alone."""

    symptom = "timed-out"


class ConnectionLost(InstrumentError):
    """The instrument's server, or the vendor's software, does not answer."""

    symptom = "connection-lost"


class NotInControl(InstrumentError):
    """Another controller holds the lease, the token is wrong, or the epoch is old."""

    symptom = "not-in-control"


class DeviceFault(InstrumentError):
    """A device reports a fault: source off, valve stuck, needle not moving, vacuum bad."""

    symptom = "device-fault"


class BadData(InstrumentError):
    """A file, frame or message is damaged: wrong hash, truncated, unreadable."""

    symptom = "bad-data"


class NoRoom(InstrumentError):
    """A disk takes no more: what can't be written down is not fired. Make room, then go on."""

    symptom = "disk-short"


class Unsafe(InstrumentError):
    """The instrument could not be brought into its safe state; a person is needed now."""

    symptom = "unsafe"


class Stopped(InstrumentError):
    """Somebody asked for a stop; the act in hand ended early, blanked."""

    symptom = "stopped"


def _plain(value: Any) -> Any:
    """Return None, bool, int, float, str, list or dict: an error must cross whatever a backend put into it."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part) for part in value]
    return str(value)


_KINDS: dict[str, type[InstrumentError]] = {
    kind.symptom: kind
    for kind in (NotReached, TimedOut, ConnectionLost, NotInControl, DeviceFault, BadData, NoRoom, Unsafe, Stopped)
}


def from_plain(plain: dict[str, Any]) -> InstrumentError:
    """Rebuild an error sent by `to_plain`; an unknown symptom becomes a plain InstrumentError."""
    message, evidence = str(plain.get("message", "")), dict(plain.get("evidence", {}))
    symptom = str(plain.get("symptom", ""))
    if symptom == Refused.symptom:
        return Refused(
            message,
            rule=str(evidence.get("rule", "")),
            field=str(evidence.get("field", "")),
            value=evidence.get("value"),
            limit=evidence.get("limit"),
            remedy=str(evidence.get("remedy", "")),
        )
    return _KINDS.get(symptom, InstrumentError)(message, **evidence)
