"""What the chamber does beside what it is told: errors of stage and beams, drift, pressure. Pure, keyed by the seed."""

from __future__ import annotations

from math import cos, exp, pi, radians, sin

from instrument.settings import Beam, StagePosition
from simulator.beams import Sight, Standing
from simulator.condition import Condition, Drift
from simulator.options import Options
from simulator.randomness import rng

#: Error of the position after a move of X, Y or Z alone; of what is read; of angles after a move (physics.md 1.2).
MOVE_ERROR_M, READ_ERROR_M, ANGLE_ERROR_RAD = 0.1e-6, 0.02e-6, radians(0.005)
#: Drift after a disturbance (physics.md 4.6; night.md 25), m/s, and how it dies, s.
DRIFT_M_PER_S, DRIFT_DIES_S = (20e-9 / 60, 100e-9 / 60), 120.0
#: The electron beam's share of `Options.aim`; its focus is off by this at every working point, metres.
ELECTRON_AIM, FOCUS_OFF_M = 0.4, 3e-6
#: Currents deviate from their nominal values, at most (physics.md 1.1: clients accept 5 %).
CURRENT_SPREAD, CURRENT_MOST = 0.012, 0.03
#: Pressure: at rest, with one valve fully open (physics.md 1.5), Pa; how it falls after shutting, s.
BASE_PA, OPEN_PA, PUMPED_S = 3e-4, 1.8e-3, 7.0


def holder_point(options: Options) -> tuple[float, float, float]:
    """Return where the block's origin truly is on the holder, metres; (0, 0, 0) is where it should be."""
    x, y, z = rng(options.seed, "site").normal(0, options.site, 3)
    return float(x), float(y), float(z)


def standing(options: Options, now: Condition, time_s: float) -> Standing:
    """Return where the stage truly stands at a time."""
    tilt = rng(options.seed, "tilt error", now.tilts)
    jump_x, jump_y = tilt.normal(0, options.jump, 2)
    error_r, error_t = tilt.normal(0, ANGLE_ERROR_RAD, 2) * (1.0 if options.jump > 0 else 0.0)
    slide = rng(options.seed, "move error", now.moves).normal(0, MOVE_ERROR_M, 2) * (1.0 if options.jump > 0 else 0.0)
    drift_x, drift_y = drifted(options, now.drift, time_s)
    first = now.tilts == 0  # as mounted: nothing has been turned yet
    at = now.stage
    return Standing(
        x=at.x or 0.0,
        y=at.y or 0.0,
        z=at.z or 0.0,
        r=(at.r or 0.0) + (0.0 if first else float(error_r)),
        t=(at.t or 0.0) + (0.0 if first else float(error_t)),
        pretilt=options.pretilt,
        holder=holder_point(options),
        displaced=(
            drift_x + float(slide[0]) + (0.0 if first else float(jump_x)),
            drift_y + float(slide[1]) + (0.0 if first else float(jump_y)),
            0.0,
        ),
    )


def sight(options: Options, now: Condition, beam: Beam, time_s: float) -> Sight:
    """Return what a beam truly meets at a time."""
    settings = now.beam(beam)
    off = aim(options, beam, settings.voltage_v or 0.0, settings.current_a or 0.0)
    turned = settings.scan_rotation_rad or 0.0
    # the offset is the column's own and does not turn with the scan
    off_u, off_v = cos(turned) * off[0] + sin(turned) * off[1], cos(turned) * off[1] - sin(turned) * off[0]
    shift = ((settings.shift_x_m or 0.0) + off_u, (settings.shift_y_m or 0.0) + off_v)
    return Sight(beam, standing(options, now, time_s), scan_rotation=turned, shift=shift)


def aim(options: Options, beam: Beam, voltage_v: float, current_a: float) -> tuple[float, float]:
    """Return where a working point truly points, metres in the field: every aperture points elsewhere (night.md 13)."""
    spread = options.aim * (1.0 if beam is Beam.ION else ELECTRON_AIM)
    draw = rng(options.seed, "aim", str(beam), round(voltage_v), round(current_a * 1e13))
    u, v = draw.normal(0, spread, 2)
    return float(u), float(v)


def focus_off(options: Options, voltage_v: float, current_a: float) -> float:
    """Return by how much the electron beam's working distance reads wrong at a working point, metres."""
    return float(rng(options.seed, "focus", round(voltage_v), round(current_a * 1e13)).normal(0, FOCUS_OFF_M))


def true_current(options: Options, beam: Beam, voltage_v: float, current_a: float) -> float:
    """Return the current that a nominal one really has, amperes."""
    off = rng(options.seed, "current", str(beam), round(voltage_v), round(current_a * 1e13)).normal(0, CURRENT_SPREAD)
    return current_a * (1 + max(-CURRENT_MOST, min(CURRENT_MOST, float(off))))


def drifted(options: Options, drift: Drift, time_s: float) -> tuple[float, float]:
    """Return how far the sample has drifted in the chamber's X and Y, metres."""
    if drift.number == 0 or options.drift == 0:
        return drift.x_m, drift.y_m
    draw = rng(options.seed, "drift", drift.number)
    speed, angle = options.drift * draw.uniform(*DRIFT_M_PER_S), draw.uniform(0, 2 * pi)
    way = speed * DRIFT_DIES_S * (1 - exp(-max(0.0, time_s - drift.since_s) / DRIFT_DIES_S))
    return drift.x_m + way * cos(angle), drift.y_m + way * sin(angle)


def disturbed(options: Options, now: Condition, time_s: float) -> Drift:
    """Return the drift that begins with a disturbance: a tilt, a rotation, gas, a device moved."""
    x, y = drifted(options, now.drift, time_s)
    return Drift(number=now.drift.number + 1, since_s=time_s, x_m=x, y_m=y)


def pressure(now: Condition, time_s: float) -> float:
    """Return the chamber's pressure, Pa."""
    flow = sum(gas.duty for gas in now.gases.values() if gas.valve_open)
    if flow > 0:
        return BASE_PA + OPEN_PA * min(flow, 1.5)
    if now.shut_at_s is None:
        return BASE_PA
    return BASE_PA + OPEN_PA * exp(-max(0.0, time_s - now.shut_at_s) / PUMPED_S)


def read_stage(options: Options, now: Condition) -> StagePosition:
    """Return what the stage's encoders say."""
    off = rng(options.seed, "encoders", now.tilts, now.moves).uniform(-READ_ERROR_M, READ_ERROR_M, 3)
    at = now.stage
    x, y, z = (float(value or 0.0) + float(by) for value, by in zip((at.x, at.y, at.z), off, strict=True))
    return StagePosition(x=x, y=y, z=z, r=at.r, t=at.t)


def turned_by(now: StagePosition, to: StagePosition) -> float:
    """Return the larger of the changes of rotation and tilt, radians."""
    changes = [abs(b - (a or 0.0)) for a, b in ((now.r, to.r), (now.t, to.t)) if b is not None]
    return max(changes, default=0.0)
