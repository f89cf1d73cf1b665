"""A microscope that only reckons: keeps a state, adds up seconds, charge, gas and bytes, refuses what can't be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from instrument.errors import Refused
from instrument.frame import Frame, FrameMeta, Pixels
from instrument.microscope import Microscope, Watch, unwatched
from instrument.process import (
    DEVICE_S,
    HEAT_S,
    PATTERN_START_S,
    PURGE_S,
    RECOVERY_S,
    beam_seconds,
    eds_seconds,
    frame_bytes,
    frame_seconds,
    move_seconds,
    tune_seconds,
)
from instrument.settings import (
    Beam,
    BeamSettings,
    BeamState,
    CleaningCrossSection,
    Description,
    Device,
    Done,
    EdsScan,
    GasSetting,
    GasState,
    Line,
    Pattern,
    PatternJob,
    Progress,
    Recovery,
    Scan,
    StagePosition,
    State,
    Tune,
    Tuning,
)

#: A current is on the list when it is this near (physics.md 1.1: clients accept 5 %).
CURRENT_TOLERANCE = 0.05
_BASE_PRESSURE_PA = 3e-4


def _amounts() -> dict[str, float]:
    return defaultdict(float)


@dataclass
class Account:
    """What a rehearsal cost: seconds by activity, charge (C) by area and of looks, open seconds by gas, bytes."""

    seconds: dict[str, float] = field(default_factory=_amounts)
    charge_c: dict[str, float] = field(default_factory=_amounts)
    gas_s: dict[str, float] = field(default_factory=_amounts)
    counts: dict[str, float] = field(default_factory=_amounts)
    bytes: float = 0.0
    looked_c: float = 0.0
    longest_s: float = 0.0

    @property
    def total_s(self) -> float:
        """All seconds together."""
        return float(sum(self.seconds.values()))

    def add(self, other: Account, times: float = 1.0) -> None:
        """Add another account, so many times over."""
        for mine, theirs in (
            (self.seconds, other.seconds),
            (self.charge_c, other.charge_c),
            (self.gas_s, other.gas_s),
            (self.counts, other.counts),
        ):
            for name, amount in theirs.items():
                mine[name] += amount * times
        self.bytes += other.bytes * times
        self.looked_c += other.looked_c * times
        self.longest_s = max(self.longest_s, other.longest_s)


class RehearsalClock:
    """The rehearsal's time: waiting costs seconds of the activity in hand and nothing else."""

    def __init__(self, rehearsal: Rehearsal) -> None:
        self._rehearsal = rehearsal

    def now(self) -> float:
        """Return seconds since the rehearsal began."""
        return self._rehearsal.time_s

    def wait(self, seconds: float) -> None:
        """Let `seconds` pass."""
        self._rehearsal.spend(seconds)


