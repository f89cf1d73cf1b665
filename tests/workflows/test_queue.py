"""The queue's file when it is damaged or none, and the nights in it that a person has begun by hand."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from instrument.durable import FileLock
from instrument.hydra import hydra
from tests.instrument.values import state
from tests.workflows.folders import fresh_folder
from workflows import commands_night, preflight, worker
from workflows.cli import run_command
from workflows.journal import Journal
from workflows.night import Night
from workflows.notify import Messenger
from workflows.recipe import dump, load
from workflows.schedule import NightState, Queue, QueueDamaged
from workflows.store import RunFolder
from workflows.terminal import Stopping, stop_on_signals
from workflows.worker import ByHand

FIRST = Path(__file__).parents[2] / "workflows" / "recipes" / "first-run.yaml"
NOW = datetime.now().astimezone()


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "nights.sqlite")


def torn(path: Path) -> None:
    """What a disk may leave of a file: its first page is right, the others are not."""
    data = path.read_bytes()
    path.write_bytes(data[:4096] + b"\xff" * (len(data) - 4096))


def overwritten(path: Path) -> None:
    path.write_bytes(b"nothing that is a queue\n" * 400)


# -- the file ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [torn, overwritten])
@pytest.mark.parametrize("command", [["list"], ["add", str(FIRST), "--offline"], ["remove", "1"]])
def test_a_damaged_queue_is_set_aside_and_said(
    command: list[str],
    damage: Callable[[Path], None],
    queue: Queue,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    queue.add(FIRST, tmp_path / "A", NOW, None, armed=True)
    damage(queue.path)
    left = queue.path.read_bytes()
    assert run_command(["schedule", *command, "--queue", str(queue.path)]) == 4
    said = capsys.readouterr().err.replace("\n", " ")
    assert str(queue.path) in said
    assert "nights.sqlite.damaged-1" in said
    assert "schedule add" in said
    assert (tmp_path / "nights.sqlite.damaged-1").read_bytes() == left
    assert run_command(["schedule", "list", "--queue", str(queue.path)]) == 0
    assert "no night waits" in capsys.readouterr().out


def test_a_file_that_is_no_queue_is_left_as_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    thesis = tmp_path / "thesis.txt"
    thesis.write_text("years of work\n" * 100)
    assert run_command(["schedule", "list", "--queue", str(thesis)]) == 2
    journal = tmp_path / "journal.sqlite"
    Journal.create(journal).close()
    before = journal.read_bytes()
    assert run_command(["schedule", "list", "--queue", str(journal)]) == 2
    said = capsys.readouterr().err.replace("\n", " ")
    assert said.count("no queue of nights") == 2
    assert thesis.read_text() == "years of work\n" * 100
    assert journal.read_bytes() == before


def test_a_worker_tells_of_a_damaged_queue_once_and_goes_on(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[tuple[str, ...], str]] = []

    def messenger(targets: tuple[str, ...], *_: object) -> Messenger:
        return Messenger(lambda _kind, _title, body, _picture: not told.append((tuple(targets), body)))

    monkeypatch.setattr(worker, "messenger", messenger)
    later = NOW + timedelta(hours=1)
    queue.add(FIRST, tmp_path / "A", later, None, armed=True, options={"notify": ["mailto://a"]})
    stopping = threading.Event()
    looks: list[int] = []

    def wait(_seconds: float) -> None:
        looks.append(len(looks))
        torn(queue.path) if looks == [0] else stopping.set()

    monkeypatch.setattr(stopping, "wait", wait)
    worker.work(queue, stopping, now=lambda: NOW, notify=("mailto://b",))
    ((targets, body),) = told
    assert targets == ("mailto://b", "mailto://a")
    assert "damaged-1" in body
    assert looks == [0, 1], "it did not go on"
    assert queue.entries(all_=True) == []


def test_a_worker_that_finds_its_queue_damaged_at_its_start_works_on(queue: Queue, tmp_path: Path) -> None:
    queue.add(FIRST, tmp_path / "A", NOW, None, armed=True)
    torn(queue.path)
    command = [sys.executable, "-m", "workflows.cli", "schedule", "work", "--once", "--queue", str(queue.path)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "nights.sqlite.damaged-1").exists()
    assert not (tmp_path / "A").exists()


# -- nights that a person has begun -----------------------------------------------------------------------------------


def by_hand(queue: Queue, folder: RunFolder, code: int, meanwhile: Callable[[], object], stopping: Stopping) -> int:
    """A night that a person has begun, whose run's process ends with this code."""
    kept = ByHand(queue, folder.recipe, folder.root, {"url": "pyro://hydra:1"}, stopping)
    night = Night(folder.root, (), Messenger(None), stopping, taken=kept.taken, over=kept.over)

    def process(_arguments: object) -> int:
        meanwhile()
        return code

    night._process = process  # type: ignore[method-assign]
    return night.work()


