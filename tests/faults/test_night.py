"""A run that is killed is resumed by its supervisor, without anybody's help."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from instrument.durable import FileLock
from tests.faults import strike
from tests.faults.trial import RECIPE, Strike, doomed, end_server
from workflows.journal import Journal
from workflows.store import RunFolder

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="/proc and POSIX signals"), pytest.mark.timeout(300)]


@pytest.mark.slow
def test_killed_and_resumed_by_itself(tmp_path: Path) -> None:
    root = tmp_path / "RUN"
    env = doomed(Strike("server", "slice/0002/cut-1@started"), root)
    command = [sys.executable, "-m", "workflows.cli", "night", str(RECIPE), "--model", "none", "--out", str(root)]
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, env=env)
    finally:
        end_server(root)
    assert strike.struck(root).exists()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    folder = RunFolder.open(root)
    assert folder.slice_names() == [f"s{k:04d}" for k in range(1, 6)]
    with Journal(folder.journal, read_only=True) as journal:
        verdicts = [event.data["verdict"] for event in journal.events(kind="night")]
        messages = [event.data["title"] for event in journal.events(kind="message")]
    assert verdicts == ["resume", "done"]
    assert any("resumes (1)" in title for title in messages)
    assert json.loads((root / "heartbeat.json").read_text())["state"] == "done"


@pytest.mark.slow
def test_a_run_outlives_its_line_and_its_supervisor_and_is_looked_after_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "RUN")
    night = [sys.executable, "-m", "workflows.cli", "night"]
    begin = [*night, str(RECIPE), "--model", "none", "--out", str(folder.root)]
    try:
        with subprocess.Popen(begin, stdout=subprocess.PIPE) as first:
            wait_for(lambda: folder.supervised and states(folder) == ["running"])
            first.send_signal(signal.SIGHUP)
            assert first.stdout is not None
            first.stdout.close()  # what the run prints from now on, nobody reads
            wait_for(lambda: bool(folder.slice_names()))
            assert first.poll() is None
            first.kill()
        assert FileLock.is_held(folder.lock), "the run went with its supervisor"
        ended = subprocess.run([*night, str(folder.root)], capture_output=True, text=True, timeout=200, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert states(folder) == ["running", "done"]
    finally:
        end_server(folder.root)


def states(folder: RunFolder) -> list[str]:
    """Return the states of a run so far; none while there is no run."""
    if not RunFolder.is_run(folder.root):
        return []
    with Journal(folder.journal, read_only=True) as journal:
        return [str(event.data["to"]) for event in journal.events(kind="state")]


def wait_for(come: Callable[[], bool]) -> None:
    """Wait until something has come about; a failure after two minutes."""
    ends, pause = time.monotonic() + 120.0, threading.Event()
    while not come():
        assert time.monotonic() < ends
        pause.wait(0.1)
