import math

import pytest

from instrument.errors import Refused
from instrument.hydra import hydra
from instrument.process import frame_seconds
from instrument.settings import (
    Beam,
    BeamSettings,
    CleaningCrossSection,
    DetectorSettings,
    Device,
    EdsScan,
    GasSetting,
    Line,
    PatternJob,
    Rectangle,
    Scan,
    StagePosition,
    Tune,
)
from workflows.rehearsal import Account, Rehearsal, extent


@pytest.fixture
def microscope():
    return Rehearsal(hydra())


def scan(**changes):
    plain = {
        "detectors": (DetectorSettings(name="CBS"),),
        "width_px": 100,
        "height_px": 50,
        "pixel_m": 1e-7,
        "dwell_s": 1e-6,
    }
    return Scan(**{**plain, **changes})


def job(**changes):
    box = Rectangle(x_m=0.0, y_m=0.0, width_m=1e-5, height_m=1e-6, depth_m=1e-6)
    plain = {
        "patterns": (box,),
        "purpose": "mill",
        "area": "face",
        "current_a": 60e-9,
        "voltage_v": 30e3,
        "dose_c": 6e-7,
    }
    return PatternJob(**{**plain, **changes})


def test_time_is_counted_by_activity(microscope):
    with microscope.activity("slicing"):
        microscope.pattern(job())
        microscope.acquire(scan())
    microscope.move_stage(StagePosition(t=math.radians(7)))
    seconds = microscope.account.seconds
    assert seconds["slicing"] == pytest.approx(10 + 5)
    assert seconds["imaging"] == pytest.approx(frame_seconds(scan()))
    assert seconds["moves"] > 2
    assert microscope.clock.now() == pytest.approx(microscope.account.total_s)
    microscope.clock.wait(3)
    assert microscope.state().time_s == pytest.approx(microscope.account.total_s)


def test_pieces_of_a_job_cost_their_share(microscope):
    whole = job()
    for piece in whole.pieces(4.0):
        microscope.pattern(piece)
    assert microscope.account.charge_c["face"] == pytest.approx(whole.dose_c)
    assert microscope.account.longest_s <= 4.0


def test_heating_is_paid_once(microscope):
    microscope.set_gas("Pt", GasSetting(heater_on=True))
    once = microscope.account.total_s
    microscope.set_gas("Pt", GasSetting(heater_on=True))
    assert microscope.account.total_s == once > 0
    assert microscope.state().gases["Pt"].ready


def test_standing_still_costs_nothing(microscope):
    microscope.move_stage(StagePosition(x=0.0, t=0.0))
    microscope.retract(Device.CBS)
    assert microscope.account.total_s == 0


def test_frames_are_blank_and_as_asked(microscope):
    frame = microscope.acquire(scan(bits=16, detectors=(DetectorSettings(name="CBS"), DetectorSettings(name="TLD"))))
    assert frame.pixels.shape == (2, 50, 100)
    assert frame.pixels.dtype == "uint16"
    assert not frame.pixels.any()
    assert microscope.account.bytes == frame.pixels.nbytes
    maps = microscope.acquire_eds(EdsScan(elements=("Al", "Ni"), width_px=20, height_px=20, pixel_m=1e-7))
    assert maps.meta.channels == ("Al", "Ni")


def test_measured_inside_counts_outside_as_well(microscope):
    with microscope.measured() as inner:
        microscope.pattern(job())
    assert inner.total_s == microscope.account.total_s > 0
    twice = Account()
    twice.add(inner, 2)
    assert twice.total_s == pytest.approx(2 * inner.total_s)


@pytest.mark.parametrize(
    ("rule", "act"),
    [
        ("current-listed", lambda m: m.pattern(job(current_a=50e-9))),
        ("voltage-listed", lambda m: m.pattern(job(voltage_v=29e3))),
        ("current-listed", lambda m: m.set_beam(Beam.ION, BeamSettings(voltage_v=30e3, current_a=2e-9))),
        ("gas-lacking", lambda m: m.set_gas("Au", GasSetting(heater_on=True))),
        ("gas-lacking", lambda m: m.pattern(job(gases={"Au": 1.0}))),
        ("detector-lacking", lambda m: m.acquire(scan(detectors=(DetectorSettings(name="STEM"),)))),
        ("fits-the-field", lambda m: m.acquire(scan(pixel_m=1e-3))),
        (
            "fits-the-field",
            lambda m: m.pattern(job(patterns=(Rectangle(x_m=0, y_m=0, width_m=1e-3, height_m=1e-6, depth_m=1e-6),))),
        ),
        ("stage-travel", lambda m: m.move_stage(StagePosition(t=1.5))),
        ("stage-needs-devices-out", lambda m: (m.insert(Device.CBS), m.move_stage(StagePosition(t=0.1)))),
    ],
)
def test_refuses_what_the_instrument_can_not(microscope, rule, act):
    with pytest.raises(Refused) as caught:
        act(microscope)
    assert caught.value.rule == rule
    assert caught.value.remedy


def test_refuses_maps_and_devices_that_are_not_there():
    bare = Rehearsal(hydra().replace(elements=False, devices=()))
    with pytest.raises(Refused, match="eds"):
        bare.acquire_eds(EdsScan(elements=("Al",), width_px=20, height_px=20, pixel_m=1e-7))
    with pytest.raises(Refused, match="device"):
        bare.insert(Device.CBS)


def test_extents_of_patterns():
    cut = CleaningCrossSection(x_m=0, width_m=3e-6, start_y_m=2e-6, end_y_m=-1e-6, depth_m=1e-6)
    line = Line(x0_m=0, y0_m=0, x1_m=3e-6, y1_m=-4e-6, line_width_m=1e-6, depth_m=1e-6)
    assert extent(cut) == pytest.approx((3e-6, 3e-6))
    assert extent(line) == pytest.approx((4e-6, 5e-6))


def test_tune_stop_and_safe(microscope):
    assert microscope.tune(Tune.FOCUS, scan()).score == 1
    microscope.insert(Device.NEEDLE)
    microscope.stop()
    state = microscope.make_safe()
    assert not any(state.devices.values())
