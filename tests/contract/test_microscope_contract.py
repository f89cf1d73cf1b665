"""What every microscope does, whatever stands behind the verbs."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from math import radians

import numpy as np
import pytest
from scipy import ndimage

from instrument.errors import DeviceFault, InstrumentError, Refused
from instrument.frame import Frame
from instrument.microscope import Microscope
from instrument.process import frame_seconds
from instrument.settings import (
    Beam,
    BeamSettings,
    Device,
    Done,
    EdsScan,
    GasSetting,
    Lens,
    Progress,
    Recovery,
    Rectangle,
    Scan,
    StagePosition,
    Tune,
)
from tests.contract.stand import Stand, box, scan

EDS = EdsScan(elements=("Al", "Ni", "Pt"), width_px=24, height_px=16, pixel_m=400e-9, frames=2, dwell_s=400e-6)


def without_modes(taken: Scan | EdsScan) -> Scan | EdsScan:
    """A scan as every microscope tells it: a real one's detectors have modes besides."""
    if isinstance(taken, EdsScan):
        return taken
    return taken.replace(detectors=tuple(one.replace(mode=None) for one in taken.detectors))


# -- what it is -------------------------------------------------------------------------------------------------------


def test_it_says_what_it_is_and_says_the_same_again(stand: Stand) -> None:
    described = stand.microscope.describe()
    assert described == stand.microscope.describe()
    assert described.virtual
    assert {"ETD", "TLD", "CBS", "ICE"} <= set(described.detectors)
    assert described.currents(Beam.ION, 30e3)
    assert described.column_angle_rad == pytest.approx(radians(52.0))


def test_both_say_the_same(in_process: tuple[Microscope, object], over_the_wire: tuple[Microscope, object]) -> None:
    assert in_process[0].describe() == over_the_wire[0].describe()


def test_the_same_is_seen_in_process_and_over_the_wire(
    in_process: tuple[Microscope, list[Frame]], over_the_wire: tuple[Microscope, list[Frame]]
) -> None:
    for ours, theirs in zip(in_process[1], over_the_wire[1], strict=True):
        assert np.array_equal(ours.pixels, theirs.pixels)
        assert ours.meta.channels == theirs.meta.channels
        assert ours.meta.scan == theirs.meta.scan
        assert ours.meta.state.stage == theirs.meta.state.stage


def test_the_same_is_seen_through_autoscript(
    in_process: tuple[Microscope, list[Frame]], over_autoscript: tuple[Microscope, list[Frame]]
) -> None:
    for ours, theirs in zip(in_process[1], over_autoscript[1], strict=True):
        assert ours.meta.channels == theirs.meta.channels
        assert ours.meta.scan == without_modes(theirs.meta.scan)
        assert theirs.meta.state.stage.t == ours.meta.state.stage.t
        for one, other in zip(ours.pixels, theirs.pixels, strict=True):  # the noise of each is its own
            smooth = [ndimage.uniform_filter(picture.astype(float), 3).ravel() for picture in (one, other)]
            assert np.corrcoef(smooth[0], smooth[1])[0, 1] > 0.85


# -- stage and beams --------------------------------------------------------------------------------------------------


def test_only_the_given_axes_move(stand: Stand) -> None:
    before = stand.microscope.state().stage
    reached = stand.microscope.move_stage(StagePosition(x=20e-6))
    assert reached.x == pytest.approx(20e-6, abs=1e-6)
    assert reached == stand.microscope.state().stage
    for axis in ("y", "z"):
        assert getattr(reached, axis) == pytest.approx(getattr(before, axis), abs=1e-6)
    assert (reached.r, reached.t) == (before.r, before.t)


def test_a_move_beyond_the_travel_is_refused_and_nothing_moves(stand: Stand) -> None:
    before = stand.microscope.state().stage
    for to in (StagePosition(x=1.0), StagePosition(z=-1.0), StagePosition(t=radians(80))):
        with pytest.raises(Refused) as caught:
            stand.microscope.move_stage(to)
        assert caught.value.remedy
        assert caught.value.evidence["limit"]
    assert stand.microscope.state().stage == before


