"""What a person asks of a run in its evening is done, once, and told in the morning."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.trial import RECIPE, end_server
from workflows.terminal import DONE, STOPPED

pytestmark = pytest.mark.timeout(300)


def kintsugi(*arguments: object, code: int = DONE) -> str:
    command = [sys.executable, "-m", "workflows.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Path]:
    """A run that waits before its first slice; its recipe fills after image 3 whatever labels say."""
    root = tmp_path / "RUN"
    kintsugi("run", RECIPE, "--model", "none", "--until", "infiltrate", "--out", root, code=STOPPED)
    yield root
    end_server(root)


@pytest.mark.slow
def test_a_skipped_fill_a_picture_and_a_later_end(run: Path) -> None:
    assert "skipped" in kintsugi("do", run, "skip")
    kintsugi("do", run, "image")
    kintsugi("set", run, "slice.until.images=4")
    kintsugi("resume", run, "--model", "none")
    found = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    assert found["slices_acquired"] == 4
    assert found["refills"] == 0
    outcomes = {row["after_slice"]: row for row in found["decisions"]}
    assert outcomes[3]["outcome"].startswith("skipped, as somebody asked: 3 images since the last fill")
    assert not outcomes[3]["fill"]
    assert "1 images since" in outcomes[4]["outcome"]  # it counts as one: the next is as far away as after any
    assert (run / "pairs" / "asked-0001.ome.tif").exists()
    told = " ".join(found["happenings"])
    assert "skip was asked for" in told
    assert "slice.until.images was set to 4" in told