class Rehearsal(Microscope):
    """Does nothing and says what it would cost; refuses what the described instrument can't do.

    Frames are blank. `account` is what everything so far cost; `activity` says what the next verbs
    are for. Heating is counted once per gas, as on the instrument.
    """

    def __init__(self, description: Description) -> None:
        self.description = description
        self.account = Account()
        self.time_s = 0.0
        self.clock = RehearsalClock(self)
        self._activity = "moves"
        self._stage = StagePosition(x=0.0, y=0.0, z=0.0, r=0.0, t=0.0)
        self._beams = {beam: BeamSettings(source_on=True) for beam in Beam}
        self._inserted: set[Device] = set()
        self._gases = {
            name: GasState(heater_on=False, ready=False, duty=1.0, valve_open=False) for name in description.gases
        }
        self._frames = 0

    @contextmanager
    def activity(self, name: str) -> Iterator[None]:
        """Count the patterns and waits inside under this name; moves, gas handling, imaging and EDS keep their own."""
        before, self._activity = self._activity, name
        try:
            yield
        finally:
            self._activity = before

    @contextmanager
    def measured(self) -> Iterator[Account]:
        """Give the account of what is done inside alone; it counts in the whole account as well."""
        outer, inner = self.account, Account()
        self.account = inner
        try:
            yield inner
        finally:
            outer.add(inner)
            self.account = outer

    def spend(self, seconds: float, activity: str | None = None) -> None:
        """Let time pass under the activity in hand, or under the given one."""
        self.time_s += seconds
        self.account.seconds[activity or self._activity] += seconds

    def describe(self) -> Description:
        """Return the description that is rehearsed on."""
        return self.description

    def state(self) -> State:
        """Return the state as rehearsed."""
        return State(
            time_s=self.time_s,
            stage=self._stage,
            stage_homed=True,
            electron=self._beam_state(Beam.ELECTRON),
            ion=self._beam_state(Beam.ION),
            devices={device: device in self._inserted for device in self.description.devices},
            gases=dict(self._gases),
            pressure_pa=_BASE_PRESSURE_PA,
            patterning=False,
            safe=True,
        )

    def set_beam(self, beam: Beam, settings: BeamSettings) -> BeamSettings:
        """Change a column; Refused for a voltage or a current that is not on its list."""
        now = self._beams[beam]
        after = now.replace(**settings.model_dump(exclude_none=True))
        if after.voltage_v is not None:
            check_voltage(self.description, beam, after.voltage_v)
            if settings.current_a is not None:
                check_current(self.description, beam, after.voltage_v, settings.current_a)
        self.spend(beam_seconds(now, settings), "moves")
        self._beams[beam] = after
        return after

    def move_stage(self, to: StagePosition) -> StagePosition:
        """Move; Refused outside the stage's travel, and with a device inserted."""
        if self._inserted:
            names = ", ".join(sorted(self._inserted))
            raise _refused("stage", "move", names, "no device inserted", "retract first", "stage-needs-devices-out")
        for axis in ("x", "y", "z", "t"):
            value, (low, high) = getattr(to, axis), getattr(self.description.stage, axis)
            if value is not None and not low <= value <= high:
                raise _refused(
                    "stage", axis, f"{value:g}", f"{low:g} to {high:g}", "choose another pose or stub", "stage-travel"
                )
        seconds = move_seconds(self._stage, to)
        self._stage = self._stage.replace(**to.model_dump(exclude_none=True))
        if seconds > 0:
            self.account.counts["moves"] += 1
            self.spend(seconds, "moves")
        return self._stage

    def insert(self, device: Device, position: str | None = None) -> None:
        """Bring a device in; Refused for one that the instrument lacks."""
        if device not in self.description.devices:
            known = ", ".join(self.description.devices)
            raise _refused("device", "insert", str(device), known, "leave it out of the recipe", "device-lacking")
        if device not in self._inserted:
            self._inserted.add(device)
            self.spend(DEVICE_S[device], "moves")

    def retract(self, device: Device) -> None:
        """Take a device out."""
        if device in self._inserted:
            self._inserted.discard(device)
            self.spend(DEVICE_S[device], "moves")

    def set_gas(self, gas: str, setting: GasSetting) -> GasSetting:
        """Heat (once), open with a purge, shut with a recovery; Refused for a gas that the instrument lacks."""
        if gas not in self._gases:
            known = ", ".join(self._gases)
            raise _refused("gas", "gas", gas, known, "use one of these gases", "gas-lacking")
        now = self._gases[gas]
        if setting.heater_on and not now.heater_on:
            self.spend(HEAT_S, "gas")
        if setting.valve_open is not None and setting.valve_open != now.valve_open:
            self.spend(PURGE_S if setting.valve_open else RECOVERY_S, "gas")
        heater = now.heater_on if setting.heater_on is None else setting.heater_on
        self._gases[gas] = now.replace(
            heater_on=heater, ready=heater,
            duty=now.duty if setting.duty is None else setting.duty,
            valve_open=now.valve_open if setting.valve_open is None else setting.valve_open,
        )  # fmt: skip
        after = self._gases[gas]
        return GasSetting(heater_on=after.heater_on, duty=after.duty, valve_open=after.valve_open)

    def acquire(self, scan: Scan) -> Frame:
        """Count a picture; return a blank frame. Refused for a field or a detector that the instrument lacks."""
        for detector in scan.detectors:
            if detector.name not in self.description.detectors:
                known = ", ".join(self.description.detectors)
                raise _refused(
                    "scan", "detector", detector.name, known, "use one of these detectors", "detector-lacking"
                )
        beam_field = (
            self.description.electron_field_max_m if scan.beam is Beam.ELECTRON else self.description.ion_field_max_m
        )
        check_fits("scan", scan.width_px * scan.pixel_m, scan.height_px * scan.pixel_m, beam_field)
        if scan.beam is Beam.ION:
            pixels = scan.width_px * scan.height_px * scan.line_integrations * scan.frame_integrations
            self.account.counts["looks"] += 1
            self.account.looked_c += (self._beams[Beam.ION].current_a or 0.0) * pixels * scan.dwell_s
        names = tuple(detector.name for detector in scan.detectors)
        return self._frame(scan, names, frame_seconds(scan), "imaging", scan.bits)

    def acquire_eds(self, scan: EdsScan) -> Frame:
        """Count an element map; return a blank one. Refused where the instrument has none."""
        if not self.description.elements:
            raise _refused("eds", "elements", "map", "no element mapping", "leave eds out", "eds-lacking")
        return self._frame(scan, scan.elements, eds_seconds(scan), "EDS", 16)

    def tune(self, routine: Tune, scan: Scan) -> Tuning:
        """Count an automatic routine."""
        self.spend(tune_seconds(routine, scan))
        return Tuning(routine=routine, score=1.0, detectors=scan.detectors if routine is Tune.CONTRAST else ())

    def pattern(self, job: PatternJob, watch: Watch = unwatched) -> Done:
        """Count a pattern; Refused for a working point or a field that the instrument lacks."""
        check_voltage(self.description, job.beam, job.voltage_v)
        check_current(self.description, job.beam, job.voltage_v, job.current_a)
        beam_field = self.description.ion_field_max_m if job.beam is Beam.ION else self.description.electron_field_max_m
        for pattern in job.patterns:
            check_fits("pattern", *extent(pattern), beam_field)
        seconds, share = job.seconds, job.to_fraction - job.from_fraction
        for gas in job.gases:
            if gas not in self._gases:
                raise _refused("gas", "gas", gas, ", ".join(self._gases), "use one of these gases", "gas-lacking")
            self.account.gas_s[gas] += seconds
        self.account.charge_c[job.area] += job.dose_c * share
        self.account.counts["patterns"] += 1
        self.account.longest_s = max(self.account.longest_s, seconds)
        self.spend(PATTERN_START_S + seconds)
        watch(Progress(fraction=job.to_fraction, elapsed_s=seconds, remaining_s=0.0))
        return Done(fraction=job.to_fraction, elapsed_s=seconds, charge_c=job.dose_c * share)

    def recover(self, what: Recovery) -> State:
        """Do nothing: a rehearsal has no faults."""
        del what
        return self.state()

    def stop(self) -> None:
        """Do nothing: nothing goes on."""

    def make_safe(self) -> State:
        """Devices out, valves shut."""
        self._inserted.clear()
        self._gases = {name: gas.replace(valve_open=False) for name, gas in self._gases.items()}
        return self.state()

    def _frame(
        self, scan: Scan | EdsScan, channels: tuple[str, ...], seconds: float, activity: str, bits: int
    ) -> Frame:
        started = self.time_s
        self.spend(seconds, activity)
        self._frames += 1
        self.account.bytes += frame_bytes(scan)
        self.account.counts["frames"] += 1
        shape = len(channels), scan.height_px, scan.width_px
        pixels: Pixels = np.zeros(shape, np.uint8) if bits == 8 else np.zeros(shape, np.uint16)
        meta = FrameMeta(
            uid=f"rehearsal-{self._frames}", channels=channels, pixel_x_m=scan.pixel_m, pixel_y_m=scan.pixel_m,
            started_s=started, seconds=seconds, scan=scan, state=self.state(), virtual=True,
        )  # fmt: skip
        return Frame(pixels, meta)

    def _beam_state(self, beam: Beam) -> BeamState:
        settings = self._beams[beam]
        return BeamState(settings=settings, source_on=True, blanked=True, measured_current_a=settings.current_a or 0.0)