def test_only_the_given_fields_of_a_beam_change(stand: Stand) -> None:
    before = stand.microscope.state().ion.settings
    reached = stand.microscope.set_beam(Beam.ION, BeamSettings(shift_x_m=1.5e-6))
    assert reached == before.replace(shift_x_m=1.5e-6)
    assert stand.microscope.state().ion.settings == reached


def test_a_current_near_one_of_the_list_becomes_it(stand: Stand) -> None:
    listed = stand.microscope.describe().currents(Beam.ION, 30e3)
    for current in listed[6:11]:
        reached = stand.microscope.set_beam(Beam.ION, BeamSettings(current_a=1.03 * current))
        assert reached.current_a == current
        measured = stand.microscope.state().ion.measured_current_a
        assert measured == pytest.approx(current, rel=0.05)


@pytest.mark.parametrize(
    "settings", [BeamSettings(current_a=30e-9), BeamSettings(voltage_v=17e3), BeamSettings(shift_x_m=1e-3)]
)
def test_what_a_column_lacks_is_refused_and_nothing_changes(stand: Stand, settings: BeamSettings) -> None:
    before = stand.microscope.state().ion.settings
    with pytest.raises(Refused) as caught:
        stand.microscope.set_beam(Beam.ION, settings)
    assert caught.value.evidence["limit"]
    assert stand.microscope.state().ion.settings == before


# -- devices ----------------------------------------------------------------------------------------------------------


def test_devices_go_in_and_out_and_twice_is_once(stand: Stand) -> None:
    for device in Device:
        for _ in range(2):
            stand.microscope.insert(device)
            assert stand.microscope.state().devices[device]
        for _ in range(2):
            stand.microscope.retract(device)
            assert not stand.microscope.state().devices[device]


def test_cbs_and_eds_exclude_each_other(stand: Stand) -> None:
    for inside, other in ((Device.CBS, Device.EDS), (Device.EDS, Device.CBS)):
        stand.microscope.insert(inside)
        with pytest.raises(Refused):
            stand.microscope.insert(other)
        assert not stand.microscope.state().devices[other]
        stand.microscope.retract(inside)


@pytest.mark.parametrize("device", list(Device))
def test_the_stage_stays_while_something_is_in(stand: Stand, device: Device) -> None:
    stand.microscope.insert(device)
    before = stand.microscope.state().stage
    for to in (
        StagePosition(t=radians(45)),
        StagePosition(r=radians(4)),
        StagePosition(z=(before.z or 0) + 1e-4),
        StagePosition(x=2e-3),
    ):
        with pytest.raises(Refused):
            stand.microscope.move_stage(to)
    assert stand.microscope.state().stage == before


def test_a_small_move_beside_cbs_is_real_work(stand: Stand) -> None:
    stand.microscope.insert(Device.CBS)
    at = stand.microscope.state().stage
    assert stand.microscope.move_stage(StagePosition(x=(at.x or 0) + 50e-6)).x == pytest.approx(50e-6, abs=1e-6)


# -- gas --------------------------------------------------------------------------------------------------------------


