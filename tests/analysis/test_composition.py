"""Weights against volumes, by hand."""

from __future__ import annotations

import pytest

from analysis.composition import DENSITY, Recipe, balance
from analysis.sampling import Estimate


def _estimate(value: float, sigma: float = 0.005) -> Estimate:
    return Estimate(value=value, sigma=sigma, low=max(0.0, value - sigma), high=min(1.0, value + sigma), samples=100)


def _phases(cbd: float, active: float = 0.7) -> dict[str, Estimate]:
    return {"pore": _estimate(1 - cbd - active), "cbd": _estimate(cbd), "active": _estimate(active)}


MADE = Recipe(active=0.96, carbon=0.02, binder=0.02)


def test_solid_volumes_by_hand() -> None:
    assert MADE.cbd_per_active == pytest.approx((0.02 / 1950 + 0.02 / 1780) / (0.96 / 4750))
    assert MADE.porosity is None
    full = Recipe(active=1.0, carbon=0.0, binder=0.0, loading=DENSITY["active"] * 50e-6 * 0.7, coating=50e-6)
    assert full.porosity == pytest.approx(0.3)


def test_nanoporosity_that_reconciles() -> None:
    solid = 0.7 * MADE.cbd_per_active
    found = balance(_phases(cbd=2 * solid), MADE, assumed=0.5)
    assert found.nanoporosity == pytest.approx(0.5)
    assert found.nanoporosity_sigma == pytest.approx(0.5 * ((0.005 / (2 * solid)) ** 2 + (0.005 / 0.7) ** 2) ** 0.5)
    assert found.porosity_total == pytest.approx(found.porosity + solid)
    assert "which is usual" in found.sentence


@pytest.mark.parametrize(
    ("cbd", "words"),
    [(0.04, "more than the whole domain"), (0.078, "too small"), (0.35, "too large"), (0.0, "no carbon-binder domain")],
)
def test_what_cannot_be_is_said(cbd: float, words: str) -> None:
    assert words in balance(_phases(cbd, 0.6 if cbd > 0.3 else 0.7), MADE).sentence
