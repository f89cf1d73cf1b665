"""The interlocks, one small function each: given the state and what is asked, say nothing or refuse.

Rules refuse; health judges and the plan predicts with the same numbers. Each refusal names rule, field, value, limit
and remedy. What a naive rule would forbid and real work needs is left allowed: small moves beside an inserted detector,
a face larger than the field of view, an ion look in the milling pose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import degrees, pi
from typing import Any

from instrument.errors import Refused
from instrument.settings import (
    Beam,
    BeamSettings,
    CleaningCrossSection,
    Description,
    Device,
    EdsScan,
    Envelope,
    GasSetting,
    Lens,
    Line,
    Pattern,
    PatternJob,
    Recovery,
    Scan,
    StagePosition,
    State,
)

#: A measured current may differ by this share from what the working point usually gives, or from its nominal one.
CURRENT_ROOM = 0.05
#: As long as nobody knows what a working point usually gives, it may differ from the nominal current by this share: a
#: nominal current names an aperture. All 53 states recorded on a real instrument (sandialabs/pytribeam, 15 July 2026)
#: read 100.07 pA at 80 pA, 25 % more; the nearest listed current is 1.7 times another's, a cold source gives 30 % less.
CURRENT_UNKNOWN_ROOM = 0.28
#: XY moves up to this with a detector in, T and R unchanged and Z not rising (m, rad).
SMALL_MOVE_M, SAME_ANGLE_RAD, SAME_Z_M = 0.5e-3, 1e-4, 1e-9
#: Longest pattern where no envelope says less (night.md 11), s.
LONGEST_PATTERN_S = 600.0
#: Pressure that must be back before a beam writes on the face without gas, as a multiple of the base.
PRESSURE_ROOM = 1.5
#: What a stage's encoders may read otherwise while it stands still (m, rad).
SAME_PLACE_M, STILL_RAD = 0.5e-6, 2e-5
_TINY = 1e-9


@dataclass(frozen=True)
class Look:
    """What an ion look is valid for: where the stage stood, and the ion beam's working point."""

    stage: StagePosition
    point: tuple[object, ...]
    needle: bool

    @classmethod
    def at(cls, state: State) -> Look:
        """Return what a look taken now is valid for."""
        return cls(state.stage, working_point(state.ion.settings), state.devices.get(Device.NEEDLE, False))

    def holds(self, state: State) -> bool:
        """Tell whether nothing that the look depends on has changed, as far as can be read."""
        here, now = self.stage, state.stage
        moved = [abs((getattr(here, axis) or 0.0) - (getattr(now, axis) or 0.0)) for axis in ("x", "y", "z")]
        turned = [apart(getattr(here, axis), getattr(now, axis)) for axis in ("r", "t")]
        same = (self.point, self.needle) == (working_point(state.ion.settings), state.devices.get(Device.NEEDLE, False))
        return same and max(moved) <= SAME_PLACE_M and max(turned) <= STILL_RAD


def working_point(settings: BeamSettings) -> tuple[object, ...]:
    """Return what chooses an ion beam's aperture and lenses: it points elsewhere after each change of these."""
    return settings.voltage_v, settings.current_a, settings.species


def point_of(beam: Beam, settings: BeamSettings) -> tuple[object, ...]:
    """Return a column's working point, by which its usual current is remembered."""
    return beam, *working_point(settings)


def current_is_right(measured_a: float, nominal_a: float, usual_a: float | None = None) -> bool:
    """Tell whether a measured current (A) is what a working point gives; NaN and 0 never are.

    It lies within 5 % of `usual_a`, or of the nominal current; where `usual_a` is None, within 28 % of the nominal one.
    """
    off = abs(measured_a - nominal_a) / nominal_a
    if usual_a is None:
        return off <= CURRENT_UNKNOWN_ROOM
    return off <= CURRENT_ROOM or abs(measured_a - usual_a) <= CURRENT_ROOM * usual_a


