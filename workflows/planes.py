"""Where the next cut's line goes so that the face lands on the plane that is wanted.

A cut aims at an absolute plane, so errors of position don't add up. It is limited by dose, not by the plane: the face
stays behind the line by a distance that depends on spot, dose and rate. That lead is begun from the model and corrected
by what the ruler says after each image.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from statistics import NormalDist

from instrument.process import spot
from workflows.recipe_fields import DoseFactor, dose_times

#: A cut gets this times the charge that its volume needs: true rates differ by 20 %, and a cut with less than it needs
#: leaves the face behind without limit (night.md 2).
DOSE_FACTOR = 1.5
#: No rate within what models are good for leaves the face this many sigmas of the spot behind the line: it gets more,
#: by this factor at a time, at most this much (night.md 15).
FAR, MORE, MOST_DOSE = 1.3, 1.25, 3.0
#: Shares of a measured error that are made up for by the next line, and kept for all that follow. The face answers
#: slowly to the line (edge creep), so that keeping more overshoots.
AT_ONCE, KEPT = 0.5, 0.3
_FWHM_PER_SIGMA = 2.355


@dataclass(frozen=True)
class Planes:
    """The plane `target` (z, m) that the face should stand on, and `lead` (m), how far the line is kept ahead of it.

    `extra` (m) is added to the lead until the next measurement; `sigma` (m) is the spot's. `dose` is what a cut gets
    over what its volume needs, and `most` what it may get where the face is seen to stay behind.
    """

    target: float
    lead: float
    sigma: float
    extra: float = 0.0
    dose: float = DOSE_FACTOR
    most: float = MOST_DOSE

    @classmethod
    def after(
        cls, target: float, current_a: float, voltage_v: float, dose_factor: DoseFactor = "auto",
        learnt: float | None = None,
    ) -> Planes:  # fmt: skip
        """Return the planes for cuts at a current, from the model of a Gaussian spot at `DOSE_FACTOR`.

        `dose_factor` multiplies that, and keeps it; auto: it is raised where the face stays behind, and begins with
        what was `learnt` of this block before, if anything was.
        """
        sigma = spot(current_a, voltage_v) / _FWHM_PER_SIGMA
        dose = DOSE_FACTOR * dose_times(dose_factor)
        if dose_factor == "auto" and learnt is not None:
            dose = min(MOST_DOSE, max(dose, learnt))
        most = MOST_DOSE if dose_factor == "auto" else dose
        return cls(target, _lead(sigma, dose), sigma, dose=dose, most=most)

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
        lead, dose = self.lead + KEPT * behind, self.dose
        if behind > 0 and lead > FAR * self.sigma and dose < self.most:
            dose = min(self.most, MORE * dose)
            lead -= _lead(self.sigma, self.dose) - _lead(self.sigma, dose)
        return replace(self, lead=lead, extra=AT_ONCE * behind, dose=dose)

    def restart(self, z: float | None) -> Planes:
        """Return the planes counted on from where the face really is (m): what a clean took is not made up for."""
        return self if z is None else replace(self, target=z)


def _lead(sigma: float, dose: float) -> float:
    """Return how far (m) the line lies ahead of a face that keeps up with it, by the model."""
    return sigma * NormalDist().inv_cdf(min(0.99, 1.0 / dose))
