"""The supervisor's decisions, messages that arrive, and signs of life whose absence is an alarm."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from instrument.errors import Refused
from workflows import heartbeat
from workflows.cli import run_command
from workflows.journal import Journal
from workflows.night import Budget, Night
from workflows.notify import Messenger, messenger
from workflows.store import RunFolder


@pytest.mark.parametrize(
    ("code", "armed", "restarts", "fruitless", "expected"),
    [
        (0, True, 0, 0, "done"),
        (3, True, 0, 0, "stopped"),
        (5, True, 0, 0, "held"),
        (2, True, 0, 0, "given up"),
        (4, True, 0, 0, "resume"),
        (-9, True, 2, 1, "resume"),
        (-9, False, 0, 0, "given up"),
        (4, True, 3, 0, "given up"),
        (4, True, 1, 2, "given up"),
    ],
)
def test_what_is_done_when_a_run_has_ended(
    code: int, armed: bool, restarts: int, fruitless: int, expected: str
) -> None:
    verdict, why = Budget(3).verdict(code, armed=armed, restarts=restarts, fruitless=fruitless)
    assert verdict == expected
    assert bool(why) is (verdict != "done")


class Receiver(HTTPServer):
    """A service that takes messages as JSON, or refuses them."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Taker)
        self.taken: list[dict[str, Any]] = []
        self.calls = 0
        self.refuses = False


class Taker(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.server.refuses:
            self.server.taken.append(json.loads(body))
        self.send_response(500 if self.server.refuses else 200)
        self.end_headers()

    def do_GET(self) -> None:
        self.server.calls += 1
        self.send_response(500 if self.server.refuses else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5.0)


def test_a_message_arrives_and_its_delivery_is_kept(receiver: Receiver, tmp_path: Path) -> None:
    kept: list[dict[str, Any]] = []
    tell = messenger([f"json://127.0.0.1:{receiver.server_port}"], kept.append)
    picture = tmp_path / "latest.png"
    picture.write_bytes(b"\x89PNG\r\n\x1a\n")
    assert tell.send("warning", "kintsugi night: resumes (1)", "its process was killed", picture) is True
    (message,) = receiver.taken
    assert message["title"] == "kintsugi night: resumes (1)"
    assert message["message"] == "its process was killed"
    assert message["type"] == "warning"
    assert len(message["attachments"]) == 1
    receiver.refuses = True
    assert tell.send("failure", "held", "look", tmp_path / "nothing.png") is False
    assert [one["delivered"] for one in kept] == [True, False]


def test_nobody_to_tell_is_no_failure() -> None:
    kept: list[dict[str, Any]] = []
    assert messenger([], kept.append).send("info", "begins", "") is None
    assert kept[0]["delivered"] is None


def test_a_sender_that_breaks_never_ends_a_night() -> None:
    def broken(*_: object) -> bool:
        msg = "no route"
        raise OSError(msg)

    assert Messenger(broken).send("info", "begins", "") is False


def test_a_target_that_is_none_is_refused_without_its_password() -> None:
    with pytest.raises(Refused, match="--notify 1") as refused:
        messenger(["carrier-pigeon://user:secret@loft"])
    assert "secret" not in refused.value.message


def test_silence_is_an_alarm_until_the_run_has_ended(tmp_path: Path) -> None:
    assert heartbeat.pulse(tmp_path).alarm(60.0) == "there is no sign of life"
    heartbeat.beat(tmp_path, "running", "slice 3, cut 2")
    assert heartbeat.pulse(tmp_path).alarm(60.0) is None
    value = json.loads((tmp_path / heartbeat.NAME).read_text())
    (tmp_path / heartbeat.NAME).write_text(json.dumps({**value, "at": time.time() - 700.0}))
    assert "700 s old" in (heartbeat.pulse(tmp_path).alarm(300.0) or "")
    assert "slice 3" in (heartbeat.pulse(tmp_path).alarm(300.0) or "")
    heartbeat.beat(tmp_path, "held", "no fiducial")
    assert heartbeat.pulse(tmp_path).alarm(1e9) == "the run is held: no fiducial"
    heartbeat.beat(tmp_path, "done")
    assert heartbeat.pulse(tmp_path).alarm(0.0) is None
    (tmp_path / heartbeat.NAME).write_text("{half")
    assert heartbeat.pulse(tmp_path).alarm(60.0) == "there is no sign of life"


def test_clocks_that_differ_are_told_and_a_watch_goes_by_its_own(tmp_path: Path, mocker: MockerFixture) -> None:
    heartbeat.beat(tmp_path, "running", "slice 3")
    mocker.patch("workflows.heartbeat.time.time", return_value=time.time() - 3600.0)  # the run's clock is ahead
    assert "ahead of this computer's clock" in (heartbeat.pulse(tmp_path).alarm(300.0) or "")
    now = mocker.patch("workflows.heartbeat.time.monotonic", return_value=50.0)
    watch = heartbeat.Watch(tmp_path)
    assert watch.look().alarm(300.0) is None
    now.return_value = 400.0
    assert "350 s old" in (watch.look().alarm(300.0) or "")
    mocker.patch("workflows.heartbeat.time.time", return_value=5.0)
    heartbeat.beat(tmp_path, "running", "slice 4")
    assert watch.look().alarm(300.0) is None
    (tmp_path / heartbeat.NAME).unlink()
    now.return_value = 800.0
    assert "400 s old" in (watch.look().alarm(300.0) or "")
    assert heartbeat.Watch(tmp_path).look().alarm(300.0) == "there is no sign of life"


def test_the_watcher_on_another_computer(
    tmp_path: Path, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    target = f"json://127.0.0.1:{receiver.server_port}"
    assert run_command(["heartbeat", str(tmp_path), "--notify", target]) == 4
    assert "no sign of life" in receiver.taken[0]["message"]
    heartbeat.beat(tmp_path, "running", "slice 3")
    assert run_command(["heartbeat", str(tmp_path), "--late", "1 min"]) == 0
    assert run_command(["heartbeat", str(tmp_path), "--late", "5 nm"]) == 2
    assert "--late" in capsys.readouterr().err


def test_a_url_is_called_only_where_it_is_one(receiver: Receiver) -> None:
    url = f"http://127.0.0.1:{receiver.server_port}/alive"
    assert heartbeat.call(url)
    receiver.refuses = True
    assert not heartbeat.call(url)
    assert not heartbeat.call("file:///etc/passwd")
    assert receiver.calls == 2


@pytest.mark.parametrize(
    ("armed_until", "ends"),
    [("2020-01-01T00:00:00+00:00", None), ("2999-01-01T00:00:00+00:00", datetime(2020, 1, 1, tzinfo=UTC))],
)
def test_a_run_that_is_no_longer_armed_is_not_begun_by_itself(
    armed_until: str, ends: datetime | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder.create(tmp_path / "RUN")
    folder.write_recipe("kintsugi: 1\n")
    Journal.create(folder.journal, armed_until=armed_until).close()
    kept: list[dict[str, Any]] = []
    night = Night(folder.root, (), Messenger(None, kept.append), threading.Event(), by_hand=False, ends=ends)
    monkeypatch.setattr(night, "_process", lambda _arguments: pytest.fail("it was begun"))
    assert night.work() == 5
    assert "armed is over" in kept[-1]["body"]
