"""The server's parent: when the child with the connection is dead or silent, patterning is stopped, the beam blanked.

Child and parent speak over a pipe: the child beats twice a second. What the parent can do depends on the backend: one
that allows a second connection is stopped through it; the simulator's state is opened again and made safe.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO

from instrument.errors import InstrumentError

log = logging.getLogger(__name__)

#: Without a beat for so long the child counts as hung, s.
SILENT_S = 3.0
BEAT_S = 0.5
_BEAT = b"."
_ENV = "KINTSUGI_PULSE"


def beat(stopping: threading.Event) -> None:
    """In the child: beat until the process ends; sets `stopping` when the parent is gone or asks for the end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    handle = os.environ.get(_ENV)
    if handle is None:
        return

    def work() -> None:
        with os.fdopen(int(handle), "wb", buffering=0) as pipe:
            while not stopping.wait(BEAT_S):
                try:
                    pipe.write(_BEAT)
                except OSError:
                    stopping.set()

    threading.Thread(target=work, name="pulse", daemon=True).start()


def watch(arguments: list[str], url: str, state: Path) -> int:
    """Run the server as a child and watch it; returns its exit code, 1 when it had to be ended."""
    read, write = os.pipe()
    os.set_inheritable(write, True)
    command = [sys.executable, "-m", "instrument.server", *arguments, "--watched"]
    child = subprocess.Popen(command, env={**os.environ, _ENV: str(write)}, pass_fds=(write,))
    os.close(write)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: child.terminate())
    heard = _Heard()
    with os.fdopen(read, "rb", buffering=0) as pipe:
        listener = threading.Thread(target=_listen, args=(pipe, heard), name="listener", daemon=True)
        listener.start()
        code = _until_ended(child, heard)
        listener.join(1.0)
    if code not in (0, 2):
        log.critical("the server ended with code %s: making safe", code)
        _make_safe(url, state)
        return 1
    return code


class _Heard:
    """When the child last beat; None before its first beat."""

    def __init__(self) -> None:
        self.at: float | None = None


def _listen(pipe: IO[bytes], heard: _Heard) -> None:
    while pipe.read(1):
        heard.at = time.monotonic()


def _until_ended(child: subprocess.Popen[bytes], heard: _Heard) -> int:
    while True:
        try:
            return child.wait(BEAT_S)
        except subprocess.TimeoutExpired:
            if heard.at is not None and time.monotonic() - heard.at > SILENT_S:
                log.critical("the server has been silent for %.0f s and is ended", SILENT_S)
                child.kill()
                return child.wait(10.0)


def _make_safe(url: str, state: Path) -> None:
    """Stop patterning and blank over a connection of our own."""
    from instrument import connect

    (state / "server.json").unlink(missing_ok=True)
    try:
        microscope = connect(url, state)
        microscope.make_safe()
        microscope.close()
    except InstrumentError as error:
        log.critical("could not be made safe: %s; a person is needed now", error.message)
