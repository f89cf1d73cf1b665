"""The command: exit codes, one sentence per problem, quick to start."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from instrument.durable import FileLock
from instrument.errors import DeviceFault, Refused
from workflows import cli
from workflows.acts import Held, Interrupted
from workflows.journal import Journal
from workflows.store import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path / "RUN")
    made.write_recipe("kintsugi: 1\n")
    with Journal.create(made.journal, run_id="r1", instrument={"virtual": True}) as journal:
        journal.note("state", {"to": "running"})
        journal.note("step", "slice")
        journal.intend("slice/0001/mill", "mill", {})
    return made


def test_status_of_a_run_whose_process_is_gone(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run_command(["status", str(folder.root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["state"] == "interrupted"
    assert found["unsettled"] == ["slice/0001/mill"]
    assert found["step"] == "slice"
    assert cli.run_command(["status", str(folder.root)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("VIRTUAL")
    assert "kintsugi resume" in out


def test_stop_asks_only_a_run_that_runs(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run_command(["stop", str(folder.root)]) == 0
    assert "nothing runs" in capsys.readouterr().out
    assert folder.asked() is None
    with FileLock(folder.lock):
        assert cli.run_command(["stop", str(folder.root), "--now"]) == 0
        asked = folder.asked()
        assert asked is not None
        assert (asked.what, asked.after) == ("stop", "now")
        assert cli.run_command(["pause", str(folder.root), "--after", "fill"]) == 0
        assert cli.run_command(["stop", str(folder.root), "--after", "lunch"]) == 2
    assert "cut, slice or fill" in capsys.readouterr().err


def test_what_can_not_be_asked_or_noted_is_said_of_a_run_that_is_over_too(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("stop", "pause"):
        assert cli.run_command([command, str(folder.root), "--after", "lunch"]) == 2
    assert capsys.readouterr().err.count("cut, slice or fill") == 2
    for text in ("", "  "):
        assert cli.run_command(["note", str(folder.root), text]) == 2
    assert capsys.readouterr().err.count("the note is empty") == 2
    with Journal(folder.journal, read_only=True) as journal:
        assert journal.events(kind="note") == []


def test_a_night_between_two_processes_is_asked_as_well(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    with FileLock(folder.night):
        assert cli.run_command(["stop", str(folder.root)]) == 0
    assert "asked the run" in capsys.readouterr().out
    assert folder.asked() is not None


@pytest.mark.parametrize(
    ("state", "by", "supervised", "asked"),
    [
        ("done", "its own", False, False),
        ("stopped", "its own", True, False),
        ("failed", "its own", False, False),
        ("failed", "its own", True, True),  # its night resumes it
        ("stopped", "who resumes it", False, True),
        ("running", "its own", False, True),
    ],
)
def test_a_run_past_its_end_is_asked_for_nothing(
    state: str, by: str, *, supervised: bool, asked: bool, folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with Journal(folder.journal) as journal:
        journal.note("state", {"to": "running", "pid": os.getpid() if by == "its own" else os.getpid() + 1})
        if state != "running":
            journal.note("state", {"to": state})
    with ExitStack() as locks:
        locks.enter_context(FileLock(folder.lock))
        if supervised:
            locks.enter_context(FileLock(folder.night))
        assert cli.run_command(["stop", str(folder.root)]) == 0
        said = capsys.readouterr().out
        assert cli.run_command(["status", str(folder.root)]) == 0
    assert ("nothing left to stop" in said) is not asked
    assert (folder.asked() is not None) is asked
    assert ("results are being made" in capsys.readouterr().out) is (by == "its own" and state != "running")


def test_a_journal_that_can_not_be_read_keeps_nobody_from_a_stop(folder: RunFolder) -> None:
    folder.journal.write_bytes(b"no journal" * 1000)
    with FileLock(folder.lock):
        assert cli.run_command(["stop", str(folder.root), "--now"]) == 0
    assert folder.asked() is not None


def test_a_note_is_kept(folder: RunFolder) -> None:
    assert cli.run_command(["note", str(folder.root), "stigmator looked off"]) == 0
    with Journal(folder.journal, read_only=True) as journal:
        assert [event.data for event in journal.events(kind="note")] == ["stigmator looked off"]


@pytest.mark.parametrize(
    "arguments",
    [["nonsense"], ["status"], ["status", "/no/run/here"], ["stop"], ["export", "x", "--to", "png"], ["--x"]],
)
def test_what_is_wrong_is_one_sentence_and_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run_command(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("kintsugi: ")
    assert "Traceback" not in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Refused("the film is too dense"), 2),
        (Interrupted("stopped on request"), 3),
        (DeviceFault("the ion source is off"), 4),
        (OSError(5, "Input/output error", "/x"), 4),
        (OSError(28, "No space left on device", "/x"), 5),
        (RuntimeError("surprise"), 4),
        (Held("look at this"), 5),
    ],
)
def test_exit_codes(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_folder: object) -> None:
        raise error

    monkeypatch.setattr("workflows.store.RunFolder.open", fail)
    assert cli.run_command(["status", "x"]) == code
    assert "Traceback" not in capsys.readouterr().err
    assert cli.run_command(["--debug", "status", "x"]) == code
    assert "Traceback" in capsys.readouterr().err


def test_a_shadowed_package_stops_everything(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.shadowed() == ""
    monkeypatch.setattr(cli, "PACKAGES", ("json",))
    assert cli.run_command(["status", "x"]) == 2
    assert "'json'" in capsys.readouterr().err


def test_help_needs_nothing_heavy() -> None:
    code = (
        "import sys; from workflows import cli; code = cli.run_command(['--help']); "
        "heavy = {'torch', 'scipy', 'numpy', 'zarr', 'skimage', 'Pyro5', 'tifffile', 'ruamel'} & set(sys.modules); "
        "sys.exit(1 if heavy or code else 0)"
    )
    root = Path(cli.__file__).parent.parent
    result = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "resume" not in result.stderr
