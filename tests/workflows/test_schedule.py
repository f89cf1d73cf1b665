"""The queue of nights: what fits, what is due, what is refused by evening; and the worker that does them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from instrument.durable import FileLock
from instrument.hydra import hydra
from tests.instrument.values import state
from tests.workflows.folders import fresh_folder
from workflows import preflight, worker
from workflows.cli import run_command
from workflows.journal import Journal
from workflows.notify import Messenger
from workflows.recipe import at_most, load
from workflows.recipe_errors import RecipeProblem
from workflows.schedule import NightState, Queue, fits, next_time
from workflows.service import unit

RECIPES = Path(__file__).parents[2] / "workflows" / "recipes"
FIRST, OVERNIGHT = RECIPES / "first-run.yaml", RECIPES / "overnight.yaml"
EVENING = datetime(2026, 11, 25, 18, 0, tzinfo=timezone(timedelta(hours=1)))


@pytest.fixture(autouse=True)
def ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instrument that is ready; what is said of one that isn't has tests of its own."""
    seen = hydra().replace(virtual=True), state(), {}
    monkeypatch.setattr(preflight, "examined", lambda *_: seen)


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "state" / "nights.sqlite")


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A recipe for an instrument that is no simulator."""
    recipe = tmp_path / "real.yaml"
    recipe.write_text(FIRST.read_text().replace("simulator:", "pyro://hydra:4711?token_file=T#"))
    return recipe


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20:00", EVENING.replace(hour=20)),
        ("08:00", EVENING.replace(day=26, hour=8)),
        ("now", EVENING),
        ("2026-11-27 07:30+01:00", EVENING.replace(day=27, hour=7, minute=30)),
    ],
)
def test_times_as_people_write_them(text: str, expected: datetime) -> None:
    assert next_time(text, EVENING) == expected


@pytest.mark.parametrize("text", ["25:00", "20:60", "tonight", "2026-11-24 20:00+01:00", ""])
def test_what_is_no_time_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"no time|is over"):
        next_time(text, EVENING)


def test_what_does_not_fit_is_said_by_evening_and_shortened_when_asked() -> None:
    recipe = load(OVERNIGHT)
    whole = fits(recipe, hydra(), EVENING, None, shorten=False)
    assert whole.problems == ()
    assert whole.images is None
    hours = whole.plan.total_s / 3600
    ends = EVENING + timedelta(hours=hours - 2)
    (problem,) = fits(recipe, hydra(), EVENING, ends, shorten=False).problems
    assert "images fit" in problem
    assert "--shorten" in problem
    short = fits(recipe, hydra(), EVENING, ends, shorten=True)
    assert short.problems == ()
    assert short.images is not None
    assert 0 < short.images < whole.plan.images_planned
    shorter = at_most(recipe, short.images)
    again = fits(shorter, hydra(), EVENING, ends, shorten=False)
    assert again.problems == ()
    assert again.images is None
    (nothing,) = fits(recipe, hydra(), EVENING, EVENING + timedelta(minutes=20), shorten=True).problems
    assert "0 of" in nothing


def test_fewer_images_is_a_recipe_still() -> None:
    recipe = load(FIRST)
    assert at_most(recipe, 5).slicing.images == 5  # type: ignore[union-attr]
    assert at_most(recipe, 1000) == recipe
    with pytest.raises(RecipeProblem, match="--images"):
        at_most(recipe, 0)


def test_what_is_due_comes_by_its_beginning_and_a_running_one_first(queue: Queue, tmp_path: Path) -> None:
    later = queue.add(FIRST, tmp_path / "B", EVENING + timedelta(hours=2), None, armed=True)
    first = queue.add(FIRST, tmp_path / "A", EVENING, EVENING + timedelta(hours=14), armed=True, images=7)
    assert queue.due(EVENING - timedelta(minutes=1)) is None
    assert queue.due(EVENING) == first
    assert [one.id for one in queue.entries()] == [first.id, later.id]
    queue.put(later.id, NightState.RUNNING)
    assert queue.due(EVENING).id == later.id  # type: ignore[union-attr]
    queue.put(later.id, NightState.DONE)
    assert Queue(queue.path).due(EVENING) == first
    with pytest.raises(ValueError, match="is done"):
        queue.remove(later.id)
    assert queue.remove(first.id).state is NightState.REMOVED
    with pytest.raises(ValueError, match="no night 99"):
        queue.remove(99)
    assert queue.entries() == []
    assert len(queue.entries(all_=True)) == 2
    again = queue.add(FIRST, tmp_path / "A", EVENING, None, armed=True)  # what was removed gives way
    assert [one.id for one in queue.entries(all_=True)] == [again.id, later.id]
    with pytest.raises(ValueError, match="another night's folder"):
        queue.add(FIRST, tmp_path / "A", EVENING, None, armed=True)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = ["--queue", str(tmp_path / "nights.sqlite")]
    out = ["--out", str(tmp_path / "RUN")]
    assert run_command(["schedule", "add", str(FIRST), "--start", "20:00", *out, *file]) == 0
    assert run_command(["schedule", "list", "--json", *file]) == 0
    said = capsys.readouterr().out
    (entry,) = json.loads(said[said.index("[") :])
    assert entry["state"] == "waiting"
    assert run_command(["schedule", "add", str(FIRST), "--start", "20:00", *out, *file]) == 2
    assert run_command(["schedule", "add", str(FIRST), "--start", "25:00", *file]) == 2
    assert run_command(["schedule", "add", str(OVERNIGHT), "--start", "20:00", "--finish-by", "20:30", *file]) == 2
    assert "images fit" in capsys.readouterr().err
    assert run_command(["schedule", "remove", "1", *file]) == 0
    assert run_command(["schedule", "remove", "1", *file]) == 2
    assert run_command(["schedule", "list", *file]) == 0
    assert "no night waits" in capsys.readouterr().out


@pytest.mark.parametrize("armed", [False, True])
def test_a_real_instrument_begins_only_when_it_is_armed(
    armed: bool, queue: Queue, real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[str, ...]] = []
    monkeypatch.setattr(
        worker, "Night", lambda _folder, begin, _tell, _stopping, **_: begun.append(tuple(begin)) or _Over()
    )
    queue.add(real, tmp_path / "RUN", EVENING, None, armed=armed)
    worker.work(queue, threading.Event(), once=True, now=lambda: EVENING)
    (entry,) = queue.entries(all_=True)
    assert entry.state is (NightState.DONE if armed else NightState.MISSED)
    assert bool(begun) is armed
    assert armed or "armed" in entry.why


@pytest.mark.parametrize(
    ("code", "told_to_end", "expected"), [(3, True, "running"), (3, False, "stopped"), (0, True, "done")]
)
def test_a_night_that_ends_with_its_worker_is_gone_on_with(
    code: int, told_to_end: bool, expected: str, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopping = threading.Event()

    class Ends:
        def __init__(self, *_: object, **more: object) -> None:
            assert more["by_hand"] is False

        def work(self) -> int:
            if told_to_end:
                stopping.set()
            return code

    monkeypatch.setattr(worker, "Night", Ends)
    queue.add(FIRST, tmp_path / "RUN", EVENING, None, armed=True)
    worker.work(queue, stopping, once=True, now=lambda: EVENING)
    (entry,) = queue.entries(all_=True)
    assert entry.state == expected


class _Over:
    """A night that is over at once."""

    def work(self) -> int:
        return 0


def test_a_night_whose_window_is_over_does_not_begin(queue: Queue, tmp_path: Path) -> None:
    queue.add(FIRST, tmp_path / "RUN", EVENING, EVENING + timedelta(hours=12), armed=True)
    worker.work(queue, threading.Event(), once=True, now=lambda: EVENING + timedelta(hours=13))
    (entry,) = queue.entries(all_=True)
    assert entry.state is NightState.MISSED
    assert "window ended" in entry.why


@pytest.mark.parametrize(
    ("added_h", "late_h", "why"),
    [(-8.0, 0.5, ""), (-8.0, 1.5, "more than 1.0 h late"), (-23.8, 0.5, "24.3 h after it was added")],
)
@pytest.mark.parametrize("simulated", [False, True])
def test_an_armed_night_on_a_real_instrument_begins_in_time_or_not_at_all(
    added_h: float, late_h: float, why: str, simulated: bool, queue: Queue, real: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[str] = []
    monkeypatch.setattr(worker, "Night", lambda *_, **__: _Over())
    monkeypatch.setattr(Messenger, "send", lambda _self, _kind, _what, body, *_: sent.append(body))
    entry = queue.add(FIRST if simulated else real, real.parent / "RUN", EVENING, None, armed=True)
    entry = replace(entry, added=EVENING + timedelta(hours=added_h))
    worker.begin(queue, entry, EVENING + timedelta(hours=late_h), threading.Event())
    (kept,) = queue.entries(all_=True)
    if simulated or not why:
        assert (kept.state, kept.why, sent) == (NightState.DONE, "", [])
    else:
        assert kept.state is NightState.MISSED
        assert why in kept.why
        assert sent == [kept.why]


def test_what_can_not_begin_within_a_day_of_a_last_look_is_refused_by_evening(
    tmp_path: Path, real: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = f"{datetime.now().astimezone() + timedelta(hours=30):%Y-%m-%d %H:%M}"
    with_queue = ["--start", start, "--armed", "--queue", str(tmp_path / "nights.sqlite")]
    assert run_command(["schedule", "add", str(real), *with_queue]) == 2
    assert "a last look at a real instrument holds for 24.0 h" in capsys.readouterr().err.replace("\n", " ")
    assert run_command(["schedule", "add", str(FIRST), *with_queue]) == 0


def test_a_run_that_outlived_its_worker_is_taken_up_again(
    queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fresh_folder(tmp_path)
    queue.put(queue.add(FIRST, folder.root, EVENING, None, armed=True).id, NightState.RUNNING)
    lock = FileLock(folder.lock).acquire()

    def ends(_seconds: float) -> None:
        assert folder.supervised
        with Journal(folder.journal) as journal:
            journal.note("state", {"to": "done"})
        lock.release()

    monkeypatch.setattr("workflows.night.time.sleep", ends)
    worker.work(queue, threading.Event(), once=True, now=lambda: EVENING + timedelta(hours=3))
    (entry,) = queue.entries(all_=True)
    assert entry.state is NightState.DONE


def test_services_name_this_interpreter(tmp_path: Path) -> None:
    text = unit("systemd", sys.executable, tmp_path, "A")
    assert f'ExecStart="{sys.executable}" -m workflows.cli schedule work' in text
    assert f"WorkingDirectory={tmp_path}" in text
    xml = unit("windows", r"C:\Program Files\A&B\python.exe", tmp_path, r"LAB\A&B").replace("UTF-16", "UTF-8")
    task = ET.fromstring(xml)
    space = "{http://schemas.microsoft.com/windows/2004/02/mit/task}"
    assert task.findtext(f".//{space}Command") == r"C:\Program Files\A&B\python.exe"
    triggers = task.find(f"{space}Triggers")
    assert triggers is not None
    assert [one.tag for one in triggers] == [f"{space}BootTrigger", f"{space}LogonTrigger"]
    principal = task.find(f".//{space}Principal")
    assert principal is not None
    assert principal.findtext(f"{space}LogonType") == "S4U"  # begins without a logon, and keeps no password
    assert principal.findtext(f"{space}UserId") == r"LAB\A&B"
    actions = task.find(f"{space}Actions")
    assert actions is not None
    assert actions.get("Context") == principal.get("id")
    assert run_command(["service", "cron"]) == 2


def test_what_a_service_prints_installs_it_on_an_account_that_has_nothing_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "a folder" / "kintsugi.service"
    target.parent.mkdir()
    assert run_command(["service", "systemd", "--out", str(target)]) == 0
    assert target.read_text().startswith("[Unit]")
    copying = capsys.readouterr().out.splitlines()[-1].partition(" && systemctl")[0]
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run(["/bin/sh", "-c", copying], env={"HOME": str(home), "PATH": os.defpath}, check=True)
    assert (home / ".config" / "systemd" / "user" / "kintsugi.service").read_text() == target.read_text()
    task = tmp_path / "task.xml"
    assert run_command(["service", "windows", "--out", str(task)]) == 0
    said = capsys.readouterr().out
    assert "no password (S4U)" in said
    assert "no shares" in said


def test_the_worker_does_a_night_that_is_due_and_ends(tmp_path: Path) -> None:
    """Through real processes: the worker, its supervisor, and a run that its recipe stops from beginning."""
    file = tmp_path / "nights.sqlite"
    broken = tmp_path / "recipe.yaml"
    broken.write_text(FIRST.read_text())
    queue = Queue(file)
    queue.add(broken, tmp_path / "RUN", datetime.now().astimezone(), None, armed=True)
    broken.write_text("kintsugi: 1\nname: nothing\n")
    command = [sys.executable, "-m", "workflows.cli", "schedule", "work", "--once", "--queue", str(file)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    (entry,) = queue.entries(all_=True)
    assert entry.state is NightState.MISSED
    assert "instrument" in entry.why
