"""Does commands, one after another, in the one thread that speaks with the instrument.

An id is done once: asked for again it is joined while it runs, or found when it has ended. What fires is in the ledger
before the beam is on and after it is off; frames lie whole in the spool before their action counts as done.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import NamedTuple

from instrument import durable
from instrument.errors import DeviceFault, InstrumentError, NoRoom, Refused, Stopped
from instrument.guard import Guarded
from instrument.ledger import Ledger, Record, digest_of, same_command
from instrument.settings import Done, PatternJob, Progress
from instrument.spool import Spool
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
    fires,
)

log = logging.getLogger(__name__)

#: So many actions that fired nothing are remembered, for their results to be fetched.
_REMEMBERED = 256
#: A wait is cut into so many seconds of the instrument's time, so that a stop is heeded.
_WAIT_SLICE_S = 10.0
_WHOLE = 1e-9


class _Item(NamedTuple):
    """A command in the queue, and how many stops there had been when it was taken."""

    action_id: str
    command: Command
    stops: int


class Actions:
    """The queue of commands on one microscope.

    Parameters
    ----------
    microscope : only this object's thread calls its verbs, but for stop and make_safe
    ledger, spool : what was fired; frames that were not yet fetched
    broken : called when this thread ends by a defect of the program; nothing is done after that
    failed : told of each action that did not end well
    """

    def __init__(
        self,
        microscope: Guarded,
        ledger: Ledger,
        spool: Spool,
        broken: Callable[[str], None] = lambda _why: None,
        failed: Callable[[str, InstrumentError], None] = lambda _id, _error: None,
    ) -> None:
        self._microscope = microscope
        self._ledger = ledger
        self._spool = spool
        self._broken = broken
        self._failed = failed
        self.max_pattern_s = 120.0
        self._changed = threading.Condition()
        self._live: dict[str, Record] = {}
        self._digests: dict[str, str] = {}
        self._queue: queue.Queue[_Item | None] = queue.Queue()
        self._stops = 0
        self._taken = 0
        self._dead = ""
        self._thread = threading.Thread(target=self._work, name="instrument", daemon=True)
        self._thread.start()

    def submit(self, action_id: str, command: Command) -> Record:
        """Take a command under an id; a known id is joined and never done again.

        Refused for another command's id, and for one that may have been fired where the ledger is damaged.
        """
        with self._changed:
            same_command(action_id, self._digests.get(action_id) or self._ledger.digest(action_id), command)
            known = self._live.get(action_id) or self._ledger.known(action_id)
            if known is not None:
                return known
            if self._dead:
                raise DeviceFault(self._dead)
            if fires(command):
                self._ledger.check_new(action_id)
            self._live[action_id] = record = Record("running", _begin(command))
            self._digests[action_id] = digest_of(command)
            self._taken += 1
            self._queue.put(_Item(action_id, command, self._stops))
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
        """End the pattern or scan in hand, blanked; what waits behind it is not begun."""
        with self._changed:
            self._stops += 1
        self._microscope.stop()

    @property
    def busy(self) -> bool:
        """Whether anything is in hand or waits."""
        with self._changed:
            return any(record.state == "running" for record in self._live.values())

    @property
    def taken(self) -> int:
        """How many commands were taken so far."""
        with self._changed:
            return self._taken

    def close(self, seconds: float = 10.0) -> bool:
        """End the thread once what it does has ended; tell whether it has within `seconds`."""
        self._queue.put(None)
        self._thread.join(seconds)
        return not self._thread.is_alive()

    # -- private ------------------------------------------------------------------------------------------------------

    def _find(self, action_id: str) -> Record | None:
        return self._live.get(action_id) or self._ledger.find(action_id)

    def _keep(self, action_id: str, record: Record) -> None:
        if record.error is not None:
            self._failed(action_id, record.error)
        with self._changed:
            self._live[action_id] = record
            ended = [one for one, kept in self._live.items() if kept.state != "running"]
            for old in ended[: max(0, len(ended) - _REMEMBERED)]:
                del self._live[old], self._digests[old]
            self._changed.notify_all()

    def _work(self) -> None:
        while (item := self._queue.get()) is not None:
            try:
                self._keep(item.action_id, self._do(item))
            except BaseException as defect:
                log.exception("%s ended by a defect", item.action_id)
                self._die(item, defect)
                return

    def _die(self, item: _Item, defect: BaseException) -> None:
        """End all that waits: whatever this was, nobody knows what the instrument does now."""
        why = f"the instrument server has a defect: {type(defect).__name__}: {defect}; start it again"
        with self._changed:
            self._dead = why
            waiting = [one for one, kept in self._live.items() if kept.state == "running"]
        try:
            self._broken(why)
        finally:
            for action_id in {item.action_id, *waiting}:
                self._keep(action_id, Record("failed", error=DeviceFault(why, id=action_id)))

    def _stopped(self, item: _Item) -> bool:
        with self._changed:
            return self._stops != item.stops

    def _do(self, item: _Item) -> Record:
        if self._stopped(item):
            return Record("cut", _begin(item.command), error=Stopped("stopped before it began"))
        try:
            if isinstance(item.command, WritePattern):
                return self._written(item, item.command.job)
            if fires(item.command):
                return self._fired(item)
            return Record("done", 1.0, self._result(item))
        except Stopped as error:
            return Record("cut", None, error=error)
        except InstrumentError as error:
            log.warning("%s: %s", item.action_id, error.message)
            return Record("failed", error=error)
        except OSError as error:
            log.exception("%s", item.action_id)
            return Record("failed", error=_of_the_disk(error))

    def _fired(self, item: _Item) -> Record:
        """Do a command that fires and is no pattern, with the ledger around it."""
        self._ledger.start(item.action_id, item.command, self._now())
        try:
            record = Record("done", 1.0, self._result(item))
        except Stopped as error:
            record = Record("cut", None, error=error)
        except (InstrumentError, OSError) as error:
            known = error if isinstance(error, InstrumentError) else _of_the_disk(error)
            log.warning("%s: %s", item.action_id, known.message)
            record = Record("failed", error=known)
        return self._closed(item, record)

    def _written(self, item: _Item, job: PatternJob) -> Record:
        """Write a job in pieces, each ending blanked and in the ledger; a stop ends it in the piece in hand.

        The whole job is checked before its first piece: what is refused has given nothing.
        """
        self._microscope.check(job)
        pieces = job.pieces(self.max_pattern_s)
        so_far = Done(fraction=job.from_fraction, elapsed_s=0.0, charge_c=0.0)
        self._ledger.start(item.action_id, item.command, self._now(), to=pieces[0].to_fraction)
        for number, piece in enumerate(pieces):
            if number:
                try:
                    self._ledger.progress(item.action_id, so_far, piece.to_fraction)
                except OSError as error:
                    record = Record("failed", so_far.fraction, Result(done=so_far), _of_the_disk(error))
                    return self._closed(item, record)
            try:
                done = self._microscope.pattern(piece, lambda progress: self._watch(item, progress))
            except InstrumentError as error:
                if isinstance(error, Refused) and number:
                    self._failed(item.action_id, error)  # its record has what was given, not why no more
                return self._closed(item, _broken_off(piece, so_far, error))
            so_far = _sum(so_far, done)
            if so_far.stopped or so_far.fraction < piece.to_fraction - _WHOLE:
                return self._closed(item, _cut(so_far))
            if self._stopped(item) and piece is not pieces[-1]:
                return self._closed(item, _cut(so_far))
        return self._closed(item, Record("done", so_far.fraction, Result(done=so_far)))

    def _closed(self, item: _Item, record: Record) -> Record:
        """Write the end down; where the disk refuses, what is known lives on in memory for as long as the server."""
        try:
            self._ledger.end(item.action_id, record, self._now())
        except OSError:
            log.critical("%s has ended (%s) and the ledger can't be written", item.action_id, record.state)
        return record

    def _watch(self, item: _Item, progress: Progress) -> None:
        with self._changed:
            self._live[item.action_id] = Record("running", progress.fraction)
        if self._stopped(item):  # a stop that came before the pattern had begun
            msg = f"{item.action_id} was stopped"
            raise Stopped(msg, fraction=progress.fraction)

    def _result(self, item: _Item) -> Result:
        scope, command = self._microscope, item.command
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
                result = Result(frame=self._spool.keep(item.action_id, scope.acquire(command.scan)))
            case AcquireEds():
                result = Result(frame=self._spool.keep(item.action_id, scope.acquire_eds(command.scan)))
            case TuneBeam():
                result = Result(tuning=scope.tune(command.routine, command.scan))
            case Recover():
                result = Result(state=scope.recover(command.what))
            case Wait():
                self._wait_blanked(item, command.seconds)
            case WritePattern():
                msg = "a pattern is done in pieces"
                raise TypeError(msg)
        return result

    def _wait_blanked(self, item: _Item, seconds: float) -> None:
        clock = self._microscope.clock
        now = clock.now()
        end = now + seconds
        while end - now > _WHOLE:
            clock.wait(min(end - now, _WAIT_SLICE_S))
            if self._stopped(item):
                msg = f"{item.action_id} was stopped"
                raise Stopped(msg)
            before, now = now, clock.now()
            if now <= before:
                msg = "the instrument's clock stands still"
                raise DeviceFault(msg, clock_s=now)

    def _now(self) -> float:
        return self._microscope.clock.now()


def _of_the_disk(error: OSError) -> InstrumentError:
    msg = f"the server's disk: {error}; nothing is fired that can't be written down"
    if durable.no_room(error):
        return NoRoom(f"{msg}: make room on it, then `kintsugi resume`")
    return DeviceFault(msg)


def _ended(record: Record | None) -> bool:
    return record is None or record.state != "running"


def _begin(command: Command) -> float:
    return command.job.from_fraction if isinstance(command, WritePattern) else 0.0


def _sum(before: Done, now: Done) -> Done:
    return now.replace(elapsed_s=before.elapsed_s + now.elapsed_s, charge_c=before.charge_c + now.charge_c)


def _cut(so_far: Done) -> Record:
    return Record("cut", so_far.fraction, Result(done=so_far.replace(stopped=True)))


def _broken_off(piece: PatternJob, so_far: Done, error: InstrumentError) -> Record:
    """Return the record of a job whose piece in hand ended with an error.

    What is refused has fired nothing. Another error may say in its evidence at which `fraction` of the job the beam was
    blanked; where it doesn't, nobody knows.
    """
    log.warning("%s: %s", piece.area, error.message)
    begun = so_far.charge_c > 0
    if isinstance(error, Refused):
        return _cut(so_far) if begun else Record("failed", so_far.fraction, error=error)
    fraction = error.evidence.get("fraction")
    if not isinstance(fraction, int | float):
        error.evidence.setdefault("at_least", piece.from_fraction)
        error.evidence.setdefault("at_most", piece.to_fraction)
        return Record("failed", None, error=error)
    charge = piece.dose_c * max(0.0, fraction - piece.from_fraction)
    here = Done(fraction=fraction, elapsed_s=charge / piece.current_a, charge_c=charge, stopped=True)
    done = _sum(so_far, here)
    return _cut(done) if isinstance(error, Stopped) else Record("failed", fraction, Result(done=done), error)
