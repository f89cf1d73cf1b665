"""A server in this process, for tests: its microscope is at hand, its clients come over the loopback."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from instrument.microscope import Microscope
from instrument.server import serve

_PAUSE = threading.Event()


@contextmanager
def serving(microscope: Microscope, state: Path, *, lease_s: float = 10.0, linger_s: float = 0.0) -> Iterator[Path]:
    """Serve while the block runs; gives server.json."""
    stopping = threading.Event()
    place = state / "server.json"
    thread = threading.Thread(
        target=serve, args=(microscope, state), name="serving", daemon=True,
        kwargs={"lease_s": lease_s, "linger_s": linger_s, "stopping": stopping},
    )  # fmt: skip
    thread.start()
    until(place.exists)
    port = json.loads(place.read_text())["port"]
    try:
        yield place
    finally:
        stopping.set()
        if thread.is_alive():
            socket.create_connection(("127.0.0.1", port)).close()  # wakes its accepting loop
        thread.join(10.0)
        assert not thread.is_alive()


def until(true: object, seconds: float = 10.0) -> None:
    """Wait until something is true; fails after `seconds`."""
    assert callable(true)
    for _ in range(int(seconds / 0.01)):
        if true():
            return
        _PAUSE.wait(0.01)
    raise AssertionError("it never came true")
