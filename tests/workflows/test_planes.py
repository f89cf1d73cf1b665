"""The line is led so that the face lands on the plane, whatever the true rate and spot."""

from __future__ import annotations

from statistics import NormalDist

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workflows.planes import DOSE_FACTOR, MOST_DOSE, Planes

NORMAL = NormalDist()


def mill(face: float, line: float, thickness: float, sigma: float, rate: float, dose: float) -> float:
    """Return the face after one dose-limited cut: ions beyond the face mill it (edge creep)."""
    steps = 20
    for _ in range(steps):
        face += thickness * dose * rate / steps * NORMAL.cdf((line - face) / sigma)
    return face


@settings(max_examples=20, deadline=None)
@given(st.floats(0.8, 1.2), st.floats(0.7, 1.4), st.sampled_from([25e-9, 50e-9, 100e-9]))
def test_measured_planes_bring_the_face_to_the_wanted_ones(rate: float, wider: float, thickness: float) -> None:
    planes = Planes.after(0.0, 4e-9, 30e3)
    face, errors = 0.0, []
    for _ in range(60):
        planes, start, end = planes.cut(thickness)
        assert end - start == pytest.approx(thickness)
        face = mill(face, end, thickness, planes.sigma * wider, rate, planes.dose)
        errors.append(face - planes.target)
        planes = planes.seen(face)
    assert max(abs(error) for error in errors[-5:]) < 0.2 * thickness


@settings(max_examples=20, deadline=None)
@given(st.floats(0.4, 0.6), st.floats(0.8, 1.2))
def test_a_sample_that_mills_half_as_fast_gets_more_dose_until_its_face_keeps_up(rate: float, wider: float) -> None:
    ends = {}
    for factor in ("auto", 1.0):
        planes, face = Planes.after(0.0, 4e-9, 30e3, factor), 0.0
        for _ in range(150):
            planes, _, end = planes.cut(50e-9)
            face = mill(face, end, 50e-9, planes.sigma * wider, rate, planes.dose)
            planes = planes.seen(face)
        ends[factor] = planes, abs(face - planes.target)
    planes, off = ends["auto"]
    assert DOSE_FACTOR < planes.dose <= 2 * DOSE_FACTOR
    assert off < 10e-9
    fixed, behind = ends[1.0]
    assert fixed.dose == DOSE_FACTOR
    assert behind > 0.5e-6


def test_a_dose_that_was_learnt_before_lets_the_face_keep_up_from_the_first_cut() -> None:
    behind = {}
    for learnt in (None, 2.2):
        planes, face, worst = Planes.after(0.0, 4e-9, 30e3, "auto", learnt), 0.0, 0.0
        for _ in range(40):
            planes, _, end = planes.cut(50e-9)
            face = mill(face, end, 50e-9, planes.sigma, 0.5, planes.dose)
            worst = max(worst, abs(face - planes.target))
            planes = planes.seen(face)
        behind[learnt] = worst
    assert behind[2.2] < 0.5 * behind[None]
    assert Planes.after(0.0, 4e-9, 30e3, 1.0, 2.2).dose == DOSE_FACTOR  # a factor that a person gave is kept
    assert Planes.after(0.0, 4e-9, 30e3, "auto", 9.0).dose == MOST_DOSE


def test_a_sample_as_the_model_has_it_gets_no_more_dose() -> None:
    planes, face = Planes.after(0.0, 4e-9, 30e3), 0.0
    for _ in range(100):
        planes, _, end = planes.cut(50e-9)
        face = mill(face, end, 50e-9, planes.sigma, 0.8, planes.dose)
        planes = planes.seen(face)
    assert planes.dose == DOSE_FACTOR


def test_nothing_measured_changes_nothing_and_a_wrong_reading_moves_little() -> None:
    planes = Planes.after(1e-6, 4e-9, 30e3)
    assert planes.seen(None) == planes
    assert abs(planes.seen(5e-6).lead - planes.lead) <= 0.5 * planes.sigma
    assert abs(planes.seen(5e-6).extra) <= planes.sigma


def test_after_a_clean_planes_count_on_from_where_the_face_is() -> None:
    planes = Planes.after(1e-6, 4e-9, 30e3).restart(1.04e-6)
    assert planes.cut(50e-9)[0].target == pytest.approx(1.09e-6)
    assert planes.restart(None) == planes
