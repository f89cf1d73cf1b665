"""What the chamber does beside what it is told: errors of stage and beams, drift, pressure. Pure, keyed by the seed."""

from __future__ import annotations

from functools import lru_cache
from math import cos, exp, pi, radians, sin

import numpy as np

from instrument.process import HEAT_S
from instrument.settings import Beam, Device, StagePosition
from simulator import faults
from simulator.beams import ION_DISTANCE_M, Sight, Standing
from simulator.condition import Condition, Drift
from simulator.options import Options
from simulator.randomness import rng
from simulator.wander import settled, walked

#: Error of the position after a move of X, Y or Z alone; of what is read; of angles after a move (physics.md 1.2).
MOVE_ERROR_M, READ_ERROR_M, ANGLE_ERROR_RAD = 0.1e-6, 0.02e-6, radians(0.005)
#: What a stage at rest reads otherwise from time to time, as a recorded one does: X toggles, Y creeps to and fro.
TOGGLE_M, TOGGLE_S, CREEP_M, CREEP_S = 5e-9, 600.0, 30e-9, 2400.0
#: Drift after a disturbance (physics.md 4.6; night.md 25), m/s, and how it dies, s.
DRIFT_M_PER_S, DRIFT_DIES_S = (20e-9 / 60, 100e-9 / 60), (120.0, 600.0)
#: Share of that drift's speed that dies slowly: it is felt for half an hour.
DRIFT_SLOW = 0.15
#: Undisturbed, the sample wanders by this in a minute, creeps at about this speed, another way every two hours, and
#: follows the room by this a day (physics.md 4.6, 8.6), m, m/s, s, m.
WANDER_M, CREEP_M_PER_S, CREEP_S, ROOM_M = 3e-9, 4.5e-9 / 60, 7200.0, (0.25e-6, 1.0e-6)
#: Its height, and with it the focus, wanders by this in an hour (physics.md 8.6), m.
HEIGHT_WANDER_M = 0.1e-6
#: Approached from the other side, stage axes stop short by this (physics.md 1.2), m, rad.
BACKLASH_M, BACKLASH_RAD = 0.3e-6, radians(0.01)
#: The ion current wanders by this (deviation) over hours, the electron emission fades by this in an hour
#: (physics.md 7, 8.6).
CURRENT_WANDER, CURRENT_TAU_S, EMISSION_PER_H = 0.01, 4 * 3600.0, 0.002
#: A source just lit gives this much less, and comes up over this time (physics.md 7: 5-10 min warm up), s.
COLD_SOURCE, WARM_UP_S = 0.3, 150.0
#: A crucible is empty after this time open (physics.md 1.5, 8.6: 50-100 h), s.
CRUCIBLE_S = 75 * 3600.0
#: Ion charge on CBS that takes 1/e of its signal: our assumption (night.md 25: it ages), C.
CBS_AGES_C = 3e-3
#: The electron beam's share of `Options.aim`; its focus is off by this at every working point, metres. The ion beam's
#: focus too, by the second, where its aim is (our own choice: apertures differ, and depth of focus is large).
ELECTRON_AIM, FOCUS_OFF_M, ION_FOCUS_OFF_M = 0.4, 3e-6, 40e-6
#: Once a plasma was lit again every aperture points elsewhere by this share of `Options.aim` (our own choice).
LIT_ELSEWHERE = 0.3
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
    drift_x, drift_y = position(options, now, time_s)
    first = now.tilts == 0  # as mounted: nothing has been turned yet
    at = now.stage
    late_x, late_y, late_r, late_t = (min(0, side) if options.jump > 0 else 0 for side in now.came)
    error_r, error_t = error_r + BACKLASH_RAD * late_r, error_t + BACKLASH_RAD * late_t
    slide = slide + BACKLASH_M * np.array([late_x, late_y])
    return Standing(
        x=at.x or 0.0,
        y=at.y or 0.0,
        z=at.z or 0.0,
        r=(at.r or 0.0) + options.turned + (0.0 if first else float(error_r)),
        t=(at.t or 0.0) + (0.0 if first else float(error_t)),
        pretilt=options.pretilt,
        holder=holder_point(options),
        axis=options.axis,
        displaced=(
            drift_x + float(slide[0]) + (0.0 if first else float(jump_x)),
            drift_y + float(slide[1]) + (0.0 if first else float(jump_y)),
            HEIGHT_WANDER_M * options.drift * walked(options.seed, "height", time_s, 3600.0),
        ),
    )


def sight(options: Options, now: Condition, beam: Beam, time_s: float) -> Sight:
    """Return what a beam truly meets at a time."""
    settings = now.beam(beam)
    off = aim(options, beam, settings.voltage_v or 0.0, settings.current_a or 0.0, settings.species, now.lights)
    turned = settings.scan_rotation_rad or 0.0
    # the offset is the column's own and does not turn with the scan
    off_u, off_v = cos(turned) * off[0] + sin(turned) * off[1], cos(turned) * off[1] - sin(turned) * off[0]
    shift = ((settings.shift_x_m or 0.0) + off_u, (settings.shift_y_m or 0.0) + off_v)
    return Sight(beam, standing(options, now, time_s), scan_rotation=turned, shift=shift)


