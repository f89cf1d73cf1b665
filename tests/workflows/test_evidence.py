"""Frames handed over once, with what lies beside them; final labels asked for where they can be better."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from analysis.core import UNFAMILIAR
from instrument.frame import FrameRef
from workflows.evidence import Labels, unfamiliar
from workflows.follower import ELSEWHERE, Follower, core_command
from workflows.store import RunFolder

FAKE = Path(__file__).parent / "fake_core.py"


def ref(name: str) -> FrameRef:
    return FrameRef(
        name=f"slices/{name}.ome.tif", uid=name, sha256=name[-1] * 64, size_bytes=1, started_s=0.0, seconds=1.0,
        channels=("CBS",), shape=(1, 4, 4),
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "RUN")


@pytest.fixture
def orders(folder: RunFolder, tmp_path: Path) -> Path:
    return tmp_path / "orders"


def asked(orders: Path) -> list[dict[str, str]]:
    """What a core was asked, paths by name."""
    return [
        {key: Path(value).name if isinstance(value, str) else value for key, value in json.loads(line).items()}
        for line in orders.read_text().splitlines()
    ]


def test_a_frame_is_handed_over_once_with_the_one_before(folder: RunFolder, orders: Path, tmp_path: Path) -> None:
    follower = Follower([sys.executable, str(FAKE), "--keep", str(orders)], log_file=tmp_path / "core.log")
    follower.start()
    labels = Labels(folder, follower, 1e-6)
    labels.submit("s0001", ref("s0001"))
    labels.submit("s0002", ref("s0002"), ref("s0001"))
    labels.submit("s0002", ref("s0002"), ref("s0001"))
    labels.finish("s0001", ref("s0001"), None, ref("s0002"))
    labels.finish("s0009", ref("s0009"), None, None)  # there is nothing beside it: the live labels are the best
    assert follower.close(20) == []
    told = [{k: v for k, v in one.items() if k != "fillable_m"} for one in asked(orders)]
    assert told == [
        {"name": "s0001", "path": "s0001.ome.tif"},
        {"name": "s0002", "path": "s0002.ome.tif", "before": "s0001.ome.tif"},
        {"name": "s0001", "path": "s0001.ome.tif", "after": "s0002.ome.tif", "final": True},
    ]


def test_final_labels_are_made_again_only_when_more_lies_beside(
    folder: RunFolder, orders: Path, tmp_path: Path
) -> None:
    final = folder.labels / "final"
    final.mkdir()
    (final / "s0002.json").write_text(json.dumps({"frame_sha256": "2" * 64, "beside": ["before"]}))
    assert folder.label_path("s0002") == final / "s0002.tif"
    assert folder.label_path("s0001") == folder.labels / "s0001.tif"
    follower = Follower([sys.executable, str(FAKE), "--keep", str(orders)], log_file=tmp_path / "core.log")
    follower.start()
    labels = Labels(folder, follower, 1e-6)
    labels.finish("s0002", ref("s0002"), ref("s0001"), None)
    labels.finish("s0002", ref("s0002"), ref("s0001"), ref("s0003"))
    assert follower.close(20) == []
    assert [one["after"] for one in asked(orders)] == ["s0003.ome.tif"]


def test_labels_of_what_the_network_does_not_know_are_no_evidence() -> None:
    assert not unfamiliar({"novelty": 0.9 * UNFAMILIAR})
    assert unfamiliar({"novelty": 1.1 * UNFAMILIAR})
    assert not unfamiliar({"novelty": None})
    assert not unfamiliar({})  # of an older model


def test_labels_of_detectors_that_show_two_places_are_no_evidence() -> None:
    assert unfamiliar({"novelty": 0.1, "elsewhere": ["TLD"]})
    assert not unfamiliar({"novelty": 0.1, "elsewhere": ["before TLD", "after ETD"]})
    assert not unfamiliar({"novelty": 0.1, "elsewhere": []})


def test_a_core_elsewhere_is_another_process() -> None:
    command = core_command(ELSEWHERE, Path("labels"))
    assert command[1:] == ["-m", "analysis.elsewhere", "--out-labels", "labels"]
