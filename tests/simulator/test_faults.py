"""Every fault does something to what happens, and shows in what is read; what mends it, mends it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

import simulator
from instrument.errors import ConnectionLost, DeviceFault, Refused, TimedOut
from instrument.process import mill_dose
from instrument.settings import (
    Beam,
    BeamSettings,
    DetectorSettings,
    Device,
    EdsScan,
    GasSetting,
    PatternJob,
    Recovery,
    Scan,
    StagePosition,
    Tune,
)
from simulator.faults import FAULTS, due, moved
from simulator.options import parse
from tests.simulator.bench import SMALL, Bench

FOCUS_SCAN = Scan(
    detectors=(DetectorSettings(name="TLD", contrast=0.45),), width_px=256, height_px=220, pixel_m=25e-9, dwell_s=3e-6
)


def bench_with(*faults: str, state: Path | None = None) -> Bench:
    """A still machine on which faults strike at times, as plasma-loss@1s."""
    return Bench(f"{SMALL}&fault={','.join(faults)}" if faults else SMALL, state)


def ready(*faults: str) -> Bench:
    """The same, its face cut clean before anything strikes; the faults are due at once then."""
    bench = Bench()
    bench.go("mill")
    bench.ion(4e-9)
    bench.cut(-0.3e-6, 0.6e-6, 2.0)
    strike(bench, *faults)
    return bench


def strike(bench: Bench, *faults: str, in_s: float = 0.0) -> None:
    """Let faults be due at the machine's next action, or so many seconds from now."""
    machine = bench.microscope
    machine.clock.wait(1e-3)
    at = machine.clock.now() + in_s
    machine.options = machine.options.model_copy(update={"fault": tuple((name, at) for name in faults)})


def ion_current(bench: Bench) -> float:
    return float(bench.microscope.state().ion.measured_current_a or 0.0)


def advance(bench: Bench, dose_factor: float = 1.2) -> float:
    """How far a cut of 100 nm brings the face, metres."""
    before = bench.face_z()
    bench.cut(before, before + 0.1e-6, dose_factor)
    return bench.face_z() - before


def job_for(bench: Bench, seconds: float) -> PatternJob:
    job = bench.cut_job(bench.face_z(), bench.face_z() + 0.3e-6)
    return job.replace(dose_c=seconds * job.current_a)


def test_lost_plasma_takes_nothing_and_reads_no_current_until_it_is_lit_again() -> None:
    bench = ready()
    job, before = job_for(bench, 400.0), bench.face_z()
    strike(bench, "plasma-loss", in_s=100.0)
    done = bench.microscope.pattern(job)
    assert done.fraction == 1.0  # it ends as always
    assert 0.15 * job.dose_c < done.charge_c < 0.45 * job.dose_c
    assert ion_current(bench) == 0.0
    assert bench.microscope.state().ion.source_on is False
    cut = bench.face_z() - before
    with pytest.raises(DeviceFault, match="source is off"):
        advance(bench)
    bench.microscope.recover(Recovery.RELIGHT_SOURCE)
    cold = ion_current(bench)
    bench.microscope.clock.wait(900.0)
    assert 0.6 < cold / ion_current(bench) < 0.8  # it warms up
    assert bench.face_z() - before == cut
    bench.microscope.pattern(job_for(bench, 400.0))
    assert bench.face_z() - before > 2 * cut


@pytest.mark.parametrize("name", ["current-step", "current-drift"])
def test_a_current_that_slides_or_steps_is_measured_and_thins_cuts(name: str) -> None:
    steady, erring = ready(), ready(name)
    for bench in (steady, erring):
        bench.microscope.set_beam(Beam.ELECTRON, BeamSettings(hfw_m=90e-6))  # the next verb: it strikes
        bench.microscope.clock.wait(3 * 3600.0)
    factor = ion_current(erring) / ion_current(steady)
    assert abs(factor - 1) > 0.04
    charges = [bench.microscope.pattern(job_for(bench, 60.0)).charge_c for bench in (steady, erring)]
    assert charges[1] / charges[0] == pytest.approx(factor, abs=0.01)
    if name == "current-step":
        erring.ion(1e-9)
        erring.ion(4e-9)
    else:
        erring.microscope.recover(Recovery.RELIGHT_SOURCE)
        erring.microscope.clock.wait(900.0)
    assert ion_current(erring) == pytest.approx(ion_current(steady), rel=0.005)


