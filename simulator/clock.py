"""The instrument's time: jumps while somebody holds the lease, follows the wall while nobody does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_SLICE_S = 0.05  # longest nap, so that a change of mode or a stop is seen soon


class SimulatedClock:
    """Seconds of the virtual instrument; any thread may read it, one waits.

    Parameters
    ----------
    start_s : where it begins
    pace : seconds of the instrument per second on the wall, always; None: stepped while `live()` is true, else 1
    """

    def __init__(self, start_s: float = 0.0, pace: float | None = None) -> None:
        self.live: Callable[[], bool] = lambda: True
        self.stopped = threading.Event()
        self._pace = pace
        self._time = start_s
        self._wall = time.monotonic()
        self._lock = threading.Lock()

    @property
    def stepped(self) -> bool:
        """Whether time jumps at the moment."""
        return self._pace is None and self.live()

    def now(self) -> float:
        """Return seconds on the instrument's clock."""
        stepped = self.stepped
        with self._lock:
            wall = time.monotonic()
            if not stepped:
                self._time += (wall - self._wall) * (self._pace or 1.0)
            self._wall = wall
            return self._time

    def wait(self, seconds: float) -> None:
        """Let `seconds` of the instrument's time pass; comes back early once `stopped` is set, unless it jumps."""
        self.pass_by(seconds)

    def pass_by(self, seconds: float) -> float:
        """Wait, and return how many seconds have passed: fewer than asked for after a stop."""
        start = self.now()
        end = start + max(0.0, seconds)
        while True:
            if self.stepped:
                with self._lock:
                    self._time = max(self._time, end)
                return seconds
            left = end - self.now()
            if left <= 0:
                return seconds
            if self.stopped.is_set():
                return seconds - left
            self.stopped.wait(min(_SLICE_S, left / (self._pace or 1.0)))