def extent(pattern: Pattern) -> tuple[float, float]:
    """Return a pattern's width and height in the field (m)."""
    if isinstance(pattern, Line):
        return abs(pattern.x1_m - pattern.x0_m) + pattern.line_width_m, abs(
            pattern.y1_m - pattern.y0_m
        ) + pattern.line_width_m
    if isinstance(pattern, CleaningCrossSection):
        return pattern.width_m, abs(pattern.end_y_m - pattern.start_y_m)
    return pattern.width_m, pattern.height_m


def check_fits(what: str, width_m: float, height_m: float, field_m: float) -> None:
    """Refuse what is larger than a beam's field."""
    if max(width_m, height_m) > field_m:
        size = f"{width_m * 1e6:.0f} um x {height_m * 1e6:.0f} um"
        raise _refused(what, "size", size, f"at most {field_m * 1e6:.0f} um", "make it smaller", "fits-the-field")


def check_voltage(description: Description, beam: Beam, voltage_v: float) -> None:
    """Refuse a voltage that the column lacks."""
    listed = description.ion_voltages_v if beam is Beam.ION else description.electron_voltages_v
    if not any(abs(voltage_v - one) <= 1.0 for one in listed):
        shown = ", ".join(f"{one / 1e3:g}" for one in listed)
        raise _refused(
            f"{beam} beam", "voltage", f"{voltage_v / 1e3:g} kV", f"{shown} kV", "use one of these", "voltage-listed"
        )


def check_current(description: Description, beam: Beam, voltage_v: float, current_a: float) -> None:
    """Refuse a current that the column lacks at a voltage."""
    if not description.may_have(beam, voltage_v, current_a, CURRENT_TOLERANCE):
        listed = description.currents(beam, voltage_v)
        shown = ", ".join(f"{one * 1e9:g}" for one in listed)
        limit = f"{shown} nA at {voltage_v / 1e3:g} kV"
        raise _refused(
            f"{beam} beam", "current", f"{current_a * 1e9:g} nA", limit, "use one of these", "current-listed"
        )


def _refused(where: str, name: str, value: str, limit: str, remedy: str, rule: str) -> Refused:
    msg = f"{where} {name}: {value} is not possible here; allowed is {limit}; {remedy}"
    return Refused(msg, rule=rule, field=f"{where}.{name}", value=value, limit=limit, remedy=remedy)
