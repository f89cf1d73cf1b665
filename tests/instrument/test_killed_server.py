"""A real server process killed at its worst moment: made safe by its watchdog, and its memory holds."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from instrument import server
from instrument.durable import FileLock
from instrument.errors import ConnectionLost
from instrument.frame import sha256_of
from instrument.remote import RemoteMicroscope, attach
from instrument.wire import Acquire, WritePattern
from tests.instrument import fake_backend
from tests.instrument.fake_microscope import job, scan
from tests.instrument.serving import until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for servers; whatever still serves there afterwards is told to end, and must."""
    fake_backend.install(tmp_path / "backend", monkeypatch)
    folder = tmp_path / "state"
    yield folder
    place = folder / "server.json"
    if place.exists():
        os.kill(pid_of(place), signal.SIGTERM)
        assert watchdog().wait(20.0) == 0
    assert not FileLock.is_held(folder / "server.lock")


def pid_of(place: Path) -> int:
    return int(json.loads(place.read_text())["pid"])


def watchdog() -> subprocess.Popen[bytes]:
    return server._STARTED[-1]


def killed(place: Path) -> None:
    """Kill the process with the connection; its watchdog says so with its exit code."""
    os.kill(pid_of(place), signal.SIGKILL)
    assert watchdog().wait(20.0) == 1
    assert not place.exists()


def submit(remote: RemoteMicroscope, action_id: str, command: WritePattern) -> None:
    remote._call("submit", remote._epoch, action_id, command.model_dump(mode="json"))


def test_in_a_pattern(state: Path) -> None:
    place = server.start("fake:held", state)
    child = pid_of(place)
    with attach(place, "run-1") as remote:
        remote.claim()
        submit(remote, "trench", WritePattern(job=job(300.0)))
        until(lambda: remote.state().patterning)
        killed(place)
        with pytest.raises(ConnectionLost):
            remote.state()
    safe = {int(path.name.removeprefix("safe-")) for path in state.glob("safe-*")}
    assert safe == {watchdog().pid}
    assert child not in safe
    again = server.start("fake:held", state)
    with attach(again, "run-1") as remote:
        found = remote.lookup("trench")
        assert found is not None
        assert (found.state, found.fraction, found.result) == ("cut", None, None)
        assert found.error is not None
        assert found.error.evidence["at_least"] == 0.0
        assert found.error.evidence["at_most"] == pytest.approx(1 / 3)  # the piece in hand, of three
        remote.claim()
        with pytest.raises(ConnectionLost):  # the id is known: joined, never fired again
            remote.perform("trench", WritePattern(job=job(300.0)))
        assert not remote.state().patterning


def test_with_a_frame_that_nobody_has_fetched(state: Path) -> None:
    place = server.start("fake:", state)
    with attach(place, "run-1") as remote:
        remote.claim()
        taken = remote.perform("slice/0001/image", Acquire(scan=scan())).frame
        assert taken is not None
        remote.perform("slice/0001/mill", WritePattern(job=job(10.0)))
        first = remote._epoch
        killed(place)
    with attach(server.start("fake:", state), "run-1") as remote:
        remote.claim()
        assert remote._epoch > first
        assert remote.perform("slice/0001/image", Acquire(scan=scan())).frame == taken
        whole = b"".join(remote.chunks(taken))
        assert len(whole) == taken.size_bytes
        assert sha256_of(state / "spool" / taken.name) == taken.sha256
        done = remote.perform("slice/0001/mill", WritePattern(job=job(10.0))).done
        assert done is not None
        assert done.fraction == 1.0
        remote.release_frame(taken)
        assert list((state / "spool").iterdir()) == []


def test_told_to_end_it_ends_well(state: Path) -> None:
    place = server.start("fake:", state)
    os.kill(watchdog().pid, signal.SIGTERM)
    assert watchdog().wait(20.0) == 0
    assert not place.exists()
    assert len(list(state.glob("safe-*"))) == 1
