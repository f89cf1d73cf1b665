"""Where the next cut's line goes so that the face lands on the plane that is wanted.

A cut aims at an absolute plane, so errors of position don't add up. It is limited by dose, not by the plane: the face
stays behind the line by a distance that depends on spot, dose and rate. That lead is begun from the model and corrected
by what the ruler says after each image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist

from instrument.process import spot

#: A cut gets this times the charge that its volume needs: true rates differ by 20 %, and a cut with less than it needs
#: leaves the face behind without limit (night.md 2).
DOSE_FACTOR = 1.4
#: Share of a measured error that is corrected at once, and the most (of the spot's sigma).
GAIN, MOST_OF_SIGMA = 0.5, 0.5
_FWHM_PER_SIGMA = 2.355


@dataclass(frozen=True)
class Planes:
    """The plane `target` (z, m) that the face should stand on, and `lead` (m), how far the line is kept ahead of it."""

    target: float
    lead: float
    sigma: float

    @classmethod
    def after(cls, target: float, current_a: float, voltage_v: float) -> Planes:
        """Return the planes for cuts at a current, from the model of a Gaussian spot at `DOSE_FACTOR`."""
        sigma = spot(current_a, voltage_v) / _FWHM_PER_SIGMA
        return cls(target, sigma * NormalDist().inv_cdf(1.0 / DOSE_FACTOR), sigma)

    def cut(self, thickness: float) -> tuple[Planes, float, float]:
        """Return the planes after a cut of this thickness (m) and its line's first and last z (m)."""
        after = replace(self, target=self.target + thickness)
        end = after.target + self.lead
        return after, end - thickness, end

    def seen(self, z: float | None) -> Planes:
        """Return the planes corrected by a measured z (m); unchanged where nothing was measured."""
        if z is None:
            return self
        most = MOST_OF_SIGMA * self.sigma
        step = max(-most, min(most, GAIN * (self.target - z)))
        return replace(self, lead=self.lead + step)

    def restart(self, z: float | None) -> Planes:
        """Return the planes counted on from where the face really is (m): what a clean took is not made up for."""
        return self if z is None else replace(self, target=z)
