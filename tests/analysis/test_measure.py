"""Fractions, changes, spacing and refusals of tortuosity, by hand on small arrays."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.measure import changes, particle_diameter, phase_fractions, spacing, tortuosity_note
from analysis.phases import Phase


def _plane(pores: int = 20) -> np.ndarray:
    labels = np.full((40, 50), Phase.ACTIVE, np.uint8)
    labels[:5] = Phase.OUTSIDE
    labels[-5:] = Phase.COLLECTOR
    labels[10:20, :pores] = Phase.PORE
    labels[20:25, 30:50] = Phase.CBD
    return labels


def test_fractions_by_hand() -> None:
    found = phase_fractions([_plane(20), _plane(40)], 0.1e-6)
    coating = 30 * 50
    assert found.phases["pore"].value == pytest.approx((200 + 400) / (2 * coating))
    assert found.phases["cbd"].value == pytest.approx(100 / coating)
    assert sum(item.value for item in found.phases.values()) == pytest.approx(1.0)
    assert found.by_plane[0]["pore"] == pytest.approx(200 / coating)
    assert (found.planes, found.area_m2) == (2, pytest.approx(coating * 1e-14))
    for item in found.phases.values():
        assert item.sigma is not None
        assert item.low < item.value < item.high


def test_an_absent_phase_gets_an_interval_from_the_others() -> None:
    labels = _plane()
    labels[labels == Phase.CBD] = Phase.ACTIVE
    found = phase_fractions([labels], 0.1e-6).phases["cbd"]
    assert (found.value, found.low) == (0.0, 0.0)
    assert found.high > 0.02


def test_other_phases_can_be_asked_for() -> None:
    found = phase_fractions([_plane()], 0.1e-6, (Phase.ACTIVE, Phase.COLLECTOR))
    assert found.phases["collector"].value == pytest.approx(250 / (250 + 1500 - 300))


def test_large_planes_are_binned_without_loss() -> None:
    labels = np.where(np.random.default_rng(0).random((700, 1100)) < 0.25, Phase.PORE, Phase.ACTIVE).astype(np.uint8)
    found = phase_fractions([labels], 20e-9).phases["pore"]
    assert found.value == pytest.approx(float((labels == Phase.PORE).mean()))
    assert found.sigma == pytest.approx((0.25 * 0.75 / labels.size) ** 0.5, rel=0.2)


def test_nothing_to_take_shares_of() -> None:
    with pytest.raises(ValueError, match="nothing labelled pore, cbd, active"):
        phase_fractions([np.zeros((9, 9), np.uint8)], 1e-7)
    with pytest.raises(ValueError, match="nothing labelled"):
        phase_fractions([], 1e-7)
    with pytest.raises(ValueError, match="one shape"):
        phase_fractions([np.ones((9, 9), np.uint8), np.ones((9, 8), np.uint8)], 1e-7)


def test_changes_by_hand() -> None:
    before = np.array([[1, 1, 2, 2], [3, 3, 3, 0]], np.uint8)
    after = np.array([[1, 2, 1, 1], [3, 3, 1, 3]], np.uint8)
    found = changes(before, after)
    assert found.pixels == 7  # what is outside in one of them isn't compared
    assert found.shares == pytest.approx({"cbd -> pore": 2 / 7, "pore -> cbd": 1 / 7, "active -> pore": 1 / 7})
    assert next(iter(found.shares)) == "cbd -> pore"
    assert found.changed == pytest.approx(4 / 7)


def test_nothing_changed_and_nothing_compared() -> None:
    labels = _plane()
    assert changes(labels, labels).changed == 0.0
    assert changes(np.zeros((2, 2), np.uint8), np.zeros((2, 2), np.uint8)).pixels == 0
    with pytest.raises(ValueError, match="one shape"):
        changes(labels, labels[1:])


def test_spacing_by_hand() -> None:
    found = spacing([0.0, 100e-9, 210e-9, 300e-9, 600e-9], [5e-9, 5e-9, None, 5e-9, 5e-9], ["a", "b", "c", "d", "e"])
    assert found.slices == 5
    assert found.depth_m == pytest.approx(600e-9)
    assert found.median_m == pytest.approx(105e-9)
    assert (found.least_m, found.most_m) == pytest.approx((90e-9, 300e-9))
    assert found.gaps == ("between d and e lie 300 nm, 195 nm more than usual",)
    assert found.z_sigma_m == pytest.approx(5e-9)
    assert found.true_sd_m == pytest.approx(((found.sd_m or 0.0) ** 2 - 50e-18) ** 0.5)


def test_measuring_errors_explain_scatter_but_never_more_than_all() -> None:
    rng = np.random.default_rng(0)
    z = np.arange(400) * 100e-9 + rng.normal(0, 8e-9, 400)
    found = spacing(z.tolist(), [8e-9] * 400)
    assert found.sd_m == pytest.approx(8e-9 * 2**0.5, rel=0.15)
    assert found.true_sd_m is not None
    assert found.true_sd_m < 0.4 * (found.sd_m or 0.0)


def test_one_slice_has_no_thickness() -> None:
    found = spacing([1e-6])
    assert (found.slices, found.thickness_m, found.depth_m, found.gaps) == (1, None, 0.0, ())


def test_the_particles_of_a_drawn_face() -> None:
    y, x = np.mgrid[:300, :300]
    labels = np.full((300, 300), Phase.PORE, np.uint8)
    for cy, cx in ((80, 80), (80, 220), (220, 80), (220, 220)):
        labels[(y - cy) ** 2 + (x - cx) ** 2 <= 50**2] = Phase.ACTIVE
    labels[80, 40:120] = Phase.PORE  # a crack doesn't halve a particle
    assert particle_diameter(labels, 0.05e-6) == pytest.approx(5e-6, rel=0.06)
    assert particle_diameter(np.full((20, 20), Phase.PORE, np.uint8), 1e-7) is None


def test_why_there_is_no_tortuosity() -> None:
    thin, unknown, thick = tortuosity_note(2e-6, 5e-6), tortuosity_note(2e-6, None), tortuosity_note(15e-6, 5e-6)
    assert "2.0 µm deep" in thin
    assert "two particle diameters" in " ".join(thin.lower().split())
    assert "isn't known" in unknown
    assert "3.0 particle diameters" in thick
    assert all("No tortuosity is given" in note for note in (thin, unknown, thick))
