"""The microscope over the wire: the same verbs, and actions by id for what must never happen twice."""

from __future__ import annotations

import json
import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any, Self, TypeVar

from instrument.errors import BadData, ConnectionLost, InstrumentError, NotInControl, TimedOut
from instrument.frame import Frame, FrameRef, sha256_of
from instrument.ledger import Record, record_from_plain
from instrument.link import Line, place_of
from instrument.microscope import Microscope, Watch, unwatched
from instrument.settings import (
    Beam,
    BeamSettings,
    Description,
    Device,
    Done,
    EdsScan,
    Envelope,
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
from instrument.wire import (
    Acquire,
    AcquireEds,
    Command,
    Insert,
    MoveStage,
    Recover,
    Result,
    Retract,
    SetBeam,
    SetGas,
    TuneBeam,
    Wait,
    WritePattern,
    command_to_plain,
)

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_WAIT_S = 1.0
#: Longest time that an action may take: a piece of a night's longest pattern, on the real clock (s).
ACTION_S = 12 * 3600.0
#: Longest time that making safe may take: beams and valves at once, a slow needle minutes.
SAFE_S = 420.0
#: Longest time that a stop may take, and that it waits for another one on the same connection (s).
_STOP_S, _BUSY_S = 30.0, 0.2


class RemoteClock:
    """The instrument's time, over the wire."""

    def __init__(self, remote: RemoteMicroscope) -> None:
        self._remote = remote

    def now(self) -> float:
        """Return seconds on the instrument's clock."""
        return self._remote.state().time_s

    def wait(self, seconds: float) -> None:
        """Let `seconds` of the instrument's time pass, blanked."""
        self._remote.do(Wait(seconds=seconds))


class _Aside:
    """A method's connection of its own, open before it is needed: a port that is flooded can't cut it off then.

    Parameters
    ----------
    where : host, port and token
    method, timeout_s : what is called, and how long that may take
    """

    def __init__(self, where: tuple[str, int, str], method: str, timeout_s: float) -> None:
        self._where, self._method, self._timeout_s = where, method, timeout_s
        self._line: Line | None = None
        self._lock = threading.Lock()

    def keep(self, timeout_s: float) -> None:
        """Open the connection, or see that it stands; a broken one is opened anew the next time."""
        if not self._lock.acquire(blocking=False):
            return  # it is in use
        try:
            self._line = self._line or Line(*self._where, timeout_s=self._timeout_s)
            self._line.keep(timeout_s)
        except InstrumentError as error:
            log.warning("%s: %s", self._method, error.message)
        finally:
            self._lock.release()

    def call(self) -> Any:
        """Call over the connection that is kept, over a new one where there is none, or it is busy or broken."""
        line = self._line
        if line is not None and self._lock.acquire(timeout=_BUSY_S):
            try:
                return line.call(self._method)
            except ConnectionLost as error:
                log.warning("%s: %s; over a new connection", self._method, error.message)
            finally:
                self._lock.release()
        line = Line(*self._where, timeout_s=self._timeout_s)
        try:
            return line.call(self._method)
        finally:
            line.close()

    def close(self) -> None:
        """Close the connection, unless it is in use: then it ends with that."""
        if self._lock.acquire(timeout=_BUSY_S):
            if self._line is not None:
                self._line.close()
                self._line = None
            self._lock.release()


class RemoteMicroscope(Microscope):
    """A microscope that a server holds.

    One thread calls the verbs; `stop` and `make_safe` have connections of their own and may be called from any thread
    at any time. While it is in control a thread of its own keeps the lease alive.

    Parameters
    ----------
    host, port, token : where the server is, and the right to operate or to observe
    run : whose lease is claimed
    """

    def __init__(self, host: str, port: int, token: str, run: str = "") -> None:
        self._where = (host, port, token)
        self._line = Line(host, port, token)
        self._stop = _Aside(self._where, "stop", _STOP_S)
        self._make_safe = _Aside(self._where, "make_safe", SAFE_S)
        self._lock = threading.Lock()
        self._run = run or f"session-{uuid.uuid4().hex[:12]}"
        self._epoch = 0
        self._session = uuid.uuid4().hex[:12]
        self._number = 0
        self._ended = threading.Event()
        self._pulse: threading.Thread | None = None
        self._lost: InstrumentError | None = None
        self._description: Description | None = None
        self.clock = RemoteClock(self)
        self.seconds_in_calls = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- control ------------------------------------------------------------------------------------------------------

    def claim(self, envelope: Envelope | None = None) -> None:
        """Take control, within an envelope; the heartbeat begins. NotInControl while another run has it."""
        plain = None if envelope is None else envelope.model_dump(mode="json")
        answer = self._call("claim", self._run, plain)
        self._epoch = int(answer["epoch"])
        self._lost = None
        if self._pulse is None:
            for aside in (self._stop, self._make_safe):
                aside.keep(_STOP_S)
            self._pulse = threading.Thread(
                target=self._beat, args=(float(answer["lease_s"]) / 4,), name="heartbeat", daemon=True
            )
            self._pulse.start()

    def release(self) -> None:
        """Give control back; the server lingers."""
        if self._epoch:
            self._call("release", self._epoch)
            self._epoch = 0

    def close(self) -> None:
        """Give control back and end the connection."""
        self._ended.set()
        if self._pulse is not None:
            self._pulse.join(5.0)
            self._pulse = None
        try:
            self.release()
        except InstrumentError as error:
            log.debug("release: %s", error.message)
        self._line.close()
        self._stop.close()
        self._make_safe.close()

    # -- actions ------------------------------------------------------------------------------------------------------

    def perform(self, action_id: str, command: Command, watch: Watch = unwatched) -> Result:
        """Do a command once under this id, or join the one that goes on, or take what it gave.

        Raises the error that the action ended with; ConnectionLost and TimedOut leave it known to the ledger.
        """
        record = record_from_plain(self._call("submit", self._epoch, action_id, command_to_plain(command)))
        deadline = time.monotonic() + ACTION_S
        while record.state == "running":
            if time.monotonic() > deadline:
                msg = f"{action_id} has not ended after {ACTION_S / 3600:.0f} h"
                raise TimedOut(msg, id=action_id)
            if self._lost is not None:
                raise self._lost
            record = self._waited(action_id)
            if record.state == "running" and watch is not unwatched:
                self._watched(action_id, command, record, watch)
        if record.error is not None:
            raise record.error
        return record.result or Result()

    def _waited(self, action_id: str) -> Record:
        found = self._call("wait", action_id, _WAIT_S)
        if found is None:
            msg = f"the server has forgotten {action_id}"
            raise ConnectionLost(msg, id=action_id)
        return record_from_plain(found)

    def _watched(self, action_id: str, command: Command, record: Record, watch: Watch) -> None:
        """Tell `watch` how far a command is; where it raises, what goes on is stopped first and waited for."""
        seconds = command.job.dose_c / command.job.current_a if isinstance(command, WritePattern) else 0.0
        begin, end = (
            (command.job.from_fraction, command.job.to_fraction) if isinstance(command, WritePattern) else (0.0, 1.0)
        )
        at = record.fraction or 0.0
        told = Progress(fraction=at, elapsed_s=seconds * max(0.0, at - begin), remaining_s=seconds * max(0.0, end - at))
        try:
            watch(told)
        except BaseException:
            self.stop()
            while self._waited(action_id).state == "running":
                continue
            raise

    def lookup(self, action_id: str) -> Record | None:
        """Return what the ledger says, None when it never saw the id."""
        found = self._call("lookup", action_id)
        return None if found is None else record_from_plain(found)

    def patterns(self) -> list[str]:
        """Return the ids of all of this run's patterns that the ledger has, in order."""
        return [str(one) for one in self._call("patterns", self._run)]

    def chunks(self, frame: FrameRef) -> Iterator[bytes]:
        """Yield a frame's file from the spool, 1 MiB at a time."""
        offset = 0
        while piece := self._call("chunk", frame.name, offset):
            offset += len(piece)
            yield bytes(piece)

    def release_frame(self, frame: FrameRef) -> None:
        """Let the spool delete a frame; harmless when it is gone."""
        self._call("release_frame", self._epoch, frame.name)

    def events(self, since: int = 0) -> list[dict[str, Any]]:
        """Return what the server tells since event number `since`."""
        return list(self._call("events", since))

    def do(self, command: Command) -> Result:
        """Do a command under an id of this session's own: for what needs no journal."""
        self._number += 1
        return self.perform(f"{self._run}/{self._session}/{self._number}", command)

    # -- verbs --------------------------------------------------------------------------------------------------------

    def describe(self) -> Description:
        """Return what this instrument is and can do."""
        if self._description is None:
            self._description = Description.model_validate(self._call("describe"))
        return self._description

    def state(self) -> State:
        """Return all that can be read, in one snapshot."""
        return State.model_validate(self._call("snapshot")["state"])

    def set_beam(self, beam: Beam, settings: BeamSettings) -> BeamSettings:
        """Change a column; see `Microscope`."""
        return _given(self.do(SetBeam(beam=beam, settings=settings)).beam)

    def move_stage(self, to: StagePosition) -> StagePosition:
        """Move the stage; see `Microscope`."""
        return _given(self.do(MoveStage(to=to)).stage)

    def insert(self, device: Device, position: str | None = None) -> None:
        """Bring a device in; see `Microscope`."""
        self.do(Insert(device=device, position=position))

    def retract(self, device: Device) -> None:
        """Take a device out; see `Microscope`."""
        self.do(Retract(device=device))

    def set_gas(self, gas: str, setting: GasSetting) -> GasSetting:
        """Heat, open or shut a gas; see `Microscope`."""
        return _given(self.do(SetGas(gas=gas, setting=setting)).gas)

    def acquire(self, scan: Scan) -> Frame:
        """Take a picture; see `Microscope`."""
        return self._frame(_given(self.do(Acquire(scan=scan)).frame))

    def acquire_eds(self, scan: EdsScan) -> Frame:
        """Take element maps; see `Microscope`."""
        return self._frame(_given(self.do(AcquireEds(scan=scan)).frame))

    def tune(self, routine: Tune, scan: Scan) -> Tuning:
        """Run an automatic routine; see `Microscope`."""
        return _given(self.do(TuneBeam(routine=routine, scan=scan)).tuning)

    def pattern(self, job: PatternJob, watch: Watch = unwatched) -> Done:
        """Write a job, in pieces; see `Microscope`."""
        self._number += 1
        action_id = f"{self._run}/{self._session}/{self._number}"
        return _given(self.perform(action_id, WritePattern(job=job), watch).done)

    def recover(self, what: Recovery) -> State:
        """Relight, home, pump; see `Microscope`."""
        return _given(self.do(Recover(what=what)).state)

    def stop(self) -> None:
        """End what is in hand and blank, from any thread, at once."""
        self._stop.call()

    def make_safe(self) -> State:
        """Make safe, from any thread, at once."""
        return State.model_validate(self._make_safe.call())

    # -- private ------------------------------------------------------------------------------------------------------

    def _call(self, method: str, *args: Any) -> Any:
        began = time.monotonic()
        try:
            with self._lock:
                return self._line.call(method, *args)
        finally:
            self.seconds_in_calls += time.monotonic() - began

    def _beat(self, every_s: float) -> None:
        """Renew the lease until closed; a lost lease is told to the next call that waits.

        After each heartbeat one of the connections that are kept open is looked at, for no longer than until the next.
        """
        line = Line(*self._where, timeout_s=max(2.0, 4 * every_s))
        asides = cycle((self._stop, self._make_safe))
        while not self._ended.wait(every_s):
            epoch = self._epoch
            if not epoch or self._lost is not None:
                continue
            try:
                line.call("renew", epoch)
            except ConnectionLost as error:
                log.warning("heartbeat: %s", error.message)
            except NotInControl as error:
                if epoch == self._epoch:  # else it was claimed anew meanwhile
                    log.warning("heartbeat: %s", error.message)
                    self._lost = error
            else:
                next(asides).keep(every_s)
        line.close()

    def _frame(self, ref: FrameRef) -> Frame:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "frame.ome.tif"
            with path.open("wb") as file:
                for piece in self.chunks(ref):
                    file.write(piece)
            if sha256_of(path) != ref.sha256:
                msg = f"{ref.name} arrived damaged: its SHA-256 differs"
                raise BadData(msg, name=ref.name)
            frame = Frame.load(path)
        self.release_frame(ref)
        return frame


def _given(value: _T | None) -> _T:
    if value is None:
        msg = "the server's answer lacks its value"
        raise BadData(msg)
    return value


def attach(place: Path, run: str = "") -> RemoteMicroscope:
    """Return the microscope of a local server by its server.json; nothing is claimed yet.

    ConnectionLost when there is no such server.
    """
    try:
        where = json.loads(place.read_text(encoding="utf-8"))
        token = (place.parent / where["tokens"]["operate"]).read_text(encoding="ascii")
        return RemoteMicroscope(where["host"], int(where["port"]), token, run)
    except (OSError, ValueError, KeyError) as error:
        msg = f"there is no instrument server at {place}: {error}"
        raise ConnectionLost(msg, path=str(place)) from error


def open_url(url: str, state: Path | None = None) -> RemoteMicroscope:
    """Return the microscope of `pyro://host:port?token_file=FILE`, claimed for a session of its own.

    Raises what `at_url` and `RemoteMicroscope.claim` raise.
    """
    del state
    remote = at_url(url)
    remote.claim()
    return remote


def at_url(url: str, run: str = "") -> RemoteMicroscope:
    """Return the microscope of `pyro://host:port?token_file=FILE[&certificates=DIR]`; nothing is claimed yet.

    With certificates this process speaks two-way TLS from now on. Raises Refused for a URL without port or token file.
    """
    place = place_of(url)
    return RemoteMicroscope(place.host, place.port, place.token, run)
