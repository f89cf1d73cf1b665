"""The server as two processes: whichever dies, the instrument ends safe and its state can be opened again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from instrument import server
from instrument.durable import FileLock
from instrument.errors import ConnectionLost, NotInControl, Refused
from instrument.remote import attach
from instrument.server import take_folder
from instrument.settings import Device, GasSetting
from instrument.watchdog import watch_child
from tests.instrument.serving import until

pytestmark = pytest.mark.timeout(120)
SMALL = "simulator:3?width=8um&height=8um&depth=2um&coating=6um&above=2um&voxel=100nm&layer=100nm"
BEATS = "import sys, time\nfor _ in range({beats}):\n    sys.stdout.write('.'); sys.stdout.flush(); time.sleep(0.05)\n"


def child(script: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)


@pytest.mark.parametrize("code", [0, 2, 3])
def test_a_child_that_ends_gives_its_code(code: int) -> None:
    with child(BEATS.format(beats=5) + f"sys.exit({code})") as process:
        assert watch_child(process) == code


def test_a_child_that_falls_silent_is_ended(caplog: pytest.LogCaptureFixture) -> None:
    with child(BEATS.format(beats=3) + "time.sleep(600)") as process:
        assert watch_child(process, silent_s=0.3, hung_s=0.8) != 0
    assert "is ended" in caplog.text


def test_a_child_that_is_busy_for_a_while_is_not_ended_but_made_safe_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    silences: list[str] = []
    busy = "time.sleep(2.0)\n" + BEATS.format(beats=3)
    with child(BEATS.format(beats=3) + 2 * busy) as process:
        assert watch_child(process, silent=lambda: silences.append("safe"), silent_s=0.8, hung_s=30.0) == 0
    assert "has been silent" in caplog.text
    assert len(silences) == 2


@pytest.fixture
def state(tmp_path: Path) -> Iterator[Path]:
    """A folder in which servers work; what still lives there is ended."""
    yield tmp_path
    place = tmp_path / "server.json"
    if place.exists():
        os.kill(json.loads(place.read_text())["pid"], signal.SIGTERM)
        until(lambda: not FileLock.is_held(tmp_path / "server.lock"), 30.0)


def pid_of(place: Path) -> int:
    return int(json.loads(place.read_text())["pid"])


def parent_of(pid: int) -> int:
    return int(subprocess.run(["ps", "-o", "ppid=", "-p", str(pid)], capture_output=True, check=True).stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_server_leaves_a_safe_instrument_that_goes_on(state: Path) -> None:
    place = server.start(SMALL, state)
    with attach(place, "run-1") as remote:
        remote.claim()
        remote.insert(Device.NEEDLE)
        remote.set_gas("Pt", GasSetting(heater_on=True, valve_open=True))
        os.kill(pid_of(place), signal.SIGKILL)
        until(lambda: not place.exists(), 30.0)
        with pytest.raises(ConnectionLost):
            remote.state()
    again = server.start(SMALL, state)
    with attach(again, "run-1") as remote:
        remote.claim()
        assert remote.state().safe
        assert not remote.state().gases["Pt"].valve_open
        assert remote.state().gases["Pt"].heater_on


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_server_whose_watchdog_is_gone_ends_safely(state: Path) -> None:
    place = server.start(SMALL, state)
    os.kill(parent_of(pid_of(place)), signal.SIGKILL)
    until(lambda: not FileLock.is_held(state / "server.lock"), 30.0)
    assert not place.exists()


def test_one_folder_has_one_server(tmp_path: Path) -> None:
    """A second one waits for the first to let go, and says who holds the folder when it doesn't."""
    never = threading.Event()
    first = take_folder(tmp_path, 0.0, never)
    with pytest.raises(NotInControl, match="another server"):
        take_folder(tmp_path, 0.0, never)
    threading.Timer(0.3, first.release).start()
    second = take_folder(tmp_path, 20.0, never)
    assert second.held
    second.release()


@pytest.mark.slow
def test_a_server_that_answers_is_joined(state: Path) -> None:
    place = server.start(SMALL, state)
    pid = pid_of(place)
    assert server.start(SMALL, state) == place
    assert pid_of(place) == pid


def test_a_bad_url_is_told_at_once(state: Path) -> None:
    for url, words in ((SMALL + "&colour=red", "colour"), ("nowhere://x", "no instrument backend 'nowhere'")):
        with pytest.raises(Refused, match=words):
            server.start(url, state)
        assert not (state / "server.json").exists()


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody else listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        yield int(found.getsockname()[1])


def served(state: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Start a server as a person does, with something wrong: it must end by itself, before it connects."""
    command = [sys.executable, "-m", "instrument.server", SMALL + "&colour=red", "--state", str(state), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60.0, check=False)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port=99999"], "--port 99999"),
        (["--port=-1"], "--port -1"),
        (["--lease=nan"], "--lease nan"),
        (["--lease=-1"], "--lease -1"),
        (["--lease=inf"], "--lease inf"),
        (["--lease=1e9"], "--lease 1e+09"),
        (["--certificates=nowhere"], "nowhere"),
        (["--host=10.0.0.1"], "--host 10.0.0.1"),
    ],
)
def test_what_is_typed_wrong_stops_nobody_s_work(tmp_path: Path, options: list[str], words: str) -> None:
    """It ends with code 2 and a sentence; an instrument is neither connected to nor made safe."""
    ended = served(tmp_path, *options)
    assert ended.returncode == 2
    assert words in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "making safe" not in ended.stderr
    assert "colour" not in ended.stderr  # which connecting would have refused
    assert json.loads((tmp_path / "server-error.json").read_text())["symptom"] == "refused"


def test_a_port_in_use_is_told_before_anything_is_connected(tmp_path: Path, taken: int) -> None:
    ended = served(tmp_path, f"--port={taken}")
    assert ended.returncode == 2
    assert f"--port {taken} can't be listened on" in ended.stderr
    assert "making safe" not in ended.stderr
    assert "colour" not in ended.stderr
