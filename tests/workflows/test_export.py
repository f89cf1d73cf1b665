"""Stacks for Fiji, Avizo and Dragonfly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from analysis.align import moved
from instrument.errors import Refused
from tests.workflows.frames import save_slices
from workflows.export import Plane, export, gaps
from workflows.store import RunFolder

COLOURS = {1: (60, 110, 210), 2: (220, 80, 80), 3: (200, 200, 200), 4: (220, 160, 50)}


@pytest.fixture
def run(tmp_path: Path) -> tuple[RunFolder, np.ndarray]:
    folder = RunFolder.create(tmp_path / "RUN")
    pixels = save_slices(folder.slices, 3)
    for name in ("s0001", "s0003"):
        tifffile.imwrite(folder.labels / f"{name}.tif", np.full((20, 24), 3, np.uint8))
        (folder.labels / f"{name}.json").write_text("{}")
    rows = [
        {"name": "s0001", "z_m": 0.0, "shift_px": [0, 0]},
        {"name": "s0002", "z_m": 100e-9, "shift_px": [1, -2]},
        {"name": "s0003", "z_m": 300e-9, "shift_px": [0, 0]},
    ]
    folder.write_summary({"slices": rows}, virtual=True)
    return folder, pixels


def test_numbered_tiffs_carry_the_voxel(run: tuple[RunFolder, np.ndarray], tmp_path: Path) -> None:
    folder, pixels = run
    made = export(folder, "tiff", tmp_path / "out", COLOURS)
    assert sorted(path.name for path in made) == ["greys-CBS", "greys-TLD", "labels", "phases.txt", "voxels.txt"]
    with tifffile.TiffFile(tmp_path / "out" / "greys-TLD" / "0003.tif") as tif:
        assert np.array_equal(tif.asarray(), pixels[2, 1])
        top, bottom = tif.pages[0].tags["XResolution"].value
        assert top / bottom == pytest.approx(0.01 / 20e-9)
    with tifffile.TiffFile(tmp_path / "out" / "labels" / "0001.tif") as tif:
        assert (tif.asarray() == 3).all()
        assert tuple(int(v) // 257 for v in tif.pages[0].colormap[:, 1]) == COLOURS[1]
    shifted = tifffile.imread(tmp_path / "out" / "greys-CBS" / "0002.tif")
    assert np.array_equal(shifted[1:, :-2], pixels[1, 0][:-1, 2:])
    text = (tmp_path / "out" / "voxels.txt").read_text()
    assert "20.000 nm, 20.000 nm, 150.000 nm" in text
    assert "without labels: s0002" in text


def test_one_hyperstack_for_fiji(run: tuple[RunFolder, np.ndarray], tmp_path: Path) -> None:
    folder, pixels = run
    export(folder, "fiji", tmp_path / "out", COLOURS)
    with tifffile.TiffFile(tmp_path / "out" / "hyperstack.tif") as tif:
        assert tif.is_imagej
        assert tif.series[0].axes == "ZCYX"
        assert np.array_equal(tif.asarray()[2], pixels[2])
        assert tif.imagej_metadata["spacing"] == pytest.approx(0.15)
        assert tif.imagej_metadata["Labels"][1] == "s0001 TLD z=0 nm"
    with tifffile.TiffFile(tmp_path / "out" / "labels.tif") as tif:
        assert tif.asarray().shape == (3, 20, 24)


def test_metaimage_with_its_raw(run: tuple[RunFolder, np.ndarray], tmp_path: Path) -> None:
    folder, pixels = run
    export(folder, "raw", tmp_path / "out", COLOURS)
    header = (tmp_path / "out" / "greys-CBS.mhd").read_text()
    assert "DimSize = 24 20 3" in header
    assert "ElementSpacing = 2e-05 2e-05 0.00015" in header
    data = np.fromfile(tmp_path / "out" / "greys-CBS.raw", np.uint8).reshape(3, 20, 24)
    assert np.array_equal(data[0], pixels[0, 0])
    assert (tmp_path / "out" / "labels.raw").stat().st_size == 3 * 20 * 24


def test_even_spacing_only_when_asked(run: tuple[RunFolder, np.ndarray], tmp_path: Path) -> None:
    folder, _ = run
    export(folder, "tiff", tmp_path / "out", COLOURS, even=True)
    text = (tmp_path / "out" / "voxels.txt").read_text()
    assert "resampled to even spacing" in text
    assert text.splitlines()[-1].startswith("0003  s0003  300.0")


def test_gaps_are_stated() -> None:
    planes = [Plane("s0001", 0.0), Plane("s0002", 1e-7), Plane("s0003", 4e-7)]
    assert gaps(planes, 1e-7) == ["between s0002 and s0003: 200 nm more than one spacing are missing"]


@pytest.mark.parametrize("shift", [(0, 0), (2, 1), (-3, 2), (50, 0)])
def test_moving_brings_in_zeros(shift: tuple[int, int]) -> None:
    picture = np.arange(1, 31, dtype=np.uint16).reshape(5, 6)
    out = moved(picture, shift, (5, 6))
    assert out.shape == (5, 6)
    assert out.dtype == np.uint16
    assert set(out.ravel()) <= {0, *picture.ravel()}
    if shift == (2, 1):
        assert np.array_equal(out[2:, 1:], picture[:-2, :-1])
        assert not out[:2].any()


def test_what_can_not_be_exported_is_refused(run: tuple[RunFolder, np.ndarray], tmp_path: Path) -> None:
    folder, _ = run
    with pytest.raises(Refused, match="not empty"):
        export(folder, "tiff", folder.root, COLOURS)
    empty = RunFolder.create(tmp_path / "EMPTY")
    with pytest.raises(Refused, match="no slices"):
        export(empty, "tiff", tmp_path / "out2", COLOURS)
