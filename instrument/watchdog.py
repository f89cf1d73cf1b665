"""The server's parent: when the child with the connection is dead, or silent for long, the instrument is made safe.

The child beats twice a second on its standard output. A child that is dead, or was silent for a minute and is ended
then, leaves the instrument to the parent: it opens a connection of its own and makes safe. Where the instrument takes a
second connection beside the first it is made safe after the first seconds of silence already, and the child left alone:
one long call into numpy or scipy keeps all its threads from running, and it may come back. A pattern that ends by that
is gone on with, as any other that was stopped. The simulator's state, files that one process has open, takes none.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from instrument import durable
from instrument.errors import InstrumentError
from instrument.microscope import MakesSafe

log = logging.getLogger(__name__)

#: Without a beat for so long the child is silent; for so long, it counts as hung and is ended; s.
SILENT_S, HUNG_S = 3.0, 60.0
BEAT_S = 0.5


def beat(stopping: threading.Event) -> None:
    """In the child: beat until the process ends; sets `stopping` when the parent is gone or asks for the end."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())

    def work() -> None:
        while not stopping.wait(BEAT_S):
            try:
                sys.stdout.buffer.write(b".")
                sys.stdout.buffer.flush()
            except OSError:
                stopping.set()

    threading.Thread(target=work, name="pulse", daemon=True).start()


def watch(arguments: list[str], url: str, state: Path) -> int:
    """Run the server as a child and watch it; returns its exit code, 1 when it had to be ended."""
    command = [sys.executable, "-m", "instrument.server", *arguments, "--watched"]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: child.terminate())
        code = watch_child(child, silent=lambda: _make_safe_beside(url))
    if code not in (0, 2):
        log.critical("the server ended with code %s: making safe", code)
        _make_safe(url, state)
        return 1
    return code


def watch_child(
    child: subprocess.Popen[bytes],
    *,
    silent: Callable[[], None] = lambda: None,
    silent_s: float = SILENT_S,
    hung_s: float = HUNG_S,
) -> int:
    """Wait for the child's end and return its exit code; end it once it was silent for `hung_s`.

    `silent` is called, in a thread of its own, each time it has been silent for `silent_s`.

    The silence counts from its first beat: an interpreter may take long to start.
    """
    heard = _Heard()
    listener = threading.Thread(target=_listen, args=(child.stdout, heard), name="listener", daemon=True)
    listener.start()
    told = False
    while True:
        try:
            code = child.wait(min(BEAT_S, silent_s / 2))
        except subprocess.TimeoutExpired:
            silence = heard.silence_s
            if silence > hung_s:
                log.critical("the server has been silent for %.0f s and is ended", silence)
                child.kill()
            elif silence > silent_s and not told:
                log.warning("the server has been silent for %.1f s", silence)
                threading.Thread(target=silent, name="silent", daemon=True).start()
            told = silence > silent_s
        else:
            listener.join(1.0)
            return code


class _Heard:
    """When the child last beat; None before its first beat."""

    def __init__(self) -> None:
        self.at: float | None = None

    @property
    def silence_s(self) -> float:
        """Seconds since the last beat, 0 before the first."""
        return 0.0 if self.at is None else time.monotonic() - self.at


def _listen(pipe: IO[bytes] | None, heard: _Heard) -> None:
    while pipe is not None and pipe.read(1):
        heard.at = time.monotonic()


def _make_safe_beside(url: str) -> None:
    """Stop patterning and blank over a connection beside that of a server which is silent, where there can be one."""
    from instrument import connect_beside

    try:
        microscope = connect_beside(url)
        if microscope is None:
            return
        try:
            microscope.make_safe()
        finally:
            microscope.close()
    except InstrumentError as error:
        log.critical("could not be made safe beside the silent server: %s", error.message)
    else:
        log.warning("made safe beside the silent server")


def _make_safe(url: str, state: Path) -> None:
    """Stop patterning and blank over a connection of our own, unless another server has the instrument by now."""
    from instrument import connect, connect_beside

    try:
        with durable.FileLock(state / "server.lock"):
            (state / "server.json").unlink(missing_ok=True)
            microscope: MakesSafe = connect_beside(url) or connect(url, state)
            try:
                microscope.make_safe()
            finally:
                microscope.close()
    except durable.AlreadyLocked as error:
        log.warning("%s: it is that server's to make safe", error)
    except InstrumentError as error:
        log.critical("could not be made safe: %s; a person is needed now", error.message)
