"""The virtual machine as a whole: it lasts, repeats itself bit by bit, refuses what a real one would, keeps time."""

from __future__ import annotations

import shutil
import threading
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

import simulator
from instrument.errors import BadData, DeviceFault, Refused, Stopped
from instrument.geometry import PoseName, Site, View, pose
from instrument.microscope import Microscope
from instrument.settings import (
    Beam,
    BeamSettings,
    DetectorSettings,
    Device,
    GasSetting,
    Progress,
    Recovery,
    Scan,
    StagePosition,
    Tune,
)
from simulator.beams import Sight, Standing
from simulator.clock import SimulatedClock
from simulator.options import parse
from simulator.saving import newest
from simulator.slab import Slab
from tests.simulator.bench import PRETILT, SMALL, Bench

ERRING = "simulator:3?width=12um&height=9um&depth=3um&coating=7um&above=3um&voxel=50nm&layer=60nm"


def test_a_state_opened_again_is_the_same_machine(tmp_path: Path) -> None:
    bench = Bench(SMALL, tmp_path)
    bench.cap_with_ruler()
    bench.ion(60e-9)
    bench.cut(-0.2e-6, 0.5e-6)
    bench.go("deposit")
    bench.gas(True)
    bench.film(bench.box((-4e-6, 0.0, 0.5e-6), (4e-6, 6e-6, 0.5e-6), 0.5e-6), 0.5e-6, "face")
    bench.gas(False)
    bench.go("face-on")
    first = bench.microscope
    state = first.state()
    again = Bench(SMALL, tmp_path)
    assert again.microscope.state() == state
    again.at, again.stage = bench.at, bench.stage
    ours, theirs = bench.picture("TLD", "ETD"), again.picture("TLD", "ETD")
    assert np.array_equal(ours.pixels, theirs.pixels)
    assert ours.meta == theirs.meta
    assert np.array_equal(first.block.volume.labels, again.microscope.block.volume.labels)
    again.microscope.close()


def test_a_frame_lost_in_a_crash_comes_again(tmp_path: Path) -> None:
    """What a frame draws hangs on the number of the action that was saved, not on what was tried since."""
    bench = Bench(ERRING, tmp_path / "lost")
    bench.go("face-on")
    shutil.copytree(tmp_path / "lost", tmp_path / "saved")
    lost = bench.picture("TLD")
    again = Bench(ERRING, tmp_path / "saved")
    again.at, again.stage = bench.at, bench.stage
    assert np.array_equal(again.picture("TLD").pixels, lost.pixels)
    assert not np.array_equal(again.picture("TLD").pixels, lost.pixels)


def test_truth_is_never_needed(tmp_path: Path) -> None:
    bench = Bench(SMALL, tmp_path)
    bench.go("face-on")
    frame = bench.picture("TLD")
    path = tmp_path / "truth" / f"{frame.meta.uid}.tif"
    assert path.exists()
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()
    again = Bench(SMALL, tmp_path)
    again.at, again.stage = bench.at, bench.stage
    assert again.picture("TLD").pixels.shape == frame.pixels.shape


def test_what_an_earlier_version_saved_under_one_name_is_gone_on_with(tmp_path: Path) -> None:
    machine = simulator.open(SMALL, tmp_path)
    machine.clock.wait(500.0)
    machine.close()
    place = newest(tmp_path)
    assert place is not None
    place.rename(tmp_path / "state.json")
    again = simulator.open(SMALL, tmp_path)
    assert again.clock.now() >= 500.0
    again.close()
    place = newest(tmp_path)
    assert place is not None
    assert [file.name for file in tmp_path.glob("state*.json")] == [place.name] != ["state.json"]


def test_a_folder_of_another_machine_or_a_damaged_one_is_not_taken(tmp_path: Path) -> None:
    simulator.open(SMALL, tmp_path).close()
    with pytest.raises(Refused, match="another virtual microscope"):
        simulator.open(SMALL.replace(":3", ":5"), tmp_path)
    place = newest(tmp_path)
    assert place is not None
    place.write_bytes(b"torn")
    with pytest.raises(BadData, match=place.name):
        simulator.open(SMALL, tmp_path)


