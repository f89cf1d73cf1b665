"""The cap's height is read from drawn cross-sections, on even and uneven tops, and only where it can be told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from workflows.cap import cap_height

PIXEL, SHAPE = 40e-9, (220, 600)


def section(
    height_m: float, *, swell_m: float = 0.0, above_m: float = 5e-6, noise: float = 0.03, grooves: bool = True
) -> NDArray[np.float64]:
    """Draw vacuum, a cap of this height on a top that swells by `swell_m` every 6 um, and electrode with pores."""
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]].astype(float)
    y, x = y * PIXEL - above_m, (x - (SHAPE[1] - 1) / 2) * PIXEL
    top = swell_m * np.sin(2 * np.pi * x / 6e-6)
    image = np.where(y < top - height_m, 0.05, np.where(y < top, 0.85, 0.5))
    rng = np.random.default_rng(0)
    for number in range(60):
        centre = rng.uniform((0.0, -12e-6), (3e-6, 12e-6))
        image[(np.hypot(y - centre[0], x - centre[1]) < 0.5e-6) & (y > top)] = 0.05 if number % 2 else 0.9
    if grooves:
        image[(np.abs(np.abs(x) - 4e-6) < 0.28e-6) & (np.abs(y - top + height_m / 2) < 0.3e-6)] = 0.5
    return ndimage.gaussian_filter(image, 1.0) + noise * rng.standard_normal(SHAPE)


@settings(max_examples=20, deadline=None)
@given(st.floats(1.2e-6, 4.5e-6), st.floats(0.0, 0.3e-6))
def test_the_height_is_told_within_a_pixel_or_two(height_m: float, swell_m: float) -> None:
    found = cap_height(section(height_m, swell_m=swell_m), PIXEL, 2.5e-6)
    assert found is not None
    assert found.height_m == pytest.approx(height_m, abs=2 * PIXEL)
    assert found.sigma_m >= 0.5 * PIXEL


def test_a_cap_that_begins_above_the_picture_tells_nothing() -> None:
    assert cap_height(section(3e-6, above_m=2.5e-6), PIXEL, 2.5e-6) is None


def test_a_cap_that_reaches_beyond_the_picture_tells_nothing() -> None:
    assert cap_height(section(4e-6)[:180], PIXEL, 2.5e-6) is not None
    assert cap_height(section(4e-6)[:110], PIXEL, 2.5e-6) is None


def test_nothing_is_told_where_there_is_no_cap() -> None:
    noise = np.random.default_rng(1).integers(0, 255, SHAPE).astype(np.uint8)
    assert cap_height(noise, PIXEL, 2.5e-6) is None
    assert cap_height(np.zeros(SHAPE, np.uint8), PIXEL, 2.5e-6) is None
    half = section(2.5e-6)
    half[:, : SHAPE[1] * 6 // 10] = 0.05
    assert cap_height(half, PIXEL, 2.5e-6) is None


def test_a_cap_of_two_heights_tells_none() -> None:
    both = np.hstack([section(1.5e-6)[:, : SHAPE[1] // 2], section(3.5e-6)[:, SHAPE[1] // 2 :]])
    assert cap_height(both, PIXEL, 2.5e-6) is None