@dataclass
class Context:
    """What rules look at beside what is asked.

    described, state, envelope : the instrument, as it stands, and what the controller may do (None: anything)
    looked : what the last ion look is valid for; charge : given so far to an area, C; base_pa : lowest pressure seen
    usual_a : what working points (`point_of`) gave when they were first used, A
    """

    described: Description
    state: State
    envelope: Envelope | None
    looked: Look | None = None
    charge: Callable[[str], float] = lambda _area: 0.0
    base_pa: float = float("inf")
    usual_a: Mapping[tuple[object, ...], float] = field(default_factory=dict)


# -- stage ------------------------------------------------------------------------------------------------------------


def devices_out_of_the_way(context: Context, to: StagePosition) -> None:
    """No move with CBS, EDS or needle in, but small ones beside a detector."""
    inside = [device for device, inserted in context.state.devices.items() if inserted]
    if not inside:
        return
    now = context.state.stage
    turned = any(apart(getattr(to, axis), getattr(now, axis)) > SAME_ANGLE_RAD for axis in ("r", "t"))
    rises = to.z is not None and now.z is not None and to.z - now.z > SAME_Z_M
    far = max(
        abs((getattr(to, axis) or 0.0) - (getattr(now, axis) or 0.0)) if getattr(to, axis) is not None else 0.0
        for axis in ("x", "y")
    )
    if Device.NEEDLE in inside or turned or rises or far > SMALL_MOVE_M:
        names = ", ".join(sorted(inside))
        raise _refused(
            "stage-needs-devices-out", "stage", names, "no device inserted, or XY up to 0.5 mm", "retract it first",
            f"the stage may not move with {names} inserted",
        )  # fmt: skip


def within_travel(context: Context, to: StagePosition) -> None:
    """No move beyond the stage's ends."""
    for axis in ("x", "y", "z", "t"):
        _inside(context.described.stage, axis, to, "stage-travel", "the stage's travel")


def within_stage_box(context: Context, to: StagePosition) -> None:
    """No move outside the box that the controller brought."""
    if context.envelope is not None:
        for axis in ("x", "y", "z", "t"):
            _inside(context.envelope.stage_box, axis, to, "stage-box", "the run's envelope")


def a_pose_of_the_run(context: Context, to: StagePosition) -> None:
    """No rotation and tilt but those of the run's poses."""
    if context.envelope is None:
        return
    now = context.state.stage
    r, t = (to.r if to.r is not None else now.r or 0.0), (to.t if to.t is not None else now.t or 0.0)
    for pose in context.envelope.poses:
        if max(apart(r, pose.r), apart(t, pose.t)) <= pose.tolerance_rad:
            return
    shown = f"R {degrees(r):.2f} deg, T {degrees(t):.2f} deg"
    known = ", ".join(
        f"{pose.name} (R {degrees(pose.r):.2f}, T {degrees(pose.t):.2f})" for pose in context.envelope.poses
    )
    raise _refused(
        "pose-of-the-run", "stage", shown, known, "rehearse this pose first", f"{shown} is no pose of this run"
    )


def homed(context: Context, to: StagePosition) -> None:
    """No move of a stage that has lost its reference."""
    del to
    if not context.state.stage_homed:
        raise _refused(
            "stage-homed", "stage", "not homed", "homed", "home it with nothing under the pole piece",
            "the stage has lost its reference",
        )  # fmt: skip


def homing_is_for_people(context: Context, what: Recovery) -> None:
    """No homing within a run, nor with anything inserted: with a sample under the pole piece it is a crash."""
    inside = sorted(device for device, inserted in context.state.devices.items() if inserted)
    if what is Recovery.HOME_STAGE and (context.envelope is not None or inside):
        raise _refused(
            "homing-is-for-people", "recover", "home-stage", "a person, no run, all devices out",
            "stop the run, lower the sample and home it by hand", "the stage may not be homed now",
        )  # fmt: skip


def immersion_off_to_turn(context: Context, to: StagePosition) -> None:
    """No tilt or rotation in the immersion lens's field."""
    now = context.state.stage
    turned = any(apart(getattr(to, axis), getattr(now, axis)) > SAME_ANGLE_RAD for axis in ("r", "t"))
    if turned and context.state.electron.settings.lens is Lens.IMMERSION:
        raise _immersed("the stage may not turn")


