"""One controller for each real instrument of this machine, however its URL is written and wherever its state lies.

Who drives an instrument holds its lock from before it connects until it has let go. What makes safe beside a silent
server takes none.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from instrument import durable
from instrument.errors import Refused


def home() -> Path:
    """Return where locks and servers' folders of real instruments lie: KINTSUGI_INSTRUMENTS, or the user's own."""
    from platformdirs import user_state_path

    given = os.environ.get("KINTSUGI_INSTRUMENTS")
    return Path(given) if given else user_state_path("kintsugi") / "instruments"


@contextmanager
def held(url: str, what: str, *, seconds: float = 0.0, stopping: threading.Event | None = None) -> Iterator[None]:
    """Hold the instrument of a URL within; nothing is held where each connection has an instrument of its own.

    Parameters
    ----------
    url, what : the instrument, and who holds it, for others to be told
    seconds, stopping : how long to wait for who holds it now, and what ends the waiting

    Raises
    ------
    Refused : another holds it, here or in another process
    """
    from instrument import name_of

    name = name_of(url)
    if name is None:
        yield
        return
    durable.make_dir(home())
    since = datetime.now().astimezone().isoformat(timespec="seconds")
    lock = durable.FileLock(home() / f"{name}.lock", what=what, url=url, since=since)
    try:
        take(lock, seconds, stopping or threading.Event())
    except durable.AlreadyLocked as error:
        raise _refused(url, error) from error
    try:
        yield
    finally:
        lock.release()


def take(lock: durable.FileLock, seconds: float, stopping: threading.Event) -> durable.FileLock:
    """Take a lock; wait up to `seconds` for its holder, unless `stopping` is set, else AlreadyLocked."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return lock.acquire()
        except durable.AlreadyLocked:
            if time.monotonic() > deadline or stopping.wait(0.2):
                raise


def _refused(url: str, error: durable.AlreadyLocked) -> Refused:
    owner = error.owner
    who = f"{owner.get('what', 'another controller')} (pid {owner.get('pid', 'unknown')}"
    who += f" on {owner['host']}" if "host" in owner else ""
    who += f", since {owner['since']})" if "since" in owner else ")"
    remedy = "end that first, or wait for it: a run's server ends by itself ten minutes after its last run"
    msg = f"{url} is in use by {who}: {remedy}"
    return Refused(msg, rule="one-controller", field="instrument", value=url, limit=who, remedy=remedy)
