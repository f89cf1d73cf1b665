"""A frame's file gives back pixels and record exactly, and says so when it can't."""

from __future__ import annotations

import json
from contextlib import suppress
from math import nan
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from instrument.errors import BadData
from instrument.frame import Frame, FrameMeta, plain_meta, reference, sha256_of
from tests.instrument import values


def drawn(dtype: type, channels: int = 2, shape: tuple[int, int] = (16, 24)) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(7).integers(0, top, (channels, *shape), endpoint=True).astype(dtype)


def meta_of(channels: tuple[str, ...] = ("CBS", "TLD"), **changes: object) -> FrameMeta:
    return values.META.replace(channels=channels, state=values.state(), **changes)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [("CBS",), ("CBS", "TLD"), ("Al", "Ni", "Pt", "C", "F")])
def test_what_is_saved_is_loaded(tmp_path: Path, dtype: type, channels: tuple[str, ...]) -> None:
    pixels, path = drawn(dtype, len(channels)), tmp_path / "s0001.ome.tif"
    frame = Frame(pixels, meta_of(channels))
    frame.save(path)
    back = Frame.load(path)
    assert back.pixels.dtype == dtype
    assert np.array_equal(back.pixels, pixels)
    assert back.meta == frame.meta


def test_an_element_map_and_odd_values_come_back(tmp_path: Path) -> None:
    meta = meta_of(("Al",), scan=values.EDS, seconds=nan, notes={"x": 'a "b" <c> & \' \n\t ü µ \x01 \ufffe'})
    Frame(drawn(np.uint16, 1), meta).save(tmp_path / "a.ome.tif")
    assert repr(Frame.load(tmp_path / "a.ome.tif").meta) == repr(meta)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=40))
def test_any_text_comes_back(tmp_path: Path, text: str) -> None:
    meta = meta_of(("CBS",), notes={"note": text}, uid=text or "u")
    Frame(drawn(np.uint8, 1), meta).save(tmp_path / "a.ome.tif")
    assert Frame.load(tmp_path / "a.ome.tif").meta == meta


def test_other_programs_find_size_and_names(tmp_path: Path) -> None:
    path = tmp_path / "s.ome.tif"
    Frame(drawn(np.uint8), meta_of(pixel_x_m=20e-9, pixel_y_m=25e-9)).save(path)
    with tifffile.TiffFile(path) as file:
        assert file.is_ome
        assert file.series[0].axes == "CYX"
        pixels = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]["Pixels"]
    assert [channel["Name"] for channel in pixels["Channel"]] == ["CBS", "TLD"]
    assert (pixels["PhysicalSizeX"], pixels["PhysicalSizeXUnit"]) == (pytest.approx(0.02), "µm")
    assert pixels["PhysicalSizeY"] == pytest.approx(0.025)


def test_channels_by_name_and_grey() -> None:
    frame = Frame(drawn(np.uint16), meta_of())
    assert np.array_equal(frame.channel("TLD"), frame.pixels[1])
    grey = frame.grey("CBS")
    assert grey.dtype == np.float32
    assert (grey.min() >= 0, grey.max() <= 1) == (True, True)
    assert grey == pytest.approx(frame.pixels[0] / 65535.0, abs=1e-6)
    with pytest.raises(KeyError, match="CBS, TLD"):
        frame.channel("ETD")


@pytest.mark.parametrize("pixels", [drawn(np.uint8)[0], drawn(np.uint8, 3), drawn(np.uint8).astype(np.float32)])
def test_pixels_that_are_no_frame(pixels: np.ndarray) -> None:
    with pytest.raises(BadData, match="frame"):
        Frame(pixels, meta_of())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("frame") / "a.ome.tif"
    Frame(drawn(np.uint8, 2, (40, 60)), meta_of()).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98])
def test_a_truncated_file_is_bad_data(tmp_path: Path, whole: bytes, share: float) -> None:
    path = tmp_path / "a.ome.tif"
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(BadData, match=r"a\.ome\.tif"):
        Frame.load(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), what=st.binary(min_size=1, max_size=8))
@pytest.mark.filterwarnings("ignore")
def test_a_damaged_file_is_a_frame_or_bad_data_and_nothing_else(
    tmp_path: Path, whole: bytes, where: float, what: bytes
) -> None:
    """Pixels that flipped are the hash's business; no other error than BadData ever leaves `load`."""
    at, path = int(len(whole) * where), tmp_path / "a.ome.tif"
    path.write_bytes(whole[:at] + what + whole[at + len(what) :])
    with suppress(BadData):
        assert Frame.load(path).meta.channels


def test_files_of_others_are_bad_data(tmp_path: Path) -> None:
    plain, ome, text = tmp_path / "a.tif", tmp_path / "b.ome.tif", tmp_path / "c.ome.tif"
    tifffile.imwrite(plain, drawn(np.uint8))
    tifffile.imwrite(ome, drawn(np.uint8), ome=True, metadata={"axes": "CYX"})
    text.write_text("no picture")
    for path in (plain, ome, text, tmp_path / "none.ome.tif"):
        with pytest.raises(BadData):
            Frame.load(path)


def test_a_record_of_another_form_is_bad_data(tmp_path: Path) -> None:
    record = {**plain_meta(meta_of()), "invented": 1}
    path = tmp_path / "a.ome.tif"
    notes = {"Namespace": "kintsugi/frame-meta/1", "meta": json.dumps(record).replace('"', "&quot;")}
    tifffile.imwrite(path, drawn(np.uint8), ome=True, metadata={"axes": "CYX", "MapAnnotation": notes})
    with pytest.raises(BadData):
        Frame.load(path)


def test_a_reference_says_what_the_file_is(tmp_path: Path) -> None:
    path = tmp_path / "a.ome.tif"
    frame = Frame(drawn(np.uint8), meta_of())
    frame.save(path)
    ref = reference(frame, path)
    assert (ref.name, ref.size_bytes, ref.sha256) == ("a.ome.tif", path.stat().st_size, sha256_of(path))
    assert (ref.shape, ref.channels, ref.uid) == ((2, 16, 24), ("CBS", "TLD"), "sim-3-17")
