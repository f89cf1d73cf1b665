"""Where each current of the ion beam points beside the one that found the site, what makes up for it, and its focus."""

from __future__ import annotations

from collections.abc import Iterable
from math import cos, isclose, sin

from instrument.guard_rules import CURRENT_ROOM


class Pointing:
    """What was measured, by voltage (V) and current (A): metres in a field that was not turned, and focus (m)."""

    def __init__(self) -> None:
        self._off: dict[tuple[float, float], tuple[float, float]] = {}
        self._focus: dict[tuple[float, float], float] = {}
        self._by_hand: dict[tuple[float, float], float] = {}

    def add(self, voltage: float, current: float, off_m: tuple[float, float]) -> None:
        """Keep where a working point points."""
        self._off[voltage, current] = off_m

    def drop(self, voltage: float, current: float) -> None:
        """Forget where a working point points."""
        while (point := _among(self._off, voltage, current)) is not None:
            del self._off[point]

    def of(self, voltage: float, current: float) -> tuple[float, float] | None:
        """Return where a working point points, None where that is not known."""
        point = _among(self._off, voltage, current)
        return None if point is None else self._off[point]

    def add_focus(self, voltage: float, current: float, distance_m: float, *, by_hand: bool = False) -> None:
        """Keep the working distance (m) at which a working point is sharp; a person's counts before what was found."""
        (self._by_hand if by_hand else self._focus)[voltage, current] = distance_m

    def focus(self, voltage: float, current: float) -> float | None:
        """Return the working distance (m) at which a working point is sharp, None where that is not known."""
        for known in (self._by_hand, self._focus):
            point = _among(known, voltage, current)
            if point is not None:
                return known[point]
        return None

    def shift(self, voltage: float, current: float, turned: float) -> tuple[float, float]:
        """Return the beam shift (m) that makes up for where a current points; 0 where that is not known.

        It is the column's own and was seen with a scan that was not turned (rad); a shift turns with the scan.
        """
        u, v = self.of(voltage, current) or (0.0, 0.0)
        return cos(turned) * u + sin(turned) * v, cos(turned) * v - sin(turned) * u


def same_point(one: tuple[float, float], other: tuple[float, float]) -> bool:
    """Tell whether two voltages (V) and currents (A) are one working point, as microscopes set them nearly."""
    return all(isclose(a, b, rel_tol=CURRENT_ROOM) for a, b in zip(one, other, strict=True))


def _among(known: Iterable[tuple[float, float]], voltage: float, current: float) -> tuple[float, float] | None:
    """Return the known working point that is this one, None for none; the newest goes first."""
    return next((point for point in reversed(list(known)) if same_point(point, (voltage, current))), None)
