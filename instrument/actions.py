"""Does commands, one after another, in the one thread that speaks with the instrument.

An id is done once: asked for again it is joined while it runs, or found when it has ended. What fires is in the ledger
before the beam is on and after it is off; frames lie whole in the spool before their action counts as done.
"""

from __future__ import annotations

import logging
import queue
import re
import threading
from pathlib import Path

from instrument import durable
from instrument.errors import BadData, InstrumentError, Stopped
from instrument.frame import Frame, FrameRef, reference
from instrument.ledger import Ledger, Record
from instrument.microscope import Microscope
from instrument.settings import Done, Progress
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
    fires,
)

log = logging.getLogger(__name__)

CHUNK_BYTES = 1 << 20
#: So many actions that fired nothing are remembered, for their results to be fetched.
_REMEMBERED = 256


class Actions:
    """The queue of commands on one microscope.

    Parameters
    ----------
    microscope : guarded; only this object's thread calls its verbs, but for stop and make_safe
    ledger, spool : what was fired; folder of frames that were not yet fetched
    max_pattern_s : the longest piece of a pattern (s)
    """

    def __init__(self, microscope: Microscope, ledger: Ledger, spool: Path, *, max_pattern_s: float = 120.0) -> None:
        self._microscope = microscope
        self._ledger = ledger
        self._spool = spool
        self.max_pattern_s = max_pattern_s
        self._changed = threading.Condition()
        self._live: dict[str, Record] = {}
        self._queue: queue.Queue[tuple[str, Command] | None] = queue.Queue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="instrument", daemon=True)
        durable.make_dir(spool)
        self._thread.start()

    def submit(self, action_id: str, command: Command) -> Record:
        """Take a command under an id; a known id is joined and never done again."""
        with self._changed:
            known = self._find(action_id)
            if known is not None:
                return known
            self._live[action_id] = record = Record("running", 0.0)
            self._queue.put((action_id, command))
            return record

    def find(self, action_id: str) -> Record | None:
        """Return what is known about an action, None when it was never seen."""
        with self._changed:
            return self._find(action_id)

    def wait(self, action_id: str, seconds: float) -> Record | None:
        """Wait until an action has ended, at most `seconds`; return what is known then."""
        with self._changed:
            self._changed.wait_for(lambda: _ended(self._find(action_id)), seconds)
            return self._find(action_id)

    def stop(self) -> None:
        """End the pattern or scan in hand, blanked, and forget what waits behind it."""
        self._stop.set()
        self._microscope.stop()
        while True:
            try:
                waiting = self._queue.get_nowait()
            except queue.Empty:
                return
            if waiting is not None:
                self._keep(waiting[0], Record("cut", 0.0, error=Stopped("stopped before it began")))

    def chunk(self, name: str, offset: int) -> bytes:
        """Return a piece of a frame's file from a byte on, empty at its end; BadData when there is no such frame."""
        path = self._spooled(name)
        with path.open("rb") as file:
            file.seek(offset)
            return file.read(CHUNK_BYTES)

    def release(self, name: str) -> None:
        """Delete a frame that was fetched; harmless when it is gone."""
        if re.fullmatch(r"[\w.#-]+", name):
            (self._spool / name).unlink(missing_ok=True)

    def close(self, seconds: float = 10.0) -> None:
        """End the thread once what it does has ended."""
        self._queue.put(None)
        self._thread.join(seconds)

    # -- private ------------------------------------------------------------------------------------------------------

    def _find(self, action_id: str) -> Record | None:
        return self._live.get(action_id) or self._ledger.find(action_id)

    def _keep(self, action_id: str, record: Record) -> None:
        with self._changed:
            self._live[action_id] = record
            ended = [one for one, kept in self._live.items() if kept.state != "running"]
            for old in ended[: max(0, len(ended) - _REMEMBERED)]:
                del self._live[old]
            self._changed.notify_all()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            action_id, command = item
            self._stop.clear()
            self._keep(action_id, self._do(action_id, command))

    def _do(self, action_id: str, command: Command) -> Record:
        durably = fires(command)
        clock = self._microscope.clock
        try:
            if durably:
                self._ledger.start(action_id, command_to_plain(command), clock.now())
            record = self._done(action_id, command)
        except InstrumentError as error:
            log.warning("%s: %s", action_id, error.message)
            record = Record("failed", error=error)
        except (ValueError, OSError, RuntimeError, ArithmeticError, LookupError, TypeError) as error:
            log.exception("%s failed", action_id)
            record = Record("failed", error=InstrumentError(f"{type(error).__name__}: {error}"))
        if durably:
            self._ledger.end(action_id, record, clock.now())
        return record

    def _done(self, action_id: str, command: Command) -> Record:
        if isinstance(command, WritePattern):
            return self._pattern(action_id, command)
        return Record("done", 1.0, self._result(action_id, command))

    def _result(self, action_id: str, command: Command) -> Result:
        scope = self._microscope
        result = Result()
        match command:
            case SetBeam():
                result = Result(beam=scope.set_beam(command.beam, command.settings))
            case MoveStage():
                result = Result(stage=scope.move_stage(command.to))
            case Insert():
                scope.insert(command.device, command.position)
            case Retract():
                scope.retract(command.device)
            case SetGas():
                result = Result(gas=scope.set_gas(command.gas, command.setting))
            case Acquire():
                result = Result(frame=self._keep_frame(action_id, scope.acquire(command.scan)))
            case AcquireEds():
                result = Result(frame=self._keep_frame(action_id, scope.acquire_eds(command.scan)))
            case TuneBeam():
                result = Result(tuning=scope.tune(command.routine, command.scan))
            case Recover():
                result = Result(state=scope.recover(command.what))
            case Wait():
                scope.clock.wait(command.seconds)
            case WritePattern():
                msg = "a pattern is done in pieces"
                raise TypeError(msg)
        return result

    def _pattern(self, action_id: str, command: WritePattern) -> Record:
        """Write a job in pieces, each ending blanked and in the ledger; a stop ends it after the piece in hand."""
        elapsed = charge = 0.0
        fraction = command.job.from_fraction

        def watch(progress: Progress) -> None:
            with self._changed:
                self._live[action_id] = Record("running", progress.fraction)

        stopped = False
        for piece in command.job.pieces(self.max_pattern_s):
            if self._stop.is_set():
                stopped = True
                break
            done = self._microscope.pattern(piece, watch)
            elapsed, charge, fraction = elapsed + done.elapsed_s, charge + done.charge_c, done.fraction
            self._ledger.progress(action_id, fraction)
            if done.stopped or done.fraction < piece.to_fraction - 1e-9:
                stopped = True
                break
        result = Result(done=Done(fraction=fraction, elapsed_s=elapsed, charge_c=charge, stopped=stopped))
        return Record("cut" if stopped else "done", fraction, result)

    def _keep_frame(self, action_id: str, frame: Frame) -> FrameRef:
        path = self._spool / (re.sub(r"[^\w#.-]", "-", action_id) + ".ome.tif")
        draft = durable.temporary_for(path)
        try:
            frame.save(draft)
            durable.commit(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        return reference(frame, path)

    def _spooled(self, name: str) -> Path:
        path = self._spool / name
        if not re.fullmatch(r"[\w.#-]+", name) or not path.is_file():
            msg = f"there is no frame {name!r} in the spool: it was fetched and released, or never taken"
            raise BadData(msg, name=name)
        return path


def _ended(record: Record | None) -> bool:
    return record is None or record.state != "running"
