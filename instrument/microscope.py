"""The abstract instrument: about a dozen blocking verbs that every backend gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Protocol

from instrument.frame import Frame
from instrument.settings import (
    Beam,
    BeamSettings,
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

Watch = Callable[[Progress], None]


def unwatched(progress: Progress) -> None:
    """Watch nothing: the default for `Microscope.pattern`."""


class Clock(Protocol):
    """The instrument's time."""

    def now(self) -> float:
        """Return seconds on the instrument's clock."""

    def wait(self, seconds: float) -> None:
        """Let `seconds` of the instrument's time pass."""


class MakesSafe(Protocol):
    """What makes an instrument safe, whatever else it can do."""

    def make_safe(self) -> object:
        """Stop, blank, shut, retract; idempotent."""

    def close(self) -> None:
        """Let go of the instrument."""


class Microscope(ABC):
    """A focused-ion-beam scanning electron microscope. SI units and radians throughout.

    Verbs block; one thread calls them, except `stop` and `make_safe`, which any thread may call at any time. Every verb
    may raise the errors of `instrument.errors`. Positions of scans and patterns are in the field frame of their beam:
    x along the stage's tilt axis, y down the picture, 0 at the optical axis plus beam shift, turned by scan rotation.
    """

    clock: Clock

    @property
    def lost(self) -> bool:
        """Whether only a new process can connect to the instrument again."""
        return False

    @abstractmethod
    def describe(self) -> Description:
        """Return what this instrument is and can do."""

    @abstractmethod
    def state(self) -> State:
        """Return all that can be read, in one snapshot."""

    @abstractmethod
    def set_beam(self, beam: Beam, settings: BeamSettings) -> BeamSettings:
        """Change the given fields of a column; return all of them as reached. Refuses a current not in its list."""

    @abstractmethod
    def move_stage(self, to: StagePosition) -> StagePosition:
        """Move the given axes; return what was reached. Refuses with a detector or the needle inserted."""

    @abstractmethod
    def insert(self, device: Device, position: str | None = None) -> None:
        """Bring a device in; refuses devices that would collide."""

    @abstractmethod
    def retract(self, device: Device) -> None:
        """Take a device out; harmless when it is out."""

    @abstractmethod
    def set_gas(self, gas: str, setting: GasSetting) -> GasSetting:
        """Heat, set duty, open or shut a gas; heating takes minutes and is waited for."""

    @abstractmethod
    def acquire(self, scan: Scan) -> Frame:
        """Take one picture with all detectors asked for, pixel-registered; ends blanked."""

    @abstractmethod
    def acquire_eds(self, scan: EdsScan) -> Frame:
        """Take element maps: channels are the elements, values are counts summed over the frames; ends blanked."""

    @abstractmethod
    def tune(self, routine: Tune, scan: Scan) -> Tuning:
        """Run an automatic routine on the given scan area and apply what it finds."""

    @abstractmethod
    def pattern(self, job: PatternJob, watch: Watch = unwatched) -> Done:
        """Write a job: start, poll, call `watch` (which may raise Stopped), end blanked.

        Returns how far it came; a stop from another thread ends it early with `Done.stopped` set.
        """

    @abstractmethod
    def recover(self, what: Recovery) -> State:
        """Relight the source, home the stage, pump: never done by itself."""

    @abstractmethod
    def stop(self) -> None:
        """End the pattern or scan in hand and blank, from any thread, at once."""

    @abstractmethod
    def make_safe(self) -> State:
        """Patterning off, beams blanked, valves shut, then needles out; idempotent, from any thread.

        Heaters are left on: a network hiccup must not cost a quarter of an hour of heating.
        """

    def close(self) -> None:  # noqa: B027 - a backend with nothing to let go needs none
        """Let go of the connection; a closed instrument is not used again."""
