"""What the virtual instrument itself refuses, as the real one's software would, before anything is done."""

from __future__ import annotations

from math import degrees, pi, radians
from typing import Any

from instrument.errors import DeviceFault, Refused, Stopped
from instrument.settings import (
    Beam,
    BeamSettings,
    CleaningCrossSection,
    Description,
    Device,
    EdsScan,
    GasSetting,
    Line,
    PatternJob,
    Scan,
    StagePosition,
)
from simulator.beams import COLUMN_RAD
from simulator.chamber import turned_by
from simulator.condition import Condition
from simulator.faults import active
from simulator.options import Options

#: A current is on the list when it is this near (physics.md 1.1).
CURRENT_TOLERANCE = 0.05
#: With a detector in, the stage may go this far at unchanged T, R and Z not rising (night.md 10), metres.
SHORT_WAY_M = 0.5e-3
#: CBS and EDS may come in when the stage is this near to a pose for imaging, radians.
POSE_TOLERANCE_RAD = radians(1.0)

_ELECTRON_DETECTORS = ("ETD", "TLD", "CBS")
_ION_DETECTORS = ("ETD", "ICE")


def beam(described: Description, which: Beam, now: BeamSettings, asked: BeamSettings) -> BeamSettings:
    """Return the settings that a column takes; Refused for what it lacks. A current near one of the list becomes it."""
    after = now.replace(**asked.model_dump(exclude_none=True))
    listed = described.ion_voltages_v if which is Beam.ION else described.electron_voltages_v
    voltage = after.voltage_v or 0.0
    if not any(abs(voltage - one) <= 1.0 for one in listed):
        shown = ", ".join(f"{one / 1e3:g}" for one in listed) + " kV"
        raise _refused(f"{which}.voltage", f"{voltage / 1e3:g} kV", shown, "use one of these", "voltage-listed")
    if after.species is not None and after.species not in described.species:
        raise _refused("ion.species", after.species, ", ".join(described.species), "use one of these", "species-listed")
    currents = described.currents(which, voltage, after.species or "Xenon")
    if asked.current_a is not None or asked.voltage_v is not None or asked.species is not None:
        after = after.replace(current_a=_listed(which, voltage, after.current_a or 0.0, currents, asked))
    for name, value in (("shift_x_m", after.shift_x_m), ("shift_y_m", after.shift_y_m)):
        if value is not None and abs(value) > described.beam_shift_max_m:
            limit = f"{described.beam_shift_max_m * 1e6:g} um"
            raise _refused(f"{which}.{name}", f"{value * 1e6:.2f} um", limit, "move the stage", "beam-shift-range")
    return after


def _listed(which: Beam, voltage: float, current: float, currents: tuple[float, ...], asked: BeamSettings) -> float:
    near = [one for one in currents if abs(current - one) <= CURRENT_TOLERANCE * one]
    if near:
        return min(near, key=lambda one: abs(one - current))
    if asked.current_a is None and currents:  # another voltage alone: the same aperture gives the nearest current
        return min(currents, key=lambda one: abs(one - current))
    shown = ", ".join(f"{one * 1e9:g}" for one in currents) + f" nA at {voltage / 1e3:g} kV"
    raise _refused(f"{which}.current", f"{current * 1e9:g} nA", shown, "use one of these", "current-listed")


