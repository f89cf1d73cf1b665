"""Set-up is never replayed, it is ensured: compare with what can be read, bring it there, verify.

So it doesn't matter who moved what while the run was away. Devices come out before the stage moves and go in after it;
the stage is not moved for less than a stage can do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from instrument.errors import NotReached
from instrument.guard_rules import SAME_PLACE_M, STILL_RAD
from instrument.settings import Beam, BeamSettings, Device, GasSetting, Setup, StagePosition, State

log = logging.getLogger(__name__)

AXES = ("x", "y", "z", "r", "t")
LENGTH_TOLERANCE_M = 10e-6  # stage repeatability after tilt or rotation is 1 to 5 um (night.md 8)
ANGLE_TOLERANCE_RAD = 1e-3  # tilt repeats to 0.01 to 0.02 deg = 3.5e-4 rad (night.md 8)
ASKED_M, ASKED_RAD = 1e-9, 1e-7  # two targets that differ by more are two
#: A stage at rest doesn't read the same for ever: a recorded one toggles by 5 nm and creeps by 20 nm in 10 minutes.
#: What was registered there holds as long as it reads within this; beyond SAME_PLACE_M somebody has moved it.
RESTS_M = 50e-9
CURRENT_TOLERANCE = 0.05  # "species, kV and measured current equal the plan within 5 %" (night.md 11)
_RELATIVE = 1e-6
_SHIFT_M = 0.1e-9
_DISTANCE_M = 2e-6  # lenses are set nearly; the ion beam's depth of focus is tens of microns


class Adjustable(Protocol):
    """What of an instrument is needed to bring a set-up about."""

    def state(self) -> State:
        """Return one snapshot."""

    def set_beam(self, beam: Beam, settings: BeamSettings) -> BeamSettings:
        """Change a column."""

    def move_stage(self, to: StagePosition) -> StagePosition:
        """Move the stage."""

    def insert(self, device: Device, position: str | None = None) -> None:
        """Bring a device in."""

    def retract(self, device: Device) -> None:
        """Take a device out."""

    def set_gas(self, gas: str, setting: GasSetting) -> GasSetting:
        """Heat a gas."""


class Stood(NamedTuple):
    """Where the stage was sent last, and what it read when it had come there."""

    asked: StagePosition
    reached: StagePosition


@dataclass(frozen=True)
class Standing:
    """Where something was seen: after which move, what the stage read, and what else it depends on."""

    moves: int
    stage: StagePosition
    point: tuple[object, ...]

    def holds(self, before: Standing | None) -> bool:
        """Tell whether what was seen `before` is where it was."""
        if before is None or (self.moves, self.point) != (before.moves, before.point):
            return False
        return not _off(before.stage, self.stage, RESTS_M, STILL_RAD)


class Ensurer:
    """Brings set-ups about on one instrument; remembers what it asked of the stage.

    A stage never stands exactly where it was sent. As long as the same target is asked for again and the stage still
    reads nearly what it read after that move, it is left alone; else every act would move it, and each move errs anew.
    Whoever doesn't know where it was sent sends it: two targets may lie nearer to each other than a stage errs.

    Parameters
    ----------
    instrument : whose set-ups
    stood : what an Ensurer before this one remembered, None when nothing is known
    moved : told after each move what is to be remembered
    """

    def __init__(
        self, instrument: Adjustable, stood: Stood | None = None, moved: Callable[[Stood], object] = lambda _stood: None
    ) -> None:
        self._instrument = instrument
        self._stood = stood
        self._moved = moved
        self._moves = 0

    def ensure(self, setup: Setup) -> State:
        """Bring `setup` about and return the state that shows it; NotReached, with both values, when it fails."""
        instrument = self._instrument
        state = instrument.state()
        target = self._to_move(setup.stage, state.stage)
        for device, inserted in state.devices.items():
            if inserted and (target is not None or device in setup.retracted):
                instrument.retract(device)
        for gas in setup.gases_ready:
            now = state.gases.get(gas)
            if now is None or not (now.heater_on and now.ready):
                log.info("heating %s", gas)
                instrument.set_gas(gas, GasSetting(heater_on=True))
        if setup.stage is not None and target is not None:
            self._moves += 1
            self._stood = Stood(setup.stage, instrument.move_stage(target))
            self._moved(self._stood)
        for beam, wanted in ((Beam.ELECTRON, setup.electron), (Beam.ION, setup.ion)):
            change = None if wanted is None else _differing(wanted, state.beam(beam).settings)
            if change is not None:
                instrument.set_beam(beam, change)
        state = instrument.state()
        for device in setup.inserted:
            if not state.devices.get(device, False):
                instrument.insert(device)
        return self._verified(setup, instrument.state() if setup.inserted else state)

    def forget(self) -> None:
        """Forget what was asked of the stage: somebody else had it in hand."""
        self._stood = None
        self._moves += 1

    def standing(self, state: State, *point: object) -> Standing:
        """Return where the stage stands, with what else a registration depends on."""
        return Standing(self._moves, state.stage, point)

    def _to_move(self, wanted: StagePosition | None, now: StagePosition) -> StagePosition | None:
        if wanted is None:
            return None
        if self._stood is None or _off(self._stood.reached, now, SAME_PLACE_M, STILL_RAD):
            return wanted
        differs = _off(self._stood.asked, wanted, ASKED_M, ASKED_RAD)
        return StagePosition(**{axis: getattr(wanted, axis) for axis in differs}) if differs else None

    def _verified(self, setup: Setup, state: State) -> State:
        wrong: list[str] = []
        if setup.stage is not None:
            off = _off(setup.stage, state.stage, LENGTH_TOLERANCE_M, ANGLE_TOLERANCE_RAD)
            wrong += [
                f"stage {axis} is {getattr(state.stage, axis)!r}, not {getattr(setup.stage, axis)!r}" for axis in off
            ]
        for beam, wanted in ((Beam.ELECTRON, setup.electron), (Beam.ION, setup.ion)):
            left = None if wanted is None else _differing(wanted, state.beam(beam).settings)
            if left is not None:
                wrong.append(f"{beam} beam: {left.model_dump(exclude_none=True)} not reached")
        wrong += [f"{device} is not in" for device in setup.inserted if not state.devices.get(device, False)]
        wrong += [f"{device} is not out" for device in setup.retracted if state.devices.get(device, False)]
        wrong += [f"{gas} is not ready" for gas in setup.gases_ready if not _ready(state, gas)]
        if wrong:
            msg = f"the set-up for {setup.pose} was not reached: {'; '.join(wrong)}"
            raise NotReached(msg, setup=setup.model_dump(mode="json"), state=state.model_dump(mode="json"))
        return state


def _ready(state: State, gas: str) -> bool:
    now = state.gases.get(gas)
    return now is not None and now.ready


def _off(wanted: StagePosition, now: StagePosition, length: float, angle: float) -> list[str]:
    found = []
    for axis in AXES:
        target, value = getattr(wanted, axis), getattr(now, axis)
        limit = angle if axis in "rt" else length
        if target is not None and (value is None or abs(_turn(value - target, axis)) > limit):
            found.append(axis)
    return found


def _turn(difference: float, axis: str) -> float:
    """Return a difference of rotations as the shorter way round (rad); of other axes unchanged."""
    turn = 6.283185307179586
    return (difference + turn / 2) % turn - turn / 2 if axis == "r" else difference


def _differing(wanted: BeamSettings, now: BeamSettings) -> BeamSettings | None:
    """Return the part of `wanted` that `now` doesn't have, None when it has all."""
    change = {
        name: value
        for name, value in wanted.model_dump(exclude_none=True).items()
        if not _equal(name, value, getattr(now, name))
    }
    if wanted.working_distance_m is not None and {"voltage_v", "current_a"} & set(change):
        change["working_distance_m"] = wanted.working_distance_m  # a column may recall another one with its aperture
    return BeamSettings(**change) if change else None


def _equal(name: str, wanted: object, now: object) -> bool:
    if not isinstance(wanted, float) or not isinstance(now, float | int):
        return wanted == now
    if name.startswith("shift"):
        return abs(wanted - now) <= _SHIFT_M
    if name == "working_distance_m":
        return abs(wanted - now) <= _DISTANCE_M
    relative = CURRENT_TOLERANCE if name == "current_a" else _RELATIVE
    return abs(wanted - now) <= max(1e-12 if name != "current_a" else 0.0, relative * abs(wanted))
