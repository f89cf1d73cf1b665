"""One run controls the instrument, for as long as it is heard."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from math import inf, nan

import pytest

from instrument import lease as module
from instrument.errors import NotInControl, Refused
from instrument.lease import LONGEST_S, SHORTEST_S, Lease, check_seconds


class Wall:
    """A wall clock that a test turns."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch) -> Wall:
    found = Wall()
    monkeypatch.setattr(module, "time", found)
    monkeypatch.setattr(module, "_LOOK_S", 3600.0)  # the tests look themselves
    return found


@pytest.fixture
def lapsed() -> list[str]:
    return []


@pytest.fixture
def lease(wall: Wall, lapsed: list[str]) -> Iterator[Lease]:
    del wall
    found = Lease(10.0, lapsed.append)
    yield found
    found.close()


def heard_nothing(wall: Wall, lease: Lease, seconds: float) -> None:
    """Let wall time pass as the lease's own thread sees it."""
    for _ in range(round(seconds / 0.1)):
        wall.now += 0.1
        lease._look()


def test_a_run_takes_over_from_its_former_self_alone(lease: Lease) -> None:
    count = itertools.count(1)
    first = lease.claim("run-1", lambda: next(count))
    with pytest.raises(NotInControl, match="run-1"):
        lease.claim("run-2", lambda: next(count))
    second = lease.claim("run-1", lambda: next(count))
    assert second == first + 1  # a refused claim made no epoch
    for stale in (lease.renew, lease.check):
        with pytest.raises(NotInControl):
            stale(first)
    lease.release(first)
    assert lease.alive
    lease.release(second)
    assert not lease.alive
    lease.claim("run-2", lambda: next(count))


def test_it_lapses_once_shortly_before_t_without_a_heartbeat(wall: Wall, lease: Lease, lapsed: list[str]) -> None:
    epoch = lease.claim("run-1", lambda: 1)
    heard_nothing(wall, lease, 9.0)
    lease.renew(epoch)
    heard_nothing(wall, lease, 9.6)
    assert lease.alive
    assert lapsed == []
    heard_nothing(wall, lease, 0.3)  # blanking takes some time too
    assert lapsed == ["run-1"]
    with pytest.raises(NotInControl):
        lease.renew(epoch)
    heard_nothing(wall, lease, 30.0)
    assert lapsed == ["run-1"]
    assert lease.idle_s > 0


def test_it_remembers_whether_it_was_given_back(wall: Wall, lease: Lease) -> None:
    assert not lease.released  # nobody had it yet
    lease.release(lease.claim("run-1", lambda: 1))
    assert lease.released
    lease.claim("run-1", lambda: 2)
    assert not lease.released
    heard_nothing(wall, lease, 10.2)
    assert not lease.alive
    assert not lease.released


def test_what_the_server_slept_through_does_not_count(wall: Wall, lease: Lease, lapsed: list[str]) -> None:
    """A suspended or starved server heard nothing of a client that beat all the time."""
    epoch = lease.claim("run-1", lambda: 1)
    wall.now += 60.0
    lease._look()
    assert lapsed == []
    lease.renew(epoch)
    heard_nothing(wall, lease, 9.6)
    assert lease.alive
    heard_nothing(wall, lease, 0.3)
    assert lapsed == ["run-1"]


@pytest.mark.timeout(30)
def test_its_own_thread_looks() -> None:
    seen = threading.Event()
    lease = Lease(0.5, lambda _run: seen.set())
    lease.claim("run-1", lambda: 1)
    assert seen.wait(20.0)
    lease.close()


@pytest.mark.parametrize("seconds", [nan, inf, -inf, -1.0, 0.0, 0.49, 60.1, 1e9])
def test_a_time_that_would_switch_the_dead_man_off_is_refused(seconds: float) -> None:
    with pytest.raises(Refused, match=r"0\.5 to 60 s") as caught:
        Lease(seconds, lambda _run: None)
    assert caught.value.rule == "lease"
    for good in (SHORTEST_S, 10.0, LONGEST_S):
        check_seconds(good)