def stage(described: Description, now: Condition, to: StagePosition) -> None:
    """Refuse a move out of the travel, or one that could touch what is inserted."""
    for axis in ("x", "y", "z", "t"):
        value, (low, high) = getattr(to, axis), getattr(described.stage, axis)
        if value is not None and not low <= value <= high:
            shown = f"{low:g} to {high:g} {'rad' if axis == 't' else 'm'}"
            raise _refused(f"stage.{axis}", f"{value:g}", shown, "choose another pose or place", "stage-travel")
    if not now.inserted:
        return
    names = ", ".join(now.inserted)
    at = now.stage
    if turned_by(at, to) > 1e-6:
        raise _refused(
            "stage", f"tilt or rotation with {names} in", "none in", f"retract {names}", "tilt-needs-devices-out"
        )
    rise = 0.0 if to.z is None else to.z - (at.z or 0.0)
    way = max(abs(b - (a or 0.0)) for a, b in ((at.x, to.x), (at.y, to.y), (0.0, 0.0)) if b is not None)
    if rise > 1e-9 or way > SHORT_WAY_M or (Device.NEEDLE in now.inserted and way > 1e-9):
        asked = f"{way * 1e6:.1f} um, {rise * 1e6:.1f} um up with {names} in"
        raise _refused(
            "stage", asked, "0.5 mm in X and Y, not up, needle out", f"retract {names}", "move-needs-devices-out"
        )


def free_stage(now: Condition) -> None:
    """Raise DeviceFault where the stage takes no moves: after a touch alarm, or not homed."""
    if active(now, "touch-alarm") is not None:
        msg = "a touch alarm is on: the stage takes no move; see that nothing touches, then home it"
        raise DeviceFault(msg, alarm="touch")
    if not now.homed:
        msg = "the stage is not homed and takes no move; home it"
        raise DeviceFault(msg, homed=False)


def insertion(options: Options, now: Condition, device: Device) -> None:
    """Refuse devices that would collide with each other, or with the sample in this pose."""
    others = {Device.CBS: (Device.EDS, Device.NEEDLE), Device.EDS: (Device.CBS, Device.NEEDLE)}.get(
        device, (Device.CBS, Device.EDS)
    )
    for other in others:
        if other in now.inserted:
            raise _refused(
                f"insert {device}", f"{other} is in", f"{other} out", f"retract {other} first", "devices-collide"
            )
    if device is Device.NEEDLE:
        return
    tilt, turn = now.stage.t or 0.0, (now.stage.r or 0.0) % (2 * pi)
    poses = (COLUMN_RAD - options.pretilt, pi / 2 - options.pretilt)
    level = min(turn, 2 * pi - turn) <= POSE_TOLERANCE_RAD
    if not level or min(abs(tilt - one) for one in poses) > POSE_TOLERANCE_RAD:
        at = f"T {degrees(tilt):.2f} deg, R {degrees(turn):.2f} deg"
        limit = " or ".join(f"T {degrees(one):.1f} deg" for one in poses) + ", R 0"
        raise _refused(f"insert {device}", at, limit, "turn the stage to a pose for imaging", "device-needs-pose")


def gas(described: Description, now: Condition, name: str, setting: GasSetting) -> None:
    """Refuse a gas that there isn't, and a valve that would open into nothing."""
    if name not in now.gases:
        raise _refused("gas", name, ", ".join(described.gases), "use one of these gases", "gas-lacking")
    if setting.valve_open:
        if Device.NEEDLE not in now.inserted:
            raise _refused(f"gas.{name}", "valve open", "needle in", "insert the needle first", "valve-needs-needle")
        if setting.heater_on is False or not (setting.heater_on or now.gases[name].ready):
            raise _refused(
                f"gas.{name}", "valve open", "gas at temperature", "switch its heater on", "valve-needs-heat"
            )


def scan(described: Description, now: Condition, asked: Scan) -> None:
    """Refuse a picture that the machine can't take; DeviceFault where the beam is off."""
    _on(now, asked.beam)
    for detector in asked.detectors:
        suited = _ELECTRON_DETECTORS if asked.beam is Beam.ELECTRON else _ION_DETECTORS
        if detector.name not in described.detectors or detector.name not in suited:
            raise _refused("scan.detector", detector.name, ", ".join(suited), "use one of these", "detector-lacking")
        if detector.name == "CBS" and Device.CBS not in now.inserted:
            raise _refused("scan.detector", "CBS while it is out", "CBS in", "insert CBS first", "detector-out")
    size = (asked.width_px, asked.height_px)
    if asked.bits == 16 and size not in described.sixteen_bit_sizes:
        shown = ", ".join(f"{w} x {h}" for w, h in described.sixteen_bit_sizes)
        raise _refused(
            "scan.bits", f"16 at {size[0]} x {size[1]}", shown, "take 8 bit or one of these", "bits-need-preset"
        )
    _fits(described, asked.beam, asked.width_px * asked.pixel_m, asked.height_px * asked.pixel_m, "scan.size")


