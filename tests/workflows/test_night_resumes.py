"""What a night makes of a run that it can't reach, one that crashes again and again, and one of another process."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from instrument.durable import FileLock
from tests.workflows.folders import fresh_folder
from workflows import night as night_module
from workflows.journal import Journal
from workflows.night import PAUSES_S, Budget, Night
from workflows.notify import Messenger
from workflows.store import SUPERVISOR, RunFolder

#: Takes a run's lock as a run does, says so, and holds it until it is killed.
HOLDS = """
import sys
from pathlib import Path
from instrument.durable import FileLock
with FileLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return fresh_folder(tmp_path)


def note(folder: RunFolder, to: str) -> None:
    with Journal(folder.journal) as journal:
        journal.note("state", {"to": to})


def act(folder: RunFolder, key: str) -> None:
    with Journal(folder.journal) as journal:
        journal.intend(key, "mill", {})
        journal.done(key, {})


def supervised(
    folder: RunFolder, process: Callable[[Sequence[str]], int], monkeypatch: pytest.MonkeyPatch, **more: Any
) -> tuple[Night, list[dict[str, Any]]]:
    """A night over processes that are functions, and what people were told; its pauses are over at once."""
    clock = itertools.count(0.0, 2 * max(PAUSES_S))
    monkeypatch.setattr(night_module.time, "monotonic", lambda: next(clock))
    kept: list[dict[str, Any]] = []
    night = Night(folder.root, (), Messenger(None, kept.append), threading.Event(), **more)
    monkeypatch.setattr(night, "_process", process)
    return night, kept


def test_a_run_that_can_not_reach_its_instrument_is_tried_until_its_restarts_are_used_up(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    night, kept = supervised(folder, lambda _arguments: 4, monkeypatch, budget=Budget(5))
    assert night.work() == 4
    assert "resumed 5 times already" in kept[-1]["body"]
    waited = [one["body"].rpartition(" in ")[2] for one in kept if "resumes" in one["title"]]
    assert waited == ["5 s", "30 s", "2 min", "5 min", "5 min"]


def test_a_run_that_crashes_again_and_again_on_its_instrument_is_given_up(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    codes: list[int] = []

    def crashes(_arguments: Sequence[str]) -> int:
        codes.append(4)
        if len(codes) != 2:  # the second did not even come so far
            note(folder, "running")
        if len(codes) == 3:
            act(folder, "slice/0001/cut-1")  # and this one got on
        return 4

    night, kept = supervised(folder, crashes, monkeypatch, budget=Budget(9))
    assert night.work() == 4
    assert len(codes) == 5
    assert "again and again, without getting on" in kept[-1]["body"]


def test_acts_of_an_earlier_night_are_no_progress(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    act(folder, "slice/0001/cut-1")
    begun: list[Sequence[str]] = []

    def crashes(arguments: Sequence[str]) -> int:
        begun.append(arguments)
        note(folder, "running")
        return 4

    night, _ = supervised(folder, crashes, monkeypatch, first=("--adopt",))
    assert night.work() == 4
    assert [one[2:] for one in begun] == [("--adopt",), ("--alone",)]


def test_what_a_person_gave_leave_for_holds_until_the_run_has_reached_its_instrument(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Journal(folder.journal) as journal:
        journal.set_meta("armed_until", "2020-01-01T00:00:00+00:00")  # of an earlier night
    begun: list[Sequence[str]] = []

    def process(arguments: Sequence[str]) -> int:
        begun.append(arguments)
        if len(begun) == 3:
            note(folder, "running")
        return 4

    night, kept = supervised(folder, process, monkeypatch, first=("--adopt",))
    assert night.work() == 4
    assert [one[2:] for one in begun] == [("--adopt",)] * 3
    assert "armed" in kept[-1]["body"]


# -- a run that another process has in hand ---------------------------------------------------------------------------


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize(
    ("state", "code", "resumed"), [("done", 0, 0), ("stopped", 3, 0), ("held", 5, 0), ("failed", 0, 1)]
)
def test_a_run_that_goes_on_already_is_looked_after_and_gone_on_with(
    state: str, code: int, resumed: int, by_hand: bool, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(folder, "running")
    lock = FileLock(folder.lock).acquire()
    looks = iter([lambda: None, lambda: None, lambda: (note(folder, state), lock.release())])
    monkeypatch.setattr(night_module.time, "sleep", lambda _s: next(looks)())
    begun: list[Sequence[str]] = []
    night, kept = supervised(folder, lambda arguments: begun.append(arguments) or 0, monkeypatch, by_hand=by_hand)
    assert night.work() == code
    assert next(looks, None) is None
    assert [one[-1] for one in begun] == ["--alone"] * resumed
    assert "goes on" in kept[0]["title"]


def test_a_run_that_was_paused_and_makes_its_results_is_gone_on_with_after_them(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(folder, "paused")
    lock = FileLock(folder.lock).acquire()
    monkeypatch.setattr(night_module.time, "sleep", lambda _s: lock.release())
    begun: list[Sequence[str]] = []
    night, _ = supervised(folder, lambda arguments: begun.append(arguments) or 0, monkeypatch, first=("--adopt",))
    assert night.work() == 0
    assert [one[-1] for one in begun] == ["--adopt"]


def test_a_run_that_goes_on_already_is_asked_to_end_with_its_night(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(folder, "running")
    lock = FileLock(folder.lock).acquire()
    asked: list[tuple[str, str]] = []

    def sleep(_seconds: float) -> None:
        assert folder.supervised
        waits = folder.asked()
        if waits is not None:
            asked.append((waits.after, waits.by))
            note(folder, "stopped")
            lock.release()
        night._stopping.set()

    monkeypatch.setattr(night_module.time, "sleep", sleep)
    night, _ = supervised(folder, lambda _arguments: pytest.fail("it was begun"), monkeypatch)
    assert night.work() == 3
    assert asked == [("now", SUPERVISOR)]
    assert folder.asked() is None


def test_a_run_whose_supervisor_and_process_were_killed_is_resumed(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through a real process: the system lets go of its lock."""
    note(folder, "running")
    command = [sys.executable, "-c", HOLDS, str(folder.lock)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        monkeypatch.setattr(night_module.time, "sleep", lambda _s: (process.kill(), process.wait()))
        begun: list[Sequence[str]] = []
        night, _ = supervised(folder, lambda arguments: begun.append(arguments) or 0, monkeypatch, by_hand=False)
        assert night.work() == 0
    assert [one[-1] for one in begun] == ["--alone"]