# -- devices and gas --------------------------------------------------------------------------------------------------


def nothing_to_collide_with(context: Context, device: Device) -> None:
    """CBS and EDS exclude each other."""
    other = {Device.CBS: Device.EDS, Device.EDS: Device.CBS}.get(device)
    if other is not None and context.state.devices.get(other, False):
        raise _refused(
            "devices-collide", "device", str(device), f"{other} out", f"retract {other} first",
            f"{device} would run into {other}",
        )  # fmt: skip


def immersion_off_for_cbs(context: Context, device: Device) -> None:
    """No CBS into the immersion lens's field."""
    if device is Device.CBS and context.state.electron.settings.lens is Lens.IMMERSION:
        raise _immersed("CBS may not come in")


def valve_before_needle(context: Context, device: Device) -> None:
    """No needle leaves an open valve behind."""
    open_gases = _open_gases(context.state)
    if device is Device.NEEDLE and open_gases:
        names = ", ".join(open_gases)
        raise _refused(
            "valve-before-needle", "needle", names, "all valves shut", "shut the gas first",
            "the needle may not leave with a valve open",
        )  # fmt: skip


def a_gas_of_the_run(context: Context, gas: str, setting: GasSetting) -> None:
    """No gas but those of the run; to shut or cool one is always allowed."""
    if context.envelope is None or not (setting.valve_open or setting.heater_on):
        return
    if gas not in context.envelope.gases:
        known = ", ".join(context.envelope.gases) or "none"
        raise _refused("gas-of-the-run", "gas", gas, known, "use a gas of the recipe", f"{gas} is no gas of this run")


def needle_before_valve(context: Context, gas: str, setting: GasSetting) -> None:
    """No valve is opened without the needle at the sample."""
    if setting.valve_open and not context.state.devices.get(Device.NEEDLE, False):
        raise _refused(
            "needle-before-valve", "gas", gas, "needle inserted", "insert the needle first",
            f"the valve of {gas} may not open with the needle out",
        )  # fmt: skip


# -- beams ------------------------------------------------------------------------------------------------------------


def a_beam_of_the_run(context: Context, beam: Beam, settings: BeamSettings) -> None:
    """No voltage and current but those of the run."""
    if context.envelope is None:
        return
    now = context.state.beam(beam).settings
    voltage = settings.voltage_v if settings.voltage_v is not None else now.voltage_v
    if settings.voltage_v is None and settings.current_a is None:
        return
    for allowed in context.envelope.beams:
        same = allowed.beam is beam and voltage is not None and abs(allowed.voltage_v - voltage) <= 1.0
        if same and (settings.current_a is None or _listed(settings.current_a, allowed.currents_a)):
            return
    asked = f"{(voltage or 0.0) / 1e3:g} kV, {(settings.current_a or 0.0) * 1e9:g} nA"
    known = "; ".join(
        f"{one.voltage_v / 1e3:g} kV: {', '.join(f'{current * 1e9:.4g}' for current in one.currents_a)} nA"
        for one in context.envelope.beams
        if one.beam is beam
    )
    raise _refused(
        "beam-of-the-run", f"{beam} beam", asked, known or "none", "use a working point of the recipe",
        f"{asked} is no working point of this run",
    )  # fmt: skip


def no_ions_with_detector_in(context: Context, beam: Beam) -> None:
    """No ion beam, not even a picture, with CBS or EDS inserted: they hang in its way and are coated."""
    inside = [device for device in (Device.CBS, Device.EDS) if context.state.devices.get(device, False)]
    if beam is Beam.ION and inside:
        names = ", ".join(inside)
        raise _refused(
            "no-ions-with-detector-in", "ion beam", names, "CBS and EDS out", "retract it first",
            f"the ion beam may not be on with {names} inserted",
        )  # fmt: skip


def immersion_off_for_ions(context: Context, beam: Beam) -> None:
    """No ion beam through the immersion lens's field."""
    if beam is Beam.ION and context.state.electron.settings.lens is Lens.IMMERSION:
        raise _immersed("the ion beam may not be on")


