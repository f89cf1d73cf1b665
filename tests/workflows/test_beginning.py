"""What a night is begun with is refused by whoever asks for it; a run that is there is gone on with where it can be."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from analysis.model import WEIGHTS
from instrument.durable import FileLock
from instrument.errors import Refused
from instrument.hydra import hydra
from tests.instrument.values import state
from workflows import beginning, night, preflight, worker
from workflows.beginning import goes_on, known_model, known_watcher
from workflows.cli import run_command
from workflows.journal import Journal
from workflows.recipe import at_most, dump, load
from workflows.schedule import NightState, Queue
from workflows.store import RunFolder

RECIPES = Path(__file__).parents[2] / "workflows" / "recipes"
FIRST, OVERNIGHT = RECIPES / "first-run.yaml", RECIPES / "overnight.yaml"
NOW = datetime.now().astimezone()


@pytest.fixture(autouse=True)
def ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instrument that is ready."""
    monkeypatch.setattr(preflight, "examined", lambda *_: (hydra().replace(virtual=True), state(), {}))


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(tmp_path / "nights.sqlite")


def a_run(root: Path, *states: str, images: int = 1000, url: str = "simulator:1") -> RunFolder:
    """A run of the first recipe that went through these states, armed for years."""
    folder = RunFolder.create(root)
    folder.write_recipe(dump(at_most(load(FIRST), images)))
    with Journal.create(folder.journal, url=url, armed_until="2999-01-01T00:00:00+00:00") as journal:
        for one in states:
            journal.note("state", {"to": one})
    return folder


def occupied(root: Path) -> None:
    root.mkdir()
    (root / "thesis.txt").write_text("years of work")


def damaged(root: Path) -> None:
    a_run(root, "running", "stopped").journal.write_bytes(b"no journal" * 1000)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (occupied, "not empty"),
        (lambda root: root.write_text("a file"), "is a file"),
        (lambda root: a_run(root, "running", "done"), "is done already"),
        (damaged, "can't be read"),
    ],
    ids=["occupied", "a file", "done", "damaged"],
)
@pytest.mark.parametrize("command", [["schedule", "add"], ["night"]])
def test_a_folder_that_no_night_can_use_is_refused_by_evening(
    command: list[str],
    make: Callable[[Path], object],
    says: str,
    tmp_path: Path,
    queue: Queue,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make(tmp_path / "RUN")
    arguments = [*command, str(FIRST), "--out", str(tmp_path / "RUN"), "--queue", str(queue.path)]
    assert run_command(arguments) == 2
    said = capsys.readouterr().err.replace("\n", " ")
    assert says in said
    assert "another" in said or "new folder" in said or "doesn't exist" in said
    assert queue.entries(all_=True) == []


def test_a_folder_below_a_file_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Refused, match="file is a file"):
        goes_on(tmp_path / "file" / "RUN", load(FIRST))


@pytest.mark.parametrize(
    "states", [(), ("running", "stopped"), ("running", "held"), ("running", "failed"), ("running",)]
)
def test_a_run_that_can_go_on_is_gone_on_with(states: tuple[str, ...], tmp_path: Path) -> None:
    recipe = load(FIRST)
    folder = a_run(tmp_path / "RUN", *states, images=5)
    assert goes_on(folder.root, recipe)
    assert not goes_on(tmp_path / "NEW", recipe)
    with pytest.raises(Refused, match="of another recipe"):
        goes_on(folder.root, load(OVERNIGHT))
    with FileLock(folder.lock), pytest.raises(Refused, match="is being worked on"):
        goes_on(folder.root, recipe)


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--model", "nonsense", "holds no model"),
        ("--model", "", "--model ''"),
        ("--restarts", "-3", "--restarts"),
        ("--watcher", "foo", "http://"),
        ("--watcher", "ftp://host/file", "http://"),
        ("--watcher", "https:///path", "names a host"),
        ("--instrument", "microscope://hydra", "no instrument backend"),
    ],
)
@pytest.mark.parametrize("command", [["schedule", "add"], ["night"]])
def test_what_no_night_can_be_begun_with_is_refused_by_evening(
    command: list[str],
    option: str,
    value: str,
    says: str,
    tmp_path: Path,
    queue: Queue,
    capsys: pytest.CaptureFixture[str],
) -> None:
    more = ["--offline", "--queue", str(queue.path)]
    assert run_command([*command, str(FIRST), "--out", str(tmp_path / "RUN"), option, value, *more]) == 2
    assert says in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "RUN").exists()
    assert queue.entries(all_=True) == []