def test_another_species_reads_so_mills_otherwise_and_points_elsewhere() -> None:
    bench = ready("species-mismatch")
    xenon = advance(ready())
    assert abs(advance(bench) / xenon - 1) > 0.2
    assert bench.microscope.state().ion.settings.species == "Argon"
    began = bench.microscope.clock.now()
    bench.microscope.set_beam(Beam.ION, BeamSettings(species="Xenon"))
    assert bench.microscope.clock.now() - began == 600.0
    assert advance(bench) == pytest.approx(xenon, rel=0.25)


def test_emission_fades_and_saturation_clips() -> None:
    means = {}
    for name in ("", "emission-drift", "saturation"):
        bench = ready(*((name,) if name else ()))
        bench.go("face-on")
        bench.microscope.clock.wait(3 * 3600.0)
        means[name] = bench.picture("TLD", contrast=0.6).pixels
    assert means["emission-drift"].mean() < 0.9 * means[""].mean()
    assert np.mean(means["saturation"] == 255) > 2 * np.mean(means[""] == 255) + 0.03
    found = bench.microscope.tune(Tune.CONTRAST, FOCUS_SCAN)
    assert found.detectors[0].contrast < 0.55
    again = bench.microscope.acquire(FOCUS_SCAN.replace(detectors=found.detectors)).pixels
    assert np.mean(again == 255) < 0.02


def test_focus_drifts_until_it_is_found_again_and_a_routine_may_lock_wrongly() -> None:
    sharp, blurred, wrong = (ready(*names) for names in ((), ("focus-drift",), ("autofocus-mislock",)))
    detail = {}
    for name, bench in (("sharp", sharp), ("blurred", blurred)):
        bench.go("face-on")
        bench.microscope.clock.wait(6 * 3600.0)
        detail[name] = bench.picture("TLD", pixel=15e-9).pixels[0]
    assert _detail(detail["blurred"]) < 0.8 * _detail(detail["sharp"])
    for bench in (sharp, blurred, wrong):
        bench.go("face-on")
    found = [bench.microscope.tune(Tune.FOCUS, FOCUS_SCAN).working_distance_m or 0.0 for bench in (sharp, wrong)]
    assert found[1] - found[0] > 5e-6
    assert wrong.microscope.tune(Tune.FOCUS, FOCUS_SCAN).working_distance_m == pytest.approx(found[0], abs=1e-6)
    blurred.microscope.tune(Tune.FOCUS, FOCUS_SCAN)
    assert _detail(blurred.picture("TLD", pixel=15e-9).pixels[0]) > 0.9 * _detail(detail["sharp"])


def test_stigmators_are_found_by_looking() -> None:
    bench = ready()
    bench.go("face-on")
    turned = BeamSettings(stigmator_x=0.9, stigmator_y=-0.7)
    bench.microscope.set_beam(Beam.ELECTRON, turned)
    found = bench.microscope.tune(Tune.STIGMATOR, FOCUS_SCAN)
    assert abs(found.stigmator_x or 0.0) < 0.3
    assert abs(found.stigmator_y or 0.0) < 0.3


