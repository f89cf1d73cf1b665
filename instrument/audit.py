"""The server's audit log: a durable line for all that changes something, and the last ones for clients that ask.

What strangers can cause is told rarely, so that a flood of it can't fill the disk.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from instrument import durable

log = logging.getLogger(__name__)

_EVENTS = 1000
#: Of what is told rarely, so many lines of a kind in so many seconds, each text of so many characters at the most.
_MOST, _PERIOD_S, _TEXT = 20, 60.0, 300


@dataclass
class _Rate:
    """Lines of one kind since a moment (monotonic s): written, and left out."""

    began: float
    written: int = 0
    left_out: int = 0


class Audit:
    """An audit log; any thread may call.

    Parameters
    ----------
    path : the file, one JSON object a line
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._number = 0
        self._events: deque[dict[str, Any]] = deque(maxlen=_EVENTS)
        self._rates: dict[str, _Rate] = {}

    def tell(self, what: str, **data: Any) -> None:
        """Write a line down; a full disk must not keep anybody from stopping, so that it fails into the log."""
        with self._lock:
            self._number += 1
            wall = datetime.now(UTC).isoformat(timespec="milliseconds")
            event = {"number": self._number, "what": what, "wall": wall, **data}
            self._events.append(event)
            try:
                durable.append_line(self.path, json.dumps(event, separators=(",", ":")))
            except OSError as error:
                log.critical("%s can't be written to the audit log: %s", what, error)

    def tell_rarely(self, what: str, **data: str) -> None:
        """Write a line down unless there were many of its kind in the last minute; the next one has `left_out`."""
        more: dict[str, Any] = {}
        with self._lock:
            now = time.monotonic()
            rate = self._rates.setdefault(what, _Rate(now))
            if rate.written >= _MOST and now - rate.began < _PERIOD_S:
                rate.left_out += 1
                return
            if now - rate.began >= _PERIOD_S:
                more = {"left_out": rate.left_out} if rate.left_out else {}
                rate = self._rates[what] = _Rate(now)
            rate.written += 1
        self.tell(what, **{key: text[:_TEXT] for key, text in data.items()}, **more)

    def since(self, number: int) -> list[dict[str, Any]]:
        """Return the last events after that number."""
        with self._lock:
            return [one for one in self._events if one["number"] > number]
