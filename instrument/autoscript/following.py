"""Follows a pattern that the microscope writes by itself: when it began, how much is written, how it ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from instrument.autoscript.connection import CALL_S, PATIENT
from instrument.errors import DeviceFault, TimedOut
from instrument.microscope import Clock, Watch
from instrument.process import PATTERN_START_S
from instrument.settings import PatternJob, Progress
from instrument.watchdog import SILENT_S

#: How often a running pattern is looked at, s on the wall: soon first, then seldom.
_POLL_S = (0.02, 0.5)
#: A pattern is running within so long after its start has come back (s on the wall).
_BEGIN_S = PATIENT * PATTERN_START_S
#: A pattern that ended by itself within this share of its time was whole.
_WHOLE = 0.97


@dataclass(frozen=True)
class Follower:
    """Follows one pattern.

    When the microscope began is known by the looks at it only: the share counts from the last one that saw nothing
    running, so that it is rather too large than too small, and what is given afterwards rather too little than too
    much. A pattern that is idle before it was seen to run has not begun yet: it has time to.

    Parameters
    ----------
    look : returns the state of patterning: Idle, Running, Paused, Error
    clock : the instrument's
    stopping : set where a stop was asked for
    virtual : nobody else ends a pattern of a virtual microscope while it is not looked at
    """

    look: Callable[[], str]
    clock: Clock
    stopping: threading.Event
    virtual: bool

    def follow(self, job: PatternJob, watch: Watch, started: float, wall: float) -> float:
        """Follow a job to its end and return the share of it that was written.

        `started` (s on the instrument's clock) and `wall` (s on the wall) are of just before it was started.
        """
        seconds, looked, seen = job.seconds, started, time.monotonic()
        span, begun, longest = job.to_fraction - job.from_fraction, False, seen - wall
        begin_by = seen + _BEGIN_S
        deadline, pause, share = wall + PATIENT * (seconds + PATTERN_START_S) + 10 * CALL_S, _POLL_S[0], 0.0
        while True:
            state = self.look()
            now = self.clock.now()
            if state == "Paused":  # by a person, on the screen: no dose meanwhile
                started += now - looked
            before, looked, beam_s = share, now, now - started
            share = min(1.0, beam_s / seconds)
            unseen, seen = time.monotonic() - seen, time.monotonic()
            if state == "Idle" and unseen > SILENT_S and not self.virtual:
                msg = f"the pattern was not looked at for {unseen:.0f} s and has ended, by itself or by who made safe"
                at_least, at_most = (job.from_fraction + span * one for one in (before, share))
                raise DeviceFault(msg, at_least=at_least, at_most=at_most)
            begun = begun or state != "Idle"
            if not begun and not self.stopping.is_set():
                longest = max(longest, unseen)
                if time.monotonic() < begin_by:
                    started = now
                    threading.Event().wait(pause)
                    continue
                if seconds > longest:  # it can't have come and gone between two looks
                    msg = f"the pattern has not begun within {_BEGIN_S:.0f} s; look at the microscope's screen"
                    raise DeviceFault(msg, fraction=job.from_fraction)
                share = 1.0
            if state == "Idle":
                if share >= _WHOLE and not self.stopping.is_set():
                    share = 1.0
                break
            if state == "Error":
                msg = "patterning reports an error; look at the microscope's screen"
                raise DeviceFault(msg, state=state)
            if time.monotonic() > deadline:
                msg = f"a pattern of {seconds:.0f} s has not ended; it is being stopped"
                raise TimedOut(msg, waited_s=time.monotonic() - wall)
            share = min(share, 0.999)
            watch(
                Progress(
                    fraction=job.from_fraction + span * share, elapsed_s=beam_s,
                    remaining_s=max(0.0, seconds - beam_s),
                )
            )  # fmt: skip
            threading.Event().wait(pause)
            pause = min(_POLL_S[1], 1.3 * pause)
        watch(
            Progress(
                fraction=min(job.to_fraction, job.from_fraction + span * share), elapsed_s=share * seconds,
                remaining_s=(1 - share) * seconds,
            )
        )  # fmt: skip
        return share