@pytest.mark.parametrize("name", ["image-shift", "em-field", "knob-turned", "charging-flare"])
def test_a_jump_moves_the_picture(name: str) -> None:
    still, moved_on = ready(), ready(name)
    pictures = []
    for bench in (still, moved_on):
        bench.go("face-on")
        pictures.append(bench.picture("TLD", pixel=25e-9).pixels[0].astype(float))
    spectra = [np.fft.rfft2(one - one.mean()) for one in pictures]
    cross = np.fft.irfft2(spectra[0] * np.conj(spectra[1]) / (np.abs(spectra[0] * np.conj(spectra[1])) + 1e-9))
    cross = ndimage.gaussian_filter(cross, 4, mode="wrap")  # the peak of a blurred picture is broad
    down, across = np.unravel_index(int(cross.argmax()), cross.shape)
    rows, columns = cross.shape
    way = np.hypot(min(down, rows - down), min(across, columns - across)) * 25e-9
    assert way > (0.1e-6 if name in ("image-shift", "charging-flare") else 0.9e-6)
    if name == "knob-turned":
        settings = moved_on.microscope.state().electron.settings
        assert settings.shift_x_m == pytest.approx(1.5e-6)
        assert abs(settings.stigmator_x or 0.0) > 0.5
    if name == "charging-flare":
        assert np.ptp(pictures[1].max(axis=1)) > 0
        assert (pictures[1].mean(axis=1) - pictures[0].mean(axis=1)).max() > 20
    if name in ("em-field", "charging-flare"):
        moved_on.microscope.clock.wait(1900.0)
        after = moved_on.picture("TLD", pixel=25e-9).pixels[0].astype(float)
        assert np.abs(after - pictures[0]).mean() < 0.9 * np.abs(pictures[1] - pictures[0]).mean()


def test_a_film_without_a_shield_buries_the_fiducial() -> None:
    bench = Bench()
    bench.cap_with_ruler()
    bench.ion(1e-9)
    top = -bench.cap_height()
    line = bench.line((1e-6, top, 1.8e-6), (4e-6, top, 1.8e-6), 0.4e-6, 0.4e-6)
    bench.microscope.pattern(bench.job([line], mill_dose(3.4e-6 * 0.4e-6 * 0.4e-6, "cap"), area="cap"))
    depth = _groove_contrast(bench)
    bench.gas(True)
    strike(bench, "fiducial-covered")
    bench.film(bench.box((2e-6, 0.0, 4e-6), (6e-6, 0.0, 12e-6), 50e-9), 50e-9, "cap")
    bench.gas(False)
    buried = [one.worn > 0.5e-6 for one in bench.microscope.block.features if one.kind == "groove"]
    assert buried == [False, False, True]  # the ruler lies under the cap
    bench.ion(1e-9)
    assert _groove_contrast(bench) < 0.8 * depth


def test_a_cut_may_not_be_delivered_or_twice() -> None:
    usual, missed = advance(ready()), ready("missed-slice")
    first = advance(missed)
    assert first < 0.2 * usual or first > 1.5 * usual
    assert advance(missed) == pytest.approx(usual, rel=0.5)  # only once


def test_a_cut_in_many_parts_is_one_cut_to_what_may_miss_it() -> None:
    bench = ready("missed-slice")
    gone = []
    for _ in range(2):
        before = bench.face_z()
        for part in bench.cut_job(before, before + 0.1e-6, 1.2).pieces(2.0):
            bench.microscope.pattern(part)
        gone.append(bench.face_z() - before)
    assert len(bench.cut_job(0.0, 0.1e-6, 1.2).pieces(2.0)) > 3
    assert gone[0] < 0.2 * gone[1] or gone[0] > 1.5 * gone[1]  # all of it, and only once


