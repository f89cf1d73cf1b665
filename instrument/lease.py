"""Who controls the instrument: one run at a time, for as long as its heartbeat comes.

The same run takes its own lease over at once, with a higher epoch; calls of an older epoch are refused. T counts on the
monotonic clock of this machine, never on the instrument's; what this process slept through itself doesn't count.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

from instrument.errors import NotInControl, Refused

#: T from .. to, s: a heartbeat on a busy PC may be late by some tenths, and a beam may not be on alone for long.
SHORTEST_S, LONGEST_S = 0.5, 60.0
_LOOK_S = 0.05
#: A lease lapses so much (s), or this share of it, before T: by T the beam is off, which takes some time as well.
_AHEAD_S, _AHEAD = 0.25, 0.2
#: A look that comes later than this after the one before: this process was not running, and heard nothing (s).
_DEAF_S = 1.0


def check_seconds(seconds: float, field: str = "lease") -> None:
    """Refuse a T with which the dead-man would not work."""
    if not (math.isfinite(seconds) and SHORTEST_S <= seconds <= LONGEST_S):
        limit = f"{SHORTEST_S:g} to {LONGEST_S:g} s"
        msg = f"{field} {seconds:g} s is no time after which a lost run's instrument is made safe: {limit}"
        raise Refused(msg, rule="lease", field=field, value=str(seconds), limit=limit, remedy=f"name {limit}")


class Lease:
    """The lease of one server.

    Parameters
    ----------
    seconds : T, within which of the last heartbeat the instrument is to be safe; Refused outside 0.5 to 60 s
    lapsed : called once, from the lease's own thread, a little before T without a heartbeat
    """

    def __init__(self, seconds: float, lapsed: Callable[[str], None]) -> None:
        check_seconds(seconds)
        self.seconds = seconds
        self._silence_s = seconds - min(_AHEAD_S, _AHEAD * seconds)
        self._lapsed = lapsed
        self._lock = threading.Lock()
        self._epoch = 0
        self._run = ""
        self._alive = False
        self._released = False
        self._heard = 0.0
        self._looked = time.monotonic()
        self._ended_at: float | None = time.monotonic()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="lease", daemon=True)
        self._thread.start()

    def claim(self, run: str, epoch: Callable[[], int]) -> int:
        """Give the lease to a run and return its epoch, which `epoch` makes; NotInControl while another holds it."""
        with self._lock:
            if self._alive and run != self._run:
                msg = f"run {self._run} controls this instrument; stop it first, or wait until its lease lapses"
                raise NotInControl(msg, holder=self._run)
            self._epoch = epoch()
            self._run, self._alive, self._heard, self._ended_at = run, True, time.monotonic(), None
            self._released = False
            return self._epoch

    def renew(self, epoch: int) -> None:
        """Take a heartbeat; NotInControl for an older epoch, or after the lease has lapsed."""
        with self._lock:
            self._check(epoch)
            self._heard = time.monotonic()

    def check(self, epoch: int) -> None:
        """Raise NotInControl unless this epoch is the present one and alive."""
        with self._lock:
            self._check(epoch)

    def release(self, epoch: int) -> None:
        """Give the lease back."""
        with self._lock:
            if epoch == self._epoch and self._alive:
                self._alive, self._released, self._ended_at = False, True, time.monotonic()

    @property
    def alive(self) -> bool:
        """Whether somebody controls the instrument now."""
        with self._lock:
            return self._alive and time.monotonic() - self._heard <= self._silence_s

    @property
    def released(self) -> bool:
        """Whether the last lease was given back: it lives no more, and did not lapse."""
        with self._lock:
            return self._released

    @property
    def idle_s(self) -> float:
        """Seconds since the last lease ended, 0 while one lives."""
        with self._lock:
            return 0.0 if self._ended_at is None else time.monotonic() - self._ended_at

    def close(self) -> None:
        """End the watching."""
        self._closing.set()
        self._thread.join(5.0)

    def _check(self, epoch: int) -> None:
        if epoch != self._epoch or not self._alive:
            msg = "this run does not control the instrument any more: its lease lapsed or was taken over"
            raise NotInControl(msg, epoch=epoch, present=self._epoch)

    def _watch(self) -> None:
        while not self._closing.wait(_LOOK_S):
            self._look()

    def _look(self) -> None:
        """End the lease, once, when it has lapsed; put off what this process was deaf for."""
        with self._lock:
            now = time.monotonic()
            if now - self._looked > _DEAF_S:
                self._heard += now - self._looked
            self._looked = now
            over = self._alive and now - self._heard > self._silence_s
            if over:
                self._alive, self._ended_at = False, now
            run = self._run
        if over:
            self._lapsed(run)
