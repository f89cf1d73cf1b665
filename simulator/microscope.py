"""SimulatedMicroscope: the verbs of a microscope on a virtual chamber, block and clock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from instrument.errors import ConnectionLost, DeviceFault, Unsafe
from instrument.frame import Frame, FrameMeta
from instrument.microscope import Microscope, Watch, unwatched
from instrument.process import (
    DEVICE_S,
    HEAT_S,
    LIT_BELOW_PA,
    PATTERN_START_S,
    PURGE_S,
    RECOVERY_S,
    beam_seconds,
    eds_seconds,
    frame_seconds,
    move_seconds,
    tune_seconds,
)
from instrument.settings import (
    Beam,
    BeamSettings,
    Description,
    Device,
    Done,
    EdsScan,
    GasSetting,
    PatternJob,
    Progress,
    Recovery,
    Scan,
    StagePosition,
    State,
    Tune,
    Tuning,
)
from simulator import chamber, faults, interlocks
from simulator.clock import SimulatedClock
from simulator.condition import Running
from simulator.faults import Moved
from simulator.levels import as_it_stands, turned
from simulator.machine import Machine
from simulator.milling import SLICE_M
from simulator.options import Options
from simulator.writing import Writer

#: Longest wait for a verb in hand to end when the machine is made safe, s on the wall.
_SAFE_WITHIN_S = 60.0
#: Pieces in which a pattern's time passes, s: stepped, and following the wall.
_STEPPED_S, _PACED_S = (2.0, 20.0), 0.25
#: A pause after which a cut's foot lags again (night.md 7), s.
_BREAK_S = 1800.0
#: Recoveries: lighting a source; pumping, after air has come in or a valve has stuck; homing (physics.md 7), s.
_LIGHT_S, _PUMP_S, _PUMP_AIR_S, _HOME_S = 300.0, 60.0, 900.0, 60.0
#: Where the lower part of a picture is lost, it begins here.
_WRITTEN_SHARE = 0.6


class SimulatedMicroscope(Machine, Microscope):
    """A virtual Helios Hydra; see `Machine`."""

    clock: SimulatedClock

    def __init__(self, options: Options, state: Path | None = None) -> None:
        super().__init__(options, state)
        if self._away_s is not None:
            self._settle(self._away_s)

    # -- reading ------------------------------------------------------------------------------------------------------

    def describe(self) -> Description:
        """Return what this instrument is and can do."""
        return self.description

    def state(self) -> State:
        """Return all that can be read, in one snapshot."""
        gone = faults.active(self._now, "reboot")
        if gone is not None and self.clock.now() < gone.at_s + faults.away_s(gone):
            msg = "the microscope's computer does not answer: it is starting again"
            raise ConnectionLost(msg)
        return self._read()

    # -- setting ------------------------------------------------------------------------------------------------------

    def set_beam(self, beam: Beam, settings: BeamSettings, *, settled: bool = False) -> BeamSettings:
        """Change the given fields of a column; return all of them as reached. Refuses a current not in its list.

        `settled`: the time that it takes has passed already, with another change of this column.
        """
        with self._action():
            now = self._now.beam(beam)
            wanted = interlocks.beam(self.description, beam, now, settings)
            self.clock.wait(0.0 if settled else beam_seconds(now, wanted))
            self._now = self._now.with_beam(beam, wanted)
            if (now.current_a, now.voltage_v) != (wanted.current_a, wanted.voltage_v):
                self._mended("current-step")
            if settings.species is not None:
                self._mended("species-mismatch")
            return wanted

    def move_stage(self, to: StagePosition) -> StagePosition:
        """Move the given axes; return what was reached. Refuses what could touch an inserted device."""
        with self._action("move"):
            interlocks.stage(self.description, self._now, to)
            interlocks.free_stage(self._now)
            now = self._now
            seconds = move_seconds(now.stage, to)
            if seconds > 0:
                after = now.stage.replace(**to.model_dump(exclude_none=True))
                if (missed := self._spent("stage-miss")) is not None:
                    after = after.replace(x=(after.x or 0.0) + faults.missed_by(missed))
                turned = chamber.turned_by(now.stage, to) > 1e-7
                self.clock.wait(seconds)
                time_s = self.clock.now()
                drift = chamber.disturbed(self.options, now, time_s) if turned else now.drift
                self._now = self._now.replace_fast(
                    stage=after, moves=now.moves + 1, tilts=now.tilts + (1 if turned else 0), drift=drift,
                    came=chamber.came(now.stage, to, now.came),
                )  # fmt: skip
            return chamber.read_stage(self.options, self._now, self.clock.now())

    def insert(self, device: Device, position: str | None = None) -> None:
        """Bring a device in; refuses devices that would collide, and poses in which one would touch the sample."""
        with self._action(_kind_of_device(device)):
            interlocks.insertion(self.options, self._now, device)
            if device not in self._now.inserted:
                self._jams(device, "in")
                self.clock.wait(DEVICE_S[device])
                self._now = self._now.replace_fast(inserted=(*self._now.inserted, device))

    def retract(self, device: Device) -> None:
        """Take a device out; harmless when it is out. The needle's valves are shut first."""
        with self._action(_kind_of_device(device)):
            if device in self._now.inserted:
                self._jams(device, "out")
                if device is Device.CBS and self._spent("cbs-left-in") is not None:
                    self.clock.wait(DEVICE_S[device])
                    return
            self._retract(device)

    def set_gas(self, gas: str, setting: GasSetting) -> GasSetting:
        """Heat, set duty, open or shut a gas; heating takes minutes and is waited for."""
        with self._action("valve" if setting.valve_open is False else "call"):
            interlocks.gas(self.description, self._now, gas, setting)
            held = self._now.gases[gas]
            if setting.heater_on and not held.ready:
                self.clock.wait(HEAT_S)
                held = held.replace(heater_on=True, ready=not self.clock.stopped.is_set() or self.clock.stepped)
            if setting.heater_on is False:
                held = held.replace(heater_on=False, ready=False)
                heating = {name: since for name, since in self._now.heating.items() if name != gas}
                self._now = self._now.replace_fast(heating=heating)
            if setting.duty is not None:
                held = held.replace(duty=setting.duty)
            if setting.valve_open and not held.valve_open:
                self.clock.wait(PURGE_S)
                held = held.replace(valve_open=True)
                self._now = self._now.replace_fast(
                    shut_at_s=None, drift=chamber.disturbed(self.options, self._now, self.clock.now())
                )
            self._now = self._now.replace_fast(gases={**self._now.gases, gas: held})
            if setting.valve_open is False and held.valve_open:
                self._shut((gas,))
                self.clock.wait(RECOVERY_S)
            after = self._now.gases[gas]
            return GasSetting(heater_on=after.heater_on, duty=after.duty, valve_open=after.valve_open)

    def warm(self, gas: str) -> None:
        """Switch a gas's heater on without waiting: it is ready after its time."""
        with self._action():
            interlocks.gas(self.description, self._now, gas, GasSetting(heater_on=True))
            held = self._now.gases[gas]
            if not held.heater_on:
                heating = {**self._now.heating, gas: self.clock.now()}
                gases = {**self._now.gases, gas: held.replace(heater_on=True)}
                self._now = self._now.replace_fast(gases=gases, heating=heating)

    def warm_share(self, gas: str) -> float:
        """Return how much of its heating time a gas has behind it, 1 once it is ready."""
        since = self._now.heating.get(gas)
        return 1.0 if since is None else min(1.0, (self.clock.now() - since) / HEAT_S)

    # -- looking ------------------------------------------------------------------------------------------------------

    def acquire(self, scan: Scan) -> Frame:
        """Take one picture with all detectors asked for, pixel-registered; ends blanked."""
        with self._action("frame"):
            scan = as_it_stands(scan, self._now.knobs)
            interlocks.scan(self.description, self._now, scan)
            self._now = self._now.replace_fast(knobs=turned(self._now.knobs, scan.detectors))
            self.block.settle_film()
            started = self.clock.now()
            self._now = self._now.replace_fast(blanked=False)
            try:
                seconds = frame_seconds(scan)
                self.clock.wait(seconds)
                self._stopped_midway()
            finally:
                self._now = self._now.replace_fast(blanked=True)
            if scan.beam is Beam.ION:
                self._coat_cbs(self._current(Beam.ION) * seconds)
            taken = self._pictures.take(self._now, scan, started, seconds)
            if self._spent("disk-full") is not None:
                msg = "the picture can't be written: no space is left on the microscope's disk"
                raise DeviceFault(msg, remedy="make room and take it again")
            if self._spent("half-written-frame") is not None:
                taken.pixels[:, round(_WRITTEN_SHARE * scan.height_px) :] = 0
            names = tuple(detector.name for detector in scan.detectors)
            return self._frame(taken.pixels, scan, names, started, seconds, taken.notes)

    def glimpse(self, scan: Scan, settings: BeamSettings, at_s: float) -> np.ndarray:
        """Return what a scan by a column set otherwise shows, shape (detector, row, column), without letting time pass.

        A live picture's lines are made of such.
        """
        with self._verb:
            self._now = self._now.replace_fast(counter=self._now.counter + 1)
            return self._pictures.take(self._now.with_beam(scan.beam, settings), scan, at_s, 0.0).pixels

    def acquire_eds(self, scan: EdsScan) -> Frame:
        """Take element maps: channels are the elements, values are counts summed over the frames; ends blanked."""
        with self._action("map"):
            interlocks.eds(self.description, self._now, scan)
            self.block.settle_film()
            started, seconds = self.clock.now(), eds_seconds(scan)
            self._now = self._now.replace_fast(blanked=False)
            try:
                self.clock.wait(seconds)
                self._stopped_midway()
            finally:
                self._now = self._now.replace_fast(blanked=True)
            taken = self._pictures.map(self._now, scan, started, seconds)
            if (warm := self._spent("eds-warm")) is not None:
                taken = replace(taken, pixels=taken.pixels * (0 if warm.severity < 0.5 else 2))
            return self._frame(taken.pixels, scan, scan.elements, started, seconds, taken.notes)

    def tune(self, routine: Tune, scan: Scan) -> Tuning:
        """Run an automatic routine on the given scan area and apply what it finds."""
        with self._action("focus" if routine is Tune.FOCUS else "call"):
            scan = as_it_stands(scan, self._now.knobs)
            interlocks.scan(self.description, self._now, scan)
            self.block.settle_film()
            self.clock.wait(tune_seconds(routine, scan))
            found = self._pictures.tune(self._now, routine, scan, self.clock.now())
            if found.working_distance_m is not None and (off := self._spent("autofocus-mislock")) is not None:
                found = found.replace(working_distance_m=found.working_distance_m + faults.mislocked(off))
            given = {
                name: value
                for name in ("working_distance_m", "stigmator_x", "stigmator_y")
                if (value := getattr(found, name)) is not None
            }
            settings = self._now.beam(scan.beam).replace(**given)
            self._now = self._now.with_beam(scan.beam, settings)
            self._now = self._now.replace_fast(knobs=turned(self._now.knobs, found.detectors or scan.detectors))
            return found

    # -- writing ------------------------------------------------------------------------------------------------------

    def pattern(self, job: PatternJob, watch: Watch = unwatched) -> Done:
        """Write a job: start, call `watch` as it goes on, end blanked; a stop ends it early with `Done.stopped`."""
        with self._action(_kind_of_job(job)):
            interlocks.pattern(self.description, self._now, job)
            if job.purpose == "mill":
                self.block.settle_film()
            self.clock.wait(PATTERN_START_S)
            started = self.clock.now()
            whole, job = job, job.part()
            running = Running(job=job, fraction=0.0, started_s=started)
            self._now = self._now.replace_fast(
                blanked=False, patterning=True, running=running, patterns=self._now.patterns + 1
            )
            self._save()
            try:
                fraction, charge = self._write(whole, running, watch)
            finally:
                self._blank()
            elapsed = self.clock.now() - started
            stopped = fraction < 1 - 1e-9
            return Done(fraction=_of_whole(whole, fraction), elapsed_s=elapsed, charge_c=charge, stopped=stopped)

    def _write(self, whole: PatternJob, running: Running, watch: Watch) -> tuple[float, float]:
        """Give a job's dose in pieces of time; return the fraction reached and the charge, coulombs.

        `running` has the part of the `whole` one that is written now.
        """
        job, started = running.job, running.started_s
        seconds = job.seconds
        writer, arriving = self._writer(running), self._arriving(whole)
        given = fraction = job.from_fraction
        given_s, charge, span = started, 0.0, job.to_fraction - job.from_fraction
        while fraction < job.to_fraction and not self.clock.stopped.is_set():
            left = (job.to_fraction - fraction) / span * seconds
            piece = min(left, max(_STEPPED_S[0], min(_STEPPED_S[1], seconds / 4)) if self.clock.stepped else _PACED_S)
            passed = self.clock.pass_by(piece)
            reached = job.to_fraction if passed >= left * (1 - 1e-9) else fraction + span * passed / seconds
            fraction = min(reached, job.to_fraction)
            time_s = self.clock.now()
            if time_s - given_s >= self.options.grain or fraction >= job.to_fraction or self.clock.stopped.is_set():
                current = self._current(job.beam)
                self._give(writer, given, fraction, current * arriving, time_s - given_s)
                charge += current * (time_s - given_s)
                given, given_s = fraction, time_s
                self._strike()
                if fraction < job.to_fraction:
                    self._now = self._now.replace_fast(running=running.model_copy(update={"fraction": fraction}))
                    self._save()
            elapsed = time_s - started
            reached = _of_whole(whole, fraction)
            watch(Progress(fraction=reached, elapsed_s=elapsed, remaining_s=max(0.0, seconds - elapsed)))
        self._end_of(job, writer, fraction)
        return fraction, charge

    def _arriving(self, job: PatternJob) -> float:
        """Return the share of the dose that arrives: 1 but for a cut that is missed, or done twice, whole."""
        if job.purpose != "mill" or job.area != "face":
            return 1.0
        ends = job.to_fraction >= 1
        missed = self._spent("missed-slice") if ends else faults.active(self._now, "missed-slice")
        return 1.0 if missed is None else 0.0 if missed.severity < 0.7 else 2.0

    def _give(self, writer: Writer, start: float, end: float, current_a: float, seconds: float) -> None:
        """Let what the beam has done in `seconds` happen to the block, and to what else it meets."""
        if end > start and current_a > 0:
            writer.current_a = current_a
            writer.gas = chamber.precursor(self._now) if writer.job.purpose == "deposit" else 0.0
            writer.give(start, end)
        if writer.job.beam is Beam.ION:
            self._coat_cbs(current_a * seconds)
        self._use_gas(seconds)

    def _writer(self, running: Running) -> Writer:
        now, job, started = self._now, running.job, running.started_s
        return Writer(
            self.block, chamber.sight(self.options, now, job.beam, started + job.seconds / 2), job,
            self._current(job.beam), self.rates, now.ion.species or "Xenon", 0.0,
            (self.options.seed, now.patterns), self._cuts_since_break(started),
            chamber.ion_defocus(self.options, now) if job.beam is Beam.ION else 0.0,
        )  # fmt: skip

    def _settle(self, away: float) -> None:
        """Give what a pattern went on to give after its process had ended, for `away` seconds at most.

        Nobody stopped the beam then: it goes on until the pattern's end, or until whoever opens the saved state has the
        machine again (a watchdog, to make it safe). What was held is blanked.
        """
        running = self._now.running
        if running is not None:
            job, done = running.job, running.fraction
            rest = (job.to_fraction - done) / (job.to_fraction - job.from_fraction)
            passed = min(away, rest * job.seconds)
            reached = done + (job.to_fraction - done) * (passed / (rest * job.seconds) if rest > 0 else 1.0)
            writer = self._writer(running)
            self._give(writer, done, reached, self._current(job.beam) * self._arriving(job), passed)
            if self.options.pace is None:
                self.clock.wait(passed)
            self._end_of(job, writer, reached)
        self._blank()
        self._save()

    # -- recovering, stopping -----------------------------------------------------------------------------------------

    def recover(self, what: Recovery) -> State:
        """Relight the ion source, home the stage, pump: never done by itself."""
        with self._action():
            if what is Recovery.RELIGHT_SOURCE:
                self._light()
            elif what is Recovery.HOME_STAGE:
                self._home()
            else:
                poor = any(faults.active(self._now, name) for name in ("vacuum-excursion", "valve-stuck"))
                self.clock.wait(_PUMP_AIR_S if poor else _PUMP_S)
                self._mended("vacuum-excursion", "valve-stuck")
        return self.state()

    def stop(self) -> None:
        """End the pattern or scan in hand and blank, from any thread, at once."""
        self.clock.stopped.set()

    def make_safe(self) -> State:
        """Patterning off, beams blanked, valves shut, then needles out; idempotent, from any thread."""
        self.clock.stopped.set()
        if not self._verb.acquire(timeout=_SAFE_WITHIN_S):
            msg = "a verb of the virtual microscope does not end; the machine could not be made safe"
            raise Unsafe(msg, waited_s=_SAFE_WITHIN_S)
        try:
            self._blank()
            self._back_again()
            self._retract(Device.NEEDLE)
            self._save()
            self.clock.stopped.clear()  # what was in hand has ended; a wait that follows is one
        finally:
            self._verb.release()
        return self.state()

    def close(self) -> None:
        """Save and let go."""
        with self._verb:
            self._save()

    # -- private ------------------------------------------------------------------------------------------------------

    def _jams(self, device: Device, way: str) -> None:
        """Raise where a device does not move."""
        if device is Device.NEEDLE and (stuck := self._spent("needle-stuck")) is not None:
            self.clock.wait(faults.stuck_s(stuck))
            msg = f"the needle has not moved {way} after {faults.stuck_s(stuck):.0f} s; try again, move no stage"
            raise DeviceFault(msg, device=str(device))
        if device is not Device.NEEDLE and way == "in" and self._spent("detector-refused") is not None:
            msg = f"{device} is not let in; see that the other detectors are out and try again"
            raise DeviceFault(msg, device=str(device))

    def _light(self) -> None:
        if chamber.pressure(self._now, self.clock.now()) > LIT_BELOW_PA:
            msg = f"the vacuum is worse than {LIT_BELOW_PA:g} Pa: no source is lit; pump first"
            raise DeviceFault(msg, pressure_pa=chamber.pressure(self._now, self.clock.now()))
        self.clock.wait(_LIGHT_S)
        for beam in Beam:
            self._now = self._now.with_beam(beam, self._now.beam(beam).replace(source_on=True))
        self._now = self._now.replace_fast(lit_s=self.clock.now(), lights=self._now.lights + 1)
        self._mended("plasma-loss", "current-drift", "emission-drift")

    def _home(self) -> None:
        interlocks.stage(self.description, self._now, StagePosition(r=0.0, t=0.0))
        self.clock.wait(_HOME_S)
        self._now = self._now.replace_fast(
            stage=StagePosition(x=0.0, y=0.0, z=0.0, r=0.0, t=0.0), homed=True, moves=self._now.moves + 1,
            tilts=self._now.tilts + 1, drift=chamber.disturbed(self.options, self._now, self.clock.now()),
        )  # fmt: skip
        self._mended("touch-alarm")

    def _stopped_midway(self) -> None:
        if self.clock.stopped.is_set():
            msg = "the scan was stopped; its picture is lost"
            raise interlocks.stopped(msg)

    def _retract(self, device: Device) -> None:
        if device not in self._now.inserted:
            return
        if device is Device.NEEDLE:
            self._shut(tuple(name for name, gas in self._now.gases.items() if gas.valve_open))
        self.clock.wait(DEVICE_S[device])
        left = tuple(one for one in self._now.inserted if one is not device)
        self._now = self._now.replace_fast(inserted=left)

    def _cuts_since_break(self, time_s: float) -> int:
        return self._now.cuts if time_s - self._now.last_cut_s < _BREAK_S else 0

    def _end_of(self, job: PatternJob, writer: Writer, fraction: float) -> None:
        if job.purpose == "deposit":
            self._now = self._now.replace_fast(cuts=0)
            self._mended("over-density")
        elif writer.cuts_face and fraction >= 1.0 - 1e-9 and writer.advance_m <= SLICE_M:
            now = self.clock.now()
            self._now = self._now.replace_fast(cuts=self._cuts_since_break(now) + 1, last_cut_s=now)

    def _frame(
        self, pixels: np.ndarray, scan: Scan | EdsScan, channels: tuple[str, ...], started: float, seconds: float,
        notes: dict[str, str],
    ) -> Frame:  # fmt: skip
        meta = FrameMeta(
            uid=f"sim-{self.options.seed}-{self._now.counter}", channels=channels, pixel_x_m=scan.pixel_m,
            pixel_y_m=scan.pixel_m, started_s=started, seconds=seconds, scan=scan, state=self._read(), virtual=True,
            notes=notes,
        )  # fmt: skip
        return Frame(pixels, meta)


def _of_whole(whole: PatternJob, fraction: float) -> float:
    """Return which fraction of a whole job a fraction of its part is."""
    return whole.from_fraction + (whole.to_fraction - whole.from_fraction) * fraction


def _kind_of_job(job: PatternJob) -> Moved:
    """Return what a job is to the faults that hang on it: a deposit or a cut is one, in however many parts."""
    if job.from_fraction > 0:
        return "call"
    return "deposit" if job.purpose == "deposit" else "cut" if job.area == "face" else "call"


def _kind_of_device(device: Device) -> Moved:
    return "needle" if device is Device.NEEDLE else "device"