def no_ion_look_in_gas(context: Context, beam: Beam) -> None:
    """No ion picture with a valve open: it would lay a film over all of its field."""
    open_gases = _open_gases(context.state)
    if beam is Beam.ION and open_gases:
        raise _refused(
            "no-ion-look-in-gas", "gas", ", ".join(open_gases), "all valves shut", "shut the gas first",
            "an ion picture would deposit",
        )  # fmt: skip


def current_as_asked(context: Context, beam: Beam) -> None:
    """No beam whose measured current is not what its working point gives (`current_is_right`).

    What it usually gives is what was measured when the controller first used it; nominal currents are labels, off by a
    quarter and more on a real instrument. A source that dies reads near 0 and is refused either way.
    """
    now = context.state.beam(beam)
    wanted = now.settings.current_a
    if wanted is None:
        return
    usual = context.usual_a.get(point_of(beam, now.settings))
    if not current_is_right(now.measured_current_a, wanted, usual):
        limit = (
            f"{wanted * 1e9:.4g} nA within {CURRENT_UNKNOWN_ROOM:.0%}" if usual is None
            else f"{usual * 1e9:.4g} nA, as at first, or {wanted * 1e9:.4g} nA, within {CURRENT_ROOM:.0%}"
        )  # fmt: skip
        raise _refused(
            "current-as-asked", f"{beam} beam", f"{now.measured_current_a * 1e9:.4g} nA measured", limit,
            "look at source and aperture", "the measured current is wrong",
        )  # fmt: skip


def scan_fits_the_field(context: Context, scan: Scan | EdsScan) -> None:
    """No picture larger than the beam's field."""
    ion = isinstance(scan, Scan) and scan.beam is Beam.ION
    limit = context.described.ion_field_max_m if ion else context.described.electron_field_max_m
    size = max(scan.width_px, scan.height_px) * scan.pixel_m
    if size > limit:
        raise _refused(
            "scan-fits-the-field", "scan", f"{size * 1e6:.0f} um", f"at most {limit * 1e6:.0f} um", "make it smaller",
            "the picture does not fit the field",
        )  # fmt: skip


def electron_dose_as_planned(context: Context, scan: Scan | EdsScan) -> None:
    """No electron picture or map that gives a place more dose than any of the run's own: it would burn binder."""
    most = None if context.envelope is None else context.envelope.electron_dose_c_per_m2
    if most is None or (isinstance(scan, Scan) and scan.beam is Beam.ION):
        return
    repeats = scan.frames if isinstance(scan, EdsScan) else scan.line_integrations * scan.frame_integrations
    current = context.state.electron.settings.current_a or context.state.electron.measured_current_a
    dose = areal_dose(current, scan.dwell_s * repeats, scan.pixel_m)
    if not dose <= most:
        raise _refused(
            "electron-dose-as-planned", "scan", f"{dose:.3g} C/m2", f"at most {most:.3g} C/m2",
            "scan faster, with larger pixels or less current", "the electron beam would give more dose than planned",
        )  # fmt: skip


# -- patterns ---------------------------------------------------------------------------------------------------------


def pattern_beam_is_set(context: Context, job: PatternJob) -> None:
    """No pattern unless the beam has the job's voltage and current."""
    now = context.state.beam(job.beam).settings
    wrong = now.voltage_v is None or abs(now.voltage_v - job.voltage_v) > 1.0
    if wrong or now.current_a is None or not _listed(job.current_a, (now.current_a,)):
        raise _refused(
            "pattern-beam-is-set", "job",
            f"{(now.voltage_v or 0) / 1e3:g} kV, {(now.current_a or 0) * 1e9:.4g} nA",
            f"{job.voltage_v / 1e3:g} kV, {job.current_a * 1e9:.4g} nA", "set the beam first",
            f"the {job.beam} beam does not stand at the job's working point",
        )  # fmt: skip


def pattern_not_too_long(context: Context, job: PatternJob) -> None:
    """No single pattern longer than the piece that may run on without us."""
    limit = context.envelope.max_pattern_s if context.envelope is not None else LONGEST_PATTERN_S
    if job.seconds > limit * (1 + 1e-6):
        raise _refused(
            "pattern-not-too-long", "job", f"{job.seconds:.0f} s", f"at most {limit:.0f} s", "cut it into pieces",
            "the pattern is too long",
        )  # fmt: skip