def eds(described: Description, now: Condition, asked: EdsScan) -> None:
    """Refuse an element map that can't be taken."""
    _on(now, Beam.ELECTRON)
    if Device.EDS not in now.inserted:
        raise _refused("eds", "detector out", "EDS in", "insert EDS first", "detector-out")
    _fits(described, Beam.ELECTRON, asked.width_px * asked.pixel_m, asked.height_px * asked.pixel_m, "eds.size")


def pattern(described: Description, now: Condition, job: PatternJob) -> None:
    """Refuse a pattern whose beam, field or gas isn't as it must be; DeviceFault where the gas does not flow."""
    _on(now, job.beam)
    settings = now.beam(job.beam)
    for name, asked, there in (
        ("voltage_v", job.voltage_v, settings.voltage_v or 0.0),
        ("current_a", job.current_a, settings.current_a or 0.0),
    ):
        if abs(asked - there) > CURRENT_TOLERANCE * asked:
            raise _refused(f"pattern.{name}", f"{asked:g}", f"{there:g}", "set the beam first", "beam-as-planned")
    for one in job.patterns:
        reach = _reach(one)
        limit = (described.ion_field_max_m if job.beam is Beam.ION else described.electron_field_max_m) / 2
        if reach > limit:
            shown = f"{limit * 1e6:g} um from the centre"
            raise _refused(
                "pattern", f"{reach * 1e6:.0f} um from the centre", shown, "make it smaller", "fits-the-field"
            )
    if job.purpose == "deposit":
        _gas_flows(now, job)


def _gas_flows(now: Condition, job: PatternJob) -> None:
    if Device.NEEDLE not in now.inserted:
        raise _refused("pattern.gases", "needle out", "needle in", "insert the needle", "deposit-needs-needle")
    asked = [name for name in job.gases if name in now.gases] or list(now.gases)
    flowing = [name for name in asked if now.gases[name].valve_open and now.gases[name].ready]
    if not flowing:
        msg = "no gas flows: the beam would mill where a film is wanted; heat the source and open the valve"
        raise DeviceFault(msg, gases=sorted(job.gases), needle=True)


def _on(now: Condition, which: Beam) -> None:
    if not now.beam(which).source_on:
        msg = f"the {which} source is off; relight it"
        raise DeviceFault(msg, beam=str(which))


def _fits(described: Description, which: Beam, width: float, height: float, field: str) -> None:
    limit = described.electron_field_max_m if which is Beam.ELECTRON else described.ion_field_max_m
    if max(width, height) > limit:
        asked = f"{width * 1e6:.0f} um x {height * 1e6:.0f} um"
        raise _refused(field, asked, f"{limit * 1e6:.0f} um", "make it smaller", "fits-the-field")


def _reach(one: Any) -> float:
    if isinstance(one, Line):
        return max(abs(one.x0_m), abs(one.x1_m), abs(one.y0_m), abs(one.y1_m))
    if isinstance(one, CleaningCrossSection):
        return max(abs(one.x_m) + one.width_m / 2, abs(one.start_y_m), abs(one.end_y_m))
    return float(max(abs(one.x_m) + one.width_m / 2, abs(one.y_m) + one.height_m / 2))


def stopped(message: str) -> Stopped:
    """Return the error of something that a stop ended early."""
    return Stopped(message)


def _refused(field: str, value: Any, limit: str, remedy: str, rule: str) -> Refused:
    msg = f"{field}: {value} is not possible; allowed: {limit}; {remedy}"
    return Refused(msg, rule=rule, field=field, value=value, limit=limit, remedy=remedy)