@pytest.mark.parametrize("purpose", ["mill", "deposit"])
def test_parts_that_follow_the_first_draw_no_faults_of_their_own(purpose: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bench, drawn = ready(), []
    monkeypatch.setattr("simulator.faults.moved", lambda _seed, _rate, _counter, what: drawn.append(what) or ())
    if purpose == "mill":
        job = bench.cut_job(0.0, 0.1e-6, 1.2)
    else:
        bench.go("deposit")
        bench.gas(True)
        bench.ion(0.6667e-9, 8e3)
        film = bench.box((-4e-6, 0.0, 0.5e-6), (4e-6, 6e-6, 0.5e-6), 0.1e-6)
        job = bench.job([film], 1e-8, "deposit", "face")
    drawn.clear()
    for part in job.pieces(2.0):
        bench.microscope.pattern(part)
    assert drawn[0] == ("cut" if purpose == "mill" else "deposit")
    assert len(drawn) > 3
    assert set(drawn[1:]) == {"call"}


def test_a_stuck_needle_says_so_and_moves_the_next_time() -> None:
    bench = ready("needle-stuck")
    began = bench.microscope.clock.now()
    with pytest.raises(DeviceFault, match="needle"):
        bench.microscope.insert(Device.NEEDLE)
    assert 20.0 <= bench.microscope.clock.now() - began <= 61.0
    assert bench.microscope.state().devices[Device.NEEDLE] is False
    bench.microscope.insert(Device.NEEDLE)
    assert bench.microscope.state().devices[Device.NEEDLE] is True


@pytest.mark.parametrize("name", ["gas-low", "gas-cold"])
def test_too_little_gas_grows_too_little_and_raises_the_pressure_less(name: str) -> None:
    films, pressures = [], []
    for faults in ((), (name,)):
        bench = ready()
        bench.go("deposit")
        bench.gas(True)
        strike(bench, *faults)
        bench.ion(0.6667e-9, 8e3)
        pressures.append(bench.microscope.state().pressure_pa)
        try:
            bench.film(bench.box((-4e-6, 0.0, 0.5e-6), (4e-6, 6e-6, 0.5e-6), 0.3e-6), 0.3e-6, "face")
        except DeviceFault:
            assert name == "gas-cold"  # the machine sees that
        films.append(float(np.median(bench.microscope.block.film)))
    assert films[1] < 0.85 * films[0]
    if name == "gas-low":
        assert pressures[1] < 0.9 * pressures[0]
    else:
        assert bench.microscope.state().gases["Pt"].ready is False
        bench.microscope.set_gas("Pt", GasSetting(heater_on=True))
        assert bench.microscope.state().gases["Pt"].ready is True


def test_a_stuck_valve_keeps_the_pressure_high_until_pumped() -> None:
    bench = ready()
    base = bench.microscope.state().pressure_pa
    bench.go("deposit")
    bench.gas(True)
    strike(bench, "valve-stuck")
    bench.gas(False)
    bench.microscope.clock.wait(600.0)
    assert bench.microscope.state().pressure_pa > 3 * base
    bench.microscope.recover(Recovery.PUMP)
    assert bench.microscope.state().pressure_pa == pytest.approx(base, rel=0.05)


def test_a_wrong_aperture_mills_where_a_film_is_wanted() -> None:
    bench = ready()
    bench.go("deposit")
    bench.gas(True)
    strike(bench, "over-density")
    done = bench.film(bench.box((-4e-6, 0.0, 0.5e-6), (4e-6, 6e-6, 0.5e-6), 0.3e-6), 0.3e-6, "face")
    assert float(np.median(bench.microscope.block.film)) < 0.1e-6
    settings = bench.microscope.state().ion.settings
    assert done.charge_c > 5 * (settings.current_a or 0.0) * done.elapsed_s  # a Faraday cup would have told
    assert ion_current(bench) == pytest.approx(settings.current_a, rel=0.05)


def test_air_shuts_the_beams_off_until_pumped_and_lit() -> None:
    bench = ready("vacuum-excursion")
    bench.microscope.set_beam(Beam.ELECTRON, BeamSettings(hfw_m=90e-6))
    state = bench.microscope.state()
    assert state.pressure_pa > 1e-2
    assert not state.ion.source_on
    assert not state.electron.source_on
    with pytest.raises(DeviceFault, match="vacuum"):
        bench.microscope.recover(Recovery.RELIGHT_SOURCE)
    bench.microscope.recover(Recovery.PUMP)
    assert bench.microscope.recover(Recovery.RELIGHT_SOURCE).ion.source_on
    assert bench.microscope.state().pressure_pa < 1e-3


def test_a_touch_alarm_stops_the_stage_until_it_is_homed() -> None:
    bench = ready("touch-alarm")
    there = bench.microscope.state().stage
    with pytest.raises(DeviceFault, match="touch alarm"):
        bench.go("face-on")
    assert bench.microscope.state().stage == there
    bench.microscope.recover(Recovery.HOME_STAGE)
    bench.go("face-on")


def test_a_stage_that_misses_says_where_it_is() -> None:
    bench = ready("stage-miss")
    reached = bench.microscope.move_stage(StagePosition(x=5e-6))
    assert 0.5e-6 < (reached.x or 0.0) - 5e-6 < 2.1e-6
    assert bench.microscope.move_stage(StagePosition(x=5e-6)).x == pytest.approx(5e-6, abs=0.1e-6)


def test_a_detector_is_refused_once_or_stays_in_silently() -> None:
    bench = ready("detector-refused", "cbs-left-in")
    bench.go("face-on")
    with pytest.raises(DeviceFault, match="CBS is not let in"):
        bench.microscope.insert(Device.CBS)
    bench.microscope.insert(Device.CBS)
    bench.microscope.retract(Device.CBS)
    assert bench.microscope.state().devices[Device.CBS] is True
    bright = bench.picture("CBS").pixels.mean()
    bench.microscope._now = bench.microscope._now.replace_fast(coated_c=3e-3)  # hours of milling under it
    assert bench.picture("CBS").pixels.mean() < 0.8 * bright
    bench.microscope.retract(Device.CBS)
    assert bench.microscope.state().devices[Device.CBS] is False


def test_milling_under_an_inserted_cbs_coats_it() -> None:
    bench = ready()
    bench.go("mill")
    bench.microscope.insert(Device.CBS)
    bench.microscope.pattern(job_for(bench, 60.0))
    assert bench.microscope._now.coated_c == pytest.approx(60 * 4e-9, rel=0.1)


def test_a_call_hangs_and_may_have_been_done() -> None:
    bench = ready("rpc-timeout")
    began = bench.microscope.clock.now()
    with pytest.raises(TimedOut, match="not answered"):
        bench.microscope.set_beam(Beam.ION, BeamSettings(current_a=1e-9))
    assert 60.0 <= bench.microscope.clock.now() - began <= 700.0
    assert bench.microscope.state().ion.settings.current_a == 1e-9


def test_a_frame_is_half_written_or_not_at_all_once() -> None:
    bench = ready("half-written-frame")
    bench.go("face-on")
    torn, whole = bench.picture("TLD").pixels[0], bench.picture("TLD").pixels[0]
    assert not torn[-10:].any()
    assert torn[:10].any()
    assert whole[-10:].any()
    bench = ready("disk-full")
    bench.go("face-on")
    with pytest.raises(DeviceFault, match="no space"):
        bench.picture("TLD")
    assert bench.picture("TLD").pixels.any()


def test_a_reboot_takes_beams_valves_and_the_homed_stage_with_it() -> None:
    bench = ready()
    bench.go("deposit")
    bench.gas(True)
    job, began = job_for_film(bench), bench.microscope.clock.now()
    strike(bench, "reboot", in_s=10.0)
    with pytest.raises(ConnectionLost, match="started again"):
        bench.microscope.pattern(job)
    assert bench.microscope.clock.now() - began > 600.0
    state = bench.microscope.state()
    assert not state.ion.source_on
    assert not state.stage_homed
    assert not state.gases["Pt"].valve_open
    assert state.ion.blanked
    bench.microscope.retract(Device.NEEDLE)
    with pytest.raises(DeviceFault, match="not homed"):
        bench.go("mill")
    bench.microscope.recover(Recovery.HOME_STAGE)
    bench.microscope.recover(Recovery.RELIGHT_SOURCE)
    bench.go("mill")
    bench.ion(4e-9)
    advance(bench)


def test_nobody_reads_a_machine_that_starts_again_but_it_is_made_safe_when_it_is_back() -> None:
    bench = ready()
    machine = bench.microscope
    from simulator import faults

    machine._now = faults.struck(3, machine._now, "reboot", machine.clock.now())
    with pytest.raises(ConnectionLost, match="does not answer"):
        machine.state()
    assert machine.make_safe().safe


def test_element_maps_may_be_empty_or_doubled_once() -> None:
    scan = EdsScan(
        elements=("Ni", "C"), width_px=60, height_px=40, pixel_m=100e-9, centre_y_m=1e-6, frames=5, dwell_s=1e-4
    )
    counts = []
    for faults in ((), ("eds-warm",)):
        bench = ready(*faults)
        bench.go("mill")
        bench.microscope.set_beam(Beam.ELECTRON, BeamSettings(voltage_v=10e3, current_a=3.2e-9))
        bench.microscope.insert(Device.EDS)
        counts.append([int(bench.microscope.acquire_eds(scan).pixels.sum()) for _ in range(2)])
    assert counts[1][0] == 0 or counts[1][0] > 1.8 * counts[0][0]
    assert counts[1][1] == pytest.approx(counts[0][1], rel=0.1)


def test_the_table_is_whole_and_every_fault_is_in_these_tests() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert len({fault.name for fault in FAULTS}) == 29
    assert [fault.name for fault in FAULTS if f'"{fault.name}"' not in here] == []


def test_random_faults_are_the_same_for_the_same_seed_and_as_frequent_as_told() -> None:
    hours = 400.0
    nights = [due(7, (), 10.0, 0.0, hours * 3600) for _ in range(2)]
    assert nights[0] == nights[1]
    assert nights[0] != due(8, (), 10.0, 0.0, hours * 3600)
    expected = sum(fault.rate for fault in FAULTS if fault.on == "time") * 10 * hours
    assert len(nights[0]) == pytest.approx(expected, rel=0.25)
    pieces = [name for n in range(400) for name in due(7, (), 10.0, n * 3600.0, (n + 1) * 3600.0)]
    assert sorted(pieces) == sorted(nights[0])
    struck = [name for number in range(2000) for name in moved(7, 10.0, number, "needle")]
    assert len(struck) == pytest.approx(2000 * 0.02, rel=0.5)
    assert due(7, (), 0.0, 0.0, 1e6) == []


def test_faults_outlive_the_process(tmp_path: Path) -> None:
    url = f"{SMALL}&fault=plasma-loss@1min,gas-low@2min"
    first = simulator.open(url, tmp_path)
    first.clock.wait(90.0)
    first.set_beam(Beam.ELECTRON, BeamSettings(hfw_m=90e-6))
    first.close()
    again = simulator.open(url, tmp_path)
    assert again.state().ion.source_on is False
    again.recover(Recovery.RELIGHT_SOURCE)
    again.set_beam(Beam.ELECTRON, BeamSettings(hfw_m=80e-6))
    again.close()
    third = simulator.open(SMALL, tmp_path)  # other faults to come, the same machine
    assert third.state().ion.source_on is True
    assert [one.name for one in third._now.struck] == ["plasma-loss", "gas-low"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("plasma-los@03:10", "did you mean plasma-loss"),
        ("nothing@03:10", "use one of these"),
        ("plasma-loss", "plasma-loss@03:10"),
        ("plasma-loss@3:99", "plasma-loss@03:10"),
        ("plasma-loss@-5min", "plasma-loss@03:10"),
    ],
)
def test_a_fault_that_is_not_there_or_at_no_time_is_refused(text: str, words: str) -> None:
    with pytest.raises(Refused, match=words):
        parse(f"simulator:1?fault={text}")


