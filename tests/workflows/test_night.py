"""The supervisor's decisions, messages that arrive, and signs of life whose absence is an alarm."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

from instrument.durable import FileLock
from instrument.errors import Refused
from tests.workflows.folders import fresh_folder
from workflows import commands_night, heartbeat
from workflows.cli import run_command
from workflows.journal import Journal
from workflows.night import Budget, Night
from workflows.notify import Messenger, messenger
from workflows.plan import Plan
from workflows.store import SUPERVISOR, WINDOW, Request, RunFolder


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
    for late in ("5 nm", "-5 min", "10 s", "0 s"):
        assert run_command(["heartbeat", str(tmp_path), "--late", late]) == 2
        assert "--late" in capsys.readouterr().err


def test_a_url_is_called_only_where_it_is_one(receiver: Receiver) -> None:
    url = f"http://127.0.0.1:{receiver.server_port}/alive"
    assert heartbeat.call(url)
    receiver.refuses = True
    assert not heartbeat.call(url)
    assert not heartbeat.call("file:///etc/passwd")
    assert not heartbeat.call("http:///nowhere")
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


# -- the end of a night -----------------------------------------------------------------------------------------------


class Stops(threading.Event):
    """What ends a night; instead of waiting, the next of `meanwhile` happens: the test needs no clock."""

    def __init__(self, *meanwhile: Callable[[], object]) -> None:
        super().__init__()
        self.meanwhile = list(meanwhile)

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        assert timeout <= 1.0, "somebody who asks for a stop waits"
        assert self.meanwhile, "the night goes on waiting"
        self.meanwhile.pop(0)()
        return self.is_set()


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return fresh_folder(tmp_path)


def supervised(
    folder: RunFolder, stops: threading.Event, codes: list[int], monkeypatch: pytest.MonkeyPatch, **more: Any
) -> tuple[Night, list[dict[str, Any]]]:
    """A night over processes that end at once with these codes, and what people were told."""
    kept: list[dict[str, Any]] = []
    night = Night(folder.root, (), Messenger(None, kept.append), stops, **more)

    def process(_arguments: object) -> int:
        return codes.pop(0) if codes else pytest.fail("it was begun again")

    monkeypatch.setattr(night, "_process", process)
    return night, kept


@pytest.mark.parametrize("how", ["Ctrl-C", "kintsugi stop"])
def test_who_asks_for_a_stop_before_a_run_is_resumed_is_heeded(
    how: str, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    attended: list[bool] = []
    stops = Stops(lambda: attended.append(folder.attended))
    stops.meanwhile.append(
        stops.set if how == "Ctrl-C" else lambda: folder.ask(Request(what="stop", by="kintsugi stop"))
    )
    night, kept = supervised(folder, stops, [4], monkeypatch)
    assert night.work() == 3
    assert attended == [True]
    assert not folder.attended
    assert folder.asked() is None
    assert "stopped" in kept[-1]["title"]
    assert kept[-1]["kind"] == "warning"
    assert heartbeat.pulse(folder.root).state == "stopped"
    with Journal(folder.journal, read_only=True) as journal:
        assert [event.data["verdict"] for event in journal.events(kind="night")] == ["resume", "stopped"]


def test_people_are_told_what_becomes_of_a_held_run_that_nobody_answers(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = datetime.now(UTC) + timedelta(hours=3)
    night, kept = supervised(folder, Stops(), [5], monkeypatch, ends=ends)
    with Journal(folder.journal) as journal:
        held = {"to": "held", "why": "no fiducial", "until": "2999-01-01T00:00:00+00:00", "default": "it stays safe"}
        journal.note("state", held)
    assert night.work() == 5
    body = kept[-1]["body"]
    assert "no fiducial; unless a person answers or resumes it, it stays safe" in body
    assert f"its night ends {ends:%Y-%m-%d %H:%M}" in body


def test_what_was_asked_of_a_run_that_died_ends_the_night(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    night, _ = supervised(folder, Stops(), [], monkeypatch)

    def dies(_arguments: object) -> int:
        folder.ask(Request(what="stop", after="fill", by="kintsugi stop"))
        return -9

    monkeypatch.setattr(night, "_process", dies)
    assert night.work() == 3
    assert folder.asked() is None


def test_a_night_by_hand_forgets_old_requests_and_a_worker_only_its_own(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.ask(Request(what="stop", by="kintsugi stop"))
    night, _ = supervised(folder, Stops(), [0], monkeypatch)
    assert night.work() == 0
    assert folder.asked() is None
    folder.ask(Request(what="stop", after="now", by=SUPERVISOR))
    night, _ = supervised(folder, Stops(), [0], monkeypatch, by_hand=False)
    assert night.work() == 0
    folder.ask(Request(what="stop", by="kintsugi stop"))
    night, kept = supervised(folder, Stops(), [], monkeypatch, by_hand=False)
    assert night.work() == 3
    assert "kintsugi stop asked for a stop" in kept[-1]["body"]


def test_a_run_that_a_night_looks_after_gets_no_other_one(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    night, kept = supervised(folder, Stops(), [], monkeypatch)
    folder.ask(Request(what="stop", by="kintsugi stop"))
    with FileLock(folder.night):
        assert night.work() == 2
    assert folder.asked() is not None
    assert "does not begin" in kept[-1]["title"]
    assert str(folder.root) in capsys.readouterr().err.replace("\n", "")
    assert heartbeat.pulse(folder.root).age_s is None


@pytest.mark.parametrize("when", ["while the night waits", "as the night resumes it"])
def test_a_run_that_a_person_resumes_is_looked_after_like_the_nights_own(
    when: str, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = FileLock(folder.lock)

    def by_hand(code: int = 2) -> int:
        lock.acquire()
        return code

    def ends(_seconds: float) -> None:
        with Journal(folder.journal) as journal:
            journal.note("state", {"to": "done"})
        lock.release()

    stops = Stops(by_hand) if when == "while the night waits" else Stops()
    night, kept = supervised(folder, stops, [4], monkeypatch, pauses_s=(9.0 if stops.meanwhile else 0.0,))
    codes = [lambda: 4, by_hand]  # the night's second process finds that another works on the run
    monkeypatch.setattr(night, "_process", lambda _arguments: codes.pop(0)())
    monkeypatch.setattr("workflows.night.time.sleep", ends)
    assert night.work() == 0
    assert [one["title"].partition(": ")[2] for one in kept] == ["begins", "resumes (1)", "goes on by hand", "is done"]
    assert len(codes) == (1 if when == "while the night waits" else 0)
    assert folder.asked() is None


class Process:
    """A run's process in small: at every look of its supervisor the next of `steps` happens, then it ends."""

    def __init__(self, code: int, *steps: Callable[[], object]) -> None:
        self.code = code
        self.steps = list(steps)

    def __call__(self, command: list[str], *, stdin: int, **_: object) -> Process:
        assert command
        assert stdin == subprocess.DEVNULL, "it could ask at a terminal that nobody sits at"
        return self

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def wait(self, timeout: float) -> int:
        assert timeout <= 1.0
        if not self.steps:
            return self.code
        self.steps.pop(0)()
        raise subprocess.TimeoutExpired("kintsugi", timeout)