@pytest.mark.parametrize(("code", "ended"), [(0, "done"), (3, "stopped"), (5, "held"), (2, "failed")])
def test_a_night_begun_by_hand_runs_in_the_queue_and_no_worker_touches_it(
    code: int, ended: str, queue: Queue, tmp_path: Path
) -> None:
    folder = fresh_folder(tmp_path, dump(load(FIRST)))
    queue.add(FIRST, tmp_path / "OTHER", NOW, None, armed=True, options={"url": "pyro://hydra:1"})
    free = queue.add(FIRST, tmp_path / "FREE", NOW, None, armed=True, options={"url": "simulator:1"})
    seen: list[Any] = []

    def meanwhile() -> None:
        (mine,) = [one for one in queue.entries() if one.folder == folder.root]
        seen.append((mine.state, mine.armed, queue.due(NOW)))  # another instrument's night may begin

    assert by_hand(queue, folder, code, meanwhile, Stopping()) == code
    assert seen == [(NightState.RUNNING, True, free)]
    (mine,) = [one for one in queue.entries(all_=True) if one.folder == folder.root]
    assert mine.state == ended


@pytest.mark.parametrize(("ctrl_c", "ended"), [(True, "stopped"), (False, "running")])
def test_one_that_the_system_ends_is_gone_on_with_after_a_reboot(
    ctrl_c: bool, ended: str, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fresh_folder(tmp_path, dump(load(FIRST)))
    with Journal(folder.journal) as journal:
        journal.set_meta("armed_until", "2999-01-01T00:00:00+00:00")
    stopping = Stopping()

    def told() -> None:
        stopping.by_hand = ctrl_c
        stopping.set()

    by_hand(queue, folder, 3, told, stopping)
    (entry,) = queue.entries(all_=True)
    assert entry.state == ended
    begun: list[tuple[str, ...]] = []
    monkeypatch.setattr(Night, "_process", lambda _self, arguments: begun.append(tuple(arguments)) or 0)
    worker.work(queue, threading.Event(), once=True, now=lambda: NOW)
    assert begun == ([] if ctrl_c else [("resume", str(folder.root), "--alone")])
    (entry,) = queue.entries(all_=True)
    assert entry.state == ("stopped" if ctrl_c else "done")


def test_a_reboot_after_the_time_for_which_it_was_armed_begins_nothing(queue: Queue, tmp_path: Path) -> None:
    folder = fresh_folder(tmp_path, dump(load(FIRST)))
    with Journal(folder.journal) as journal:
        journal.set_meta("armed_until", "2020-01-01T00:00:00+00:00")
    queue.begun(folder.recipe, folder.root, NOW, {})
    worker.work(queue, threading.Event(), once=True, now=lambda: NOW)
    (entry,) = queue.entries(all_=True)
    assert entry.state is NightState.HELD


def test_ctrl_c_and_the_systems_signal_are_told_apart() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        stopping = stop_on_signals()
        signal.raise_signal(signal.SIGTERM)
        assert (stopping.is_set(), stopping.by_hand) == (True, False)
        signal.raise_signal(signal.SIGINT)
        assert stopping.by_hand
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_queue_that_can_not_be_used_ends_no_night(
    queue: Queue, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = fresh_folder(tmp_path, dump(load(FIRST)))
    assert by_hand(Queue(folder.recipe), folder, 0, lambda: None, Stopping()) == 0
    assert "after a reboot nobody goes on with this night" in capsys.readouterr().err.replace("\n", " ")
    overwritten(queue.path)
    assert by_hand(queue, folder, 0, lambda: None, Stopping()) == 0
    assert "damaged-1" in capsys.readouterr().err.replace("\n", " ")
    (entry,) = queue.entries(all_=True)
    assert entry.state is NightState.DONE


def test_the_command_keeps_its_night_and_takes_the_place_of_one_that_waited(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "examined", lambda *_: (hydra().replace(virtual=True), state(), {}))
    monkeypatch.setattr(commands_night, "stop_on_signals", Stopping)
    root = tmp_path / "RUN"
    queue.add(FIRST, root, NOW + timedelta(hours=3), None, armed=True)

    def process(night: Night, _arguments: object) -> int:
        fresh_folder(tmp_path, dump(load(FIRST)))
        night._take()
        return 0

    monkeypatch.setattr(Night, "_process", process)
    arguments = ["night", str(FIRST), "--out", str(root), "--model", "none", "--queue", str(queue.path)]
    assert run_command(arguments) == 0
    (entry,) = queue.entries(all_=True)
    assert (entry.state, entry.recipe, entry.folder) == (NightState.DONE, FIRST, root)
    assert (entry.options["model"], entry.options["restarts"]) == ("none", 5)
    assert not FileLock.is_held(RunFolder(root).night)


@pytest.mark.parametrize("maps_by", [None, "person"])
def test_a_run_that_has_begun_is_gone_on_with_by_hand_unless_it_needs_people(
    maps_by: str | None, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands_night, "stop_on_signals", Stopping)
    monkeypatch.setattr(Night, "_process", lambda _self, _arguments: 0)
    folder = fresh_folder(tmp_path, dump(load(FIRST)))
    with Journal(folder.journal) as journal:  # as a session keeps it
        journal.set_meta("instrument", {"model": "Hydra", "virtual": True, "maps_by": maps_by})
        journal.note("state", {"to": "running"})
    code = run_command(["night", str(folder.root), "--queue", str(queue.path)])
    assert code == (2 if maps_by else 0)
    assert [one.folder for one in queue.entries(all_=True)] == ([] if maps_by else [folder.root])


def test_damage_is_raised_once(queue: Queue, tmp_path: Path) -> None:
    queue.add(FIRST, tmp_path / "A", NOW, None, armed=True)
    torn(queue.path)
    with pytest.raises(QueueDamaged, match="damaged-1"):
        queue.entries()
    assert queue.entries() == []
