"""What goes wrong in a night (physics.md 7): when, and what it does to the machine and to what it reads.

A fault is struck at a time (by schedule, or at random by its rate per hour) or when something is moved (by its rate per
actuation; one that is scheduled waits for the next). It stays until what mends it is done, or is spent by the one verb
that it spoils. All that is known of it lies in the machine's condition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import exp, floor
from typing import TYPE_CHECKING, Literal

from instrument.settings import Beam, Model
from simulator.randomness import rng

if TYPE_CHECKING:
    from simulator.condition import Condition

Moved = Literal["time", "needle", "device", "move", "deposit", "cut", "frame", "call", "focus", "valve", "map"]


@dataclass(frozen=True)
class Fault:
    """One row of the table.

    name : as it is scheduled; rate : per hour, or per actuation of what it hangs on; on : "time", or what is moved
    signature : what is seen; recovery : what mends it
    """

    name: str
    rate: float
    on: Moved
    signature: str
    recovery: str


#: Rates are the estimates of physics.md 7.
FAULTS = (
    Fault("plasma-loss", 0.003, "time", "no ion current, source off; cuts take nothing", "relight the source"),
    Fault("current-drift", 0.005, "time", "measured current slides; cuts get thin", "relight, or more dose"),
    Fault("current-step", 0.01, "time", "measured current 5 % off at once", "set the current again"),
    Fault("species-mismatch", 0.001, "time", "another species: spot, aim and rate are wrong", "set the species"),
    Fault("emission-drift", 0.002, "time", "electron pictures darken by 10 % an hour", "relight the source"),
    Fault("saturation", 0.01, "time", "detectors clip", "set contrast and brightness again"),
    Fault("focus-drift", 0.01, "time", "pictures blur, 1 um an hour and more", "focus"),
    Fault("autofocus-mislock", 0.01, "focus", "working distance jumps by more than 5 um", "focus again"),
    Fault("image-shift", 0.02, "time", "everything is displaced by 0.1 to 5 um", "find the fiducial"),
    Fault("fiducial-covered", 0.1, "deposit", "the fiducial's score falls at once", "use the spare"),
    Fault("missed-slice", 0.02, "cut", "a cut takes nothing, or twice as much", "measure the plane"),
    Fault("needle-stuck", 0.002, "needle", "the needle does not move for 20 to 60 s", "try again"),
    Fault("gas-low", 0.002, "time", "films grow 20 to 80 % too little, pressure rises less", "a new crucible"),
    Fault("gas-cold", 0.002, "time", "the heater is off, no film grows", "heat again"),
    Fault("valve-stuck", 0.0005, "valve", "pressure stays high after the valve is shut", "pump"),
    Fault("over-density", 0.0005, "deposit", "a pit instead of a film: a wrong aperture", "measure the current"),
    Fault("vacuum-excursion", 0.001, "time", "2e-2 Pa; column valves shut, both beams off", "pump, relight"),
    Fault("touch-alarm", 0.001, "time", "no stage move is accepted", "home the stage"),
    Fault("stage-miss", 0.01, "move", "the stage stops 0.5 to 2 um off", "move again"),
    Fault("detector-refused", 0.001, "device", "a detector is not let in", "retract the others, try again"),
    Fault("cbs-left-in", 0.001, "device", "CBS says nothing and stays in", "retract again"),
    Fault("rpc-timeout", 0.005, "time", "a call hangs for minutes and fails; it may have been done", "read all"),
    Fault("half-written-frame", 0.002, "frame", "the lower part of a picture is black", "take it again"),
    Fault("disk-full", 0.0005, "frame", "a picture can't be written", "make room"),
    Fault("reboot", 0.0005, "time", "gone for 10 to 60 min; beams off, stage not homed", "home, relight, heat"),
    Fault("em-field", 0.002, "time", "50 Hz wobble, a jump of more than 1 um", "wait half an hour"),
    Fault("eds-warm", 0.002, "map", "no counts, or twice as many", "map again"),
    Fault("charging-flare", 0.01, "time", "bright streaks for ten minutes, 100 nm of local shift", "wait"),
    Fault("knob-turned", 0.001, "time", "focus, stigmator, shift are not as they were set", "ask the person"),
)  # fmt: skip
BY_NAME = {fault.name: fault for fault in FAULTS}
#: How long an electromagnetic field, a charging flare last, s.
EM_S, FLARE_S = 1800.0, 600.0
#: Platinum that a film's halo leaves on a fiducial without a shield, metres: our assumption (physics.md 7).
BURIED_M = 0.8e-6
#: How long vacuum takes to come back by itself after an excursion, s.
PUMPED_AGAIN_S = 300.0


class Struck(Model):
    """A fault that has happened: its name, when (s), how bad it is (0..1), whether it is over."""

    name: str
    at_s: float
    severity: float
    over: bool = False


def due(seed: int, scheduled: tuple[tuple[str, float], ...], rate: float, since_s: float, until_s: float) -> list[str]:
    """Return the names of faults that strike after one time and not after the other, s, in order.

    Parameters
    ----------
    seed : of the machine; scheduled : names and times; rate : times the usual rates, 0 for none
    """
    found = [(at, name) for name, at in scheduled if since_s < at <= until_s]
    if rate > 0:
        for hour in range(floor(since_s / 3600), floor(until_s / 3600) + 1):
            found += [(at, name) for at, name in _in_hour(seed, rate, hour) if since_s < at <= until_s]
    return [name for _, name in sorted(found)]


@lru_cache(maxsize=64)
def _in_hour(seed: int, rate: float, hour: int) -> tuple[tuple[float, str], ...]:
    """Return times (s) and names of the faults that come with time in an hour of a machine."""
    found: list[tuple[float, str]] = []
    for fault in FAULTS:
        if fault.on == "time":
            draw = rng(seed, "fault", fault.name, hour)
            times = (hour + draw.random(int(draw.poisson(min(fault.rate * rate, 5.0))))) * 3600.0
            found += [(float(at), fault.name) for at in times]
    return tuple(found)


def moved(seed: int, rate: float, counter: int, what: Moved) -> Iterator[str]:
    """Yield the names of faults that an actuation of `what` strikes, by their rates times `rate`."""
    if rate > 0:
        for fault in FAULTS:
            if fault.on == what and rng(seed, "fault", fault.name, counter).random() < min(1.0, fault.rate * rate):
                yield fault.name


def active(now: Condition, name: str) -> Struck | None:
    """Return a fault that has struck and is not over, None for none."""
    return next((one for one in now.struck if one.name == name and not one.over), None)


def over(now: Condition, *names: str) -> Condition:
    """Return the condition with these faults mended, or spent."""
    if not any(one.name in names and not one.over for one in now.struck):
        return now
    return now.replace_fast(
        struck=tuple(one.replace(over=True) if one.name in names and not one.over else one for one in now.struck)
    )


def struck(seed: int, now: Condition, name: str, at_s: float) -> Condition:
    """Return the condition after a fault has struck, with what it does at once."""
    if active(now, name) is not None:
        return now
    severity = float(rng(seed, "severity", name, len(now.struck)).random())
    one = Struck(name=name, at_s=at_s, severity=severity)
    now = now.replace_fast(struck=(*now.struck, one))
    effect = _AT_ONCE.get(name)
    return now if effect is None else effect(now, one)


# -- what a fault does at once ----------------------------------------------------------------------------------------


def _beams_off(now: Condition) -> Condition:
    for beam in Beam:
        now = now.with_beam(beam, now.beam(beam).replace(source_on=False))
    return now.replace_fast(blanked=True)


def _plasma_lost(now: Condition, _: Struck) -> Condition:
    return now.with_beam(Beam.ION, now.ion.replace(source_on=False))


def _other_species(now: Condition, _: Struck) -> Condition:
    return now.with_beam(Beam.ION, now.ion.replace(species="Argon" if now.ion.species == "Xenon" else "Xenon"))


def _heater_off(now: Condition, _: Struck) -> Condition:
    return now.replace_fast(gases={n: g.replace(heater_on=False, ready=False) for n, g in now.gases.items()})


def _air(now: Condition, _: Struck) -> Condition:
    return _beams_off(now)


def _rebooted(now: Condition, _: Struck) -> Condition:
    gases = {n: g.replace(heater_on=False, ready=False, valve_open=False) for n, g in now.gases.items()}
    return _beams_off(now).replace_fast(homed=False, gases=gases)


def _knobs(now: Condition, one: Struck) -> Condition:
    electron, off = now.electron, 4e-6 + 8e-6 * one.severity
    turned = electron.replace(
        working_distance_m=(electron.working_distance_m or 4e-3) + off,
        stigmator_x=(electron.stigmator_x or 0.0) + 0.8,
        shift_x_m=(electron.shift_x_m or 0.0) + 1.5e-6,
    )
    return now.with_beam(Beam.ELECTRON, turned)


_AT_ONCE: dict[str, Callable[[Condition, Struck], Condition]] = {
    "plasma-loss": _plasma_lost, "species-mismatch": _other_species, "gas-cold": _heater_off,
    "vacuum-excursion": _air, "reboot": _rebooted, "knob-turned": _knobs,
}  # fmt: skip

# -- what it does as long as it lasts ---------------------------------------------------------------------------------


def ion_current_factor(now: Condition, time_s: float) -> float:
    """Return the ion current over what it would be."""
    factor = 1.0
    if (slide := active(now, "current-drift")) is not None:  # 2 to 10 % a night, here within a few hours
        factor *= max(0.5, 1 - (0.02 + 0.08 * slide.severity) * (time_s - slide.at_s) / 3600)
    if (step := active(now, "current-step")) is not None:
        factor *= 0.95 if step.severity < 0.7 else 1.05
    if (dense := active(now, "over-density")) is not None:
        factor *= 8 + 8 * dense.severity
    return factor


def emission_factor(now: Condition, time_s: float) -> float:
    """Return the electron pictures' brightness over what it would be."""
    factor = 1.0
    if (fading := active(now, "emission-drift")) is not None:
        factor *= exp(-0.1 * (0.5 + fading.severity) * (time_s - fading.at_s) / 3600)
    if (clipped := active(now, "saturation")) is not None:
        factor *= 1.5 + clipped.severity
    return factor


