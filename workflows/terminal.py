"""What the command prints: lines as they are, JSON objects, complaints on the error side."""

from __future__ import annotations

import errno
import io
import json
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

DONE, WRONG, STOPPED, FAILED, HELD = 0, 2, 3, 4, 5


class Wrong(ValueError):
    """The arguments or the recipe are wrong: one line for each problem; exit code 2."""


@contextmanager
def in_one_sentence() -> Iterator[None]:
    """Turn a ValueError, which says what is wrong with what was given, into `Wrong`."""
    try:
        yield
    except Wrong:
        raise
    except ValueError as error:
        raise Wrong(str(error)) from error


def console(*, errors: bool = False) -> Console:
    """Return the terminal, or its error side."""
    from rich.console import Console

    return Console(stderr=errors)


def say(text: str) -> None:
    """Print one line as it is."""
    console().print(text, markup=False, highlight=False, soft_wrap=True)


def say_json(value: Any) -> None:
    """Print one JSON object; NaN and infinity are Python's own constants."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def length(option: str, text: str) -> float:
    """Return the length (m) that an option was given, such as "20 nm"; Wrong when it is none."""
    from instrument.units import UnitError, quantity

    try:
        return quantity(text, "length")
    except UnitError as error:
        msg = f"{option} is {text!r}: {error.problem}; {error.remedy}"
        raise Wrong(msg) from error


class Stopping(threading.Event):
    """Set when a process is told to end; `by_hand` by Ctrl-C, and not by the system, as at a reboot."""

    by_hand = False


def stop_on_signals() -> Stopping:
    """Return an event that Ctrl-C and SIGTERM set from now on, for a process that ends in its own time."""
    stopping = Stopping()

    def told(number: int, _frame: object) -> None:
        stopping.by_hand = stopping.by_hand or number == signal.SIGINT
        stopping.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, told)
    return stopping


#: What writing to nobody fails with; EINVAL is Windows' word for it.
_GONE = (errno.EIO, errno.EPIPE, *((errno.EINVAL,) if sys.platform == "win32" else ()))


class _Outliving(io.TextIOWrapper):
    """A standard stream whose reader may go away: what is written then goes nowhere."""

    def write(self, text: str, /) -> int:
        with self._reader_gone():
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with self._reader_gone():
            super().flush()

    @staticmethod
    @contextmanager
    def _reader_gone() -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _GONE:
                raise


def outlive_terminal() -> None:
    """Let this process go on, and write, when its terminal or pipe is gone: no run ends because a line dropped."""
    if sys.platform != "win32":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    sys.stdout, sys.stderr = _outliving(sys.stdout), _outliving(sys.stderr)


def _outliving(stream: TextIO) -> TextIO:
    if not isinstance(stream, io.TextIOWrapper):  # none at all, as under Windows without a console
        return stream
    return _Outliving(
        stream.buffer, encoding=stream.encoding, errors=stream.errors, line_buffering=stream.line_buffering
    )


def complain(text: str) -> None:
    """Print one problem on the error side."""
    console(errors=True).print(f"kintsugi: {text}", markup=False, highlight=False, soft_wrap=True)
