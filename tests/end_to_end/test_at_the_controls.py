"""What a person asks of a run in its evening is done, once, and told in the morning."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.every_fault import AT_S
from tests.faults.trial import RECIPE, end_server
from workflows.journal import Journal
from workflows.store import RunFolder
from workflows.terminal import DONE, HELD, STOPPED

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


@pytest.mark.slow
def test_what_another_hand_turns_at_the_screen_holds_the_run_until_a_person_says_what_becomes_of_it(
    tmp_path: Path,
) -> None:
    root = tmp_path / "RUN"
    try:
        kintsugi("run", RECIPE, "--model", "none", "--fault", f"knob-turned@{AT_S}s", "--out", root, code=HELD)
        kintsugi("resume", root, "--model", "none", "--restore")
    finally:
        end_server(root)
    with Journal(RunFolder.open(root).journal, read_only=True) as journal:
        (held,) = [event.data for event in journal.events(kind="state") if event.data["to"] == "held"]
        (back,) = [event.data for event in journal.events(kind="taken back")]
    assert held["symptom"] == "another-hand"
    assert back["choice"] == "restore"
    for name in ("working distance", "stigmator x", "shift x"):
        assert f"electron beam, {name}: " in held["why"]
        assert any(one.startswith(f"electron beam, {name}: ") for one in back["changes"])
