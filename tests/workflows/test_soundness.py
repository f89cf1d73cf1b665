"""Damaged pictures are set aside, told once, and worked around."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from instrument.frame import reference
from tests.workflows.frames import frame
from workflows import cli, soundness
from workflows.happenings import happenings
from workflows.journal import Journal
from workflows.results import slices, summarise
from workflows.soundness import set_aside_damaged
from workflows.store import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path / "RUN")
    with Journal.create(made.journal) as journal:
        for k in (1, 2, 3):
            one = frame(np.random.default_rng(k).integers(0, 255, (2, 12, 12), np.uint8), f"u{k}")
            path = made.frame_path("slices", f"s{k:04d}")
            one.save(path)
            key = f"slice/{k:04d}/image"
            journal.intend(key, "frame", {"file": made.relative(path)})
            journal.done(key, reference(one, path).replace(name=made.relative(path)).model_dump(mode="json"))
    return made


def flip(path: Path, count: int = 300) -> None:
    """Change bytes within a file, which keeps its size."""
    data = bytearray(path.read_bytes())
    for offset in range(len(data) - count, len(data)):
        data[offset] ^= 0xFF
    path.write_bytes(bytes(data))


def test_sound_pictures_are_left_alone(folder: RunFolder) -> None:
    with Journal(folder.journal) as journal:
        assert set_aside_damaged(folder, journal) == []
        assert len(slices(folder, journal)) == 3


def test_a_cut_short_and_a_missing_one_are_told_once(folder: RunFolder) -> None:
    os.truncate(folder.frame_path("slices", "s0002"), 100)
    folder.frame_path("slices", "s0003").unlink()
    with Journal(folder.journal) as journal:
        assert set_aside_damaged(folder, journal) == ["s0002.ome.tif", "s0003.ome.tif"]
        assert set_aside_damaged(folder, journal) == []
        assert [row["name"] for row in slices(folder, journal)] == ["s0001"]
        told = happenings(journal)
    assert folder.slice_names() == ["s0001"]
    assert (folder.slices / "damaged-1-s0002.ome.tif").stat().st_size == 100
    assert "set aside as damaged-1-s0002.ome.tif" in told[0]
    assert told[1].endswith("s0003.ome.tif was found damaged or missing")


def test_one_of_the_right_size_with_other_bytes_is_set_aside(
    folder: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    flip(folder.frame_path("slices", "s0003"))
    with Journal(folder.journal) as journal:
        assert set_aside_damaged(folder, journal) == ["s0003.ome.tif"]
        assert set_aside_damaged(folder, journal) == []
        summary = summarise(folder, journal)
    assert summary["slices_damaged"] == ["slices/s0003.ome.tif"]
    assert [row["name"] for row in summary["slices"]] == ["s0001", "s0002"]
    assert "slices/s0003.ome.tif was found damaged" in summary["happenings"][0]
    assert "another SHA-256" in caplog.text
    assert (folder.slices / "damaged-1-s0003.ome.tif").exists()


def test_pictures_are_read_once_unless_they_were_written_since(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    whole = soundness.sha256_of
    monkeypatch.setattr(soundness, "sha256_of", lambda path: read.append(path.name) or whole(path))
    with Journal(folder.journal) as journal:
        set_aside_damaged(folder, journal)
        set_aside_damaged(folder, journal)
        assert read == ["s0001.ome.tif", "s0002.ome.tif", "s0003.ome.tif"]
        path = folder.frame_path("slices", "s0002")
        before = path.stat().st_mtime_ns
        flip(path)
        os.utime(path, ns=(before + 1_000_000, before + 1_000_000))
        assert set_aside_damaged(folder, journal) == ["s0002.ome.tif"]
    assert read[3:] == ["s0002.ome.tif"]


def test_an_export_leaves_out_what_is_damaged(
    folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.write_recipe("kintsugi: 1\n")
    flip(folder.frame_path("slices", "s0002"))
    assert cli.run_command(["export", str(folder.root), "--out", str(tmp_path / "out")]) == 0
    assert "s0002.ome.tif is damaged" in capsys.readouterr().err
    voxels = (tmp_path / "out" / "voxels.txt").read_text()
    assert "s0003" in voxels
    assert "s0002" not in voxels
