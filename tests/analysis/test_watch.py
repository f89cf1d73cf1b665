"""Labels made elsewhere: orders and answers in a shared folder, whoever dies in between."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from analysis.core import SegmentationCore
from analysis.watch import ORDERS, orders, pending, work
from tests.analysis.test_follow import ROOT, run_with_slices

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def core(small_model: Path) -> SegmentationCore:
    return SegmentationCore(small_model)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return run_with_slices(tmp_path / "RUN")


def asking(run: Path, order: dict[str, object]) -> subprocess.Popen[str]:
    """Start the run's side and give it an order; wait until the order lies in the folder."""
    process = subprocess.Popen(
        [sys.executable, "-m", "analysis.elsewhere", "--out-labels", str(run / "labels")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == {"ready": True, "model_id": "elsewhere"}
    process.stdin.write(json.dumps(order) + "\n")
    process.stdin.flush()
    return process


def await_order(run: Path) -> None:
    deadline, pause = time.monotonic() + 60, threading.Event()
    while not orders(run):
        assert time.monotonic() < deadline, "no order came"
        pause.wait(0.02)


def answers(core: SegmentationCore, run: Path) -> list[dict[str, object]]:
    """Work until an order was answered, as `follow` does."""
    await_order(run)
    return list(work(core, run, set(), fillable_m=1.2e-6))


def test_an_order_is_answered_and_both_are_gone(core: SegmentationCore, run: Path) -> None:
    path = run / "slices" / "s0001.ome.tif"
    process = asking(run, {"name": "s0001", "path": str(path), "fillable_m": 1.2e-6, "before": str(path)})
    assert [told["name"] for told in answers(core, run)] == ["s0001", "s0002"]
    out, _ = process.communicate(timeout=60)
    told = json.loads(out)
    assert told["labels"] == str(run / "labels" / "s0001.tif")
    assert told["numbers"]["beside"] == ["before"]
    assert (run / "labels" / "s0001.tif").exists()
    assert not list((run / "labels" / ORDERS).iterdir())
    assert process.returncode == 0


def test_final_labels_are_ordered_apart(core: SegmentationCore, run: Path) -> None:
    list(work(core, run, set(), fillable_m=1.2e-6))
    process = asking(run, {"name": "s0001", "path": str(run / "slices" / "s0001.ome.tif"), "final": True})
    answers(core, run)
    out, _ = process.communicate(timeout=60)
    assert json.loads(out)["labels"] == str(run / "labels" / "final" / "s0001.tif")


def test_an_order_outlives_who_gave_it_and_one_that_fails_is_told(core: SegmentationCore, run: Path) -> None:
    process = asking(run, {"name": "s0009", "path": str(run / "slices" / "s0009.ome.tif")})
    await_order(run)
    process.kill()
    process.communicate(timeout=60)
    assert [path.name for path in orders(run)] == ["s0009.order.json"]
    again = asking(run, {"name": "s0009", "path": str(run / "slices" / "s0009.ome.tif")})
    assert answers(core, run)[0]["error"]
    out, _ = again.communicate(timeout=60)
    assert json.loads(out)["labels"] is None
    assert "s0009" in json.loads(out)["error"]


def test_a_relay_ends_with_who_started_it(run: Path) -> None:
    process = asking(run, {"name": "s0001", "path": str(run / "slices" / "s0001.ome.tif")})
    await_order(run)
    out, _ = process.communicate(timeout=60)
    assert json.loads(out)["error"] == "nobody asks any more"
    assert process.returncode == 0
    assert orders(run)  # it stands


def test_an_order_for_what_lies_outside_the_run_is_answered_with_its_error(run: Path, tmp_path: Path) -> None:
    process = asking(run, {"name": "s0001", "path": str(tmp_path / "other.ome.tif")})
    out, _ = process.communicate(timeout=60)
    assert "ValueError" in json.loads(out)["error"]


def test_slices_that_nobody_ordered_are_caught_up_with(core: SegmentationCore, run: Path) -> None:
    (run / "slices" / "s0003.ome.tif").write_bytes(b"torn")
    assert pending(run) == ["s0001", "s0002", "s0003"]
    told = list(work(core, run, set(), fillable_m=1.2e-6))
    assert [(one["name"], one["error"] is None) for one in told] == [("s0001", True), ("s0002", True), ("s0003", False)]
    assert pending(run) == ["s0003"]
    assert list(work(core, run, {"s0003"}, fillable_m=1.2e-6)) == []  # it is not tried for ever
    (run / "labels" / "s0002.json").unlink()
    assert list(work(core, run, set(), fillable_m=1.2e-6, ordering=True)) == []  # the run orders it itself