def focus_off(now: Condition, time_s: float) -> float:
    """Return by how much the focus has drifted, metres."""
    drifting = active(now, "focus-drift")
    return 0.0 if drifting is None else (1e-6 + 3e-6 * drifting.severity) * (1 + (time_s - drifting.at_s) / 3600)


def displaced(now: Condition, time_s: float) -> tuple[float, float]:
    """Return how far the sample is displaced in the chamber's X and Y, metres; a jump stays, a field goes by."""
    x = y = 0.0
    for number, one in enumerate(now.struck):
        if one.name == "image-shift":
            size = 0.1e-6 + 4.9e-6 * one.severity**3
            x, y = (x + size, y) if number % 2 else (x, y + size)
        elif one.name == "em-field" and time_s - one.at_s < EM_S:
            x, y = x + 1.2e-6, y + 0.5e-6
        elif one.name == "charging-flare" and time_s - one.at_s < FLARE_S:
            x += 0.15e-6
    return x, y


def growth_factor(now: Condition) -> float:
    """Return how fast films grow over what they would."""
    low = active(now, "gas-low")
    return 1.0 if low is None else 0.8 - 0.6 * low.severity


def extra_pressure(now: Condition, time_s: float, open_pa: float) -> float:
    """Return what a fault adds to the chamber's pressure, Pa; `open_pa` is that of an open valve."""
    added = 0.0
    if (air := active(now, "vacuum-excursion")) is not None:
        added += 2e-2 * exp(-max(0.0, time_s - air.at_s) / PUMPED_AGAIN_S)
    if active(now, "valve-stuck") is not None and not any(gas.valve_open for gas in now.gases.values()):
        added += 0.6 * open_pa
    return added