@pytest.mark.parametrize("name", [name.value for name in PoseName])
@pytest.mark.parametrize("beam", list(Beam))
def test_beams_agree_with_the_geometry_of_the_instrument(name: str, beam: Beam) -> None:
    at = pose(name, PRETILT, rocking=0.0524)
    site = Site(sx=1e-5, sy=-2e-5, sz=3e-5, pretilt=PRETILT)
    stage = StagePosition(x=1e-4, y=2e-4, z=-1e-4, r=at.r, t=at.t)
    view = View(site, beam, stage, scan_rotation=at.ion_scan_rotation, shift=(1e-6, -2e-6))
    standing = Standing(1e-4, 2e-4, -1e-4, at.r, at.t, PRETILT, (1e-5, -2e-5, 3e-5))
    sight = Sight(beam, standing, scan_rotation=at.ion_scan_rotation, shift=(1e-6, -2e-6))
    for point in ((0.0, 0.0, 0.0), (1e-5, 2e-5, 3e-6)):
        assert sight.field(point) == pytest.approx(view.field(point), abs=1e-15)
        if abs(sight.flight[2]) > 0.1:
            assert sight.on_plane(2, point[2])(*view.field(point)) == pytest.approx(point[:2], abs=1e-15)
            back = sight.on_plane(2, point[2]).inverse()
            assert back(point[0], point[1]) == pytest.approx(view.field(point), abs=1e-15)
    step = sight.working_distance((0.0, 0.0, 1e-6)) - sight.working_distance((0.0, 0.0, 0.0))
    assert step == pytest.approx(view.slice_shift(1e-6)[1], abs=1e-15)


def test_after_a_tilt_things_are_not_where_they_were_and_drift_dies_down() -> None:
    from simulator import chamber

    bench = Bench(ERRING + "&jump=0.6um")
    machine = bench.microscope
    places = []
    for name in ("mill", "face-on", "mill", "face-on", "mill"):
        bench.go(name)
        if name == "mill":
            beam = chamber.sight(machine.options, machine._now, Beam.ION, machine.clock.now())
            places.append(beam.field((0.0, 0.0, 0.0)))
    spread = np.ptp(np.array(places), axis=0)
    assert 0.05e-6 < spread.max() < 4e-6
    now, began = machine._now, machine.clock.now()
    way = [np.hypot(*np.subtract(*(_at(bench, now, began + s) for s in (t, t + 60)))) for t in (0.0, 2400.0)]
    assert 5e-9 < way[0] < 110e-9
    assert way[1] < min(way[0], 20e-9)  # what is left is the usual creep


def _at(bench: Bench, now: object, time_s: float) -> tuple[float, float]:
    from simulator import chamber
    from simulator.condition import Condition

    assert isinstance(now, Condition)
    return chamber.drifted(bench.microscope.options, now.drift, time_s)


def test_every_aperture_points_elsewhere_and_currents_deviate_a_little() -> None:
    machine = simulator.open(ERRING)
    seen = {}
    for current in (1e-9, 4e-9, 15e-9, 60e-9):
        machine.set_beam(Beam.ION, BeamSettings(current_a=current * 1.03))
        state = machine.state().ion
        assert state.settings.current_a == current
        assert state.measured_current_a == pytest.approx(current, rel=0.031)
        seen[current] = machine.state().ion.measured_current_a / current
    assert len(set(seen.values())) == 4


@pytest.mark.parametrize(
    ("rule", "act"),
    [
        ("current-listed", lambda m: m.set_beam(Beam.ION, BeamSettings(current_a=7e-9))),
        ("voltage-listed", lambda m: m.set_beam(Beam.ELECTRON, BeamSettings(voltage_v=7e3))),
        ("beam-shift-range", lambda m: m.set_beam(Beam.ION, BeamSettings(shift_x_m=1e-3))),
        ("stage-travel", lambda m: m.move_stage(StagePosition(t=1.5))),
        ("device-needs-pose", lambda m: m.insert(Device.CBS)),
        ("valve-needs-needle", lambda m: m.set_gas("Pt", GasSetting(heater_on=True, valve_open=True))),
        ("gas-lacking", lambda m: m.set_gas("Au", GasSetting(heater_on=True))),
    ],
)
def test_what_the_machine_refuses_as_it_stands(rule: str, act: object) -> None:
    machine = simulator.open(SMALL)
    before = machine.clock.now()
    with pytest.raises(Refused) as refused:
        act(machine)  # type: ignore[operator]
    assert refused.value.rule == rule
    assert refused.value.remedy
    assert machine.clock.now() == before