@lru_cache(maxsize=256)
def aim(
    options: Options, beam: Beam, voltage_v: float, current_a: float, species: str | None = None, lights: int = 0
) -> tuple[float, float]:
    """Return where a working point truly points, metres in the field: every aperture points elsewhere (night.md 13).

    A plasma that was lit again burns elsewhere: `lights` is how often it was.
    """
    spread = options.aim * (1.0 if beam is Beam.ION else ELECTRON_AIM)
    other = () if species is None or species == "Xenon" else (species,)
    draw = rng(options.seed, "aim", str(beam), round(voltage_v), round(current_a * 1e13), *other)
    u, v = draw.normal(0, spread, 2)
    if beam is Beam.ION and lights:
        moved = rng(options.seed, "aim, lit again", lights, round(voltage_v), round(current_a * 1e13))
        du, dv = moved.normal(0, LIT_ELSEWHERE * spread, 2)
        u, v = u + du, v + dv
    return float(u), float(v)


@lru_cache(maxsize=256)
def focus_off(options: Options, voltage_v: float, current_a: float) -> float:
    """Return by how much the electron beam's working distance reads wrong at a working point, metres."""
    return float(rng(options.seed, "focus", round(voltage_v), round(current_a * 1e13)).normal(0, FOCUS_OFF_M))


@lru_cache(maxsize=256)
def ion_focus(options: Options, voltage_v: float, current_a: float, lights: int = 0) -> float:
    """Return the working distance at which the ion beam is sharp at a working point, metres: each aperture its own.

    And another one each time that the plasma was lit again.
    """
    again = (lights,) if lights else ()
    draw = rng(options.seed, "ion focus", round(voltage_v), round(current_a * 1e13), *again)
    return ION_DISTANCE_M + float(draw.normal(0, ION_FOCUS_OFF_M)) * min(1.0, options.aim / 1e-6)


def ion_defocus(options: Options, now: Condition) -> float:
    """Return how far from the sample the ion beam is focused, metres."""
    ion = now.ion
    sharp = ion_focus(options, ion.voltage_v or 0.0, ion.current_a or 0.0, now.lights)
    return (ion.working_distance_m or ION_DISTANCE_M) - sharp


@lru_cache(maxsize=256)
def true_current(options: Options, beam: Beam, voltage_v: float, current_a: float) -> float:
    """Return the current that a nominal one really has, amperes."""
    off = rng(options.seed, "current", str(beam), round(voltage_v), round(current_a * 1e13)).normal(0, CURRENT_SPREAD)
    return current_a * (1 + max(-CURRENT_MOST, min(CURRENT_MOST, float(off))))


def current(options: Options, now: Condition, beam: Beam, time_s: float) -> float:
    """Return the current that a column gives at a time, amperes: 0 without its source."""
    settings = now.beam(beam)
    if not settings.source_on:
        return 0.0
    nominal = true_current(options, beam, settings.voltage_v or 0.0, settings.current_a or 0.0)
    if beam is Beam.ELECTRON:
        return nominal
    wander = CURRENT_WANDER * min(1.0, options.drift) * settled(options.seed, "ion current", time_s, CURRENT_TAU_S)
    warm = 1.0 if now.lit_s is None else 1 - COLD_SOURCE * exp(-max(0.0, time_s - now.lit_s) / WARM_UP_S)
    return nominal * (1 + wander) * warm * faults.ion_current_factor(now, time_s)


def brightness(options: Options, now: Condition, detector: str, time_s: float) -> float:
    """Return an electron detector's signal over its nominal one at a time."""
    fading = exp(-EMISSION_PER_H * min(1.0, options.drift) * time_s / 3600)
    aged = exp(-now.coated_c / CBS_AGES_C) if detector == "CBS" else 1.0
    return fading * aged * faults.emission_factor(now, time_s)


def astigmatism(options: Options, now: Condition, time_s: float) -> tuple[float, float]:
    """Return the electron column's astigmatism that its stigmators leave, metres: along the axes, the diagonals."""
    start = rng(options.seed, "astigmatism").uniform(-0.4e-6, 0.4e-6, 2) * min(1.0, options.drift)
    walk = [0.1e-6 * min(1.0, options.drift) * walked(options.seed, f"astigmatism {i}", time_s, 3600.0) for i in (0, 1)]
    set_x, set_y = now.electron.stigmator_x or 0.0, now.electron.stigmator_y or 0.0
    return float(start[0]) + walk[0] - 1e-6 * set_x, float(start[1]) + walk[1] - 1e-6 * set_y


def warmed(now: Condition, time_s: float) -> Condition:
    """Return the condition with those gases ready that have been heating for long enough."""
    hot = [name for name, since in now.heating.items() if now.gases[name].heater_on and time_s - since >= HEAT_S]
    if not hot:
        return now
    gases = {name: gas.replace(ready=True) if name in hot else gas for name, gas in now.gases.items()}
    return now.replace_fast(gases=gases, heating={n: at for n, at in now.heating.items() if n not in hot})


