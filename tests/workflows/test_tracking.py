"""Marks, edges and drift are found in drawn pictures to the nanometres that they were drawn with."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from workflows import tracking
from workflows.health import BLURRED

PIXEL = 25e-9


def drawn_mark(u_m: float, v_m: float, noise: float = 0.15, size_m: float = 5e-6, seed: int = 1) -> NDArray[np.float64]:
    """Draw an X whose middle lies at (u, v) from the picture's centre, dark on a bright cap, with noise."""
    shape = (442, 512)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(float)
    u, v = (x - (shape[1] - 1) / 2) * PIXEL - u_m, (y - (shape[0] - 1) / 2) * PIXEL - v_m
    inside = np.maximum(np.abs(u), np.abs(v)) < size_m / 2
    arms = np.minimum(np.abs(u - v), np.abs(u + v)) / np.sqrt(2) < size_m / 16
    image = np.where(inside & arms, 0.4, 0.8)
    image = np.where(np.maximum(np.abs(u), np.abs(v)) < 4e-6, image, 0.3)
    return ndimage.gaussian_filter(image, 3.0) + noise * np.random.default_rng(seed).standard_normal(shape)


def drawn_marks(centres_m: list[tuple[float, float]], pixel_m: float, size_m: float = 5e-6) -> NDArray[np.float64]:
    """Draw X-shaped marks at (u, v) from the picture's centre, each on a cap of its own, with noise."""
    shape = (442, 512)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(float)
    image = np.full(shape, 0.3)
    for at_u, at_v in centres_m:
        u, v = (x - (shape[1] - 1) / 2) * pixel_m - at_u, (y - (shape[0] - 1) / 2) * pixel_m - at_v
        box = np.maximum(np.abs(u), np.abs(v))
        arms = np.minimum(np.abs(u - v), np.abs(u + v)) / np.sqrt(2) < size_m / 16
        image = np.where((box < 0.5 * size_m) & arms, 0.4, np.where(box < 0.8 * size_m, 0.8, image))
    return ndimage.gaussian_filter(image, 0.8) + 0.05 * np.random.default_rng(2).standard_normal(shape)


@settings(max_examples=15, deadline=None)
@given(st.floats(-2e-6, 2e-6), st.floats(-2e-6, 2e-6))
def test_a_mark_is_found_where_it_was_drawn(u_m: float, v_m: float) -> None:
    found = tracking.find_mark(drawn_mark(u_m, v_m), PIXEL, 5e-6, 5e-6 / 8, reach_m=3e-6)
    assert found.score > tracking.LEAST_SCORE
    assert found.u_m == pytest.approx(u_m, abs=20e-9)
    assert found.v_m == pytest.approx(v_m, abs=20e-9)


@settings(max_examples=10, deadline=None)
@given(st.floats(-5e-6, 5e-6), st.floats(-4e-6, 4e-6), st.sampled_from([-15e-6, 15e-6]))
def test_two_marks_are_told_apart_by_where_the_other_lies(u_m: float, v_m: float, apart_m: float) -> None:
    pixel = 100e-9
    image = drawn_marks([(u_m, v_m), (u_m + apart_m, v_m)], pixel)
    found = tracking.find_pair(image, pixel, 5e-6, 5e-6 / 8, apart_m=(apart_m, 0.0))
    assert found.score > tracking.LEAST_SCORE
    assert (found.u_m, found.v_m) == pytest.approx((u_m, v_m), abs=60e-9)
    wrong = tracking.find_pair(image, pixel, 5e-6, 5e-6 / 8, apart_m=(0.6 * apart_m, 0.0))
    assert wrong.score < tracking.LEAST_SCORE


def test_noise_and_flat_metal_are_no_mark() -> None:
    noise = np.random.default_rng(3).standard_normal((442, 512))
    assert tracking.find_mark(noise, PIXEL, 5e-6, 5e-6 / 8, reach_m=3e-6).score < tracking.LEAST_SCORE
    assert tracking.find_mark(np.zeros((442, 512)), PIXEL, 5e-6, 5e-6 / 8, reach_m=3e-6).score < tracking.LEAST_SCORE


@given(st.integers(60, 380), st.booleans())
@settings(max_examples=20, deadline=None)
def test_an_edge_is_found(row: int, below: bool) -> None:
    image = np.random.default_rng(0).normal(0.2, 0.1, (442, 512))
    image[row:] += 0.5 if below else 0.0
    image[:row] += 0.0 if below else 0.5
    v, contrast = tracking.find_edge(image, 1e-7, material_below=below)
    assert v == pytest.approx((row - 221) * 1e-7, abs=1.5e-7)
    assert contrast > 0.5


def test_drift_is_measured_below_a_pixel() -> None:
    picture = ndimage.gaussian_filter(np.random.default_rng(5).standard_normal((442, 512)), 3.0)
    moved = ndimage.shift(picture, (0.4, -0.3), order=3, mode="nearest")
    noisy = [one + 0.02 * np.random.default_rng(k).standard_normal(one.shape) for k, one in enumerate((picture, moved))]
    assert tracking.drift_between(*noisy, 60e-9) == pytest.approx(0.5 * 60e-9, abs=6e-9)
    assert tracking.drift_between(picture, picture, 60e-9) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("noise", [0.0, 3.0, 6.0])
def test_detail_falls_with_blur_and_not_with_contrast(noise: float) -> None:
    rng = np.random.default_rng(4)
    cells = np.kron(rng.integers(40, 200, (30, 40)), np.ones((20, 20)))

    def seen(sigma_px: float, gain: float = 1.0) -> float:
        picture = gain * (ndimage.gaussian_filter(cells, sigma_px) + noise * rng.standard_normal(cells.shape)) + 10
        return tracking.detail(np.clip(picture, 0, 255).astype(np.uint8))

    sharp = seen(0.6)
    assert seen(0.6, 0.7) == pytest.approx(sharp, rel=0.05)
    assert seen(1.0) < BLURRED * sharp
    assert seen(2.0) < seen(1.0)
    assert tracking.detail(np.full((40, 40), 7, np.uint8)) == 0.0


def test_the_same_plane_again_is_seen() -> None:
    plane = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((300, 300)), 4.0)
    other = ndimage.gaussian_filter(np.random.default_rng(2).standard_normal((300, 300)), 4.0)
    noise = 0.01 * np.random.default_rng(3).standard_normal((300, 300))
    assert tracking.alike(plane, plane + noise) > 0.995
    assert tracking.alike(plane, other) < 0.5