def test_what_the_machine_refuses_with_devices_in() -> None:
    bench = Bench()
    machine = bench.microscope
    bench.go("face-on")
    with pytest.raises(Refused, match="CBS while it is out"):
        bench.picture("CBS")
    machine.insert(Device.CBS)
    for act, rule in (
        (lambda: machine.insert(Device.EDS), "devices-collide"),
        (lambda: machine.insert(Device.NEEDLE), "devices-collide"),
        (lambda: bench.go("mill"), "tilt-needs-devices-out"),
        (lambda: machine.move_stage(StagePosition(z=1e-4)), "move-needs-devices-out"),
        (lambda: machine.move_stage(StagePosition(x=2e-3)), "move-needs-devices-out"),
    ):
        with pytest.raises(Refused) as refused:
            act()
        assert refused.value.rule == rule
    machine.move_stage(StagePosition(x=1e-4))
    machine.retract(Device.CBS)
    machine.retract(Device.CBS)
    bench.go("deposit")
    with pytest.raises(Refused) as refused:
        bench.film(bench.box((-4e-6, 0.0, 0.0), (4e-6, 6e-6, 0.0), 0.5e-6), 0.5e-6, "face")
    assert refused.value.rule == "deposit-needs-needle"
    machine.insert(Device.NEEDLE)
    with pytest.raises(DeviceFault, match="no gas flows"):
        bench.film(bench.box((-4e-6, 0.0, 0.0), (4e-6, 6e-6, 0.0), 0.5e-6), 0.5e-6, "face")


def test_gas_raises_the_pressure_and_it_falls_again() -> None:
    machine = simulator.open(SMALL)
    base = machine.state().pressure_pa
    machine.insert(Device.NEEDLE)
    began = machine.clock.now()
    machine.set_gas("Pt", GasSetting(heater_on=True))
    assert machine.clock.now() - began == pytest.approx(600)
    machine.set_gas("Pt", GasSetting(valve_open=True))
    assert machine.state().pressure_pa > 4 * base
    assert not machine.state().safe
    machine.set_gas("Pt", GasSetting(valve_open=False))
    assert machine.state().pressure_pa < 1.5 * base
    assert machine.state().gases["Pt"].ready


def test_make_safe_shuts_and_retracts_and_leaves_the_heater_on() -> None:
    machine = simulator.open(SMALL)
    machine.insert(Device.NEEDLE)
    machine.set_gas("Pt", GasSetting(heater_on=True, valve_open=True))
    for _ in range(2):
        state = machine.make_safe()
        assert state.safe
        assert state.ion.blanked
        assert not state.devices[Device.NEEDLE]
        assert not state.gases["Pt"].valve_open
        assert state.gases["Pt"].heater_on


def test_a_source_that_is_off_writes_nothing_until_it_is_lit_again() -> None:
    bench = Bench()
    bench.go("mill")
    bench.ion(60e-9)
    bench.microscope.set_beam(Beam.ION, BeamSettings(source_on=False))
    assert bench.microscope.state().ion.measured_current_a == 0.0
    with pytest.raises(DeviceFault, match="source is off"):
        bench.cut(0.0, 0.1e-6)
    assert bench.microscope.recover(Recovery.RELIGHT_SOURCE).ion.source_on
    assert bench.cut(0.0, 0.1e-6).fraction == 1.0


def test_time_jumps_with_a_lease_and_follows_the_wall_without() -> None:
    clock = SimulatedClock()
    began = time.monotonic()
    clock.wait(1000.0)
    assert clock.now() == pytest.approx(1000.0)
    clock.live = lambda: False
    clock.now()
    clock.wait(0.2)
    assert clock.now() == pytest.approx(1000.2, abs=0.1)
    assert 0.15 < time.monotonic() - began < 5.0
    clock.live = lambda: True
    before = clock.now()
    clock.wait(500.0)
    assert clock.now() == pytest.approx(before + 500.0, abs=0.1)