def precursor(now: Condition) -> float:
    """Return how much gas there is at the surface, 0 for none, 1 as usual: heat, valves, needle, what is left of it."""
    if Device.NEEDLE not in now.inserted:
        return 0.0
    flowing = [gas for gas in now.gases.values() if gas.valve_open and gas.ready]
    if not flowing:
        return 0.0
    main = max(flowing, key=lambda gas: gas.duty)
    return min(1.0, main.duty) * exp(-main.open_s / CRUCIBLE_S) * faults.growth_factor(now)


def came(before: StagePosition, to: StagePosition, held: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Return from which side X, Y, R, T are approached by a move: +1, -1, or as before where they do not move."""
    sides = list(held)
    for place, axis in enumerate(("x", "y", "r", "t")):
        wanted, there = getattr(to, axis), getattr(before, axis) or 0.0
        if wanted is not None and abs(wanted - there) > 1e-9:
            sides[place] = 1 if wanted > there else -1
    return (sides[0], sides[1], sides[2], sides[3])


def drifted(options: Options, drift: Drift, time_s: float) -> tuple[float, float]:
    """Return how far the sample has drifted in the chamber's X and Y, metres."""
    if drift.number == 0 or options.drift == 0:
        return drift.x_m, drift.y_m
    draw = rng(options.seed, "drift", drift.number)
    speed, angle = options.drift * draw.uniform(*DRIFT_M_PER_S), draw.uniform(0, 2 * pi)
    gone = max(0.0, time_s - drift.since_s)
    way = sum(
        share * speed * dies * (1 - exp(-gone / dies))
        for share, dies in zip((1 - DRIFT_SLOW, DRIFT_SLOW), DRIFT_DIES_S, strict=True)
    )
    return drift.x_m + way * cos(angle), drift.y_m + way * sin(angle)


def position(options: Options, now: Condition, time_s: float) -> tuple[float, float]:
    """Return how far the sample is off in the chamber's X and Y at a time, metres: drift, creep, room, jumps."""
    x, y = drifted(options, now.drift, time_s)
    jump_x, jump_y = faults.displaced(now, time_s)
    if options.drift == 0:
        return x + jump_x, y + jump_y
    draw = rng(options.seed, "room")
    room, phase = draw.uniform(*ROOM_M), draw.uniform(0, 2 * pi)
    day = room * (sin(2 * pi * time_s / 86400 + phase) - sin(phase))
    slow = [
        options.drift * (
            WANDER_M * walked(options.seed, f"position {axis}", time_s, 60.0)
            + CREEP_M_PER_S * CREEP_S * walked(options.seed, f"creep {axis}", time_s, CREEP_S)
            + day * (1.0, 0.6)[axis]
        )
        for axis in (0, 1)
    ]  # fmt: skip
    return x + slow[0] + jump_x, y + slow[1] + jump_y


def disturbed(options: Options, now: Condition, time_s: float) -> Drift:
    """Return the drift that begins with a disturbance: a tilt, a rotation, gas, a device moved."""
    x, y = drifted(options, now.drift, time_s)
    return Drift(number=now.drift.number + 1, since_s=time_s, x_m=x, y_m=y)


def pressure(now: Condition, time_s: float) -> float:
    """Return the chamber's pressure, Pa."""
    added = faults.extra_pressure(now, time_s, OPEN_PA)
    flow = sum(gas.duty for gas in now.gases.values() if gas.valve_open) * faults.growth_factor(now)
    if flow > 0:
        return BASE_PA + added + OPEN_PA * min(flow, 1.5)
    if now.shut_at_s is None:
        return BASE_PA + added
    return BASE_PA + added + OPEN_PA * exp(-max(0.0, time_s - now.shut_at_s) / PUMPED_S)


def read_stage(options: Options, now: Condition, time_s: float) -> StagePosition:
    """Return what the stage's encoders say: at rest too they toggle and creep."""
    off_x, off_y, off_z = _encoders(options.seed, now.tilts, now.moves)
    off_x += TOGGLE_M * int(settled(options.seed, "encoders", time_s, TOGGLE_S) > 0)
    off_y += CREEP_M * sin(2 * pi * time_s / CREEP_S)
    off, at = (off_x, off_y, off_z), now.stage
    x, y, z = (float(value or 0.0) + float(by) for value, by in zip((at.x, at.y, at.z), off, strict=True))
    return StagePosition(x=x, y=y, z=z, r=at.r, t=at.t)


@lru_cache(maxsize=256)
def _encoders(seed: int, tilts: int, moves: int) -> tuple[float, ...]:
    """Return by how much the encoders read wrong after a move, metres."""
    return tuple(float(by) for by in rng(seed, "encoders", tilts, moves).uniform(-READ_ERROR_M, READ_ERROR_M, 3))


def turned_by(now: StagePosition, to: StagePosition) -> float:
    """Return the larger of the changes of rotation and tilt, radians."""
    changes = [abs(b - (a or 0.0)) for a, b in ((now.r, to.r), (now.t, to.t)) if b is not None]
    return max(changes, default=0.0)
