"""A run's planes before and after fills are found by its journal, and tell of its labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from analysis.phases import Fine, Phase, merged
from instrument.errors import Refused
from tests.analysis.drawn import drawn, opened
from tests.workflows.folders import fresh_folder
from tests.workflows.frames import frame
from workflows import cli
from workflows.journal import Journal
from workflows.measuring import measures
from workflows.pairs import fills, open_pores, pairs
from workflows.store import RunFolder

PIXEL_M = 60e-9


def act(journal: Journal, key: str, kind: str, result: dict[str, Any]) -> None:
    journal.intend(key, kind, {})
    journal.done(key, result)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run with one fill: before it no pore was found; and a second one whose picture after it is missing."""
    made = fresh_folder(tmp_path)
    after = drawn(81)
    truth = merged(after.fine)
    filled = after.fine == Fine.PT_PORE
    blind = np.where(filled, np.uint8(Phase.CBD), truth)
    for name, channels, labels in (("before", opened(after).channels, blind), ("after", after.channels, truth)):
        pixels = np.rint(255 * np.stack([channels["CBS"], channels["TLD"]]).clip(0, 1)).astype(np.uint8)
        made.frame_path("pairs", f"infiltrate-{name}").parent.mkdir(exist_ok=True)
        frame(pixels, uid=name, pixel_m=PIXEL_M).save(made.frame_path("pairs", f"infiltrate-{name}"))
        tifffile.imwrite(made.labels / f"infiltrate-{name}.tif", labels)
        tifffile.imwrite(made.labels / f"infiltrate-{name}-confidence.tif", np.full(labels.shape, 250, np.uint8))
    with Journal(made.journal) as journal:
        act(journal, "infiltrate/before", "frame", {"name": "pairs/infiltrate-before.ome.tif", "uid": "before"})
        act(journal, "infiltrate/round-1/film", "deposit", {"charge_c": 1e-6})
        act(journal, "infiltrate/after", "frame", {"name": "pairs/infiltrate-after.ome.tif", "uid": "after"})
        act(journal, "slice/0001/image", "frame", {"name": "slices/s0001.ome.tif", "uid": "one"})
        act(journal, "refill-01/round-1/film", "deposit", {"charge_c": 1e-6})
    return made


def test_open_pores_that_a_run_missed_are_told_by_its_pairs(folder: RunFolder) -> None:
    with Journal(folder.journal, read_only=True) as journal:
        assert [fill.row["name"] for fill in fills(journal)] == ["infiltrate"]
        found = open_pores(folder, journal)
        (pair,) = pairs(folder, journal)
    assert found is not None
    assert found.pairs == 1
    assert found.missed == found.taken_for["cbd"] > 0.98  # next to a boundary between two pores there is some right
    assert found.pixels > 1000
    assert pair.before.pixel_m == pytest.approx(PIXEL_M)
    assert set(pair.after.channels) == {"CBS", "TLD"}


def test_labels_that_are_missing_are_no_error_of_the_run(folder: RunFolder) -> None:
    (folder.labels / "infiltrate-before-confidence.tif").unlink()
    with Journal(folder.journal, read_only=True) as journal:
        assert open_pores(folder, journal) is None
    with pytest.raises(Refused, match="no labelled slice"):
        measures(folder)


@pytest.mark.slow
def test_a_run_teaches_a_model(folder: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine"
    given = ["train", "--from-run", str(folder.root), "--out", str(mine), "--quick"]
    assert cli.run_command([*given, "--scribbles", "strokes.png"]) == 2
    assert not mine.exists()
    assert cli.run_command(given) == 0
    assert "open pores missed, now" in capsys.readouterr().out
    assert (mine / "weights.safetensors").exists()
