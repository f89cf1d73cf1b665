"""Where each current of the ion beam points beside the one that found the site, and the shift that makes up for it."""

from __future__ import annotations

from math import cos, isclose, sin

from instrument.guard_rules import CURRENT_ROOM  # microscopes set voltages and currents nearly


class Pointing:
    """What was measured, by voltage (V) and current (A): metres in a field that was not turned."""

    def __init__(self) -> None:
        self._off: dict[tuple[float, float], tuple[float, float]] = {}

    def add(self, voltage: float, current: float, off_m: tuple[float, float]) -> None:
        """Keep where a working point points."""
        self._off[voltage, current] = off_m

    def of(self, voltage: float, current: float) -> tuple[float, float] | None:
        """Return where a working point points, None where that is not known."""
        for (volts, amperes), off in self._off.items():
            if isclose(volts, voltage, rel_tol=CURRENT_ROOM) and isclose(amperes, current, rel_tol=CURRENT_ROOM):
                return off
        return None

    def shift(self, voltage: float, current: float, turned: float) -> tuple[float, float]:
        """Return the beam shift (m) that makes up for where a current points; 0 where that is not known.

        It is the column's own and was seen with a scan that was not turned (rad); a shift turns with the scan.
        """
        u, v = self.of(voltage, current) or (0.0, 0.0)
        return cos(turned) * u + sin(turned) * v, cos(turned) * v - sin(turned) * u
