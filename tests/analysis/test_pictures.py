"""Pictures are read from what there is, keep their greys and labels, and carry bar and mark."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from analysis.ometiff import label_bytes
from analysis.phases import COLOURS, Phase
from analysis.pictures import changed, data_uri, elements, finished, flat, load, overlay, plain, stretched
from analysis.register import ElementMap


def _grey(height: int = 60, width: int = 600) -> np.ndarray:
    return np.tile(np.linspace(0, 200, width).astype(np.uint8), (height, 1))


def test_arrays_and_files_give_the_same_greys(tmp_path: Path) -> None:
    grey = _grey()
    Image.fromarray(grey).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", grey)
    tifffile.imwrite(tmp_path / "b.tif", grey.astype(np.uint16) * 257)
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        np.stack([255 - grey, grey]),
        metadata={
            "axes": "CYX",
            "Channel": {"Name": ["TLD", "CBS"]},
            "PhysicalSizeX": 20,
            "PhysicalSizeXUnit": "nm",
        },
    )
    expected = grey / 255
    for source in (grey, tmp_path / "a.png", tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "a.ome.tif"):
        np.testing.assert_allclose(load(source).image, expected, atol=1e-6)
    ome = load(tmp_path / "a.ome.tif", channel="TLD")
    assert ome.pixel_m == pytest.approx(20e-9)
    np.testing.assert_allclose(ome.image, 1 - expected, atol=1e-6)


def test_labels_come_from_files_and_must_fit(tmp_path: Path) -> None:
    labels = np.full((60, 600), Phase.PORE, np.uint8)
    (tmp_path / "l.tif").write_bytes(label_bytes(labels, 20e-9))
    np.testing.assert_array_equal(load(_grey(), labels=tmp_path / "l.tif").labels, labels)
    with pytest.raises(ValueError, match="differ in shape"):
        load(_grey(), labels=labels[1:])
    tifffile.imwrite(tmp_path / "bad.tif", labels.astype(np.float32))
    with pytest.raises(ValueError, match="8-bit picture"):
        load(_grey(), labels=tmp_path / "bad.tif")
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.png")


def test_greys_that_are_compared_are_not_stretched() -> None:
    grey = _grey()
    assert load(grey).image.max() == pytest.approx(200 / 255)
    assert load(grey, stretch=True).image.max() == pytest.approx(1.0)
    even = np.full((5, 5), 0.3, np.float32)
    np.testing.assert_array_equal(stretched(even), even)


def test_an_overlay_tints_phases_and_leaves_outside_grey() -> None:
    labels = np.zeros((60, 600), np.uint8)
    labels[:, 300:] = Phase.CBD
    drawn = np.asarray(overlay(load(np.full((60, 600), 100, np.uint8), labels=labels), 600))
    assert drawn[5, 10].tolist() == [100, 100, 100]
    assert drawn[5, 590].tolist() == pytest.approx([(100 + c) / 2 for c in COLOURS[Phase.CBD]], abs=1)
    assert np.asarray(overlay(load(_grey()), 300)).shape == (30, 300, 3)


def test_changed_pixels_stand_out_in_their_new_colour() -> None:
    before = np.full((60, 600), Phase.CBD, np.uint8)
    after = before.copy()
    after[:, 300:] = Phase.PORE
    after[:, 500:] = Phase.OUTSIDE
    drawn = np.asarray(changed(load(_grey(), labels=after), before, 600))
    assert drawn[5, 400].tolist() == list(COLOURS[Phase.PORE])
    for column in (100, 550):  # unchanged, and outside: faded greys
        assert len(set(drawn[5, column].tolist())) == 1
        assert drawn[5, column, 0] >= 150


def test_sizes() -> None:
    assert plain(load(_grey(90, 900)), 300).size == (300, 30)
    assert plain(load(_grey(40, 100)), 1000).size == (500, 200)  # a tiny one grows until its scale bar can be read
    assert flat(np.full((10, 600), Phase.PORE, np.uint8), 600).getpixel((0, 0)) == COLOURS[Phase.PORE]


def test_the_scale_bar_is_as_long_as_it_says() -> None:
    # 600 pixels of 20 nm are 12 um: the bar is 2 um = 100 pixels, 50 in the picture at half size
    black = np.zeros((400, 600), np.uint8)
    drawn = np.asarray(
        finished(plain(load(black), 300), source_width_px=600, pixel_m=20e-9, virtual=False).convert("L")
    )
    rows = (drawn > 200).sum(axis=1)
    assert rows.max() == pytest.approx(50, abs=2)
    assert (np.asarray(finished(plain(load(black), 300), source_width_px=600, pixel_m=None, virtual=False)) == 0).all()


def test_virtual_is_written_into_the_picture() -> None:
    black = plain(load(np.zeros((400, 600), np.uint8)), 600)
    marked = np.asarray(finished(black, source_width_px=600, pixel_m=None, virtual=True)).astype(int)
    red = (marked[..., 0] > 120) & (marked[..., 1] < 60)
    assert red.sum() > 500
    lettered = np.asarray(finished(black, source_width_px=600, pixel_m=None, virtual=False, mark="b"))
    assert lettered[:60, :60].max() == 255
    assert lettered[100:].max() == 0


def test_elements_are_coloured() -> None:
    counts = np.zeros((60, 600))
    counts[:, :300] = 5
    drawn = np.asarray(elements(ElementMap({"Ni": counts}, 50e-9), {"Ni": (0, 255, 0), "Pt": (0, 0, 255)}, 600))
    assert drawn[30, 100].tolist() == [0, 255, 0]
    assert drawn[30, 550].max() == 0


def test_data_uri_is_a_jpeg() -> None:
    uri = data_uri(plain(load(_grey()), 200))
    kind, _, data = uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        assert (picture.format, picture.size) == ("JPEG", (200, 20))
