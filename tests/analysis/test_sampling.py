"""Sampling errors agree with what repeated sampling of one large structure gives."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from analysis.sampling import binned, estimate, from_samples, partial_slope, ratio_variance, slope


def _structure(rng: np.random.Generator, size: int, width: float, fraction: float) -> np.ndarray:
    field = ndimage.gaussian_filter(rng.standard_normal((size, size)), width, mode="wrap")
    return (field < np.quantile(field, fraction)).astype(float)


@pytest.mark.parametrize(("width", "fraction"), [(4.0, 0.2), (7.0, 0.5)])
def test_windows_of_a_structure_scatter_as_their_own_error_says(width: float, fraction: float) -> None:
    structure = _structure(np.random.default_rng(1), 1600, width, fraction)
    windows = [structure[i : i + 160, j : j + 160] for i in range(0, 1600, 160) for j in range(0, 1600, 160)]
    found = [estimate(w.mean(), ratio_variance(w, np.ones_like(w), 1.0)) for w in windows]
    scatter = np.std([item.value for item in found])
    told = np.sqrt(np.mean([item.sigma**2 for item in found if item.sigma]))
    assert told == pytest.approx(scatter, rel=0.25)
    assert np.mean([item.low <= fraction <= item.high for item in found]) >= 0.88


def test_independent_pixels_give_the_binomial_error() -> None:
    noise = (np.random.default_rng(2).random((200, 200)) < 0.3).astype(float)
    variance = ratio_variance(noise, np.ones_like(noise), 1.0)
    assert variance == pytest.approx(0.3 * 0.7 / 40_000, rel=0.15)


def test_a_line_of_independent_pixels_too() -> None:
    noise = (np.random.default_rng(3).random(4000) < 0.3).astype(float)
    assert ratio_variance(noise, np.ones_like(noise), 1.0) == pytest.approx(0.3 * 0.7 / 4000, rel=0.2)


def test_what_was_not_counted_does_not_matter() -> None:
    structure = _structure(np.random.default_rng(4), 240, 5.0, 0.4)
    mask = np.zeros_like(structure)
    mask[:160, :160] = 1.0
    cut = ratio_variance(structure[:160, :160], np.ones((160, 160)), 1.0)
    masked = ratio_variance(structure * mask, mask, 1.0)
    assert cut is not None
    assert masked == pytest.approx(cut, rel=0.3)


def test_repeating_a_slice_teaches_nothing_and_another_place_does() -> None:
    rng = np.random.default_rng(5)
    one, other = _structure(rng, 160, 5.0, 0.4), _structure(rng, 160, 5.0, 0.4)
    ones = np.ones_like(one)
    single = ratio_variance(one, ones, 1.0)
    assert ratio_variance(3 * one, 3 * ones, 1.0) == pytest.approx(single)
    both = ratio_variance(one + other, 2 * ones, 1.0)
    assert single is not None
    assert both is not None
    assert both < 0.8 * single


@pytest.mark.parametrize("part", [np.zeros((40, 40)), np.ones((40, 40))])
def test_a_phase_alone_has_no_error_of_its_own(part: np.ndarray) -> None:
    assert ratio_variance(part, np.ones((40, 40)), 1.0) is None
    assert estimate(float(part.mean()), None).sigma is None


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="one shape"):
        ratio_variance(np.ones((10, 10)), np.ones((10, 11)), 1.0)


def test_wilson_by_hand() -> None:
    # 2 of 10: Wilson's 95 % interval is 0.0567 .. 0.5098 (Brown, Cai, DasGupta 2001)
    found = from_samples(0.2, 10)
    assert (found.low, found.high) == pytest.approx((0.0567, 0.5098), abs=1e-3)


@given(value=st.floats(0, 1), samples=st.floats(1, 1e6))
def test_an_interval_holds_its_value_and_stays_a_share(value: float, samples: float) -> None:
    found = from_samples(value, samples)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_the_area_for_half_the_error_is_four_times() -> None:
    found = from_samples(0.2, 100)
    assert found.sigma is not None
    assert found.area_for(found.sigma / 2, 1e-9) == pytest.approx(4e-9)
    assert estimate(0.0, None).area_for(0.01, 1e-9) is None


@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 7))
def test_binning_loses_nothing(rows: int, columns: int, factor: int) -> None:
    field = np.arange(rows * columns, dtype=float).reshape(rows, columns)
    small = binned(field, factor)
    assert small.sum() == field.sum()
    assert small.shape == (-(-rows // factor), -(-columns // factor))
    assert small[0, 0] == field[:factor, :factor].sum()


def test_slopes_by_hand() -> None:
    assert slope([0, 1, 2, 3], [1, 3, 5, 7]) == pytest.approx((2.0, 0.0))
    found = slope([0, 1, 2, 3], [0, 1, 1, 2])
    # residuals -0.1, 0.3, -0.3, 0.1 about 0.1 + 0.6 x: s = sqrt(0.2 / 2 / 5)
    assert found == pytest.approx((0.6, (0.2 / 2 / 5) ** 0.5))
    assert slope([0, 1], [0, 1]) is None
    assert slope([1, 1, 1], [0, 1, 2]) is None
    assert slope([0, 1, float("nan"), 2], [0, 1, 5, 2]) == pytest.approx((1.0, 0.0))


def test_two_causes_are_told_apart_or_not_told() -> None:
    depth = np.arange(12.0)
    age = depth % 4
    y = 0.5 * depth + 3.0 * age + 1.0
    assert partial_slope(y.tolist(), age.tolist(), depth.tolist()) == pytest.approx((3.0, 0.0), abs=1e-9)
    assert partial_slope(y.tolist(), depth.tolist(), depth.tolist()) is None  # one stretch: age is depth
    assert partial_slope([1.0] * 5, [1.0] * 5, [2.0] * 5) is None


def test_the_error_of_a_slope_is_its_scatter() -> None:
    rng = np.random.default_rng(6)
    depth = np.arange(24.0)
    age = depth % 6
    found = [partial_slope((age + rng.normal(0, 1, 24)).tolist(), age.tolist(), depth.tolist()) for _ in range(300)]
    values = np.array([item for item in found if item is not None])
    assert values[:, 0].std() == pytest.approx(values[:, 1].mean(), rel=0.15)
