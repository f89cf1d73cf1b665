"""A night: a run that is started, and resumed when its process died or failed, within a budget and while it is armed.

The supervisor does no work of its own on the instrument: the run is a process beside it, and what it knows is what the
run's folder says. It tells people of milestones and problems, and calls the watcher's URL while the run beats. It holds
the folder's `night.lock`, so that a stop can be asked for between two processes as well. A run that is worked on
already, as after a supervisor died, is looked after from then on.
"""

from __future__ import annotations

import logging
import math
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Literal

from instrument import durable
from instrument.durable import AlreadyLocked, FileLock
from instrument.server import detached
from workflows import heartbeat
from workflows.journal import Journal, JournalDamaged, WrongSchema
from workflows.live import duration
from workflows.notify import Messenger
from workflows.status import status_of, unless_answered
from workflows.store import SUPERVISOR, WINDOW, Request, RunFolder
from workflows.terminal import DONE, FAILED, HELD, STOPPED, WRONG, complain

log = logging.getLogger(__name__)

#: Waits before a run is resumed, s: the first, the second, ...; the last one for all that follow.
PAUSES_S = (5.0, 30.0, 120.0, 300.0)
#: A run that reaches its instrument and dies so many times in a row without getting on is not resumed again; one that
#: can't reach it, as while a network is down, is tried until its restarts are used up.
FRUITLESS = 2
#: How often an end is looked for, s; how often the folder is looked at, s; how often the watcher's URL is called, s.
TICK_S, LOOK_S, CALL_EVERY_S = 1.0, 10.0, 60.0
#: A run that hasn't beaten for so long isn't reported alive to the watcher, s.
SILENT_S = 120.0
#: Milestones are told at these shares of the slices.
_QUARTERS = 4

#: What the exit code of a process would have been that left a run in this state; any other: it failed, or was killed.
_CODES = {"done": DONE, "stopped": STOPPED, "paused": STOPPED, "held": HELD}
#: States of a run that has ended, though its process may still make its results.
_ENDED = (*_CODES, "failed")

Verdict = Literal["done", "stopped", "held", "resume", "given up"]
#: What the heartbeat says of a run that is over by this verdict.
_OVER = {"done": "done", "stopped": "stopped", "held": "held", "given up": "failed"}


@dataclass(frozen=True)
class Budget:
    """How often a run may be resumed in one night by itself."""

    restarts: int = 5

    def verdict(self, code: int, *, armed: bool, restarts: int, fruitless: int) -> tuple[Verdict, str]:
        """Return what is done after a run's process ended, and why.

        Parameters
        ----------
        code : its exit code, negative for a signal
        armed : whether a person's leave to go on alone still holds
        restarts, fruitless : how often it was resumed; how often in a row it reached its instrument, but did no new act
        """
        ended: dict[int, tuple[Verdict, str]] = {
            DONE: ("done", ""),
            STOPPED: ("stopped", "somebody asked for it"),
            HELD: ("held", "a person must look"),
            WRONG: ("given up", "recipe or arguments are wrong"),
        }
        if code in ended:
            return ended[code]
        what = f"its process was killed by signal {-code}" if code < 0 else f"it failed (exit code {code})"
        if not armed:
            return "given up", f"{what}, and the time for which it was armed is over"
        if restarts >= self.restarts:
            return "given up", f"{what}, and it was resumed {restarts} times already"
        if fruitless >= FRUITLESS:
            return "given up", f"{what} again and again, without getting on"
        return "resume", what