def test_faults_are_scheduled_by_the_clock() -> None:
    assert parse("simulator:1?fault=plasma-loss@03:10,stage-miss@40min").fault == (
        ("plasma-loss", 11400.0),
        ("stage-miss", 2400.0),
    )
    assert parse("simulator:1?faults=2.5").faults == 2.5


def job_for_film(bench: Bench) -> PatternJob:
    bench.ion(0.6667e-9, 8e3)
    job = bench.job([bench.box((-4e-6, 0.0, 0.5e-6), (4e-6, 6e-6, 0.5e-6), 0.3e-6)], 1e-9, "deposit")
    return job.replace(dose_c=100.0 * job.current_a)


def _detail(picture: np.ndarray) -> float:
    fine = picture.astype(float)
    from scipy import ndimage

    soft = ndimage.gaussian_filter(fine, 1.0)
    return float(np.std(soft - ndimage.gaussian_filter(fine, 3.0)))


def _groove_contrast(bench: Bench) -> float:
    """How much darker a line of the ruler is than the cap beside it, in an ion picture from above."""
    picture = bench.ion_look((2.5e-6, -bench.cap_height(), 1.8e-6), 2e-6).pixels[0].astype(float)
    from scipy import ndimage

    soft = ndimage.gaussian_filter(picture, 3)
    return float(np.percentile(soft, 60) - np.percentile(soft, 2))
