"""Numbers and report of a run read its label images one at a time: a thousand of them are 14 GB."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from pytest_mock import MockerFixture

from analysis import report_data as page
from tests.workflows.frames import save_slices
from workflows import labelled, measuring, reporting
from workflows.journal import Journal
from workflows.recipe import load
from workflows.store import RunFolder

COUNT, PIXEL_M = 12, 20e-9
NAMES = [f"s{number:04d}" for number in range(1, COUNT + 1)]
ROWS = [
    {"name": name, "z_m": number * 1e-7, "z_sigma_m": 1e-9, "unfilled_share": 0.1} for number, name in enumerate(NAMES)
]
RECIPE = Path(__file__).parents[2] / "workflows" / "recipes" / "first-run.yaml"


class Held:
    """How many label images that were read are alive at once, at the most, and how many were read."""

    def __init__(self, read: Callable[..., Any]) -> None:
        self._read = read
        self.now = self.most = self.count = 0

    def __call__(self, folder: RunFolder, name: str) -> Any:
        labels = self._read(folder, name)
        if labels is not None:
            self.now, self.count = self.now + 1, self.count + 1
            self.most = max(self.most, self.now)
            weakref.finalize(labels, self._gone)
        return labels

    def _gone(self) -> None:
        self.now -= 1


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run's folder with labels of every slice but the second."""
    made = RunFolder.create(tmp_path / "RUN")
    draw = np.random.default_rng(3)
    for name in NAMES:
        if name != "s0002":
            tifffile.imwrite(made.labels / f"{name}.tif", draw.integers(1, 4, (40, 50)).astype(np.uint8))
            (made.labels / f"{name}.json").write_text(f'{{"pixel_m": {PIXEL_M}, "electrode_fractions": {{}}}}')
    Journal.create(made.journal).close()
    return made


@pytest.fixture
def held(mocker: MockerFixture) -> Held:
    found = Held(labelled.labels_of)
    for module in (labelled, reporting):
        mocker.patch.object(module, "labels_of", found)
    return found


def test_numbers_of_a_run_are_taken_from_labels_one_by_one(
    folder: RunFolder, held: Held, mocker: MockerFixture
) -> None:
    mocker.patch.object(measuring, "slices", return_value=ROWS)
    found = measuring.measures(folder)
    assert (found["slices"], found["labelled"]) == (COUNT, COUNT - 1)
    assert found["fractions"]["planes"] == COUNT - 1
    assert held.count >= COUNT - 1
    assert held.most <= 2


def test_the_reports_measures_are_those_of_all_slices_one_by_one(
    folder: RunFolder, held: Held, mocker: MockerFixture
) -> None:
    mocker.patch.object(reporting.results, "slices", return_value=ROWS)
    with Journal(folder.journal) as journal:
        found = reporting._measures(folder, journal, load(RECIPE), NAMES, PIXEL_M)
        assert found["fractions"].planes == COUNT - 1
        assert held.most <= 3  # the first one is kept for its particles
        assert reporting._measures(folder, journal, load(RECIPE), ["s0002"], PIXEL_M) == {}


def test_only_the_pair_that_the_page_shows_is_read(folder: RunFolder, mocker: MockerFixture) -> None:
    save_slices(folder.slices, 4)
    plane = np.kron(np.random.default_rng(5).integers(2, 4, (5, 6)), np.ones((4, 4))).astype(np.uint8)  # (20, 24)
    for number, name in enumerate(NAMES[:4]):
        tifffile.imwrite(folder.labels / f"{name}.tif", np.roll(plane, number % 2 * 2, axis=1))
        (folder.labels / f"{name}.json").write_text(f'{{"pixel_m": {PIXEL_M}, "electrode_fractions": {{"cbd": 0.2}}}}')

    class Acts:
        def find(self, key: str) -> Any:
            fill, side = key.split("/")
            number = 2 * int(fill[-1]) + (side == "after")
            result = {"name": f"slices/s{number + 1:04d}.ome.tif", "uid": "none"}
            return mocker.Mock(has_outcome=True, result=result)

    rows = [{"name": f"fill{number}", "after_slice": 1, "lost_m": None} for number in (0, 1)]
    mocker.patch.object(reporting.results, "fill_rows", return_value=rows)
    pairs = reporting._pairs(folder, Acts(), PIXEL_M)  # type: ignore[arg-type]
    shown, other = pairs
    assert isinstance(shown, page.Pair)
    assert isinstance(shown.before.image, np.ndarray)
    assert shown.before.image.shape == (20, 22)  # what both show
    np.testing.assert_array_equal(shown.before.labels, shown.after.labels)
    assert other.after.image == folder.slices / "s0004.ome.tif"
    assert isinstance(other.after.labels, Path)
    assert other.after_fractions == {"cbd": 0.2}


def test_a_run_without_labels_is_not_said_to_be_labelled_by_anything(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "RUN")
    assert reporting._card(folder) == {}
    assert reporting._real(folder, tmp_path, "") is None
