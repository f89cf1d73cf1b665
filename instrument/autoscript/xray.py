"""How the X-ray system's program is asked: through the vendor's Laser.PythonControl, or by a command."""

from __future__ import annotations

import contextlib
import importlib
import io
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Protocol

from instrument.autoscript.connection import Caller
from instrument.errors import DeviceFault, InstrumentError, NotReached, Refused, TimedOut
from instrument.process import eds_seconds
from instrument.settings import EdsScan, MapStarter

#: A command for the detector, and its way in or out, end within so long (s); so do a map's start and its export.
COMMAND_S, START_S, EXPORT_S = 120.0, 30.0, 600.0
#: Open clients of the vendor's control refuse shorter maps (s).
SHORTEST_S = 30.0
_CONTROL = "Laser.PythonControl"
_POLL_S = 1.0


class XrayProgram(Protocol):
    """What moves the detector and starts maps."""

    @property
    def kind(self) -> MapStarter:
        """How a recipe names it."""

    def is_in(self) -> bool:
        """Tell whether its detector is inserted."""

    def insert(self) -> None:
        """Insert its detector and wait for it."""

    def retract(self) -> None:
        """Retract its detector and wait for it."""

    def start(self, scan: EdsScan) -> None:
        """Start a map; it may be over when this returns."""


@dataclass(frozen=True)
class Command:
    """A command of the site's own.

    It is called with `insert`, `retract` or `state` (says in or out), and with
    `map WIDTH HEIGHT DWELL_S FRAMES ELEMENTS`.
    """

    words: tuple[str, ...]
    kind: MapStarter = field(default="command", init=False)

    def is_in(self) -> bool:
        """Tell whether the detector is inserted, as the command says."""
        return self._ask("state").strip().lower() == "in"

    def insert(self) -> None:
        """Insert the detector."""
        self._ask("insert")
        if not self.is_in():
            raise _not_in()

    def retract(self) -> None:
        """Retract the detector."""
        self._ask("retract")
        if self.is_in():
            raise _not_out()

    def start(self, scan: EdsScan) -> None:
        """Start a map."""
        self._ask(
            "map", str(scan.width_px), str(scan.height_px), f"{scan.dwell_s:g}", str(scan.frames),
            ",".join(scan.elements), seconds=eds_seconds(scan) + EXPORT_S,
        )  # fmt: skip

    def _ask(self, *words: str, seconds: float = COMMAND_S) -> str:
        try:
            done = subprocess.run([*self.words, *words], capture_output=True, text=True, timeout=seconds, check=True)
        except subprocess.TimeoutExpired as error:
            msg = f"the X-ray command {words[0]!r} did not end within {seconds:.0f} s"
            raise TimedOut(msg, command=words[0]) from error
        except (OSError, subprocess.CalledProcessError) as error:
            msg = f"the X-ray command {words[0]!r} failed: {error}"
            raise DeviceFault(msg, command=words[0]) from error
        return done.stdout


class LaserApi:
    """The vendor's `Laser.PythonControl`, installed with some systems, as open clients use it.

    It starts the map that is set up in the X-ray program: size, dwell and elements are that program's own, and an
    export that is not as asked for is bad data.

    Raises
    ------
    Refused : it is not installed, or does not answer
    """

    kind: MapStarter = "laser-api"

    def __init__(self) -> None:
        try:
            self._control: Any = importlib.import_module(_CONTROL)
        except ImportError as error:
            msg = f"{_CONTROL} can't be imported here: {error}; it comes with the vendor's X-ray and laser control"
            raise _refused("laser-api-installed", msg) from error
        heard = io.StringIO()

        def test() -> None:
            with contextlib.redirect_stdout(heard):
                self._control.TestConnection()

        try:
            _within("TestConnection", test)
        except InstrumentError as error:
            msg = f"{_CONTROL} does not answer: {error.message}"
            raise _refused("laser-api-answers", msg) from error
        if "successful" not in heard.getvalue():
            msg = f"{_CONTROL} does not answer: {heard.getvalue().strip() or 'it says nothing'}"
            raise _refused("laser-api-answers", msg)

    def is_in(self) -> bool:
        """Tell whether the detector is inserted."""
        return self._ask("EDS_CameraStatus") == "Inserted"

    def insert(self) -> None:
        """Insert the detector; some need to be asked twice."""
        if not self._moved("EDS_InsertCamera", "Inserted"):
            raise _not_in()

    def retract(self) -> None:
        """Retract the detector."""
        if not self._moved("EDS_RetractCamera", "Retracted"):
            raise _not_out()

    def start(self, scan: EdsScan) -> None:
        """Start a map and wait for its end."""
        takes = eds_seconds(scan)
        if takes < SHORTEST_S:
            msg = f"an element map takes {takes:.0f} s and {_CONTROL} starts none under {SHORTEST_S:.0f} s"
            raise Refused(
                msg, rule="map-long-enough", field="eds.frames", value=takes, limit=SHORTEST_S, remedy="more frames"
            )
        self._ask("EDS_StartMap")
        if not self._until("EDS_MappingStatus", "Active", START_S):
            msg = f"the map did not start within {START_S:.0f} s; look at the X-ray program"
            raise NotReached(msg, device="EDS")
        if not self._until("EDS_MappingStatus", "Idle", takes + EXPORT_S):
            msg = f"the map did not end within {takes + EXPORT_S:.0f} s; look at the X-ray program"
            raise TimedOut(msg, device="EDS")

    # -- private ------------------------------------------------------------------------------------------------------

    def _moved(self, verb: str, wanted: str) -> bool:
        for _ in range(2):
            if self._ask("EDS_CameraStatus") == wanted:
                return True
            self._ask(verb)
            if self._until("EDS_CameraStatus", wanted, COMMAND_S / 2):
                return True
        return False

    def _until(self, question: str, wanted: str, seconds: float) -> bool:
        """Ask until the answer is as wanted, False once the time is over; DeviceFault where it is an error."""
        deadline, pause = time.monotonic() + seconds, Event()
        while (said := self._ask(question)) != wanted:
            if said == "Error":
                msg = f"the X-ray system reports an error ({question}); look at its program"
                raise DeviceFault(msg, question=question)
            if time.monotonic() >= deadline:
                return False
            pause.wait(_POLL_S)
        return True

    def _ask(self, verb: str) -> str:
        return str(_within(verb, getattr(self._control, verb)))


def _within(what: str, function: Callable[[], Any]) -> Any:
    """Call in a thread of its own; TimedOut where it does not come back, and the thread is left to itself."""
    caller = Caller("x-rays")
    try:
        return caller.call(what, function, COMMAND_S)
    finally:
        caller.end()


def _not_in() -> NotReached:
    return NotReached("the X-ray detector does not say that it is in; look at its program", device="EDS")


def _not_out() -> NotReached:
    msg = "the X-ray detector does not say that it is out; the stage must not move before it is"
    return NotReached(msg, device="EDS")


def _refused(rule: str, msg: str) -> Refused:
    remedy = "install it, or start maps by a command (`elements_command`)"
    return Refused(f"{msg}; {remedy}", rule=rule, field="elements_start", value="laser-api", remedy=remedy)
