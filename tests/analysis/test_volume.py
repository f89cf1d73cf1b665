"""A volume reads back as it was written: pixels, scale, axes, labels, positions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from analysis.align import moved
from analysis.phases import COLOURS, Phase
from analysis.volume import VolumePlane, halved, write_volume


def _planes(count: int, shape: tuple[int, int] = (30, 40), dtype: type = np.uint8) -> list[VolumePlane]:
    rng = np.random.default_rng(0)
    return [
        VolumePlane(
            name=f"s{k + 1:04d}",
            z_m=k * 100e-9,
            greys=rng.integers(0, np.iinfo(dtype).max, (2, *shape), dtype),
            labels=rng.integers(0, 5, shape).astype(np.uint8) if k != 1 else None,
            shift_px=(k, -k),
            z_sigma_m=5e-9,
        )
        for k in range(count)
    ]


def _write(out: Path, planes: list[VolumePlane], **options: Any) -> zarr.Group:
    write_volume(
        out,
        iter(planes),
        len(planes),
        channels=("CBS", "TLD"),
        pixel_m=(25e-9, 20e-9),
        spacing_m=100e-9,
        **options,
    )
    return zarr.open_group(out, mode="r")


def _image(group: zarr.Group, version: str) -> dict[str, Any]:
    attributes = dict(group.attrs)
    return attributes if version == "0.4" else attributes["ome"]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_it_reads_back(tmp_path: Path, version: Any, dtype: type) -> None:
    planes = _planes(5, dtype=dtype)
    group = _write(tmp_path / "volume.ome.zarr", planes, version=version, virtual=True)
    greys, labels = group["0"], group["labels/phases/0"]
    assert (greys.shape, greys.dtype) == ((2, 5, 30, 40), dtype)
    assert (labels.shape, labels.dtype) == ((5, 30, 40), np.uint8)
    for k, plane in enumerate(planes):
        np.testing.assert_array_equal(greys[:, k], moved(plane.greys, plane.shift_px))
        expected = np.zeros((30, 40)) if plane.labels is None else moved(plane.labels, plane.shift_px)
        np.testing.assert_array_equal(labels[k], expected)
    assert group.metadata.zarr_format == (2 if version == "0.4" else 3)
    own = dict(group.attrs)["kintsugi"]
    assert own["virtual"] is True
    assert [row["z_m"] for row in own["slices"]] == [k * 100e-9 for k in range(5)]
    assert [row["labelled"] for row in own["slices"]] == [True, False, True, True, True]


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_axes_scale_channels_and_colours(tmp_path: Path, version: Any) -> None:
    group = _write(tmp_path / "v.ome.zarr", _planes(2), version=version)
    image = _image(group, version)
    scales = image["multiscales"][0]
    assert [axis["name"] for axis in scales["axes"]] == ["c", "z", "y", "x"]
    assert [axis.get("unit") for axis in scales["axes"]] == [None, "micrometer", "micrometer", "micrometer"]
    assert scales["datasets"][0]["coordinateTransformations"][0]["scale"] == pytest.approx([1.0, 0.1, 0.025, 0.020])
    assert [channel["label"] for channel in image["omero"]["channels"]] == ["CBS", "TLD"]
    listed = _image(group["labels"], version)
    assert listed["labels"] == ["phases"]
    label = _image(group["labels/phases"], version)
    assert [axis["name"] for axis in label["multiscales"][0]["axes"]] == ["z", "y", "x"]
    colours = {item["label-value"]: item["rgba"] for item in label["image-label"]["colors"]}
    assert colours[int(Phase.PORE)] == [*COLOURS[Phase.PORE], 255]
    assert colours[0][3] == 0


def test_large_slices_get_coarser_levels_at_the_right_place(tmp_path: Path) -> None:
    planes = _planes(2, (1030, 1101), np.uint16)
    group = _write(tmp_path / "v.ome.zarr", planes)
    scales = dict(group.attrs)["multiscales"][0]
    assert [item["path"] for item in scales["datasets"]] == ["0", "1"]
    assert group["1"].shape == (2, 2, 515, 550)
    assert group["labels/phases/1"].shape == (2, 515, 550)
    first = moved(planes[1].greys, planes[1].shift_px)[0, :2, :2].astype(float)
    assert group["1"][0, 1, 0, 0] == pytest.approx(first.mean(), abs=0.51)
    scale, move = scales["datasets"][1]["coordinateTransformations"]
    assert scale["scale"] == pytest.approx([1.0, 0.1, 0.05, 0.04])
    assert move["translation"] == pytest.approx([0.0, 0.0, 0.0125, 0.010])
    label = dict(group["labels/phases"].attrs)["multiscales"][0]["datasets"][1]
    assert len(label["coordinateTransformations"]) == 1


def test_slices_are_taken_one_after_another(tmp_path: Path) -> None:
    alive: list[int] = []
    most = 0

    def made() -> Iterator[VolumePlane]:
        nonlocal most
        for k in range(40):
            alive.append(k)
            yield VolumePlane(name=f"s{k:04d}", z_m=k * 1e-7, greys=np.full((1, 8, 8), k, np.uint8))
            most = max(most, len(alive))
            alive.pop()

    write_volume(tmp_path / "v", made(), 40, channels=("CBS",), pixel_m=(2e-8, 2e-8), spacing_m=1e-7)
    assert most == 1  # nobody made a list of them first
    greys = zarr.open_group(tmp_path / "v", mode="r")["0"]
    assert greys.chunks[1] < 40
    np.testing.assert_array_equal(greys[0, :, 0, 0], np.arange(40))


def test_an_older_volume_is_replaced_and_a_failed_one_leaves_nothing(tmp_path: Path) -> None:
    out = tmp_path / "v.ome.zarr"
    _write(out, _planes(3))
    with pytest.raises(ValueError, match="3 planes were announced and 2 came"):
        write_volume(out, iter(_planes(2)), 3, channels=("CBS", "TLD"), pixel_m=(1e-8, 1e-8), spacing_m=1e-7)
    assert zarr.open_group(out, mode="r")["0"].shape[1] == 3
    _write(out, _planes(2))
    assert zarr.open_group(out, mode="r")["0"].shape[1] == 2
    assert [path.name for path in tmp_path.iterdir()] == ["v.ome.zarr"]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    good = _planes(2)
    cases: list[tuple[list[VolumePlane], str]] = [
        ([good[0], _planes(1, (30, 41))[0]], "before it was not"),
        ([good[0], _planes(1, dtype=np.uint16)[0]], "before it was not"),
        ([VolumePlane("a", 0.0, np.zeros((1, 9, 9), np.uint8)), good[1]], "2 channels"),
        ([VolumePlane("a", 0.0, np.zeros((2, 9, 9), np.float32)), good[1]], "8 or 16 bit"),
        (
            [VolumePlane("a", 0.0, np.zeros((2, 9, 9), np.uint8), np.zeros((9, 8), np.uint8)), good[1]],
            "differ in shape",
        ),
    ]
    for planes, words in cases:
        with pytest.raises(ValueError, match=words):
            _write(tmp_path / "v", planes)
    with pytest.raises(ValueError, match="more than the 1"):
        write_volume(tmp_path / "v", good, 1, channels=("CBS", "TLD"), pixel_m=(1e-8, 1e-8), spacing_m=1e-7)
    with pytest.raises(ValueError, match="positive distances"):
        write_volume(tmp_path / "v", good, 2, channels=("CBS", "TLD"), pixel_m=(1e-8, 0.0), spacing_m=1e-7)
    assert not (tmp_path / "v").exists()


def test_moving_and_halving_by_hand() -> None:
    picture = np.arange(1, 10, dtype=np.uint8).reshape(3, 3)
    np.testing.assert_array_equal(moved(picture, (1, -1)), [[0, 0, 0], [2, 3, 0], [5, 6, 0]])
    np.testing.assert_array_equal(moved(picture, (9, 0)), np.zeros((3, 3)))
    np.testing.assert_array_equal(halved(np.array([[0, 1, 9], [2, 3, 9]], np.uint8)), [[2]])
    top = np.full((2, 2), 65535, np.uint16)
    np.testing.assert_array_equal(halved(top), [[65535]])
