"""A made-up microscope behind a server; and nothing is left behind: every thread that a test started has ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from instrument.remote import RemoteMicroscope, attach
from simulator.sidebyside import HAND
from tests.instrument.fake_microscope import FakeMicroscope
from tests.instrument.serving import serving

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


@pytest.fixture
def fake() -> FakeMicroscope:
    return FakeMicroscope()


@pytest.fixture
def place(fake: FakeMicroscope, tmp_path: Path) -> Iterator[Path]:
    with serving(fake, tmp_path) as found:
        yield found


@pytest.fixture
def remote(place: Path) -> Iterator[RemoteMicroscope]:
    with attach(place, "run-1") as found:
        found.claim()
        yield found


def _others(before: set[threading.Thread]) -> list[threading.Thread]:
    """Return the threads that were not there; a simulator's hands wait for work as long as the process lives."""
    return [one for one in threading.enumerate() if one not in before and not one.name.startswith(HAND)]