def wobble_m(now: Condition, time_s: float) -> float:
    """Return how far lines are moved by the mains, metres, beyond the usual."""
    field = active(now, "em-field")
    return 15e-9 if field is not None and time_s - field.at_s < EM_S else 0.0


def flares(now: Condition, time_s: float) -> bool:
    """Tell whether the picture has charging flares."""
    flare = active(now, "charging-flare")
    return flare is not None and time_s - flare.at_s < FLARE_S


def away_s(one: Struck) -> float:
    """Return how long a rebooting machine is gone, s (physics.md 7: 10 to 60 min)."""
    return 600.0 + 3000.0 * one.severity


def hang_s(one: Struck) -> float:
    """Return how long a hanging call hangs, s (physics.md 7: 60 to 600)."""
    return 60.0 + 540.0 * one.severity


def stuck_s(one: Struck) -> float:
    """Return after what time a stuck needle is given up, s (physics.md 7: 20 to 60)."""
    return 20.0 + 40.0 * one.severity


def mislocked(one: Struck) -> float:
    """Return by how much a focus routine has gone wrong, metres (physics.md 7: more than 5 um)."""
    return 6e-6 + 10e-6 * one.severity


def missed_by(one: Struck) -> float:
    """Return by how much the stage has missed, metres (physics.md 7: more than 0.5 um)."""
    return 0.6e-6 + 1.4e-6 * one.severity