def pattern_inside_its_box(context: Context, job: PatternJob) -> None:
    """No pattern outside the field, or outside the box of its area."""
    limit = context.described.ion_field_max_m if job.beam is Beam.ION else context.described.electron_field_max_m
    box = (-limit / 2, -limit / 2, limit / 2, limit / 2)
    dose = _dose_of(context, job)
    for name, allowed in (("pattern-in-field", box), ("pattern-in-box", dose.box if dose is not None else box)):
        for pattern in job.patterns:
            x0, y0, x1, y1 = extent(pattern)
            if x0 < allowed[0] - _TINY or y0 < allowed[1] - _TINY or x1 > allowed[2] + _TINY or y1 > allowed[3] + _TINY:
                shown = "({:.1f}, {:.1f}) to ({:.1f}, {:.1f}) um".format(*(1e6 * v for v in (x0, y0, x1, y1)))
                most = "({:.1f}, {:.1f}) to ({:.1f}, {:.1f}) um".format(*(1e6 * v for v in allowed))
                raise _refused(name, job.area, shown, most, "move or shrink it", "the pattern lies outside")


def dose_within_budget(context: Context, job: PatternJob) -> None:
    """No more charge on an area than the plan has for it."""
    dose = _dose_of(context, job)
    if dose is None:
        return
    charge = context.charge(job.area) + job.dose_c * (job.to_fraction - job.from_fraction)
    if charge > dose.charge_c * (1 + 1e-6):
        raise _refused(
            "dose-within-budget", job.area, f"{charge * 1e6:.4g} uC", f"at most {dose.charge_c * 1e6:.4g} uC",
            "look at what was milled so far", "the area would get more charge than planned",
        )  # fmt: skip


def an_area_of_the_run(context: Context, job: PatternJob) -> None:
    """No pattern on an area that the plan doesn't know."""
    if context.envelope is not None and _dose_of(context, job) is None:
        known = ", ".join(one.area for one in context.envelope.doses)
        raise _refused(
            "area-of-the-run", "area", job.area, known, "plan it first", f"{job.area} is no area of this run"
        )


def deposit_grows(context: Context, job: PatternJob) -> None:
    """No deposit so dense that it would mill instead."""
    if job.purpose != "deposit" or job.beam is not Beam.ION or context.envelope is None:
        return
    area = sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (extent(pattern) for pattern in job.patterns))
    density = job.current_a / area if area > 0 else float("inf")
    if density > context.envelope.density_max_a_per_m2:
        raise _refused(
            "deposit-grows", "job", f"{density:.3g} pA/um2",
            f"at most {context.envelope.density_max_a_per_m2:.3g} pA/um2", "enlarge the film or lower the current",
            "so dense a beam mills instead of depositing",
        )  # fmt: skip


def placed_on_the_mark(context: Context, job: PatternJob) -> None:
    """No cut of the face unless the ion beam has looked since stage, voltage, current or needle changed."""
    fresh = context.looked is not None and context.looked.holds(context.state)
    if job.area == "face" and job.purpose == "mill" and not fresh:
        raise _refused(
            "placed-on-the-mark", "job", "no look since the last change", "a look at the fiducial",
            "find the mark first", "the ion beam has not been placed on the fiducial since the last change",
        )  # fmt: skip


def gas_as_the_job_says(context: Context, job: PatternJob) -> None:
    """Milling needs shut valves and a recovered vacuum; a deposit needs needle and open valve."""
    open_gases = _open_gases(context.state)
    if job.purpose == "deposit":
        if not open_gases or not context.state.devices.get(Device.NEEDLE, False):
            raise _refused(
                "deposit-needs-gas", "gas", ", ".join(open_gases) or "shut", "needle in, valve open",
                "insert the needle and open the gas", "a deposit without gas would mill",
            )  # fmt: skip
        return
    if open_gases:
        raise _refused(
            "no-milling-in-gas", "gas", ", ".join(open_gases), "all valves shut", "shut the gas first",
            "a valve is open",
        )  # fmt: skip
    limit = PRESSURE_ROOM * context.base_pa
    if job.area == "face" and not context.state.pressure_pa <= limit:  # NaN is no vacuum
        raise _refused(
            "vacuum-recovered", "pressure", f"{context.state.pressure_pa:.2g} Pa", f"at most {limit:.2g} Pa",
            "wait for the pump", "the vacuum has not recovered from the gas",
        )  # fmt: skip