def test_a_gas_is_heated_opened_used_and_shut(stand: Stand) -> None:
    scope = stand.microscope
    with pytest.raises(Refused):
        scope.set_gas("Pt", GasSetting(valve_open=True))
    began = scope.clock.now()
    assert scope.set_gas("Pt", GasSetting(heater_on=True)).heater_on
    assert scope.state().gases["Pt"].ready
    assert scope.clock.now() - began > 60.0
    at_rest = scope.state().pressure_pa
    scope.insert(Device.NEEDLE)
    assert scope.set_gas("Pt", GasSetting(valve_open=True, duty=0.8)).valve_open
    assert scope.state().pressure_pa > 2 * at_rest
    film = Rectangle(x_m=0.0, y_m=-3e-6, width_m=10e-6, height_m=10e-6, depth_m=0.1e-6)
    done = scope.pattern(box(20.0, purpose="deposit", patterns=(film,), gases={"Pt": 1.0}, area="film"))
    assert done.fraction == 1.0
    assert scope.state().gases["Pt"].open_s > 0
    assert not scope.set_gas("Pt", GasSetting(valve_open=False)).valve_open
    scope.retract(Device.NEEDLE)
    assert scope.state().gases["Pt"].heater_on
    assert scope.state().pressure_pa < 1.5 * at_rest


def test_no_valve_is_ever_open_without_the_needle(stand: Stand) -> None:
    stand.gas()
    with suppress(Refused):
        stand.microscope.retract(Device.NEEDLE)
    state = stand.microscope.state()
    assert state.devices[Device.NEEDLE] or not state.gases["Pt"].valve_open


def test_a_gas_that_there_is_not(stand: Stand) -> None:
    with pytest.raises(InstrumentError, match="Au"):
        stand.microscope.set_gas("Au", GasSetting(heater_on=True))


# -- pictures ---------------------------------------------------------------------------------------------------------


def test_a_picture_says_how_it_was_taken(stand: Stand) -> None:
    stand.microscope.insert(Device.CBS)
    asked, began = scan(Beam.ELECTRON, "CBS", "TLD"), stand.microscope.clock.now()
    frame = stand.microscope.acquire(asked)
    assert frame.pixels.shape == (2, 36, 48)
    assert frame.pixels.dtype == np.uint8
    meta = frame.meta
    stood = asked.replace(detectors=tuple(one.replace(contrast=0.5, brightness=0.5) for one in asked.detectors))
    assert (meta.channels, without_modes(meta.scan), meta.virtual) == (("CBS", "TLD"), stood, True)
    assert (meta.pixel_x_m, meta.pixel_y_m) == (200e-9, 200e-9)
    assert meta.started_s >= began
    assert meta.seconds == pytest.approx(frame_seconds(asked))
    assert stand.microscope.clock.now() >= meta.started_s + meta.seconds - 1e-6
    assert meta.state.devices[Device.CBS]
    assert stand.microscope.state().electron.blanked


def test_every_frame_has_a_name_of_its_own(stand: Stand) -> None:
    uids = [stand.microscope.acquire(scan(beam)).meta.uid for beam in (*Beam, *Beam)]
    assert len(set(uids)) == 4


def test_channels_are_of_one_pass(stand: Stand) -> None:
    frame = stand.microscope.acquire(scan(Beam.ELECTRON, "TLD", "ETD"))
    assert frame.meta.channels == ("TLD", "ETD")
    assert not np.array_equal(frame.channel("TLD"), frame.channel("ETD"))


def test_sixteen_bits_where_the_machine_has_them(stand: Stand) -> None:
    width, height = stand.microscope.describe().sixteen_bit_sizes[0]
    frame = stand.microscope.acquire(scan(width_px=width, height_px=height, pixel_m=30e-9, bits=16, dwell_s=100e-9))
    assert frame.pixels.dtype == np.uint16
    with pytest.raises(Refused):
        stand.microscope.acquire(scan(bits=16))


@pytest.mark.parametrize(
    "asked", [scan(Beam.ELECTRON, "CBS"), scan(Beam.ION, "CBS"), scan(Beam.ELECTRON, "EBSD"), scan(pixel_m=100e-6)]
)
def test_a_picture_that_can_not_be_taken_is_refused(stand: Stand, asked: object) -> None:
    with pytest.raises(Refused):
        stand.microscope.acquire(asked)  # type: ignore[arg-type]
    assert stand.microscope.state().safe


