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
DOSE_FACTOR = 1.5
#: Shares of a measured error that are made up for by the next line, and kept for all that follow. The face answers
#: slowly to the line (edge creep), so that keeping more overshoots.
AT_ONCE, KEPT = 0.5, 0.3
_FWHM_PER_SIGMA = 2.355


@dataclass(frozen=True)
class Planes:
    """The plane `target` (z, m) that the face should stand on, and `lead` (m), how far the line is kept ahead of it.

    `extra` (m) is added to the lead until the next measurement; `sigma` (m) is the spot's.
    """

    target: float
    lead: float
    sigma: float
    extra: float = 0.0

    @classmethod
    def after(cls, target: float, current_a: float, voltage_v: float) -> Planes:
        """Return the planes for cuts at a current, from the model of a Gaussian spot at `DOSE_FACTOR`."""
        sigma = spot(current_a, voltage_v) / _FWHM_PER_SIGMA
        return cls(target, sigma * NormalDist().inv_cdf(1.0 / DOSE_FACTOR), sigma)

    def cut(self, thickness: float) -> tuple[Planes, float, float]:
        """Return the planes after a cut of this thickness (m) and its line's first and last z (m)."""
        after = replace(self, target=self.target + thickness)
        end = after.target + self.lead + self.extra
        return after, end - thickness, end

    def seen(self, z: float | None) -> Planes:
        """Return the planes corrected by a measured z (m); unchanged where nothing was measured."""
        if z is None:
            return self
        behind = max(-self.sigma, min(self.sigma, self.target - z))
        return replace(self, lead=self.lead + KEPT * behind, extra=AT_ONCE * behind)

    def restart(self, z: float | None) -> Planes:
        """Return the planes counted on from where the face really is (m): what a clean took is not made up for."""
        return self if z is None else replace(self, target=z)
