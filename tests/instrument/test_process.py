"""Rates and times against the worked examples of physics.md."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instrument.process import (
    beam_seconds,
    densest_film,
    eds_seconds,
    film_dose,
    film_growth,
    film_yield,
    frame_seconds,
    mill_dose,
    move_seconds,
    spot,
)
from instrument.settings import Beam, BeamSettings, DetectorSettings, EdsScan, Scan, StagePosition


def test_a_cut_of_the_published_face_takes_53_s():
    # physics.md 2.1: 200 x 190 um face, 25 nm cut = 950 um3 at 60 nA x 0.3
    assert mill_dose(950e-18) / 60e-9 == pytest.approx(53, rel=0.02)


def test_a_trench_wedge_takes_4000_s():
    assert mill_dose(3e6 * 1e-18) / 2.5e-6 == pytest.approx(4000, rel=0.01)


@pytest.mark.parametrize(("current", "minutes"), [(152e-9, 23), (60.8e-9, 43)])
def test_a_film_of_2_um_takes_as_long_as_worked_out(current, minutes):
    # physics.md 8.3: 38000 um2, at 4 pA/um2 in 23 min, at 1.6 pA/um2 in 43 min
    area = 38000e-12
    assert film_dose(area, 2e-6, Beam.ION, current / area, 8e3) / current == pytest.approx(minutes * 60, rel=0.05)


def test_films_stop_growing_where_the_model_says():
    assert densest_film(30e3) == pytest.approx(15, rel=0.02)
    assert densest_film(8e3) == pytest.approx(28, rel=0.03)
    assert film_yield(Beam.ION, 4, 8e3) == pytest.approx(0.36e-9, rel=0.03)
    with pytest.raises(ValueError, match="does not grow"):
        film_dose(1e-12, 1e-6, Beam.ION, 16, 30e3)


def test_electron_films_take_a_quarter_of_an_hour():
    # night.md 6: 0.5 um on 60 x 45 um at 26 nA in about 15 min
    area = 60e-6 * 45e-6
    assert film_dose(area, 0.5e-6, Beam.ELECTRON, 1.0, 5e3) / 26e-9 == pytest.approx(900, rel=0.1)


@pytest.mark.parametrize(
    ("current", "low", "high"),
    [(30e-12, 30, 50), (1e-9, 120, 170), (15e-9, 350, 470), (60e-9, 650, 900), (2.5e-6, 7e3, 10e3)],
)
def test_spots_lie_in_the_published_ranges(current, low, high):
    assert low <= spot(current) * 1e9 <= high


def test_a_full_frame_takes_44_s_and_the_published_map_22_min():
    cbs = (DetectorSettings(name="CBS"),)
    frame = Scan(detectors=cbs, width_px=4096, height_px=3536, pixel_m=20e-9, dwell_s=3e-6)
    assert frame_seconds(frame) == pytest.approx(43.5, abs=2)
    maps = EdsScan(elements=("Al",), width_px=1358, height_px=970, pixel_m=54e-9, dwell_s=100e-6, frames=10)
    assert eds_seconds(maps) == pytest.approx(1317, abs=5)


def test_moves_and_apertures_take_their_time():
    here = StagePosition(x=0.0, y=0.0, z=0.0, r=0.0, t=0.0)
    assert move_seconds(here, here) == 0
    assert 15 <= move_seconds(here, StagePosition(r=math.pi)) <= 30
    assert beam_seconds(BeamSettings(current_a=1e-9), BeamSettings(current_a=1e-9)) == 0
    assert beam_seconds(BeamSettings(current_a=1e-9), BeamSettings(current_a=2e-9)) > 0


@given(st.floats(0.5, 2.0), st.floats(1.0, 8.0), st.sampled_from(list(Beam)))
def test_growth_is_told_by_how_thick_a_film_came_out(growth: float, density: float, beam: Beam) -> None:
    nominal, true = film_yield(beam, density, 8e3), film_yield(beam, density, 8e3, growth)
    assert film_growth(true / nominal, beam, density, 8e3) == pytest.approx(growth)
    if true > 0:
        charge = film_dose(1e-10, 1e-6, beam, density, 8e3, growth)
        assert charge * true == pytest.approx(1e-16)  # the volume that was wanted
