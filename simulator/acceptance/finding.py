"""One line of the table: a published figure, the simulated one, how far they may differ, and whether they do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from numpy import isfinite


@dataclass(frozen=True)
class Finding:
    """A figure checked.

    name : what it is; source : where the published value comes from; simulated : what the virtual microscope gives
    low, high : what is right; published : as it was published; unit : of all of them
    """

    name: str
    source: str
    published: str
    simulated: float
    low: float
    high: float
    unit: str = ""

    @property
    def passed(self) -> bool:
        """Whether the simulated value lies within."""
        return bool(isfinite(self.simulated) and self.low <= self.simulated <= self.high)

    @property
    def tolerance(self) -> str:
        """What is right, in words."""
        if self.high == float("inf"):
            return f">= {self.low:.3g}"
        if self.low == float("-inf"):
            return f"<= {self.high:g}"
        return f"{self.low:.3g} to {self.high:.3g}"


#: A check gives one or several findings of the same runs.
Check = Callable[[], list[Finding]]


def near(name: str, source: str, published: float, simulated: float, within: float, unit: str = "") -> Finding:
    """Return the finding of a value that was published with a tolerance on either side."""
    return Finding(name, source, f"{published:g}", simulated, published - within, published + within, unit)


def fails_visibly(loop: str, careful: float, naive: float, *, at_most: float, at_least: float, unit: str) -> Finding:
    """Return the finding of a run with one loop switched off: right with it, visibly wrong without.

    The figure is the naive run's. Where the careful run is wrong too (above `at_most`) it proves nothing, and fails.
    """
    wrong_too = not careful <= at_most
    told = f"{careful:.3g} with it" + (f", above {at_most:g}" if wrong_too else "")
    low = float("inf") if wrong_too else at_least
    return Finding(f"without {loop}", "night.md 25", told, naive, low, float("inf"), unit)
