"""A run that is killed is resumed by its supervisor, without anybody's help."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
