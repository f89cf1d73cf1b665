"""The ruler is found in drawn faces, on even and uneven tops, to the nanometres that it was drawn with."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from workflows import ruler
from workflows.ruler import Reading, read_ruler

PIXEL, SHAPE = 40e-9, (300, 800)


def drawn_face(
    half_m: float, middle_m: float = 0.0, *, grooves: bool = True, swell_m: float = 0.0, phase: float = 0.0
) -> NDArray[np.float64]:
    """Draw a face from y = -4 um: vacuum, 2.5 um of cap with two grooves, electrode with dark and bright pores.

    The top swells and sinks by `swell_m` every 6 um, and cap and grooves with it, but only the cap's upper side follows
    it whole: where the top is high, a groove touches the electrode.
    """
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]].astype(float)
    y, x = y * PIXEL - 4e-6, (x - (SHAPE[1] - 1) / 2) * PIXEL
    top = swell_m * np.sin(2 * np.pi * x / 6e-6 + phase)
    image = np.where(y < top - 2.5e-6, 0.1, np.where(y < 1.6 * top, 0.85, 0.5))
    rng = np.random.default_rng(0)
    for number in range(60):
        centre = rng.uniform((0.2e-6, -16e-6), (9e-6, 16e-6))
        image[(np.hypot(y - centre[0], x - centre[1]) < 0.5e-6) & (y > top)] = 0.05 if number % 2 else 1.1
    if grooves:
        for sign in (-1, 1):
            across = np.clip((0.28e-6 - np.abs(x - middle_m - sign * half_m)) / PIXEL + 0.5, 0, 1)
            image -= 0.35 * across * (np.abs(y - top + 0.95e-6) < 0.3e-6)
    return ndimage.gaussian_filter(image, 1.0) + 0.02 * rng.standard_normal(SHAPE)


def ruler_of(image: NDArray[np.float64], expected_half_m: float, rows: slice = slice(0, 130)) -> Reading | None:
    return read_ruler(
        image, (PIXEL, PIXEL), rows=rows, expected_half_m=expected_half_m, search_m=0.8e-6,
        groove_m=(0.57e-6, 0.6e-6), half_at_zero_m=2e-6,
    )  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(st.floats(4e-6, 12e-6), st.floats(-0.4e-6, 0.4e-6), st.floats(-0.5e-6, 0.5e-6))
def test_the_ruler_says_the_plane_wherever_the_picture_lies(half_m: float, off_m: float, middle_m: float) -> None:
    found = ruler_of(drawn_face(half_m, middle_m), half_m + off_m)
    assert found is not None
    assert found.z_m == pytest.approx(half_m - 2e-6, abs=12e-9)
    assert found.middle_m == pytest.approx(middle_m, abs=20e-9)


@settings(max_examples=15, deadline=None)
@given(st.floats(4e-6, 12e-6), st.floats(0.0, 0.5e-6), st.floats(0.0, 6.28))
def test_it_is_read_on_an_uneven_top(half_m: float, swell_m: float, phase: float) -> None:
    face = drawn_face(half_m, swell_m=swell_m, phase=phase)
    found = ruler_of(face, half_m, slice(0, 220))  # with more electrode in sight than cap
    assert found is not None
    assert found.z_m == pytest.approx(half_m - 2e-6, abs=30e-9)


@pytest.mark.parametrize("half_m", [6e-6, 6.4e-6, 9e-6])
def test_a_groove_on_a_slope_is_measured_by_all_of_it(half_m: float) -> None:
    """The left one lies on a slope and is slanted; a dark valley of the electrode beside it is as wide, and lower."""
    face = drawn_face(half_m)
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]].astype(float)
    y, x = y * PIXEL - 4e-6, (x - (SHAPE[1] - 1) / 2) * PIXEL
    left = np.abs(x + half_m) < 1e-6
    face[left & (y < -0.3e-6) & (y > -2e-6)] = 0.85
    across = np.clip((0.28e-6 - np.abs(x + half_m)) / PIXEL + 0.5, 0, 1)
    slanted = across * (np.abs(y + 1.2e-6 + 1.4 * (x + half_m)) < 0.3e-6)
    valley = (np.abs(x + half_m - 0.25e-6) < 0.25e-6) & (y > -0.6e-6) & (y < 0.4e-6)
    face = np.where(valley, 0.5, face - ndimage.gaussian_filter(0.3 * slanted, 1.0))
    found = ruler_of(face, half_m - 0.1e-6)
    assert found is not None
    assert found.z_m == pytest.approx(half_m - 2e-6, abs=12e-9)


def test_two_t_per_t_removed() -> None:
    first, second = ruler_of(drawn_face(6e-6), 6e-6), ruler_of(drawn_face(6.1e-6), 6e-6)
    assert first is not None
    assert second is not None
    assert second.z_m - first.z_m == pytest.approx(100e-9, abs=8e-9)


@pytest.mark.parametrize("swell_m", [0.0, 0.4e-6])
def test_no_grooves_no_measurement(swell_m: float) -> None:
    assert ruler_of(drawn_face(6e-6, grooves=False, swell_m=swell_m), 6e-6) is None
    assert ruler_of(drawn_face(6e-6, swell_m=swell_m), 9e-6) is None


@pytest.mark.parametrize("image", [np.zeros(SHAPE), np.full(SHAPE, 7), np.zeros((4, 4))])
def test_nothing_in_sight_is_no_measurement(image: NDArray[np.float64]) -> None:
    assert ruler_of(image, 6e-6) is None


def test_a_hollow_under_the_cap_is_not_taken_for_a_groove() -> None:
    """A soft dark spot of the cap lies where a groove of the expected plane would; the real one is a micron off."""
    face = drawn_face(7.1e-6)
    y, x = np.mgrid[0 : SHAPE[0], 0 : SHAPE[1]].astype(float)
    y, x = y * PIXEL - 4e-6, (x - (SHAPE[1] - 1) / 2) * PIXEL
    face -= 0.45 * np.exp(-(((x - 4.7e-6) / 0.33e-6) ** 2) - ((y + 0.75e-6) / 0.3e-6) ** 2)
    found = read_ruler(
        face, (PIXEL, PIXEL), rows=slice(0, 130), expected_half_m=6e-6, search_m=4e-6, groove_m=(0.57e-6, 0.6e-6),
        half_at_zero_m=2e-6,
    )  # fmt: skip
    assert found is not None
    assert found.z_m == pytest.approx(5.1e-6, abs=30e-9)


def test_one_groove_alone_is_no_ruler() -> None:
    """The other one lies beyond the picture, and the search is so wide that both sides see the same spot."""
    face = drawn_face(4e-6)
    face[:, SHAPE[1] // 2 :] = face[:, SHAPE[1] // 2 - 1 :: -1][:, : SHAPE[1] // 2].mean(axis=1, keepdims=True)
    found = read_ruler(
        face, (PIXEL, PIXEL), rows=slice(0, 130), expected_half_m=3e-6, search_m=4e-6, groove_m=(0.57e-6, 0.6e-6),
        half_at_zero_m=2e-6,
    )  # fmt: skip
    assert found is None


def test_a_spot_that_is_bright_in_its_middle_is_no_groove(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its contrast is nothing, and nothing can be divided by it."""
    measured = ruler._measured

    def bright(*args: Any) -> ruler._Groove:
        return replace(measured(*args), contrast=0.0)

    monkeypatch.setattr(ruler, "_measured", bright)
    assert ruler_of(drawn_face(6e-6), 6e-6) is None
