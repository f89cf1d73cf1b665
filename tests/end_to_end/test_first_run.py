"""The whole method from one command, on a small virtual block: run, killed in the middle, resumed, measured."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from instrument.frame import Frame
from instrument.process import film_yield
from instrument.settings import PatternJob
from simulator.milling import true_rates
from workflows.journal import Journal
from workflows.results import fills
from workflows.store import RunFolder

SMALL = Path(__file__).parent / "small.yaml"
SLICES, SEED, FILM_M = 8, 11, 1.5e-6  # of the recipe
DEADLINE_S = 280.0
pytestmark = pytest.mark.timeout(600)


def kintsugi(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workflows.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)


def wait_for(done: Any, seconds: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + seconds
    pause = threading.Event()
    while not done():
        assert time.monotonic() < deadline, "it did not come in time"
        pause.wait(0.05)


def end_server(place: Path) -> None:
    """End the server that wrote this server.json, which would linger for ten minutes."""
    if not place.exists():
        return
    pid = int(json.loads(place.read_text())["pid"])
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not place.exists(), 60.0)


@pytest.fixture(scope="module")
def resumed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFolder]:
    """A run whose process was killed while the fourth slice was made, and that was resumed."""
    out = tmp_path_factory.mktemp("runs") / "RUN"
    command = [sys.executable, "-m", "workflows.cli", "run", str(SMALL), "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT) as process:
        try:
            wait_for(lambda: (out / "slices" / "s0004.ome.tif").exists() or process.poll() is not None)
            assert process.poll() is None, "it ended before it could be killed"
        finally:
            process.kill()
    folder = RunFolder.open(out)
    try:
        status = json.loads(kintsugi("status", out, "--json").stdout)
        assert status["state"] == "interrupted"
        ended = kintsugi("resume", out)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert str(folder.summary) in ended.stdout
        yield folder
    finally:
        end_server(folder.server)


def test_every_slice_exactly_once(resumed: RunFolder) -> None:
    names = [f"s{k:04d}" for k in range(1, SLICES + 1)]
    assert resumed.slice_names() == resumed.label_names() == names
    summary = resumed.read_summary()
    assert summary["slices_acquired"] == summary["slices_labelled"] == SLICES
    assert "VIRTUAL" in summary
    assert summary["unsettled"] == []
    assert summary["interlock_refusals"] == 0
    frames = [Frame.load(resumed.frame_path("slices", name)) for name in names]
    assert len({frame.meta.uid for frame in frames}) == SLICES
    assert all(frame.meta.channels == ("CBS", "TLD") for frame in frames)


def test_nothing_was_milled_twice(resumed: RunFolder) -> None:
    ledger = [json.loads(line) for line in (resumed.instrument / "ledger.jsonl").read_text().splitlines()]
    started = [line["id"] for line in ledger if line["event"] == "start"]
    assert len(started) == len(set(started))
    with Journal(resumed.journal, read_only=True) as journal:
        cuts = [act for act in journal.acts("slice/") if "/cut-" in act.key]
    assert len(cuts) == 2 * SLICES
    assert all(act.result["fraction"] == pytest.approx(1.0) for act in cuts)
    z = np.array([row["z_m"] for row in resumed.read_summary()["slices"]])
    refilled = {row["after_slice"] for row in resumed.read_summary()["fills"]}
    steps = [step for k, step in enumerate(np.diff(z), start=1) if k not in refilled]
    assert np.mean(steps) == pytest.approx(50e-9, rel=0.35)


def test_the_loop_filled_again_by_itself(resumed: RunFolder) -> None:
    summary = resumed.read_summary()
    assert summary["infiltrations"] == 2
    assert [row["name"] for row in summary["fills"]] == ["infiltrate", "refill-01"]
    fired = [row for row in summary["decisions"] if row["fill"]]
    assert len(fired) == 1
    assert fired[0]["value"] > fired[0]["threshold"]
    with Journal(resumed.journal, read_only=True) as journal:
        assert fills(journal.acts()) == ["infiltrate", "refill-01"]


def test_films_are_dosed_by_what_the_cap_s_height_says_of_their_growth(resumed: RunFolder) -> None:
    with Journal(resumed.journal, read_only=True) as journal:
        acts = {act.key: act for act in journal.acts()}
    found, film, cap = (acts[key] for key in ("block/growth", "infiltrate/round-1/film", "protect/first"))
    growth = found.result["growth"]
    assert growth == pytest.approx(true_rates(SEED).film_factor, abs=0.07)
    for act, times, thickness in ((cap, 1.0, 0.5 * found.result["planned_m"]), (film, growth, FILM_M)):
        job = PatternJob.model_validate(act.args)
        area = job.patterns[0].width_m * job.patterns[0].height_m
        grown = film_yield(job.beam, job.current_a / area, job.voltage_v, times)
        assert job.dose_c * grown / area == pytest.approx(thickness, rel=1e-6)
    assert any("films were dosed by that" in one for one in resumed.read_summary()["happenings"])


@pytest.mark.slow
def test_films_that_grow_slowly_are_found_out_and_given_more(tmp_path: Path) -> None:
    seed = 5
    assert true_rates(seed).film_factor < 0.85
    recipe = tmp_path / "slow.yaml"
    recipe.write_text(SMALL.read_text().replace("simulator:11", f"simulator:{seed}"))
    ended = kintsugi("run", recipe, "--until", "block", "--model", "none", "--out", tmp_path / "RUN")
    assert ended.returncode == 3, ended.stderr  # stopped as asked
    folder = RunFolder.open(tmp_path / "RUN")
    end_server(folder.server)
    with Journal(folder.journal, read_only=True) as journal:
        found = journal.find("block/growth")
    assert found is not None
    assert found.result["growth"] == pytest.approx(true_rates(seed).film_factor, abs=0.05)
    assert found.result["dose_factor"] > 1.2


@pytest.mark.slow
def test_a_focus_that_drifts_is_seen_and_found_again(tmp_path: Path) -> None:
    out = tmp_path / "RUN"
    ended = kintsugi("run", SMALL, "--model", "none", "--fault", "focus-drift@10790s", "--out", out)  # within slice 5
    assert ended.returncode == 0, ended.stderr
    folder = RunFolder.open(out)
    end_server(folder.server)
    rows = folder.read_summary()["slices"]
    assert [row["name"] for row in rows if any("blurred" in one for one in row["health"])] == ["s0005"]
    with Journal(folder.journal, read_only=True) as journal:
        detail = [act.result["detail"] for act in journal.acts("slice/") if act.key.endswith("/detail")]
    assert detail[4] < 0.78 * min(detail[:4])
    assert min(detail[5:]) > 0.95 * min(detail[:4])


@pytest.mark.slow
def test_a_cap_that_can_not_be_believed_is_a_person_s_to_judge(tmp_path: Path) -> None:
    recipe, out = tmp_path / "poor.yaml", tmp_path / "RUN"
    recipe.write_text(SMALL.read_text().replace("simulator:11?", "simulator:7?rates=50%&"))
    held = kintsugi("run", recipe, "--model", "none", "--out", out)
    assert held.returncode == 5
    assert "the cap is 1 um high and the model has 2.5 um" in held.stderr
    assert kintsugi("answer", out, "yes").returncode == 0
    resumed = kintsugi("resume", out, "--model", "none")
    folder = RunFolder.open(out)
    end_server(folder.server)
    assert resumed.returncode == 0, resumed.stderr
    assert any("a person let films have the model's dose" in one for one in folder.read_summary()["happenings"])


def test_labels_agree_with_the_truth(resumed: RunFolder) -> None:
    found = json.loads(kintsugi("measure", resumed.root, "--truth", "--json").stdout)
    assert found["slices"] == SLICES
    assert set(found["iou"]) == {"pore", "cbd", "active", "collector"}
    assert found["mean_iou"] > 0.6


def test_the_platinum_shows(resumed: RunFolder) -> None:
    below_cap = slice(90, None)
    before, after = (
        Frame.load(resumed.frame_path("pairs", f"infiltrate-{side}")).channel("CBS")[below_cap].astype(float)
        for side in ("before", "after")
    )
    bright = [(grey > 1.5 * np.median(grey)).mean() for grey in (before, after)]
    assert bright[1] > bright[0] + 0.015


def test_what_a_run_leaves(resumed: RunFolder) -> None:
    for path in (resumed.report, resumed.latest, resumed.index, resumed.volume, resumed.log, resumed.recipe):
        assert path.exists(), path
    page = resumed.report.read_text(encoding="utf-8")
    assert "VIRTUAL" in page
    assert "Without platinum CBD" in page
    maps = tifffile.imread(resumed.frame_path("eds", "s0002"))
    assert maps.shape[0] == 5
    assert maps.sum() > 0


def test_the_report_tells_what_people_said(resumed: RunFolder) -> None:
    assert kintsugi("note", resumed.root, "the door was open").returncode == 0
    assert kintsugi("mark", resumed.root, 3, "bad", "--why", "charging").returncode == 0
    ended = kintsugi("report", resumed.root)
    assert ended.returncode == 0, ended.stderr
    page = resumed.report.read_text(encoding="utf-8")
    assert "the door was open" in page
    assert "slice 3 was marked bad: charging" in page
    assert "marked bad: charging" in page.replace("slice 3 was marked bad: charging", "")


def test_labels_need_no_truth(resumed: RunFolder, tmp_path: Path) -> None:
    one = resumed.frame_path("slices", "s0001")  # the first: no slice before it had a part in its labels
    made = kintsugi("segment", one, "--quick", "--out", tmp_path)  # a run asks for no mirror image
    assert made.returncode == 0, made.stderr
    again = tifffile.imread(tmp_path / "labels" / "s0001.tif")
    assert np.array_equal(again, tifffile.imread(resumed.labels / "s0001.tif"))


def test_ctrl_c_stops_cleanly_and_resume_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "RUN"
    command = [sys.executable, "-m", "workflows.cli", "run", str(SMALL), "--out", str(out), "--without", "eds"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            wait_for(lambda: (out / "slices" / "s0001.ome.tif").exists() or process.poll() is not None)
            process.send_signal(signal.SIGINT)
            assert process.wait(60.0) == 3
        finally:
            process.kill()
    folder = RunFolder.open(out)
    try:
        status = json.loads(kintsugi("status", out, "--json").stdout)
        assert status["state"] == "stopped"
        from instrument.remote import attach

        with attach(folder.server) as remote:
            state = remote.state()
        assert state.electron.blanked
        assert state.ion.blanked
        assert not state.patterning
        assert not any(gas.valve_open for gas in state.gases.values())
        ended = kintsugi("resume", out, "--until", "slice")
        assert ended.returncode == 3, ended.stderr
        assert len(folder.slice_names()) == SLICES
    finally:
        end_server(folder.server)
