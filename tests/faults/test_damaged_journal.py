"""A run whose journal is garbage, and whose copy is a slice behind, goes on and fires nothing twice."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.end_to_end.test_first_run import end_server
from workflows.journal import Journal, copies
from workflows.store import RunFolder

RECIPE = Path(__file__).parent / "tiny.yaml"
DEADLINE_S = 240.0


def kintsugi(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "workflows.cli", *map(str, arguments)]


def fired(folder: RunFolder) -> Counter[str]:
    """How often the server's ledger has the start of each act."""
    lines = (folder.instrument / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    values = [json.loads(line) for line in lines]
    return Counter(one["id"] for one in values if one["event"] == "start" and "#" in one["id"])


@pytest.mark.slow
def test_a_run_goes_on_from_a_copy_that_is_a_slice_behind(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "RUN")
    newest, older = copies(folder.journal)
    command = kintsugi("dry-run", RECIPE, "--out", folder.root, "--model", "none")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + DEADLINE_S
        while len(folder.slice_names()) < 3 and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(folder.slice_names()) == 3
        process.kill()
    try:
        before = fired(folder)
        folder.journal.with_name("journal.sqlite-wal").unlink()
        folder.journal.write_bytes(b"garbage" * 1000)
        shutil.copy(older, newest)
        with Journal(newest, read_only=True) as copy:
            behind = len(copy.acts())
        resumed = subprocess.run(kintsugi("resume", folder.root), capture_output=True, text=True, timeout=DEADLINE_S)
        assert resumed.returncode == 0, resumed.stderr
        assert f"made again with {behind} acts" in resumed.stderr
        after = fired(folder)
        assert set(before) < set(after)
        assert max(after.values()) == 1
        assert all(one.endswith("#1") for one in after)
        with Journal(folder.journal, read_only=True) as journal:
            assert len(journal.events(kind="ledger")[0].data["missing"]) > 0
            assert {act.action_id for act in journal.acts()} >= set(after)
        assert len(folder.slice_names()) == 5
    finally:
        if folder.server.exists():
            end_server(folder.server)
