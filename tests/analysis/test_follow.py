"""The core's process, spoken to as a run speaks to it."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from analysis.core import SliceNumbers
from tests.analysis.drawn import drawn

ROOT = Path(__file__).parents[2]


def save(path: Path, seed: int = 0, names: tuple[str, ...] = ("CBS", "TLD"), pixel_um: float | None = 0.06) -> Path:
    sample = drawn(seed, (96, 128))
    pixels = np.stack([np.rint(sample.channels[name] * 65535).astype(np.uint16) for name in names])
    meta: dict[str, Any] = {"axes": "CYX", "Channel": {"Name": list(names)}}
    if pixel_um is not None:
        meta |= {"PhysicalSizeX": pixel_um, "PhysicalSizeY": pixel_um}
        meta |= {"PhysicalSizeXUnit": "µm", "PhysicalSizeYUnit": "µm"}
    tifffile.imwrite(path, pixels, ome=True, photometric="minisblack", metadata=meta)
    return path


def run_with_slices(root: Path, count: int = 2) -> Path:
    """Make a run's folder with so many slices and no labels."""
    (root / "slices").mkdir(parents=True)
    (root / "labels").mkdir()
    for k in range(1, count + 1):
        save(root / "slices" / f"s{k:04d}.ome.tif", seed=k)
    return root


class Core:
    """The process and the lines that go in and out."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "analysis.follow", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            cwd=ROOT,
        )

    def hear(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        message: dict[str, Any] = json.loads(self.process.stdout.readline())
        return message

    def ask(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        return self.hear()

    def label(self, name: str, path: Path) -> dict[str, Any]:
        return self.ask(json.dumps({"name": name, "path": str(path), "fillable_m": 1.2e-6}))

    def end(self) -> int:
        self.process.communicate(timeout=60)
        return self.process.returncode


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "labels"


@pytest.fixture
def core(small_model: Path, folder: Path) -> Iterator[Core]:
    made = Core("--model", str(small_model), "--out-labels", str(folder))
    yield made
    made.process.kill()
    made.process.wait(timeout=60)
    for pipe in (made.process.stdin, made.process.stdout, made.process.stderr):
        if pipe is not None:
            pipe.close()


def test_it_says_ready_labels_and_ends_with_its_input(core: Core, folder: Path, tmp_path: Path) -> None:
    ready = core.hear()
    assert ready["ready"] is True
    assert ready["model_id"].startswith("kintsugi-unet-")
    frame = save(tmp_path / "s0001.ome.tif")
    answer = core.label("s0001", frame)
    assert answer["error"] is None
    assert answer["labels"] == str(folder / "s0001.tif")
    numbers = SliceNumbers.model_validate(answer["numbers"])
    assert numbers == SliceNumbers.model_validate_json((folder / "s0001.json").read_bytes())
    assert numbers.frame_sha256 == hashlib.sha256(frame.read_bytes()).hexdigest()
    assert numbers.labels_sha256 == hashlib.sha256((folder / "s0001.tif").read_bytes()).hexdigest()
    assert numbers.pixel_m == pytest.approx(60e-9)
    assert numbers.model_id == ready["model_id"]
    labels = tifffile.imread(folder / "s0001.tif")
    confidence = tifffile.imread(folder / "s0001-confidence.tif")
    assert labels.shape == confidence.shape == (96, 128)
    assert labels.dtype == confidence.dtype == np.uint8
    assert labels.max() <= 4
    assert sorted(path.name for path in folder.iterdir()) == [
        "s0001-confidence.tif", "s0001-doubt.tif", "s0001.json", "s0001.tif",
    ]  # fmt: skip
    assert core.end() == 0


def test_a_slice_that_fails_is_answered_and_the_next_one_is_labelled(core: Core, folder: Path, tmp_path: Path) -> None:
    core.hear()
    (tmp_path / "torn.ome.tif").write_bytes(save(tmp_path / "s.ome.tif").read_bytes()[:3000])
    cases = {
        "gone": tmp_path / "gone.ome.tif",
        "torn": tmp_path / "torn.ome.tif",
        "unsized": save(tmp_path / "unsized.ome.tif", pixel_um=None),
        "unit": save(tmp_path / "unit.ome.tif", pixel_um=60.0),
    }
    for name, path in cases.items():
        answer = core.label(name, path)
        assert (answer["name"], answer["labels"], answer["numbers"]) == (name, None, None)
        assert answer["error"]
    assert "PhysicalSizeX" in core.label("unsized", cases["unsized"])["error"]
    assert "pixels of 60 um are no FIB-SEM's" in core.label("unit", cases["unit"])["error"]
    assert core.ask("no json")["error"]
    assert core.ask('{"name": "../escape", "path": "x"}')["error"]
    assert not list(folder.iterdir())
    assert core.label("s0002", save(tmp_path / "s0002.ome.tif"))["error"] is None


def test_the_same_slice_labelled_again_is_the_same_file(core: Core, folder: Path, tmp_path: Path) -> None:
    core.hear()
    frame = save(tmp_path / "s0001.ome.tif")
    first, second = (core.label("s0001", frame)["numbers"]["labels_sha256"] for _ in range(2))
    assert first == second


def test_one_detector_alone_is_labelled(core: Core, tmp_path: Path) -> None:
    core.hear()
    assert core.label("s0001", save(tmp_path / "s.ome.tif", names=("TLD",)))["error"] is None


def test_slices_beside_help_where_they_fit_and_final_labels_lie_apart(core: Core, folder: Path, tmp_path: Path) -> None:
    core.hear()
    this, before = save(tmp_path / "s0002.ome.tif"), save(tmp_path / "s0001.ome.tif", pixel_um=0.08)
    order = {"name": "s0002", "path": str(this), "before": str(this), "after": str(tmp_path / "gone.ome.tif")}
    live = core.label("s0002", this)["numbers"]
    final = core.ask(json.dumps(order | {"final": True}))
    assert final["labels"] == str(folder / "final" / "s0002.tif")
    assert final["numbers"]["beside"] == ["before"]
    assert SliceNumbers.model_validate_json((folder / "s0002.json").read_bytes()).model_dump(mode="json") == live
    assert core.ask(json.dumps(order | {"before": str(before)}))["numbers"]["beside"] == []


def test_without_a_model_it_ends_at_once_and_says_why(tmp_path: Path) -> None:
    core = Core("--model", str(tmp_path / "none"), "--out-labels", str(tmp_path / "labels"))
    out, errors = core.process.communicate(timeout=60)
    assert core.process.returncode == 2
    assert out == ""
    assert "holds no model" in errors


def test_a_listener_that_is_gone_ends_it_quietly(core: Core, tmp_path: Path) -> None:
    core.hear()
    assert core.process.stdout is not None
    assert core.process.stdin is not None
    core.process.stdout.close()
    line = json.dumps({"name": "s0001", "path": str(save(tmp_path / "s.ome.tif")), "fillable_m": 1.2e-6})
    core.process.stdin.write(line + "\n")
    core.process.stdin.close()
    assert core.process.stderr is not None
    errors = core.process.stderr.read()
    assert core.process.wait(timeout=60) == 0
    assert "Traceback" not in errors
