"""How much of a pattern counts as given where its server ended within it and knows bounds alone.

Nothing is milled twice on suspicion: a cut is measured on the ruler first. Where too much does no harm (a trench, a
film that is cleaned off by looking) the doubtful part is given again; where too little does none (a clean that goes on
until no film is seen) it is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist


@dataclass(frozen=True)
class Settled:
    """How much of a pattern counts as given (0..1 of the job), and by what: a measurement, or why it does no harm."""

    fraction: float
    by: str


#: Settles attempt number n of a pattern, of which surely the first fraction was given, and at most the second.
Settle = Callable[[int, float, float], Settled]


def given_again(attempt: int, at_least: float, at_most: float) -> Settled:
    """Count only what surely was given: what is done twice then does no harm."""
    del attempt, at_most
    return Settled(at_least, "given again, as more than asked does no harm here")


def left_out(attempt: int, at_least: float, at_most: float) -> Settled:
    """Count all that may have been given: what is missing then is seen and made up for."""
    del attempt, at_least
    return Settled(at_most, "left out, as less than asked is seen and made up for here")


def likeliest(at_least: float, at_most: float, measured: float, sigma: float) -> float:
    """Return the mean of what a measurement leaves possible between the bounds (fractions of the job).

    Every fraction between the bounds is as likely as any other before the measurement.
    """
    if at_most <= at_least:
        return at_least
    normal = NormalDist(measured, max(sigma, 1e-9))
    inside = normal.cdf(at_most) - normal.cdf(at_least)
    if inside < 1e-6:  # it lies outside by many sigma: the nearer bound
        return min(at_most, max(at_least, measured))
    mean = measured - normal.variance * (normal.pdf(at_most) - normal.pdf(at_least)) / inside
    return min(at_most, max(at_least, mean))
