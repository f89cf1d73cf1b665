"""Signs of life for an outside watcher: a computer that is dead sends no message, so its silence is the alarm.

A run writes `heartbeat.json` into its folder every few seconds, and a night does while it waits to resume its run;
whoever watches (another computer, on a shared folder) raises the alarm when it grows old before the run has ended, or
at once when it has ended badly for good. A URL can be called as well, for services that send the alarm themselves when
nothing calls them.
"""

from __future__ import annotations

import json
import logging
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from instrument import durable

log = logging.getLogger(__name__)

NAME = "heartbeat.json"
#: How often a run beats, s; how long a call of a URL may take, s.
EVERY_S, CALL_S = 10.0, 10.0
#: Less silence than this is no alarm: a sign of life may come late, s.
LEAST_LATE_S = 3 * EVERY_S


@dataclass(frozen=True)
class Pulse:
    """What a watcher finds: how old the last sign of life is, and what it said.

    age_s : by both computers' clocks, negative where they differ; by the watcher's own where it looks again and again;
    None: there never was one
    may_resume : a night supervises the run and may resume it, so that a failure is not its end yet
    """

    age_s: float | None
    state: str
    telling: str
    at: float = 0.0
    may_resume: bool = False

    @property
    def ended(self) -> bool:
        """Whether the run has ended, so that silence is right."""
        return not self.may_resume and self.state not in ("", "running")

    def alarm(self, late_s: float) -> str | None:
        """Return why a person should look now, None where all is well."""
        if self.ended and self.state in ("held", "failed"):
            return f"the run is {self.state}: {self.telling}"
        if self.ended:
            return None
        if self.age_s is None:
            return "there is no sign of life"
        if self.age_s < -late_s:
            return (
                f"the last sign of life is {-self.age_s:.0f} s ahead of this computer's clock, so its age can't be "
                "told: set the clocks, or use --watch, which goes by this one's alone"
            )
        if self.age_s > late_s:
            return f"the last sign of life is {self.age_s:.0f} s old, and {late_s:.0f} s are allowed: {self.telling}"
        return None


def beat(folder: Path, state: str, telling: str = "", *, may_resume: bool = False) -> None:
    """Write a sign of life into a run's folder; a disk that refuses is logged, for a full disk must not end a run."""
    value = {"at": time.time(), "state": state, "telling": telling, "may_resume": may_resume}
    try:
        durable.atomic_write_bytes(folder / NAME, json.dumps(value).encode(), sync=False)
    except OSError as error:
        log.warning("heartbeat: %s", error)


def pulse(place: Path) -> Pulse:
    """Return the last sign of life in a run's folder, or in the file itself."""
    path = place / NAME if place.is_dir() else place
    try:
        value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        at = float(value["at"])
        may_resume = value.get("may_resume") is True
        return Pulse(time.time() - at, str(value["state"]), str(value.get("telling", "")), at, may_resume)
    except (OSError, ValueError, KeyError, TypeError):
        return Pulse(None, "", "")


class Watch:
    """Looks at a run again and again; how long it has been silent is told by the watcher's own clock alone."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._last: tuple[float, float] | None = None

    def look(self) -> Pulse:
        """Return the last sign of life, its age counted from when it was first seen."""
        found, now = pulse(self._place), time.monotonic()
        if found.age_s is not None and (self._last is None or found.at != self._last[0]):
            self._last = (found.at, now)
        return found if self._last is None else replace(found, age_s=now - self._last[1])


def is_url(url: str) -> bool:
    """Tell whether a watcher can be called at this URL: http or https, and a host."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def call(url: str) -> bool:
    """Call a watcher's URL (http or https) once; False where it did not answer well."""
    if not is_url(url):
        return False
    try:
        with urllib.request.urlopen(url, timeout=CALL_S) as answer:  # noqa: S310 - checked above
            return 200 <= int(answer.status) < 300
    except (urllib.error.URLError, OSError, ValueError) as error:
        log.warning("heartbeat: %s", error)
        return False
