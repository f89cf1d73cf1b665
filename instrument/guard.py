"""Guarded: wraps any microscope and refuses what would hurt it, saying which rule and why.

It sits in the server, in front of the one connection, so nobody gets round it. `stop` and `make_safe` always pass.
"""

from __future__ import annotations

from collections.abc import Callable

from instrument import guard_rules as rules
from instrument.errors import Refused
from instrument.frame import Frame
from instrument.microscope import Microscope, Watch, unwatched
from instrument.settings import (
    Beam,
    BeamSettings,
    Description,
    Device,
    Done,
    EdsScan,
    Envelope,
    GasSetting,
    PatternJob,
    Recovery,
    Scan,
    StagePosition,
    State,
    Tune,
    Tuning,
)


class Guarded(Microscope):
    """A microscope behind its interlocks.

    Parameters
    ----------
    microscope : whose verbs are called once no rule refuses
    envelope : what the controller may do; None: only the instrument's own limits hold
    charge : returns the charge (C) that an area has had so far, of a ledger that outlives this object; None: it is
        counted here
    """

    def __init__(
        self,
        microscope: Microscope,
        envelope: Envelope | None = None,
        charge: Callable[[str], float] | None = None,
    ) -> None:
        self._microscope = microscope
        self._usual_a: dict[tuple[object, ...], float] = {}
        self._envelope = envelope
        self.clock = microscope.clock
        self._described = microscope.describe()
        self._looked: rules.Look | None = None
        self._counted: dict[str, float] = {}
        self._charge = charge if charge is not None else lambda area: self._counted.get(area, 0.0)
        self._base_pa = microscope.state().pressure_pa
        self.refusals = 0

    @property
    def envelope(self) -> Envelope | None:
        """What the controller may do."""
        return self._envelope

    @envelope.setter
    def envelope(self, envelope: Envelope | None) -> None:
        self._envelope = envelope
        self._usual_a = {}  # a new claim: learned anew; what a run knows from before it holds against it itself

    def describe(self) -> Description:
        """Return what this instrument is and can do."""
        return self._described

    def state(self) -> State:
        """Return all that can be read."""
        return self._microscope.state()

    def set_beam(self, beam: Beam, settings: BeamSettings) -> BeamSettings:
        """Change a column within the run's working points."""
        with self._refusing():
            context = self._context()
            rules.a_beam_of_the_run(context, beam, settings)
        try:
            return self._microscope.set_beam(beam, settings)
        finally:
            after = self._microscope.state().ion.settings
            if rules.working_point(after) != rules.working_point(context.state.ion.settings):
                self._looked = None  # also when it is changed back: apertures don't come back to where they were

    def move_stage(self, to: StagePosition) -> StagePosition:
        """Move to a pose of the run, devices out."""
        with self._refusing():
            for rule in rules.STAGE_RULES:
                rule(self._context(), to)
        self._looked = None  # also when it moves back: a stage doesn't
        return self._microscope.move_stage(to)

    def insert(self, device: Device, position: str | None = None) -> None:
        """Bring a device in where nothing is in its way."""
        with self._refusing():
            for rule in rules.DEVICE_RULES:
                rule(self._context(), device)
        self._needle_moves(device, inserting=True)
        self._microscope.insert(device, position)

    def retract(self, device: Device) -> None:
        """Take a device out; the needle only with shut valves."""
        with self._refusing():
            rules.valve_before_needle(self._context(), device)
        self._needle_moves(device, inserting=False)
        self._microscope.retract(device)

    def set_gas(self, gas: str, setting: GasSetting) -> GasSetting:
        """Heat or open a gas of the run, needle first."""
        with self._refusing():
            for rule in rules.GAS_RULES:
                rule(self._context(), gas, setting)
        return self._microscope.set_gas(gas, setting)

    def acquire(self, scan: Scan) -> Frame:
        """Take a picture."""
        with self._refusing():
            context = self._context()
            rules.scan_fits_the_field(context, scan)
            rules.electron_dose_as_planned(context, scan)
            for rule in rules.LOOK_RULES:
                rule(context, scan.beam)
        self._learn(context, scan.beam)
        frame = self._microscope.acquire(scan)
        if scan.beam is Beam.ION:
            self._looked = rules.Look.at(self._microscope.state())
        return frame

    def acquire_eds(self, scan: EdsScan) -> Frame:
        """Take element maps."""
        with self._refusing():
            context = self._context()
            rules.scan_fits_the_field(context, scan)
            rules.electron_dose_as_planned(context, scan)
            for rule in rules.LOOK_RULES:
                rule(context, Beam.ELECTRON)
        self._learn(context, Beam.ELECTRON)
        return self._microscope.acquire_eds(scan)

    def tune(self, routine: Tune, scan: Scan) -> Tuning:
        """Run an automatic routine."""
        with self._refusing():
            context = self._context()
            rules.scan_fits_the_field(context, scan)
            for rule in rules.LOOK_RULES:
                rule(context, scan.beam)
        self._learn(context, scan.beam)
        return self._microscope.tune(routine, scan)

    def check(self, job: PatternJob) -> None:
        """Refuse a job that is going to be written in pieces, before its first one; its length alone is no matter."""
        with self._refusing():
            context = self._context()
            for beam_rule in rules.BEAM_RULES:
                beam_rule(context, job.beam)
            for rule in rules.JOB_RULES:
                rule(context, job)

    def pattern(self, job: PatternJob, watch: Watch = unwatched) -> Done:
        """Write a job that every rule allows; the charge it gives counts for its area."""
        self.check(job)
        with self._refusing():
            context = self._context()
            rules.pattern_not_too_long(context, job)
        self._learn(context, job.beam)
        charge = job.dose_c * (job.to_fraction - job.from_fraction)  # what nobody can know counts in full
        try:
            done = self._microscope.pattern(job, watch)
            charge = done.charge_c
        except Refused:
            charge = 0.0
            raise
        finally:
            self._counted[job.area] = self._counted.get(job.area, 0.0) + charge
        return done

    def recover(self, what: Recovery) -> State:
        """Relight, home, pump: asked for by a person; a run never homes."""
        with self._refusing():
            rules.homing_is_for_people(self._context(), what)
        self._looked = None
        return self._microscope.recover(what)

    def stop(self) -> None:
        """End what is in hand and blank."""
        self._microscope.stop()

    def make_safe(self) -> State:
        """Make safe."""
        self._looked = None
        return self._microscope.make_safe()

    def close(self) -> None:
        """Let go of the microscope."""
        self._microscope.close()

    def _needle_moves(self, device: Device, *, inserting: bool) -> None:
        """Forget the last look when the needle moves: it shakes the sample."""
        if device is Device.NEEDLE and self._microscope.state().devices.get(device, False) != inserting:
            self._looked = None

    def _learn(self, context: rules.Context, beam: Beam) -> None:
        """Remember what a working point gives when it is first used: later measurements are held against it."""
        now = context.state.beam(beam)
        self._usual_a.setdefault(rules.point_of(beam, now.settings), now.measured_current_a)

    def _context(self) -> rules.Context:
        state = self._microscope.state()
        self._base_pa = min(self._base_pa, state.pressure_pa)
        return rules.Context(
            self._described, state, self.envelope, self._looked, self._charge, self._base_pa, self._usual_a
        )

    def _refusing(self) -> _Counting:
        return _Counting(self)


class _Counting:
    """Counts refusals as they pass."""

    def __init__(self, guarded: Guarded) -> None:
        self._guarded = guarded

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Refused):
            self._guarded.refusals += 1