def test_a_paced_clock_is_always_paced() -> None:
    clock = SimulatedClock(pace=1000.0)
    began = time.monotonic()
    clock.wait(200.0)
    assert 0.15 < time.monotonic() - began < 5.0


def test_without_a_lease_a_pattern_goes_on_in_real_time_until_made_safe() -> None:
    bench = Bench()
    machine = bench.microscope
    bench.go("mill")
    bench.ion(4e-9)
    job = bench.cut_job(-0.1e-6, 0.5e-6)
    assert job.seconds > 40
    machine.clock.live = lambda: False
    begun, moving = machine.clock.now(), threading.Event()
    done = []

    def watch(progress: Progress) -> None:
        if progress.fraction > 0:
            moving.set()

    writer = threading.Thread(target=lambda: done.append(machine.pattern(job, watch)))
    writer.start()
    assert moving.wait(20)
    state = machine.make_safe()
    writer.join(20)
    assert not writer.is_alive()
    assert state.safe
    assert done[0].stopped
    assert 0 < done[0].fraction < 1
    assert machine.clock.now() - begun < 40


def test_a_stopped_scan_is_lost() -> None:
    bench = Bench()
    bench.go("face-on")
    machine = bench.microscope
    machine.clock.live = lambda: False
    stopper = threading.Timer(0.3, machine.stop)
    stopper.start()
    with pytest.raises(Stopped):
        bench.picture("TLD")
    stopper.join()
    assert machine.state().electron.blanked


@pytest.mark.parametrize(
    ("url", "field"),
    [
        ("simulator:x", "seed"),
        ("simulator?colour=red", "option"),
        ("simulator?coating=19", "coating"),
        ("simulator?coating=19 nA", "coating"),
        ("simulator?width=5 mm", "width"),
        ("simulator?pace=fast", "pace"),
        ("simulator?pace=-1", "pace"),
        ("autoscript", "url"),
    ],
)
def test_a_url_that_cannot_be_is_refused_with_field_value_limit_and_remedy(url: str, field: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(url)
    evidence = refused.value.evidence
    assert evidence["field"] == field
    assert evidence["value"] is not None
    assert evidence["limit"]
    assert evidence["remedy"]


def test_options_of_a_url() -> None:
    options = parse("simulator:11?coating=19um&pace=200&rates=10%25&pretilt=36 deg")
    assert (options.seed, options.coating, options.pace, options.rates) == (11, 19e-6, 200.0, 0.1)
    assert options.pretilt == pytest.approx(0.6283, abs=1e-4)
    assert options.electrode().voxel_m == 40e-9
    assert options.axis == (0.0, 0.0)
    assert parse("simulator?axis=150um x -80um").axis == (150e-6, -80e-6)
    assert parse("simulator?axis=-0.2mm").axis == (-0.2e-3, 0.0)
    large = Slab(parse("simulator?width=110um&height=110um&depth=20um").electrode())
    assert large.length * np.prod(large.electrode.shape[1:]) < 152e6


def test_contrast_and_brightness_stay_as_they_were_set_last(tmp_path: Path) -> None:
    scan = Scan(detectors=(DetectorSettings(name="ETD"),), width_px=40, height_px=30, pixel_m=200e-9, dwell_s=1e-6)

    def stood(machine: Microscope, asked: Scan = scan) -> tuple[float | None, float | None]:
        told = machine.acquire(asked).meta.scan
        assert isinstance(told, Scan)
        return told.detectors[0].contrast, told.detectors[0].brightness

    with closing(simulator.open(SMALL, tmp_path)) as machine:
        assert stood(machine) == (0.5, 0.5)
        assert stood(machine, scan.replace(detectors=(DetectorSettings(name="ETD", contrast=0.4),))) == (0.4, 0.5)
        assert stood(machine) == (0.4, 0.5)
        found = machine.tune(Tune.CONTRAST, scan).detectors[0]
        assert stood(machine) == (found.contrast, found.brightness)
    with closing(simulator.open(SMALL, tmp_path)) as again:
        assert stood(again) == (found.contrast, found.brightness)
