"""A terminal that is asked, that is not asked, and that goes away."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

if sys.platform == "win32":
    pytest.skip("pseudoterminals", allow_module_level=True)

#: Longest that a process may take (s).
MOST_S = 60.0

CHOOSES = """
import sys
from types import SimpleNamespace
from workflows.session import Session
journal = SimpleNamespace(set_meta=lambda *_: None)
print("chosen:", Session(None, journal, None, alone=sys.argv[1] == "alone")._choose([]))
"""

OUTLIVES = """
import fcntl, sys, termios
from workflows.live import Live
from workflows.terminal import complain, console, outlive_terminal, stop_on_signals
fcntl.ioctl(1, termios.TIOCSCTTY, 0)
outlive_terminal()
stopping = stop_on_signals()
with Live(console()) as live:
    live.say("ready")
    sys.stdin.read()
    live.update("slice", slice_k=1)
    live.say("there is nobody to read this")
    complain("nor this")
raise SystemExit(7 if stopping.is_set() else 3)
"""


def started(script: str, *arguments: str, terminal: int, stdin: int | None = None) -> subprocess.Popen[bytes]:
    """A process of its own whose terminal is `terminal`; it may be typed at unless `stdin` is given."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments],
        stdin=terminal if stdin is None else stdin, stdout=terminal, stderr=terminal, start_new_session=True,
        env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip


def read_until(master: int, *wanted: bytes) -> bytes:
    """Read what is printed until one of `wanted` is in it."""
    told, ends = b"", time.monotonic() + MOST_S
    while not any(one in told for one in wanted):
        ready, _, _ = select.select([master], [], [], max(0.0, ends - time.monotonic()))
        assert ready, f"nothing more came after {told!r}"
        told += os.read(master, 4096)
    return told


@pytest.fixture
def terminals() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal: of who sits at it, and of the process."""
    ends = os.openpty()
    yield ends
    for end in ends:
        with suppress(OSError):  # the test itself has closed it
            os.close(end)


@pytest.mark.parametrize(("how", "chosen"), [("alone", b"restore"), ("attended", b"adopt")])
def test_a_person_at_the_terminal_is_asked_and_a_run_alone_asks_nobody(
    how: str, chosen: bytes, terminals: tuple[int, int]
) -> None:
    master, terminal = terminals
    with started(CHOOSES, how, terminal=terminal) as process:
        try:
            if how == "attended":
                read_until(master, b"adopt what was set by eye?")
                os.write(master, b"y\n")
            said = read_until(master, b"chosen: " + chosen)
            assert b"set by eye?" not in said
            assert (b"adopted: " if how == "attended" else b"restored: ") in said
            assert process.wait(MOST_S) == 0
        finally:
            process.kill()


def test_a_line_that_drops_ends_nothing(terminals: tuple[int, int]) -> None:
    """The terminal hangs up, and what is printed after that goes nowhere."""
    master, terminal = terminals
    waits, goes_on = os.pipe()
    with started(OUTLIVES, terminal=terminal, stdin=waits) as process:
        try:
            os.close(terminal)
            os.close(waits)
            read_until(master, b"ready")
            os.close(master)  # the system tells the process that its terminal hung up
            os.close(goes_on)
            assert process.wait(MOST_S) == 3
        finally:
            process.kill()
