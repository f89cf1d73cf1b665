"""The collector is found where it was drawn, and fractions come out against the height above it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from analysis.heights import collector_line, height_profile, heights, levels
from analysis.phases import Phase

PIXEL = 0.1e-6


def _layers(width: int = 200, above: int = 10, top: int = 60, low: int = 20, foil: int = 30) -> np.ndarray:
    """Outside, then a coating of pore with CBD in every fourth column, its lowest rows all CBD, then foil."""
    labels = np.full((above + top + low + foil, width), Phase.COLLECTOR, np.uint8)
    labels[:above] = Phase.OUTSIDE
    labels[above : above + top] = Phase.PORE
    labels[above : above + top, ::4] = Phase.CBD
    labels[above + top : above + top + low] = Phase.CBD
    return labels


def test_a_flat_collector() -> None:
    line = collector_line(_layers(), PIXEL)
    assert line is not None
    np.testing.assert_array_equal(line.row, 90.0)
    assert (line.found, line.roughness_m) == (1.0, pytest.approx(0.0, abs=1e-15))
    assert line.inclination_rad == pytest.approx(0.0, abs=1e-12)
    height = heights((120, 200), line, PIXEL)
    assert height[89, 0] == pytest.approx(0.5 * PIXEL)
    assert height[90, 0] == pytest.approx(-0.5 * PIXEL)


def test_specks_and_slivers_do_not_move_it() -> None:
    labels = _layers()
    labels[40:44, 50:60] = Phase.COLLECTOR  # misnamed in the coating
    labels[100:106, 80:120] = Phase.ACTIVE  # a bright sliver in the foil
    labels[:, 150] = Phase.PORE  # a column that shows none
    line = collector_line(labels, PIXEL)
    assert line is not None
    np.testing.assert_array_equal(line.row, 90.0)
    assert line.found == pytest.approx(199 / 200)


def test_a_tilted_wavy_collector() -> None:
    x = np.arange(400)
    edge = 60 + 0.02 * x + 3 * np.sin(x / 40)
    labels = np.where(np.arange(120)[:, None] < edge[None, :], Phase.PORE, Phase.COLLECTOR).astype(np.uint8)
    line = collector_line(labels, PIXEL)
    assert line is not None
    np.testing.assert_allclose(line.row, edge, atol=1.2)
    assert line.inclination_rad == pytest.approx(math.atan(0.02), abs=0.01)
    assert line.roughness_m == pytest.approx(3 / math.sqrt(2) * PIXEL, rel=0.2)


def test_coating_on_both_sides() -> None:
    labels = np.full((100, 80), Phase.PORE, np.uint8)
    labels[40:60] = Phase.COLLECTOR
    labels[60:] = Phase.ACTIVE
    upper, lower = collector_line(labels, PIXEL), collector_line(labels, PIXEL, "below")
    assert upper is not None
    assert lower is not None
    assert (upper.row[0], lower.row[0]) == (40.0, 40.0)  # from the upper end, and from the lower one
    profile = height_profile([labels], PIXEL, side="below")
    assert profile is not None
    assert profile.bins[0].fractions["active"].value == 1.0


def test_no_collector_no_line() -> None:
    labels = np.full((50, 50), Phase.ACTIVE, np.uint8)
    assert collector_line(labels, PIXEL) is None
    assert height_profile([labels], PIXEL) is None


def test_a_profile_by_hand() -> None:
    profile = height_profile([_layers(), _layers()], PIXEL, bin_m=1e-6, near_m=2e-6)
    assert profile is not None
    assert len(profile.bins) == 8  # 80 rows of coating
    assert profile.planes == 2
    assert profile.near["cbd"].value == 1.0
    assert profile.beyond["cbd"].value == pytest.approx(0.25)
    heights_, values = zip(*levels(profile, "cbd"), strict=True)
    assert heights_[:3] == pytest.approx((0.5e-6, 1.5e-6, 2.5e-6))
    assert [value.value for value in values] == pytest.approx([1.0, 1.0] + [0.25] * 6)
    for part in profile.bins:
        assert sum(item.value for item in part.fractions.values()) == pytest.approx(1.0)
        assert part.area_m2 == pytest.approx(2 * 200 * 10 * PIXEL**2)
    assert (profile.coating_m, profile.coating_sd_m) == (pytest.approx(8e-6), pytest.approx(0.0, abs=1e-12))


def test_a_bin_hardly_seen_is_left_out_and_slices_without_foil_are_counted() -> None:
    bare = np.full((120, 200), Phase.PORE, np.uint8)
    profile = height_profile([_layers(), bare], PIXEL)
    assert profile is not None
    assert (profile.planes, profile.without_collector) == (1, 1)
    tall = height_profile([_layers(top=61)], PIXEL)  # one row of the ninth bin
    assert tall is not None
    assert len(tall.bins) == 8


def test_errors_grow_with_the_size_of_features() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for block in (2, 20):
        labels = np.full((80, 800), Phase.COLLECTOR, np.uint8)
        columns = np.repeat(rng.random(800 // block) < 0.3, block)
        labels[:50] = np.where(columns, Phase.PORE, Phase.ACTIVE)
        profile = height_profile([labels], PIXEL)
        assert profile is not None
        sigma = profile.bins[0].fractions["pore"].sigma
        assert sigma is not None
        assert sigma == pytest.approx(math.sqrt(0.3 * 0.7 * block / 800), rel=0.5)
        shares.append(sigma)
    assert shares[1] > 2 * shares[0]


def test_lengths_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        height_profile([_layers()], PIXEL, bin_m=0.0)


def test_slices_must_be_of_one_shape() -> None:
    with pytest.raises(ValueError, match="differ in shape"):
        height_profile([_layers(), _layers(width=100)], PIXEL)
