"""Nothing is left behind: every thread that a test started has ended when it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from simulator.sidebyside import HAND

_ENDS_WITHIN_S = 5.0


@pytest.fixture(autouse=True)
def no_threads_left() -> Iterator[None]:
    """Fail a test whose servers, heartbeats or workers go on after it."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + _ENDS_WITHIN_S
    for thread in _others(before):
        thread.join(max(0.0, deadline - time.monotonic()))
    left = sorted(thread.name for thread in _others(before))
    assert left == []


def _others(before: set[threading.Thread]) -> list[threading.Thread]:
    """Return the threads that were not there; a simulator's hands wait for work as long as the process lives."""
    return [one for one in threading.enumerate() if one not in before and not one.name.startswith(HAND)]
