"""Element maps are laid over labels and agree with them, or say that they don't."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from analysis.eds import compare
from analysis.phases import Phase, merged
from analysis.register import UNKNOWN, ElementMap, Placement, labels_on, place
from tests.analysis.drawn import drawn
from tests.analysis.mapped import mapped

PIXEL = 40e-9
MAP_PIXEL = 80e-9


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return merged(drawn(3, (380, 500), PIXEL).fine)


def _square_map() -> ElementMap:
    """Two by two pixels: nickel left, carbon right."""
    return ElementMap({"Ni": np.array([[9, 1], [9, 1]]), "C": np.array([[0, 4], [0, 4]])}, 1e-6)


SQUARE = np.array([[Phase.ACTIVE, Phase.CBD], [Phase.ACTIVE, Phase.CBD]], np.uint8)
HERE = Placement(shift_m=(0.0, 0.0))


def test_means_by_hand() -> None:
    result = compare(_square_map(), SQUARE, 1e-6, placement=HERE)
    nickel = result.means["Ni"]["active"]
    assert (nickel.counts, nickel.pixels, nickel.mean) == (18.0, 2, 9.0)
    assert nickel.sigma == pytest.approx(math.sqrt(18) / 2)
    pair = result.pairs[0]
    assert (pair.element, pair.phase, pair.highest) == ("Ni", "active", "active")
    assert pair.enrichment == pytest.approx(9.0)
    assert pair.enrichment_sigma == pytest.approx(9.0 * math.sqrt(1 / 18 + 1 / 2))
    assert pair.separation == pytest.approx(8 / math.hypot(math.sqrt(18) / 2, math.sqrt(2) / 2))
    assert pair.verdict == "too few counts"  # twenty counts in all prove nothing
    assert result.counts_per_pixel == pytest.approx((20 + 8) / 4)


def test_a_placement_moves_labels_onto_the_map() -> None:
    shifted = labels_on(_square_map(), SQUARE, 1e-6, Placement(shift_m=(0.0, 1e-6)))
    np.testing.assert_array_equal(shifted, [[Phase.CBD, UNKNOWN], [Phase.CBD, UNKNOWN]])
    finer = ElementMap({"Ni": np.zeros((4, 4), np.uint16)}, 0.5e-6)
    np.testing.assert_array_equal(labels_on(finer, SQUARE, 1e-6, HERE), np.kron(SQUARE, np.ones((2, 2), np.uint8)))


def test_a_shifted_map_is_found(labels: np.ndarray) -> None:
    taken = mapped(labels, PIXEL, MAP_PIXEL, (190, 250), shift_m=(1.3e-6, -2.1e-6))
    found = place(taken, labels, PIXEL)
    assert found.found
    assert found.shift_m == pytest.approx((1.3e-6, -2.1e-6), abs=0.04e-6)
    assert found.moved_m == pytest.approx(found.shift_m)


def test_scale_and_shear_as_in_the_published_map_are_found(labels: np.ndarray) -> None:
    taken = mapped(
        labels, PIXEL, MAP_PIXEL, (170, 220), shift_m=(2.4e-6, 1.4e-6), scale=(1.015, 0.985), shear=0.013, seed=1
    )
    stage = replace(taken, offset_m=(0.4e-6, 0.0))
    found = place(stage, labels, PIXEL)
    assert found.found
    assert found.affine
    assert found.shift_m == pytest.approx((2.4e-6, 1.4e-6), abs=0.04e-6)
    assert found.moved_m == pytest.approx((2.0e-6, 1.4e-6), abs=0.04e-6)
    np.testing.assert_allclose(found.matrix, [[1.015, 0.0], [0.013, 0.985]], atol=0.008)


def test_every_pair_agrees_on_right_labels(labels: np.ndarray) -> None:
    result = compare(mapped(labels, PIXEL, MAP_PIXEL, (180, 240), shift_m=(0.5e-6, 0.5e-6)), labels, PIXEL)
    assert {pair.element: pair.verdict for pair in result.pairs} == dict.fromkeys(
        ("Al", "Ni", "Pt", "C", "F"), "agrees"
    )
    assert result.agrees
    assert 2 < result.counts_per_pixel < 4
    for pair in result.pairs:
        assert pair.patch_px is not None
        assert pair.patch_px > 1  # never a single pixel


def test_labels_with_binder_and_pore_exchanged_disagree(labels: np.ndarray) -> None:
    taken = mapped(labels, PIXEL, MAP_PIXEL, (180, 240))
    wrong = labels.copy()
    wrong[labels == Phase.CBD], wrong[labels == Phase.PORE] = Phase.PORE, Phase.CBD
    result = compare(taken, wrong, PIXEL)
    verdicts = {pair.element: pair.verdict for pair in result.pairs}
    assert (verdicts["Pt"], verdicts["C"]) == ("disagrees", "disagrees")
    assert (verdicts["Al"], verdicts["Ni"]) == ("agrees", "agrees")
    assert not result.agrees


def test_noise_is_not_placed_and_proves_nothing(labels: np.ndarray) -> None:
    rng = np.random.default_rng(0)
    noise = ElementMap({name: rng.poisson(0.5, (120, 160)) for name in ("Al", "Ni", "Pt")}, MAP_PIXEL)
    result = compare(noise, labels, PIXEL)
    assert not result.placement.found
    assert result.placement.shift_m == (0.0, 0.0)
    assert all(pair.verdict == "disagrees" for pair in result.pairs)  # counts enough to see that they are all alike
    assert any("could not be placed" in remark for remark in result.remarks)
    empty = ElementMap({"Ni": np.zeros((120, 160), np.uint16)}, MAP_PIXEL)
    assert compare(empty, labels, PIXEL).pairs[0].verdict == "too few counts"


def test_a_binder_gradient_is_measured() -> None:
    labels = np.full((400, 500), Phase.CBD, np.uint8)
    labels[320:] = Phase.COLLECTOR
    labels[:, ::50] = Phase.ACTIVE
    height = np.clip((320 - np.arange(400) - 0.5) * PIXEL, 0, None)
    binder = np.where(height < 3e-6, 1.6, 0.8)  # F rises, C falls: ratio 2.56 : 0.64 of the plain one
    taken = mapped(labels, PIXEL, MAP_PIXEL, (200, 250), binder=binder)
    gradient = compare(taken, labels, PIXEL, placement=HERE).gradient
    assert gradient is not None
    assert gradient.near.ratio == pytest.approx(1.1 / 0.95 * 2.56, rel=0.12)
    assert gradient.beyond.ratio == pytest.approx(1.1 / 0.95 * 0.64, rel=0.12)
    assert gradient.factor == pytest.approx(4.0, rel=0.12)
    level = gradient.levels[1]
    assert level.ratio is not None
    assert level.sigma == pytest.approx(level.ratio * math.sqrt(1 / level.f_counts + 1 / level.c_counts))
    assert sum(item.pixels for item in gradient.levels) == gradient.near.pixels + gradient.beyond.pixels


def test_the_gradients_error_is_the_scatter_of_repeated_maps() -> None:
    labels = np.full((120, 200), Phase.CBD, np.uint8)
    labels[100:] = Phase.COLLECTOR
    near = []
    for seed in range(40):
        taken = mapped(labels, PIXEL, MAP_PIXEL, (60, 100), live=0.3, seed=seed)
        gradient = compare(taken, labels, PIXEL, placement=HERE, near_m=1e-6).gradient
        assert gradient is not None
        near.append(gradient.near)
    scatter = np.std([item.ratio for item in near])
    told = np.mean([item.sigma for item in near])
    assert told == pytest.approx(scatter, rel=0.35)


def test_few_counts_give_no_ratio() -> None:
    labels = np.full((60, 60), Phase.CBD, np.uint8)
    labels[40:] = Phase.COLLECTOR
    few = ElementMap({"F": np.eye(30, dtype=np.uint16), "C": np.zeros((30, 30), np.uint16)}, MAP_PIXEL)
    gradient = compare(few, labels, PIXEL, placement=HERE).gradient
    assert gradient is not None
    assert (gradient.near.ratio, gradient.factor) == (None, None)


@pytest.mark.parametrize(
    "counts",
    [
        {"Ni": np.zeros((4, 4)), "C": np.zeros((4, 5))},
        {},
        {"Ni": np.full((4, 4), -1.0)},
        {"Ni": np.full((4, 4), np.nan)},
    ],
)
def test_what_is_no_map_is_refused(counts: dict[str, np.ndarray]) -> None:
    with pytest.raises(ValueError, match=r"map|counts"):
        ElementMap(counts, 1e-7)
    with pytest.raises(ValueError, match="positive"):
        ElementMap({"Ni": np.zeros((4, 4))}, 0.0)