@pytest.mark.parametrize("why", ["its window ends", "Ctrl-C"])
def test_a_run_is_asked_to_end_until_it_does(why: str, folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str]] = []

    def lost() -> None:
        waits = folder.asked()
        assert waits is not None
        asked.append((waits.what, waits.after, waits.by))
        folder.answered()

    stops, ends = threading.Event(), datetime.now(UTC) + timedelta(hours=1)
    if why == "Ctrl-C":
        stops.set()
    else:
        ends -= timedelta(hours=2)
    kept: list[dict[str, Any]] = []
    night = Night(folder.root, (), Messenger(None, kept.append), stops, ends=ends)
    process = Process(3, lambda: None, lost, lost)
    monkeypatch.setattr("workflows.night.subprocess.Popen", process)
    assert night.work() == 3
    expected = ("stop", "now", SUPERVISOR) if why == "Ctrl-C" else ("stop", "slice", WINDOW)
    assert asked == [expected, expected]
    assert folder.asked() is None
    assert [one["title"].partition(": ")[2] for one in kept] == (
        ["begins", "stopped"] if why == "Ctrl-C" else ["begins", "its window ends", "stopped"]
    )
    assert all(one["kind"] != "failure" for one in kept)


@pytest.mark.parametrize(("after", "stands"), [("cut", True), ("slice", True), ("fill", False)])
def test_what_a_person_has_asked_stands_when_the_window_ends_unless_it_is_later(
    after: str, *, stands: bool, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    begun = datetime.now(UTC) - timedelta(hours=1)
    night = Night(folder.root, (), Messenger(None), threading.Event(), ends=begun)
    process = Process(
        3,
        lambda: folder.ask(Request.model_validate({"what": "pause", "after": after, "by": "kintsugi pause"})),
        lambda: seen.append(folder.asked().by),  # type: ignore[union-attr]
    )
    monkeypatch.setattr("workflows.night.subprocess.Popen", process)
    assert night.work() == 3
    assert seen == ["kintsugi pause" if stands else WINDOW]


@pytest.mark.parametrize("virtual", [False, True])
def test_a_window_keeps_time_for_the_slice_in_hand_and_the_last_pictures(
    virtual: bool, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Plan(name="A", instrument="B", images=10, slicing_s=10 * 600.0 + 300.0, after_s=300.0)
    with Journal(folder.journal) as journal:
        journal.set_meta("plan", made.model_dump(mode="json"))
        journal.set_meta("instrument", {"virtual": virtual})
    asked: list[bool] = []
    for left_s in (930.0, 870.0):  # a slice takes 600 s, the last pictures 300 s
        folder.answered()
        ends = datetime.now(UTC) + timedelta(seconds=left_s)
        night = Night(folder.root, (), Messenger(None), threading.Event(), ends=ends)
        night._look()
        night._ask()
        asked.append(folder.asked() is not None)
    assert asked == [False, not virtual]


# -- a failure that may be mended is no alarm -------------------------------------------------------------------------


def test_a_failure_is_an_alarm_at_once_unless_a_night_looks_after_the_run(tmp_path: Path) -> None:
    heartbeat.beat(tmp_path, "failed", "the source is off")
    assert heartbeat.pulse(tmp_path).alarm(1e9) == "the run is failed: the source is off"
    assert heartbeat.pulse(tmp_path).ended
    for state in ("failed", "resuming"):
        heartbeat.beat(tmp_path, state, "the source is off", may_resume=True)
        assert heartbeat.pulse(tmp_path).alarm(60.0) is None
        assert not heartbeat.pulse(tmp_path).ended
        value = json.loads((tmp_path / heartbeat.NAME).read_text())
        (tmp_path / heartbeat.NAME).write_text(json.dumps({**value, "at": time.time() - 700.0}))
        assert "the source is off" in (heartbeat.pulse(tmp_path).alarm(300.0) or "")


def test_the_watcher_watches_on_while_the_run_may_be_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    beats = [("resuming", True), ("running", False), ("failed", True), ("failed", False)]
    heartbeat.beat(tmp_path, "failed", "the source is off", may_resume=True)

    def later(_seconds: float) -> None:
        state, may_resume = beats.pop(0)
        heartbeat.beat(tmp_path, state, "again", may_resume=may_resume)

    monkeypatch.setattr(commands_night.time, "sleep", later)
    assert run_command(["heartbeat", str(tmp_path), "--watch"]) == 4
    assert beats == []
    assert "the run is failed: again" in capsys.readouterr().err.replace("\n", " ")


def test_a_night_gives_signs_of_life_until_it_gives_up(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, bool]] = []

    def look() -> None:
        found = heartbeat.pulse(folder.root)
        seen.append((found.state, found.may_resume))
        (folder.root / heartbeat.NAME).unlink()

    clock = [0.0]
    monkeypatch.setattr("workflows.night.time.monotonic", lambda: clock[0])
    ticks = [lambda: clock.__setitem__(0, clock[0] + 10.0)] * 3
    stops = Stops(*(lambda tick=tick: (look(), tick()) for tick in ticks))
    night, kept = supervised(folder, stops, [4, 4], monkeypatch, budget=Budget(1), pauses_s=(30.0,))
    assert night.work() == 4
    assert seen == [("resuming", True)] * 3
    found = heartbeat.pulse(folder.root)
    assert (found.state, found.ended) == ("failed", True)
    assert "given up" in kept[-1]["title"]


def test_results_that_take_long_after_a_failure_are_no_silence(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    night, _ = supervised(folder, threading.Event(), [], monkeypatch)
    heartbeat.beat(folder.root, "failed", "the source is off", may_resume=True)
    before = heartbeat.pulse(folder.root)
    monkeypatch.setattr("workflows.heartbeat.time.time", lambda: before.at + 400.0)
    night._look()
    found = heartbeat.pulse(folder.root)
    assert (found.at, found.telling, found.may_resume) == (before.at + 400.0, "the source is off", True)
    heartbeat.beat(folder.root, "running", "slice 3")
    monkeypatch.setattr("workflows.heartbeat.time.time", lambda: before.at + 900.0)
    night._look()
    assert heartbeat.pulse(folder.root).at == before.at + 400.0  # a run that hangs stays silent
