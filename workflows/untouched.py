"""An instrument in a run's own hands: what anybody else changes meanwhile is seen, and never overwritten.

Before and after each own verb the instrument is read: in between every reading must say the same, and a verb changes
but its own part. Patterns and pictures change nothing that is compared here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from instrument.errors import NotReached
from instrument.frame import Frame
from instrument.guard_rules import CURRENT_ROOM
from instrument.microscope import Clock, Microscope
from instrument.settings import Beam, BeamSettings, Device, GasSetting, Scan, StagePosition, State, Tune, Tuning
from workflows.handover import changes

T = TypeVar("T")

#: Readings of columns that nobody touches differ by less within a session: shares of voltage and current, m, rad, 1. A
#: hand that matters turns by more: the depth of focus is a micron, pixels are 10 nm.
_WOBBLE: Mapping[str, float] = {
    "voltage_v": 0.01, "current_a": CURRENT_ROOM, "working_distance_m": 1e-6, "shift_x_m": 10e-9, "shift_y_m": 10e-9,
    "scan_rotation_rad": 1e-5, "stigmator_x": 1e-3, "stigmator_y": 1e-3,
}  # fmt: skip


class AnotherHand(NotReached):
    """Somebody else has changed a setting while a run had the instrument; `left` says how the run had left it."""

    symptom = "another-hand"


class Untouched:
    """An instrument as one run alone sets it: reading it raises AnotherHand once somebody else has changed it."""

    def __init__(self, instrument: Microscope) -> None:
        self._instrument = instrument
        self._left: State | None = None

    @property
    def clock(self) -> Clock:
        """The instrument's clock."""
        return self._instrument.clock

    def forget(self) -> None:
        """Take the instrument as it is read next: somebody else had it in hand, and that is known."""
        self._left = None

    def state(self) -> State:
        """Return one snapshot; AnotherHand where it is not as the last own verb has left it."""
        now = self._instrument.state()
        if self._left is None:
            self._left = now
        else:
            untouched(self._left, now)
            self._left = self._left.replace(stage=now.stage)  # it creeps, a micron in hours
        return now

    def set_beam(self, beam: Beam, settings: BeamSettings) -> BeamSettings:
        """Change a column."""
        return self._own(lambda: self._instrument.set_beam(beam, settings), str(beam))

    def move_stage(self, to: StagePosition) -> StagePosition:
        """Move the stage; a microscope may be set to take beam shift and focus along."""
        return self._own(lambda: self._instrument.move_stage(to), "stage", *Beam)

    def insert(self, device: Device, position: str | None = None) -> None:
        """Bring a device in."""
        self._own(lambda: self._instrument.insert(device, position), "devices")

    def retract(self, device: Device) -> None:
        """Take a device out."""
        self._own(lambda: self._instrument.retract(device), "devices")

    def set_gas(self, gas: str, setting: GasSetting) -> GasSetting:
        """Heat, open or shut a gas."""
        return self._instrument.set_gas(gas, setting)

    def acquire(self, scan: Scan) -> Frame:
        """Take a picture."""
        return self._instrument.acquire(scan)

    def tune(self, routine: Tune, scan: Scan) -> Tuning:
        """Run an automatic routine."""
        return self._own(lambda: self._instrument.tune(routine, scan), str(scan.beam))

    def make_safe(self) -> State:
        """Make safe."""
        return self._instrument.make_safe()

    def _own(self, verb: Callable[[], T], *parts: str) -> T:
        """Do what changes but some fields of the state; what a verb that fails leaves is not known."""
        before = self.state()
        self._left = None
        done = verb()
        now = self._instrument.state()
        untouched(before.replace(**{part: getattr(now, part) for part in parts}), now)
        self._left = now
        return done


def untouched(left: State, now: State) -> None:
    """See that nobody has changed an instrument since it was left.

    A source that went out takes its column's readings along, a stage without its reference all: that is no hand.

    Raises
    ------
    AnotherHand : with what has changed
    """
    if not now.stage_homed:
        return
    for beam in Beam:
        if not (left.beam(beam).source_on and now.beam(beam).source_on):
            now = now.replace(**{str(beam): left.beam(beam)})
    found = [str(one) for one in changes(left, now, _WOBBLE)]
    if found:
        msg = (
            f"somebody else has changed the microscope: {'; '.join(found)}; `kintsugi resume DIR --adopt` keeps what "
            "was set by eye, `--restore` sets it back"
        )
        raise AnotherHand(msg, changes=found, left=left.model_dump(mode="json"))
