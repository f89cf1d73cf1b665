"""Damaged pictures are set aside, told once, and worked around."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from instrument.frame import reference
from tests.workflows.frames import frame
from workflows.happenings import happenings
from workflows.journal import Journal
from workflows.results import slices
from workflows.soundness import set_aside_damaged
from workflows.store import RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path / "RUN")
    with Journal.create(made.journal) as journal:
        for k in (1, 2, 3):
            one = frame(np.full((2, 12, 12), k, np.uint8), f"u{k}")
            path = made.frame_path("slices", f"s{k:04d}")
            one.save(path)
            key = f"slice/{k:04d}/image"
            journal.intend(key, "frame", {"file": made.relative(path)})
            journal.done(key, reference(one, path).replace(name=made.relative(path)).model_dump(mode="json"))
    return made


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