def test_element_maps_are_counts(stand: Stand) -> None:
    with pytest.raises(Refused):
        stand.microscope.acquire_eds(EDS)
    stand.go("face-on")
    stand.microscope.set_beam(Beam.ELECTRON, BeamSettings(voltage_v=10e3, current_a=13e-9))
    stand.microscope.insert(Device.EDS)
    frame = stand.microscope.acquire_eds(EDS)
    assert frame.pixels.shape == (3, 16, 24)
    assert frame.pixels.dtype == np.uint16
    assert frame.meta.channels == EDS.elements
    assert frame.channel("Ni").sum() > 0
    assert len(np.unique(frame.channel("Ni"))) > 3
    assert stand.microscope.state().electron.blanked


@pytest.mark.parametrize("routine", list(Tune))
def test_what_a_routine_finds_is_set(stand: Stand, routine: Tune) -> None:
    stand.go("face-on")
    found = stand.microscope.tune(routine, scan(Beam.ELECTRON, "ETD"))
    assert found.routine is routine
    assert 0 <= found.score <= 1
    now = stand.microscope.state().electron
    assert now.blanked
    if routine is Tune.FOCUS:
        assert found.working_distance_m == now.settings.working_distance_m
        assert now.settings.working_distance_m == pytest.approx(4e-3, abs=50e-6)
    if routine is Tune.CONTRAST:
        assert [detector.name for detector in found.detectors] == ["ETD"]


# -- patterns ---------------------------------------------------------------------------------------------------------


def test_a_pattern_gives_its_dose_and_ends_blanked(stand: Stand) -> None:
    job = box(30.0)
    began = stand.microscope.clock.now()
    done = stand.microscope.pattern(job)
    assert (done.fraction, done.stopped) == (1.0, False)
    assert done.elapsed_s == pytest.approx(30.0, rel=1e-6)
    assert done.charge_c == pytest.approx(job.dose_c, rel=0.05)
    assert stand.microscope.clock.now() - began >= 30.0
    state = stand.microscope.state()
    assert (state.patterning, state.ion.blanked, state.safe) == (False, True, True)


def test_parts_of_a_job_add_up_to_the_whole(stand: Stand) -> None:
    job = box(30.0)
    parts = [
        stand.microscope.pattern(job.replace(from_fraction=a, to_fraction=b))
        for a, b in ((0, 0.25), (0.25, 0.7), (0.7, 1))
    ]
    assert [part.fraction for part in parts] == pytest.approx([0.25, 0.7, 1.0])
    assert sum(part.elapsed_s for part in parts) == pytest.approx(30.0, rel=1e-6)
    whole = stand.microscope.pattern(job)
    assert sum(part.charge_c for part in parts) == pytest.approx(whole.charge_c, rel=0.02)  # a current wanders


def test_a_long_job_is_one_job(stand: Stand) -> None:
    """Over the wire it is written in pieces; who asked for it sees one."""
    done = stand.microscope.pattern(box(300.0))
    assert (done.fraction, done.stopped) == (1.0, False)
    assert done.elapsed_s == pytest.approx(300.0, rel=1e-6)


@pytest.mark.parametrize(
    "job",
    [
        box(current_a=60e-9),
        box(voltage_v=8e3),
        box(patterns=[Rectangle(x_m=1e-3, y_m=0, width_m=1e-6, height_m=1e-6, depth_m=1e-6)]),
        box(purpose="deposit", gases={"Pt": 1.0}),
    ],
    ids=["current", "voltage", "field", "gas"],
)
def test_a_pattern_that_the_beam_is_not_set_for_is_refused(stand: Stand, job: object) -> None:
    before = stand.microscope.clock.now()
    with pytest.raises((Refused, DeviceFault)):
        stand.microscope.pattern(job)  # type: ignore[arg-type]
    assert stand.microscope.clock.now() == pytest.approx(before, abs=1.0)


