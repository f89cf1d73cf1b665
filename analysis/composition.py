"""Does the volume agree with the electrode that was made? Weight fractions against measured fractions.

Weights give the solid volume of carbon and binder per volume of active material. The carbon-binder domain that a
micrograph shows holds nanopores besides, below its resolution. So what can be compared is the nanoporosity that would
reconcile the two: about a half is usual, and nothing below zero is possible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict, Field

from analysis.sampling import Estimate

DENSITY = {"active": 4750.0, "carbon": 1950.0, "binder": 1780.0}
"""kg/m3: crystal density of NMC811, carbon black, PVDF (handbook values)."""

NANOPOROSITY = 0.576
"""Pore share of the carbon-binder domain of a LiCoO2 cathode (Vierrath et al. 2015), assumed where one must be."""

_LIKELY = (0.2, 0.75)


class Recipe(BaseModel):
    """What the electrode was made of: mass shares (0..1), areal mass of one coating (kg/m2), its thickness (m)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    active: float = Field(gt=0, le=1)
    carbon: float = Field(ge=0, le=1)
    binder: float = Field(ge=0, le=1)
    loading: float | None = Field(default=None, gt=0)
    coating: float | None = Field(default=None, gt=0)

    @property
    def cbd_per_active(self) -> float:
        """Solid volume of carbon and binder over volume of active material."""
        solid = self.carbon / DENSITY["carbon"] + self.binder / DENSITY["binder"]
        return solid / (self.active / DENSITY["active"])

    @property
    def porosity(self) -> float | None:
        """Total porosity, nanopores included, from areal mass and thickness; None where one isn't known."""
        if self.loading is None or self.coating is None:
            return None
        parts = {"active": self.active, "carbon": self.carbon, "binder": self.binder}
        return 1.0 - self.loading / self.coating * sum(parts[name] / DENSITY[name] for name in parts)


class Balance(BaseModel):
    """Expected against measured; shares of the coating's volume, 0..1.

    Parameters
    ----------
    cbd_solid : solid carbon and binder that the weights ask for, given the active material measured
    cbd_measured, cbd_sigma : carbon-binder domain measured, nanopores included, and its sampling error
    nanoporosity, nanoporosity_sigma : pore share of that domain which reconciles the two
    porosity : of the pores that were seen
    porosity_total : with the domain's nanopores, at the share `assumed`
    porosity_expected : from areal mass and thickness, nanopores included; None where those aren't known
    assumed : nanoporosity assumed for porosity_total
    sentence : what it comes to
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    cbd_solid: float
    cbd_measured: float
    cbd_sigma: float | None
    nanoporosity: float | None
    nanoporosity_sigma: float | None
    porosity: float
    porosity_total: float
    porosity_expected: float | None
    assumed: float
    sentence: str


def balance(phases: Mapping[str, Estimate], made: Recipe, *, assumed: float = NANOPOROSITY) -> Balance:
    """Compare measured fractions of the coating with what it was made of.

    Parameters
    ----------
    phases : estimates of pore, cbd, active, which add up to 1
    made : the electrode's recipe
    assumed : nanoporosity of the carbon-binder domain where one must be assumed
    """
    pore, cbd, active = (phases[name] for name in ("pore", "cbd", "active"))
    solid = active.value * made.cbd_per_active
    nano = sigma = None
    if cbd.value > 0:
        nano = 1.0 - solid / cbd.value
        if cbd.sigma is not None and active.sigma is not None and active.value > 0:
            sigma = (1.0 - nano) * math.hypot(cbd.sigma / cbd.value, active.sigma / active.value)
    return Balance(
        cbd_solid=solid,
        cbd_measured=cbd.value,
        cbd_sigma=cbd.sigma,
        nanoporosity=nano,
        nanoporosity_sigma=sigma,
        porosity=pore.value,
        porosity_total=pore.value + assumed * cbd.value,
        porosity_expected=made.porosity,
        assumed=assumed,
        sentence=_sentence(solid, nano, sigma),
    )


def _sentence(solid: float, nano: float | None, sigma: float | None) -> str:
    asked = f"The weights ask for {100 * solid:.1f} % of solid carbon and binder"
    if nano is None:
        return f"{asked}; no carbon-binder domain was found."
    error = f" ± {sigma:.2f}" if sigma is not None else ""
    slack = 2 * (sigma or 0.0)
    if nano + slack < 0:
        return f"{asked}, more than the whole domain that was found: some of it was taken for something else."
    sentence = f"{asked}; a nanoporosity of {nano:.2f}{error} in the domain reconciles that with what was measured"
    if nano + slack < _LIKELY[0]:
        return (
            f"{sentence}, less than is usual ({_LIKELY[0]:g} to {_LIKELY[1]:g}): the domain may be measured too small."
        )
    if nano - slack > _LIKELY[1]:
        return (
            f"{sentence}, more than is usual ({_LIKELY[0]:g} to {_LIKELY[1]:g}): the domain may be measured too large."
        )
    return f"{sentence}, which is usual ({_LIKELY[0]:g} to {_LIKELY[1]:g})."