class Night:
    """One run under supervision.

    Parameters
    ----------
    folder : the run's folder; it need not exist yet
    begin : arguments of `kintsugi` that begin the run there, for a folder that doesn't exist yet
    more : arguments of `kintsugi resume`, such as --model
    first : further ones for the first process alone, such as --adopt
    messenger : tells people
    stopping : set from outside: the run is asked to stop now, and the night is over
    by_hand : whether a person begins it now; else a run that exists already goes on only as long as it is armed
    budget : how often it may be resumed
    ends : when its window ends: in time for that the run is asked to stop after the slice in hand, and not resumed
    watcher : a URL that is called while the run is alive, none by default
    taken, over : told that the run is looked after from now on, and its exit code just before it is not any more
    """

    def __init__(
        self,
        folder: Path,
        begin: Sequence[str],
        messenger: Messenger,
        stopping: threading.Event,
        *,
        by_hand: bool = True,
        more: Sequence[str] = (),
        first: Sequence[str] = (),
        budget: Budget | None = None,
        ends: datetime | None = None,
        watcher: str = "",
        pauses_s: Sequence[float] = PAUSES_S,
        taken: Callable[[], object] = lambda: None,
        over: Callable[[int], object] = lambda _code: None,
    ) -> None:
        self._folder = folder
        self._begin = tuple(begin)
        self._more = tuple(more)
        self._first = tuple(first)
        self._messenger = messenger
        self._budget = budget or Budget()
        self._ends = ends
        self._closing = timedelta()
        self._watcher = watcher
        self._pauses_s = pauses_s
        self._stopping = stopping
        self._taken = taken
        self._over = over
        self._by_hand = by_hand
        self._told = _Told()
        self._pulse = heartbeat.Watch(folder)
        self._called = -CALL_EVERY_S
        self._lock = FileLock(RunFolder(folder).night)

    def work(self) -> int:
        """Supervise until the run has ended, or can't be helped; returns the exit code of the last process.

        That of a stop where the night was told to end before the run was resumed. WRONG where another night looks after
        the run.
        """
        try:
            self._take()
        except AlreadyLocked as error:
            return self._refused(f"another night looks after {self._folder}: {error}")
        try:
            code = self._supervise()
            self._over(code)
            return code
        finally:
            self._lock.release()

    # -- private ----------------------------------------------------------------------------------------------------

    def _refused(self, why: str) -> int:
        complain(why)
        self._tell("failure", "does not begin", why)
        return WRONG

    def _supervise(self) -> int:
        lives = self._in_hand
        alone = not self._by_hand and RunFolder.is_run(self._folder)
        if lives and self._by_hand and str(self._status().get("state")) in _ENDED:
            self._look_after(self._let_go)  # it makes its results
            lives = False
        if not lives and (code := self._not_begun(alone=alone)) is not None:
            return code
        self._tell("info", "goes on" if alone or lives else "begins", str(self._folder))
        restarts, fruitless, before = 0, 0, self._status()
        given = self._by_hand and not lives  # a person's leave to begin holds until the run has taken it to its journal
        while True:
            code = self._look_after(self._let_go) if lives else self._process(self._arguments(alone=alone))
            status = self._status()
            if _more(before, status, "acts"):
                fruitless = 0
            elif _more(before, status, "sessions"):
                fruitless += 1
            given = given and not _more(before, status, "sessions")
            before = status or before
            armed = given or self._armed(status)
            verdict, why = self._budget.verdict(code, armed=armed, restarts=restarts, fruitless=fruitless)
            if verdict == "resume" and (told := self._told_to_end() or self._pause(why, code, restarts)) is not None:
                verdict, why, code = "stopped", told, STOPPED
            # somebody has resumed it meanwhile, or was quicker than this night's own process
            lives = self._in_hand and (verdict == "resume" or code == WRONG)
            if lives:
                self._tell("info", "goes on by hand", "somebody has resumed it; this night looks after it")
            elif verdict == "resume":
                restarts, alone = restarts + 1, not given
            else:
                self._keep({"verdict": verdict, "why": why, "code": code, "restarts": restarts})
                self._end(verdict, why, status)
                return FAILED if code < 0 else code

    @property
    def _in_hand(self) -> bool:
        """Whether a process works on the run now."""
        return FileLock.is_held(RunFolder(self._folder).lock)

    def _not_begun(self, *, alone: bool) -> int | None:
        """Return the exit code of a night that may not begin, None where it may."""
        if alone and not self._armed(self._status()):
            self._end("given up", "the time for which it was armed is over", self._status())
            return HELD
        self._take_back(everything=self._by_hand)
        if alone and (told := self._told_to_end()) is not None:
            self._end("stopped", told, self._status())
            return STOPPED
        return None

    def _pause(self, why: str, code: int, restarts: int) -> str | None:
        """Wait before the run is resumed, with signs of life; returns why it is not after all, None when it is.

        Nobody waits on where somebody resumes it meanwhile.
        """
        seconds = self._pauses_s[min(restarts, len(self._pauses_s) - 1)]
        self._keep({"verdict": "resume", "why": why, "code": code, "restarts": restarts})
        self._tell("warning", f"resumes ({restarts + 1})", f"{why}; it is resumed in {duration(seconds)}")
        ends, beats = time.monotonic() + seconds, -math.inf
        while True:
            now = time.monotonic()
            if now >= beats:
                self._beat("resuming", why, may_resume=True)
                self._call_watcher()
                beats = now + heartbeat.EVERY_S
            told = self._told_to_end()
            if told is not None or now >= ends or self._in_hand:
                return told
            self._stopping.wait(min(TICK_S, ends - now))

    def _told_to_end(self) -> str | None:
        """Return why no process is begun any more; a request for that is honoured with it."""
        if self._stopping.is_set():
            return "the supervisor was told to end"
        folder = RunFolder(self._folder)
        asked = folder.asked()
        if asked is None:
            return None
        folder.answered()
        return f"{asked.by or 'somebody'} asked for a {asked.what}"

    def _take(self) -> None:
        """Take the folder's lock of supervisors as soon as the run's folder is there; AlreadyLocked."""
        if not self._lock.held and RunFolder.is_run(self._folder):
            self._lock.acquire()
            self._taken()

    def _ask(self) -> None:
        """Ask the run to end when it is time, and again while it lives and nothing waits: it may have missed one."""
        if not RunFolder.is_run(self._folder):
            return
        folder = RunFolder(self._folder)
        asked = folder.asked()
        request = None
        if self._stopping.is_set():
            if asked is None or asked.after != "now":
                request = Request(what="stop", after="now", by=SUPERVISOR)
        elif self._closes and _later_than_a_slice(asked):
            request = Request(what="stop", after="slice", by=WINDOW)
            if not self._told.window:
                self._told.window = True
                self._tell("warning", "its window ends", "the run is asked to stop after the slice in hand")
        if request is not None:
            with durable.if_room("a request"):
                folder.ask(request)

    @property
    def _closes(self) -> bool:
        """Whether no more than the slice in hand and the last pictures fit the window."""
        return self._ends is not None and datetime.now().astimezone() >= self._ends - self._closing

    def _take_back(self, *, everything: bool = False) -> None:
        """Take the night's own request back, or whichever waits: nobody is left to heed it."""
        folder = RunFolder(self._folder)
        asked = folder.asked()
        if asked is not None and (everything or asked.by_night):
            folder.answered()

    def _arguments(self, *, alone: bool) -> tuple[str, ...]:
        if RunFolder.is_run(self._folder):
            return ("resume", str(self._folder), *self._more, *(("--alone",) if alone else self._first))
        return self._begin

    def _process(self, arguments: Sequence[str]) -> int:
        """Run `kintsugi` with these arguments beside this process; returns its exit code."""
        command = [sys.executable, "-m", "workflows.cli", *arguments]
        # in a session of its own: a Ctrl-C is for the supervisor, which asks the run to stop; and it asks nobody
        with subprocess.Popen(command, stdin=subprocess.DEVNULL, **detached()) as process:
            return self._look_after(partial(_ended, process))

    def _look_after(self, ended: Callable[[], int | None]) -> int:
        """Look after a process until `ended`, which takes a tick each time, gives its exit code."""
        looks = time.monotonic() + LOOK_S
        while (code := ended()) is None:
            with suppress(AlreadyLocked):  # somebody looks at it just now; the next time then
                self._take()
            self._ask()
            if time.monotonic() >= looks:
                self._look()
                looks = time.monotonic() + LOOK_S
        self._take_back()
        return code

    def _let_go(self) -> int | None:
        """Return how another's process left the run, as an exit code, None when it has it in hand after a tick."""
        time.sleep(TICK_S)
        if self._in_hand:
            return None
        return _CODES.get(str(self._status().get("state")), FAILED)

    def _look(self) -> None:
        status = self._status()
        if status:
            # a virtual instrument's seconds are not this clock's
            self._closing = timedelta(seconds=0.0 if status["virtual"] else status["closing_s"])
            self._milestones(status)
        found = heartbeat.pulse(self._folder)
        if found.state == "failed" and found.may_resume:  # it makes its results before its process ends
            self._beat(found.state, found.telling, may_resume=True)
        self._call_watcher()

    def _beat(self, state: str, telling: str, *, may_resume: bool = False) -> None:
        if RunFolder.is_run(self._folder):
            heartbeat.beat(self._folder, state, telling, may_resume=may_resume)

    def _call_watcher(self) -> None:
        found = self._pulse.look()
        alive = found.age_s is not None and found.age_s < SILENT_S
        if self._watcher and alive and time.monotonic() - self._called > CALL_EVERY_S:
            heartbeat.call(self._watcher)
            self._called = time.monotonic()

    def _milestones(self, status: dict[str, Any]) -> None:
        if status["step"] and status["step"] != self._told.step:
            self._told.step = status["step"]
            self._tell("info", f"step {status['step']}", f"{status['slices_acquired']} slices so far", picture=True)
        planned = int(status.get("slices_planned") or 0)
        if planned:
            quarter = _QUARTERS * int(status["slices_acquired"]) // planned
            if quarter > self._told.quarter:
                self._told.quarter = quarter
                text = f"{status['slices_acquired']} of {planned} slices"
                self._tell("info", text, f"{status['infiltrations']} fills", picture=True)

    def _end(self, verdict: Verdict, why: str, status: dict[str, Any]) -> None:
        if verdict == "given up" or not heartbeat.pulse(self._folder).ended:
            self._beat(_OVER[verdict], why)
        slices = f"{status.get('slices_acquired', 0)} slices"
        if verdict == "done":
            self._tell("success", "is done", slices, picture=True)
            return
        told = status.get("why") or why
        if status.get("default"):
            told += f"; {unless_answered(status, self._ends)}"
        remedy = f"`kintsugi status {self._folder}` shows it, `kintsugi resume {self._folder}` goes on"
        kind: Literal["warning", "failure"] = "warning" if verdict == "stopped" else "failure"
        self._tell(kind, verdict, f"{why}: {told}; {slices}; {remedy}", picture=True)

    def _tell(
        self, kind: Literal["info", "success", "warning", "failure"], what: str, body: str, *, picture: bool = False
    ) -> None:
        self._messenger.send(
            kind, f"kintsugi {self._folder.name}: {what}", body, self._folder / "latest.png" if picture else None
        )

    def _status(self) -> dict[str, Any]:
        """Return where the run stands, empty as long as there is no run."""
        if not RunFolder.is_run(self._folder):
            return {}
        try:
            with durable.if_room("reading the journal"):
                return status_of(RunFolder.open(self._folder))
        except (JournalDamaged, WrongSchema) as error:
            log.warning("%s", error)
        return {}

    def _armed(self, status: dict[str, Any]) -> bool:
        """Tell whether the run may be resumed without a person; one that has not come so far may begin again."""
        now, until = datetime.now().astimezone(), status.get("armed_until")
        return (until is None or datetime.fromisoformat(until) > now) and (self._ends is None or self._ends > now)

    def _keep(self, data: dict[str, Any]) -> None:
        """Keep what was decided in the run's journal, which nobody else writes while no run goes on."""
        if not RunFolder.is_run(self._folder):
            return
        try:
            with durable.if_room("what was decided"), Journal(RunFolder.open(self._folder).journal) as journal:
                journal.note("night", data)
        except (JournalDamaged, WrongSchema) as error:
            log.warning("%s", error)


@dataclass
class _Told:
    """What people were told already."""

    step: str = ""
    quarter: int = 0
    window: bool = False


def _later_than_a_slice(asked: Request | None) -> bool:
    """Tell whether a run that was asked for this, or for nothing, goes on after the slice in hand."""
    return asked is None or asked.after == "fill"


def _more(before: Mapping[str, Any], now: Mapping[str, Any], what: str) -> bool:
    """Tell whether a number of the status has grown."""
    return int(now.get(what, 0)) > int(before.get(what, 0))


def _ended(process: subprocess.Popen[bytes]) -> int | None:
    """Return a process's exit code, None when it goes on after a tick."""
    try:
        return process.wait(TICK_S)
    except subprocess.TimeoutExpired:
        return None
