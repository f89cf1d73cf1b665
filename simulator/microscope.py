"""SimulatedMicroscope: the verbs of a microscope on a virtual chamber, block and clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from instrument.errors import DeviceFault, Unsafe
from instrument.frame import Frame, FrameMeta
from instrument.microscope import Microscope, Watch, unwatched
from instrument.process import (
    DEVICE_S,
    HEAT_S,
    PATTERN_START_S,
    PURGE_S,
    RECOVERY_S,
    TUNE_S,
    beam_seconds,
    eds_seconds,
    frame_seconds,
    move_seconds,
)
from instrument.settings import (
    Beam,
    BeamSettings,
    BeamState,
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
from simulator import chamber, interlocks
from simulator.block import new_block
from simulator.clock import SimulatedClock
from simulator.condition import Condition, Running, description, fresh
from simulator.milling import true_rates
from simulator.options import Options
from simulator.pictures import Pictures
from simulator.saving import Store
from simulator.writing import Writer

#: Longest wait for a verb in hand to end when the machine is made safe, s on the wall.
_SAFE_WITHIN_S = 60.0
#: Pieces in which a pattern's time passes, s: stepped, and following the wall; state is saved no more often than this.
_STEPPED_S, _PACED_S, _SAVED_EVERY_S = (2.0, 20.0), 0.25, 20.0
#: A pause after which a cut's foot lags again (night.md 7), s.
_BREAK_S = 1800.0


class SimulatedMicroscope(Microscope):
    """A virtual Helios Hydra.

    Parameters
    ----------
    options : what it is and how it errs
    state : folder that holds it; what was saved there goes on. None: it lasts as long as the object
    """

    def __init__(self, options: Options, state: Path | None = None) -> None:
        self.options = options
        self.description = description(options.seed)
        self._store = Store(state) if state is not None else None
        opened = time.time()  # of the wall: no instrument's clock went on while no process held it
        saved = self._store.load(options) if self._store is not None else None
        self._now, self.block = saved if saved is not None else (fresh(self.description), new_block(options))
        away = max(0.0, opened - self._now.wall_s) * (options.pace or 1.0) if self._now.wall_s else 0.0
        # a paced clock follows the wall; one that is stepped stands still when nobody is there and nothing runs
        self.clock: SimulatedClock = SimulatedClock(self._now.time_s + (away if options.pace else 0.0), options.pace)
        self.rates = true_rates(options.seed, options.rates)
        self._pictures = Pictures(options, self.block, state)
        self._verb = threading.RLock()
        self._saved_s = self._now.time_s
        if saved is not None:
            self._settle(away)

    # -- reading ------------------------------------------------------------------------------------------------------

    def describe(self) -> Description:
        """Return what this instrument is and can do."""
        return self.description

    def state(self) -> State:
        """Return all that can be read, in one snapshot."""
        now, time_s = self._now, self.clock.now()
        quiet = now.blanked and not now.patterning
        return State(
            time_s=time_s,
            stage=chamber.read_stage(self.options, now),
            stage_homed=now.homed,
            electron=self._beam_state(Beam.ELECTRON, now),
            ion=self._beam_state(Beam.ION, now),
            devices={device: device in now.inserted for device in self.description.devices},
            gases=dict(now.gases),
            pressure_pa=chamber.pressure(now, time_s),
            patterning=now.patterning,
            safe=quiet and Device.NEEDLE not in now.inserted and not any(g.valve_open for g in now.gases.values()),
        )

    # -- setting ------------------------------------------------------------------------------------------------------

    def set_beam(self, beam: Beam, settings: BeamSettings) -> BeamSettings:
        """Change the given fields of a column; return all of them as reached. Refuses a current not in its list."""
        with self._action():
            now = self._now.beam(beam)
            wanted = interlocks.beam(self.description, beam, now, settings)
            self.clock.wait(beam_seconds(now, wanted))
            self._now = self._now.with_beam(beam, wanted)
            return wanted

    def move_stage(self, to: StagePosition) -> StagePosition:
        """Move the given axes; return what was reached. Refuses what could touch an inserted device."""
        with self._action():
            now = self._now
            interlocks.stage(self.description, now, to)
            seconds = move_seconds(now.stage, to)
            if seconds > 0:
                after = now.stage.replace(**to.model_dump(exclude_none=True))
                turned = chamber.turned_by(now.stage, to) > 1e-7
                self.clock.wait(seconds)
                time_s = self.clock.now()
                drift = chamber.disturbed(self.options, now, time_s) if turned else now.drift
                self._now = self._now.replace_fast(
                    stage=after, moves=now.moves + 1, tilts=now.tilts + (1 if turned else 0), drift=drift
                )
            return chamber.read_stage(self.options, self._now)

    def insert(self, device: Device, position: str | None = None) -> None:
        """Bring a device in; refuses devices that would collide, and poses in which one would touch the sample."""
        with self._action():
            interlocks.insertion(self.options, self._now, device)
            if device not in self._now.inserted:
                self.clock.wait(DEVICE_S[device])
                self._now = self._now.replace_fast(inserted=(*self._now.inserted, device))

    def retract(self, device: Device) -> None:
        """Take a device out; harmless when it is out. The needle's valves are shut first."""
        with self._action():
            self._retract(device)

    def set_gas(self, gas: str, setting: GasSetting) -> GasSetting:
        """Heat, set duty, open or shut a gas; heating takes minutes and is waited for."""
        with self._action():
            interlocks.gas(self.description, self._now, gas, setting)
            held = self._now.gases[gas]
            if setting.heater_on and not held.ready:
                self.clock.wait(HEAT_S)
                held = held.replace(heater_on=True, ready=not self.clock.stopped.is_set() or self.clock.stepped)
            if setting.heater_on is False:
                held = held.replace(heater_on=False, ready=False)
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

    # -- looking ------------------------------------------------------------------------------------------------------

    def acquire(self, scan: Scan) -> Frame:
        """Take one picture with all detectors asked for, pixel-registered; ends blanked."""
        with self._action():
            interlocks.scan(self.description, self._now, scan)
            self.block.settle_film()
            started = self.clock.now()
            self._now = self._now.replace_fast(blanked=False)
            try:
                seconds = frame_seconds(scan)
                self.clock.wait(seconds)
                self._stopped_midway()
            finally:
                self._now = self._now.replace_fast(blanked=True)
            taken = self._pictures.take(self._now, scan, started, seconds)
            names = tuple(detector.name for detector in scan.detectors)
            return self._frame(taken.pixels, scan, names, started, seconds, taken.notes)

    def acquire_eds(self, scan: EdsScan) -> Frame:
        """Take element maps: channels are the elements, values are counts summed over the frames; ends blanked."""
        with self._action():
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
            return self._frame(taken.pixels, scan, scan.elements, started, seconds, taken.notes)

    def tune(self, routine: Tune, scan: Scan) -> Tuning:
        """Run an automatic routine on the given scan area and apply what it finds."""
        with self._action():
            interlocks.scan(self.description, self._now, scan)
            self.block.settle_film()
            self.clock.wait(TUNE_S)
            found = self._pictures.tune(self._now, routine, scan, self.clock.now())
            given = {
                name: value
                for name in ("working_distance_m", "stigmator_x", "stigmator_y")
                if (value := getattr(found, name)) is not None
            }
            settings = self._now.beam(scan.beam).replace(**given)
            self._now = self._now.with_beam(scan.beam, settings)
            return found

    # -- writing ------------------------------------------------------------------------------------------------------

    def pattern(self, job: PatternJob, watch: Watch = unwatched) -> Done:
        """Write a job: start, call `watch` as it goes on, end blanked; a stop ends it early with `Done.stopped`."""
        with self._action():
            interlocks.pattern(self.description, self._now, job)
            if job.purpose == "mill":
                self.block.settle_film()
            self.clock.wait(PATTERN_START_S)
            started = self.clock.now()
            running = Running(job=job, fraction=job.from_fraction, started_s=started)
            self._now = self._now.replace_fast(blanked=False, patterning=True, running=running)
            self._save()
            try:
                fraction = self._write(job, watch, started)
            finally:
                self._blank()
            elapsed = self.clock.now() - started
            current = self._current(job.beam)
            stopped = fraction < job.to_fraction - 1e-9
            return Done(fraction=fraction, elapsed_s=elapsed, charge_c=current * elapsed, stopped=stopped)

    def _write(self, job: PatternJob, watch: Watch, started: float) -> float:
        """Give the job's dose in small pieces of time; return the fraction reached."""
        seconds = job.seconds
        writer = self._writer(job, started)
        fraction, span = job.from_fraction, job.to_fraction - job.from_fraction
        while fraction < job.to_fraction and not self.clock.stopped.is_set():
            left = (job.to_fraction - fraction) / span * seconds
            piece = min(left, max(_STEPPED_S[0], min(_STEPPED_S[1], seconds / 4)) if self.clock.stepped else _PACED_S)
            passed = self.clock.pass_by(piece)
            reached = job.to_fraction if passed >= left * (1 - 1e-9) else fraction + span * passed / seconds
            reached = min(reached, job.to_fraction)
            if reached > fraction:
                writer.give(fraction, reached)
            fraction = reached
            self._use_gas(passed)
            if self.clock.now() - self._saved_s >= _SAVED_EVERY_S and fraction < job.to_fraction:
                self._now = self._now.replace_fast(running=Running(job=job, fraction=fraction, started_s=started))
                self._save()
            elapsed = self.clock.now() - started
            watch(Progress(fraction=fraction, elapsed_s=elapsed, remaining_s=max(0.0, seconds - elapsed)))
        self._count_cut(job, writer, fraction)
        return fraction

    def _writer(self, job: PatternJob, started: float) -> Writer:
        now = self._now
        return Writer(
            self.block, chamber.sight(self.options, now, job.beam, started + job.seconds / 2), job,
            self._current(job.beam), self.rates, now.ion.species or "Xenon",
            1.0 if job.purpose == "deposit" else 0.0, (self.options.seed, now.counter), self._cuts_since_break(started),
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
            writer = self._writer(job, running.started_s)
            if reached > done:
                writer.give(done, reached)
            self._use_gas(passed)
            if self.options.pace is None:
                self.clock.wait(passed)
            self._count_cut(job, writer, reached)
        self._blank()
        self._save()

    # -- recovering, stopping -----------------------------------------------------------------------------------------

    def recover(self, what: Recovery) -> State:
        """Relight the ion source, home the stage, pump: never done by itself."""
        with self._action():
            if what is Recovery.RELIGHT_SOURCE:
                self.clock.wait(300.0)
                for beam in Beam:
                    self._now = self._now.with_beam(beam, self._now.beam(beam).replace(source_on=True))
            elif what is Recovery.HOME_STAGE:
                interlocks.stage(self.description, self._now, StagePosition(r=0.0, t=0.0))
                self.clock.wait(60.0)
                at = StagePosition(x=0.0, y=0.0, z=0.0, r=0.0, t=0.0)
                self._now = self._now.replace_fast(
                    stage=at, homed=True, moves=self._now.moves + 1, tilts=self._now.tilts + 1,
                    drift=chamber.disturbed(self.options, self._now, self.clock.now()),
                )  # fmt: skip
            else:
                self.clock.wait(60.0)
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
            self._retract(Device.NEEDLE)
            self._save()
        finally:
            self._verb.release()
        return self.state()

    def close(self) -> None:
        """Save and let go."""
        with self._verb:
            self._save()

    # -- private ------------------------------------------------------------------------------------------------------

    @contextmanager
    def _action(self) -> Iterator[None]:
        """One verb at a time; each has a number of its own, and what it changed is durable when it ends."""
        with self._verb:
            self.clock.stopped.clear()
            self._now = self._now.replace_fast(counter=self._now.counter + 1)
            try:
                yield
            finally:
                self._save()

    def _save(self) -> None:
        self._now = self._now.replace_fast(time_s=self.clock.now(), wall_s=time.time())
        self._saved_s = self._now.time_s
        if self._store is not None:
            self._now = self._store.save(self.options, self._now, self.block)

    def _blank(self) -> None:
        self._now = self._now.replace_fast(blanked=True, patterning=False, running=None)

    def _stopped_midway(self) -> None:
        if self.clock.stopped.is_set():
            msg = "the scan was stopped; its picture is lost"
            raise interlocks.stopped(msg)

    def _current(self, beam: Beam) -> float:
        settings = self._now.beam(beam)
        if not settings.source_on:
            return 0.0
        return chamber.true_current(self.options, beam, settings.voltage_v or 0.0, settings.current_a or 0.0)

    def _beam_state(self, beam: Beam, now: Condition) -> BeamState:
        settings = now.beam(beam)
        on = bool(settings.source_on)
        current = chamber.true_current(self.options, beam, settings.voltage_v or 0.0, settings.current_a or 0.0)
        return BeamState(
            settings=settings, source_on=on, blanked=now.blanked, measured_current_a=current if on else 0.0
        )

    def _retract(self, device: Device) -> None:
        if device not in self._now.inserted:
            return
        if device is Device.NEEDLE:
            self._shut(tuple(name for name, gas in self._now.gases.items() if gas.valve_open))
        self.clock.wait(DEVICE_S[device])
        left = tuple(one for one in self._now.inserted if one is not device)
        self._now = self._now.replace_fast(inserted=left)

    def _shut(self, names: tuple[str, ...]) -> None:
        """Shut valves; the gas leaves, the sample drifts, and the film laid is let into the pores."""
        if not names:
            return
        gases = {n: g.replace(valve_open=False) if n in names else g for n, g in self._now.gases.items()}
        time_s = self.clock.now()
        drift = chamber.disturbed(self.options, self._now, time_s)
        self._now = self._now.replace_fast(gases=gases, shut_at_s=time_s, drift=drift)

    def _use_gas(self, seconds: float) -> None:
        gases = {n: g.replace(open_s=g.open_s + seconds) if g.valve_open else g for n, g in self._now.gases.items()}
        self._now = self._now.replace_fast(gases=gases)

    def _cuts_since_break(self, time_s: float) -> int:
        return self._now.cuts if time_s - self._now.last_cut_s < _BREAK_S else 0

    def _count_cut(self, job: PatternJob, writer: Writer, fraction: float) -> None:
        if job.purpose == "deposit":
            self._now = self._now.replace_fast(cuts=0)
        elif writer.cuts_face and fraction >= 1.0 - 1e-9 and job.area == "face":
            now = self.clock.now()
            self._now = self._now.replace_fast(cuts=self._cuts_since_break(now) + 1, last_cut_s=now)

    def _frame(
        self, pixels: np.ndarray, scan: Scan | EdsScan, channels: tuple[str, ...], started: float, seconds: float,
        notes: dict[str, str],
    ) -> Frame:  # fmt: skip
        meta = FrameMeta(
            uid=f"sim-{self.options.seed}-{self._now.counter}", channels=channels, pixel_x_m=scan.pixel_m,
            pixel_y_m=scan.pixel_m, started_s=started, seconds=seconds, scan=scan, state=self.state(), virtual=True,
            notes=notes,
        )  # fmt: skip
        return Frame(pixels, meta)


__all__ = ["DeviceFault", "SimulatedMicroscope"]
