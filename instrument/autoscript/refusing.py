"""How this backend refuses what it does not do."""

from __future__ import annotations

from typing import Any

from instrument.errors import Refused
from instrument.settings import Beam


def refused(rule: str, field: str, value: Any, limit: Any, remedy: str) -> Refused:
    """Return the error for what this backend does not do."""
    msg = f"{field}: {value} is not possible; allowed: {limit}; {remedy}"
    return Refused(msg, rule=rule, field=field, value=value, limit=limit, remedy=remedy)


def no_such_current(beam: Beam, current_a: float, voltage_v: float, listed: tuple[float, ...]) -> Refused:
    """Return the error for a current (A) that is not in a column's list at a voltage (V)."""
    shown = ", ".join(f"{one * 1e9:g}" for one in listed) + f" nA at {voltage_v / 1e3:g} kV"
    nearest = min(listed, key=lambda one: abs(one - current_a), default=None)
    remedy = "use another voltage" if nearest is None else f"write `current: {nearest * 1e9:g} nA` in the recipe"
    return refused("current-listed", f"{beam}.current", f"{current_a * 1e9:g} nA", shown, remedy)