def test_a_look_at_the_block_in_the_milling_pose_and_a_cut_are_real_work(stand: Stand) -> None:
    stand.microscope.set_beam(Beam.ION, BeamSettings(current_a=60e-9))
    assert stand.looked().meta.channels == ("ICE",)
    assert stand.microscope.pattern(stand.cut(0.5e-6, 0.55e-6, seconds=4.0)).fraction == 1.0


# -- faults and safety ------------------------------------------------------------------------------------------------


def test_a_source_that_is_off_is_a_fault_and_can_be_relit(stand: Stand) -> None:
    stand.microscope.set_beam(Beam.ELECTRON, BeamSettings(source_on=False))
    with pytest.raises(InstrumentError) as caught:
        stand.microscope.acquire(scan())
    assert isinstance(caught.value, DeviceFault | Refused)
    assert stand.microscope.recover(Recovery.RELIGHT_SOURCE).electron.source_on
    stand.microscope.acquire(scan())


def test_homing_brings_the_stage_to_its_reference(stand: Stand) -> None:
    state = stand.microscope.recover(Recovery.HOME_STAGE)
    assert state.stage_homed
    assert state.stage.t == 0.0


def test_making_safe_twice_is_making_safe_once(stand: Stand) -> None:
    stand.gas()
    assert not stand.microscope.state().safe
    for _ in range(2):
        state = stand.microscope.make_safe()
        assert state.safe
        assert not state.devices[Device.NEEDLE]
        assert not any(gas.valve_open for gas in state.gases.values())
        assert state.gases["Pt"].heater_on  # a hiccup of the network must not cost a quarter of an hour
        assert (state.ion.blanked, state.electron.blanked) == (True, True)


def test_making_safe_and_stopping_from_other_threads_while_nothing_goes_on(stand: Stand) -> None:
    errors: list[BaseException] = []

    def work(verb: str) -> None:
        try:
            getattr(stand.microscope, verb)()
        except InstrumentError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(verb,)) for verb in ("stop", "make_safe", "stop", "make_safe")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20.0)
    assert errors == []
    assert stand.microscope.state().safe
    assert stand.microscope.acquire(scan()).pixels.any()  # a stop is no lock


def test_time_passes_when_it_is_waited_for(stand: Stand) -> None:
    before = stand.microscope.clock.now()
    stand.microscope.clock.wait(90.0)
    assert stand.microscope.clock.now() == pytest.approx(before + 90.0, abs=5.0)


def test_the_lens_is_told_and_read(stand: Stand) -> None:
    assert stand.microscope.set_beam(Beam.ELECTRON, BeamSettings(lens=Lens.IMMERSION)).lens is Lens.IMMERSION
    assert stand.microscope.state().electron.settings.lens is Lens.IMMERSION


# -- stopping what goes on --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["stop", "make_safe"])
def test_a_pattern_is_ended_from_another_thread(paced: Microscope, verb: str) -> None:
    """It ends early, says how far it came, leaves the beam blanked; the rest can be given afterwards."""
    job = box(400.0)  # ten seconds on the wall
    begun, errors = threading.Event(), []

    def end() -> None:
        try:
            assert begun.wait(20.0)
            getattr(paced, verb)()
        except (AssertionError, InstrumentError) as error:
            errors.append(error)

    def watch(progress: Progress) -> None:
        assert 0 <= progress.fraction <= 1
        if progress.fraction > 0.05:
            begun.set()

    thread = threading.Thread(target=end)
    thread.start()
    began = time.monotonic()
    done: Done = paced.pattern(job, watch)
    assert time.monotonic() - began < 6.0
    thread.join(20.0)
    assert errors == []
    assert done.stopped
    assert 0 < done.fraction < 0.9
    assert done.elapsed_s == pytest.approx(400.0 * done.fraction, abs=20.0)
    state = paced.state()
    assert (state.patterning, state.ion.blanked) == (False, True)
    rest = paced.pattern(job.replace(from_fraction=0.98))
    assert rest.fraction == 1.0
