"""Keeps what the vendor's client prints away from standard output, which is for what a command answers."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast

_lock = threading.Lock()


class _Split:
    """Standard output, of which what some threads print goes to standard error; all else goes on as before."""

    def __init__(self, real: TextIO) -> None:
        self.real, self.aside = real, set[int]()

    def write(self, text: str) -> int:
        return (sys.stderr if threading.get_ident() in self.aside else self.real).write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


@contextmanager
def on_stderr() -> Iterator[None]:
    """Send what this thread prints to standard error.

    `contextlib.redirect_stdout` would take the other threads along, and where two overlap leave it so for good.
    """
    if sys.stdout is None or sys.stderr is None:  # without a console nothing is printed anywhere
        yield
        return
    me = threading.get_ident()
    with _lock:
        if not isinstance(sys.stdout, _Split):
            sys.stdout = cast("TextIO", _Split(sys.stdout))
        split = cast("_Split", sys.stdout)
        split.aside.add(me)
    try:
        yield
    finally:
        with _lock:
            split.aside.discard(me)
            if not split.aside and cast("Any", sys.stdout) is split:
                sys.stdout = split.real