STAGE_RULES = (
    homed, devices_out_of_the_way, immersion_off_to_turn, within_travel, within_stage_box, a_pose_of_the_run,
)  # fmt: skip
DEVICE_RULES = (nothing_to_collide_with, immersion_off_for_cbs)
GAS_RULES = (a_gas_of_the_run, needle_before_valve)
BEAM_RULES = (no_ions_with_detector_in, immersion_off_for_ions, current_as_asked)
LOOK_RULES = (*BEAM_RULES, no_ion_look_in_gas)
#: What holds for a job as a whole; its pieces must not be too long either.
JOB_RULES = (
    pattern_beam_is_set, pattern_inside_its_box, an_area_of_the_run, dose_within_budget, deposit_grows,
    gas_as_the_job_says, placed_on_the_mark,
)  # fmt: skip


# -- private ----------------------------------------------------------------------------------------------------------


def areal_dose(current_a: float, dwell_s: float, pixel_m: float) -> float:
    """Return the dose (C/m2) that a scan gives by its current (A), its dwell in all (s) and its pixel (m)."""
    return current_a * dwell_s / pixel_m**2


def extent(pattern: Pattern) -> tuple[float, float, float, float]:
    """Return a pattern's (x0, y0, x1, y1) in the field (m)."""
    if isinstance(pattern, Line):
        half = pattern.line_width_m / 2
        xs, ys = sorted((pattern.x0_m, pattern.x1_m)), sorted((pattern.y0_m, pattern.y1_m))
        return xs[0] - half, ys[0] - half, xs[1] + half, ys[1] + half
    if isinstance(pattern, CleaningCrossSection):
        ys = sorted((pattern.start_y_m, pattern.end_y_m))
        return pattern.x_m - pattern.width_m / 2, ys[0], pattern.x_m + pattern.width_m / 2, ys[1]
    half_x, half_y = pattern.width_m / 2, pattern.height_m / 2
    return pattern.x_m - half_x, pattern.y_m - half_y, pattern.x_m + half_x, pattern.y_m + half_y


def _dose_of(context: Context, job: PatternJob) -> Any:
    if context.envelope is None:
        return None
    return next((one for one in context.envelope.doses if one.area == job.area), None)


def _open_gases(state: State) -> list[str]:
    return sorted(name for name, gas in state.gases.items() if gas.valve_open)


def _immersed(what: str) -> Refused:
    return _refused(
        "immersion-off", "lens", "immersion", "field-free", "switch the electron lens to field-free",
        f"{what} while the immersion lens is on",
    )  # fmt: skip


def _listed(current: float, listed: tuple[float, ...]) -> bool:
    return any(abs(current - one) <= CURRENT_ROOM * one for one in listed)


def apart(one: float | None, other: float | None) -> float:
    """Return how far two angles are apart (rad), the shorter way; 0 where one isn't given."""
    if one is None or other is None:
        return 0.0
    return abs((one - other + pi) % (2 * pi) - pi)


def _inside(limits: Any, axis: str, to: StagePosition, rule: str, whose: str) -> None:
    value, (low, high) = getattr(to, axis), getattr(limits, axis)
    if value is not None and not low - _TINY <= value <= high + _TINY:
        raise _refused(
            rule, f"stage.{axis}", f"{value:.6g}", f"{low:.6g} to {high:.6g}", "choose another position or stub",
            f"{axis} lies outside {whose}",
        )  # fmt: skip


def _refused(rule: str, field_name: str, value: str, limit: str, remedy: str, what: str) -> Refused:
    return Refused(
        f"{field_name}: {what}: {value}; allowed is {limit}; {remedy}", rule=rule, field=field_name, value=value,
        limit=limit, remedy=remedy,
    )  # fmt: skip