def test_a_run_does_not_begin_or_go_on_with_a_model_that_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(["run", str(FIRST), "--out", str(tmp_path / "RUN"), "--model", "nonsense"]) == 2
    assert not (tmp_path / "RUN").exists()
    folder = a_run(tmp_path / "RUN", "running", "stopped")
    assert run_command(["resume", str(folder.root), "--model", "nonsense"]) == 2
    assert capsys.readouterr().err.count("holds no model") == 2


def test_a_model_is_found_wherever_a_night_is_worked_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [known_model(word) for word in ("package", "none", "elsewhere")] == ["package", "none", "elsewhere"]
    monkeypatch.chdir(WEIGHTS.parent)
    assert known_model(WEIGHTS.name) == str(WEIGHTS)
    for name in ("card.json", "weights.safetensors"):
        (tmp_path / name).write_bytes((WEIGHTS / name).read_bytes())
    with (tmp_path / "weights.safetensors").open("r+b") as file:
        file.seek(1000)
        file.write(b"\0\1\2\3")
    with pytest.raises(Refused, match="SHA-256 differs"):
        known_model(str(tmp_path))
    assert known_watcher("https://hc.example/ping/1") == "https://hc.example/ping/1"
    assert known_watcher("") == ""


class Begun(night.Night):
    """A night whose process would be begun with these arguments; it ends at once."""

    arguments: tuple[str, ...] = ()

    def _process(self, arguments: object) -> int:
        Begun.arguments = tuple(arguments)  # type: ignore[arg-type]
        with Journal(RunFolder(self._folder).journal) as journal:
            journal.note("state", {"to": "running"})
            journal.note("state", {"to": "done"})
        return 0


@pytest.mark.parametrize(
    ("armed", "late_h", "why"), [(True, 0.0, ""), (False, 0.0, "nobody has armed it"), (True, 1.5, "late")]
)
def test_a_run_that_waits_in_the_queue_needs_what_a_new_one_needs(
    armed: bool, late_h: float, why: str, queue: Queue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "Night", Begun)
    monkeypatch.setattr(Begun, "arguments", ())
    folder = a_run(tmp_path / "RUN", "running", "stopped", url="pyro://hydra:4711?token_file=T")
    with Journal(folder.journal) as journal:  # a night ago; whoever adds it anew arms it anew
        journal.set_meta("armed_until", "2020-01-01T00:00:00+00:00")
    entry = queue.add(FIRST, folder.root, NOW, NOW + timedelta(hours=10), armed=armed)
    worker.begin(queue, entry, NOW + timedelta(hours=late_h), threading.Event())
    (kept,) = queue.entries(all_=True)
    if why:
        assert (kept.state, Begun.arguments) == (NightState.MISSED, ())
        assert why in kept.why
    else:
        assert (kept.state, Begun.arguments) == (NightState.DONE, ("resume", str(folder.root)))


def test_a_run_that_is_done_by_the_time_its_night_begins_is_missed(queue: Queue, tmp_path: Path) -> None:
    entry = queue.add(FIRST, tmp_path / "RUN", NOW, None, armed=True)
    a_run(tmp_path / "RUN", "running", "done")
    worker.begin(queue, entry, NOW, threading.Event())
    (kept,) = queue.entries(all_=True)
    assert kept.state is NightState.MISSED
    assert "is done already" in kept.why


def test_what_a_run_has_written_is_no_lack_of_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginning, "free_bytes", lambda _place: 100)
    folder = a_run(tmp_path / "RUN", "running", "stopped")
    (folder.slices / "s0001.ome.tif").write_bytes(b"\0" * 900)
    assert beginning.room_bytes(folder.root) >= 1000
    assert beginning.room_bytes(tmp_path / "NEW") == 100
