"""Images are found in their order and read as they are meant, or refused with the file's name."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from analysis.ometiff import read_slice
from analysis.segment import segment_images
from analysis.sources import Read, files_in, one_slice, read_grey, sources_of
from tests.analysis.drawn import drawn
from tests.analysis.test_follow import save

SIZE = (20, 24)
DETECTORS = ("CBS", "TLD")


def greys(count: int) -> NDArray[np.uint8]:
    """So many images, each of one grey, its number."""
    return np.stack([np.full(SIZE, number, np.uint8) for number in range(count)])


def pictures(folder: Path, numbers: dict[int, int], stem: str = "slice_") -> Path:
    """A folder of pictures, by the numbers in their names the grey that they are of."""
    folder.mkdir()
    for number, grey in numbers.items():
        Image.fromarray(np.full(SIZE, grey, np.uint8)).save(folder / f"{stem}{number}.png")
    return folder


def read_all(channels: dict[str, Path], *inputs: Path) -> list[Read]:
    return [source() for source in sources_of(channels, inputs)]


def codes(found: list[Read], channel: str) -> list[int]:
    return [round(255 * float(read.channels[channel].mean())) for read in found]


def test_names_are_sorted_by_their_numbers(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "CBS", {10: 10, 9: 9, 2: 2})
    assert [path.name for path in files_in(folder)] == ["slice_2.png", "slice_9.png", "slice_10.png"]
    found = read_all({"CBS": folder})
    assert codes(found, "CBS") == [2, 9, 10]
    assert [read.files for read in found] == [{"CBS": f"slice_{number}.png"} for number in (2, 9, 10)]


def test_channels_are_paired_by_the_numbers_in_their_names(tmp_path: Path) -> None:
    places = {"CBS": pictures(tmp_path / "a", {1: 1, 2: 2}), "TLD": pictures(tmp_path / "b", {2: 12, 1: 11}, "z0")}
    found = read_all(places)
    assert (codes(found, "CBS"), codes(found, "TLD")) == ([1, 2], [11, 12])
    with pytest.raises(ValueError, match="CBS lacks 4; TLD lacks 3: take out"):
        read_all({"CBS": pictures(tmp_path / "c", {1: 1, 3: 3}), "TLD": pictures(tmp_path / "d", {1: 1, 4: 4})})


def test_files_without_numbers_of_their_own_are_taken_in_order(tmp_path: Path) -> None:
    places = {"CBS": pictures(tmp_path / "a", {1: 1, 2: 2}), "TLD": tmp_path / "b"}
    places["TLD"].mkdir()
    for grey, name in ((5, "first.png"), (6, "second.png")):
        Image.fromarray(np.full(SIZE, grey, np.uint8)).save(places["TLD"] / name)
    assert codes(read_all(places), "TLD") == [5, 6]


def test_a_hyperstack_whose_labels_name_detectors_is_read_by_slice_and_channel(tmp_path: Path) -> None:
    path = tmp_path / "hyper.tif"
    labels = [f"s{z} {name}" for z in range(3) for name in DETECTORS]
    images = greys(6).reshape(3, 2, *SIZE)
    tifffile.imwrite(path, images, imagej=True, metadata={"axes": "ZCYX", "Labels": labels})
    found = read_all({}, path)
    assert (codes(found, "CBS"), codes(found, "TLD")) == ([0, 2, 4], [1, 3, 5])
    assert found[1].files == {"CBS": "hyper.tif, image 3 of 6", "TLD": "hyper.tif, image 4 of 6"}
    with pytest.raises(ValueError, match="has 2 channels where one is expected"):
        read_all({"CBS": path})


def test_channels_that_nothing_names_are_not_taken_for_slices(tmp_path: Path) -> None:
    path = tmp_path / "hyper.tif"
    tifffile.imwrite(path, greys(6).reshape(3, 2, *SIZE), imagej=True, metadata={"axes": "ZCYX"})
    with pytest.raises(ValueError, match="2 channels, and no labels that say which detector"):
        read_all({}, path)


def test_a_stack_of_which_only_the_first_image_is_described_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "large.tif"
    tifffile.imwrite(  # as ImageJ writes stacks of more than 4 GB
        path, greys(1)[0], photometric="minisblack", metadata=None, description="ImageJ=1.54f\nimages=5\nslices=5\n"
    )
    with tifffile.TiffFile(path) as tif:
        end = tif.pages[0].dataoffsets[0] + tif.pages[0].databytecounts[0]
    assert path.stat().st_size == end
    with path.open("ab") as file:
        file.write(greys(5)[1:].tobytes())
    assert codes(read_all({"CBS": path}), "CBS") == [0, 1, 2, 3, 4]


def test_white_is_one_whichever_way_a_file_counts(tmp_path: Path) -> None:
    image = np.arange(256, dtype=np.uint8).reshape(16, 16)
    tifffile.imwrite(tmp_path / "black.tif", image, photometric="minisblack")
    tifffile.imwrite(tmp_path / "white.tif", 255 - image, photometric="miniswhite")
    np.testing.assert_allclose(read_grey(tmp_path / "white.tif"), read_grey(tmp_path / "black.tif"), atol=1e-6)


def test_an_ome_tiff_that_is_none_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.ome.tif", greys(2), ome=False, photometric="minisblack")
    with pytest.raises(ValueError, match=r"a\.ome\.tif is called an OME-TIFF and has no OME-XML"):
        read_all({}, tmp_path / "a.ome.tif")


def _packed(path: Path) -> Path:
    tifffile.imwrite(path, drawn(0, (64, 64)).channels["CBS"], compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[0].dataoffsets[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + 8] = b"\xff" * 8
    path.write_bytes(data)
    return path


def test_what_is_broken_is_refused_with_the_files_name(tmp_path: Path) -> None:
    packed = _packed(tmp_path / "packed.tif")
    with tifffile.TiffFile(packed) as tif, pytest.raises(zlib.error):
        tif.asarray()
    with pytest.raises(ValueError, match=r"packed\.tif cannot be read as a TIFF"):
        read_grey(packed)
    cut = tmp_path / "cut.tif"
    cut.write_bytes(b"II*\x00\x08\x00")
    with pytest.raises(ValueError, match=r"cut\.tif cannot be read as a TIFF"):
        read_grey(cut)
    slice_ = save(tmp_path / "s0001.ome.tif")
    slice_.write_bytes(slice_.read_bytes().replace(b"</OME>", b"</OMA>"))
    with pytest.raises(ValueError, match=r"s0001\.ome\.tif"):
        read_slice(slice_)


def test_a_slices_numbers_say_which_files_it_was_read_from(tmp_path: Path, small_model: Path) -> None:
    sample: dict[str, Any] = drawn(3, (64, 64)).channels
    places = {}
    for name, image in sample.items():
        places[name] = tmp_path / f"{name.lower()}.tif"
        tifffile.imwrite(places[name], image, photometric="minisblack")
    dark = np.zeros((64, 64), np.uint8)
    tifffile.imwrite(places["TLD"], dark, photometric="minisblack")
    summary = segment_images(places, tmp_path / "out", pixel_m=60e-9, model=small_model)
    numbers = (tmp_path / "out" / "labels" / "s0001.json").read_text()
    assert '"CBS": "cbs.tif"' in numbers
    assert "s0001: the picture of TLD shows nothing and was left out; look at that detector" in summary.remarks


@pytest.mark.parametrize(
    ("pixels", "said"),
    [
        (np.where(np.eye(8) > 0, np.nan, 0.5).astype(np.float32), "8 of its 64 pixels are NaN or infinite"),
        (np.full((8, 8), np.inf, np.float32), "64 of its 64 pixels are NaN or infinite"),
        (np.arange(256, dtype=np.float32).reshape(16, 16), "from 0 to 255, .* 8 or 16 bit, or divide by 255$"),
        (np.full((8, 8), 40000.0, np.float32), "from 40000 to 40000, .* or divide by 65535$"),
        (np.full((8, 8), -0.5, np.float32), "from -0.5 to -0.5, .* save it as 8 or 16 bit$"),
        (np.full((8, 8), 1e6, np.float64), "from 1e.06 to 1e.06, .* save it as 8 or 16 bit$"),
        (np.full((8, 8), 5, np.int16), "int16, integers with a sign: save it as 8 or 16 bit without one"),
        (np.full((8, 8), 1j, np.complex64), "this image is complex64"),
    ],
)
def test_greys_without_a_known_white_are_refused_by_what_is_wrong(
    pixels: NDArray[Any], said: str, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack")
    with pytest.raises(ValueError, match=r"a\.tif: .*" + said):
        read_grey(tmp_path / "a.tif")


def test_a_named_channels_greys_are_refused_by_its_name(tmp_path: Path) -> None:
    meta = {"axes": "CYX", "Channel": {"Name": list(DETECTORS)}, "PhysicalSizeX": 0.06, "PhysicalSizeY": 0.06}
    pixels = np.stack([np.full(SIZE, 0.5, np.float32), np.full(SIZE, 2.5, np.float32)])
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, ome=True, photometric="minisblack", metadata=meta)
    with pytest.raises(ValueError, match=r"a\.ome\.tif, TLD: its greys run from 2.5 to 2.5"):
        read_slice(tmp_path / "a.ome.tif")


def test_files_that_may_hold_detectors_as_pages_are_not_taken_for_slices(tmp_path: Path) -> None:
    for number in (1, 2):
        tifffile.imwrite(tmp_path / f"s{number}.tif", greys(2), photometric="minisblack")
    with pytest.raises(ValueError, match=r"s1\.tif, s2\.tif: each holds a few images, .* --channel CBS="):
        read_all({}, tmp_path)
    found = read_all({}, tmp_path / "s1.tif")
    told = "2 images in s1.tif were taken as slices of CBS; name detectors with --channel"
    assert [read.notes for read in found] == [(told,), (told,)]
    assert [read.notes for read in read_all({"CBS": tmp_path / "s1.tif"})] == [(), ()]
    tifffile.imwrite(tmp_path / "stack.tif", greys(4), photometric="minisblack")
    assert [read.notes for read in read_all({}, tmp_path / "stack.tif")] == [()] * 4


def test_only_the_next_number_or_image_follows(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "a", {1: 1, 2: 2, 4: 4})
    one, two, four = read_all({"CBS": folder, "TLD": folder})
    assert two.follows(one)
    assert not four.follows(two)
    assert not one.follows(two)
    alone = read_all({"CBS": folder})
    assert not two.follows(alone[0])
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(folder / "other_3.png")
    *_, unlike = read_all({}, folder / "slice_2.png", folder / "other_3.png")
    assert not unlike.follows(alone[1])
    labels = [f"s{z} {name}" for z in range(2) for name in DETECTORS]
    tifffile.imwrite(
        tmp_path / "h.tif", greys(4).reshape(2, 2, *SIZE), imagej=True, metadata={"axes": "ZCYX", "Labels": labels}
    )
    first, second = read_all({}, tmp_path / "h.tif")
    assert second.follows(first)
    ome = [read_all({}, save(tmp_path / f"s000{number}.ome.tif"))[0] for number in (1, 2)]
    assert ome[1].follows(ome[0])


def test_a_single_channels_ome_tiff_says_its_pixel_size(tmp_path: Path) -> None:
    places = {name: save(tmp_path / f"{name}.ome.tif", names=(name,)) for name in DETECTORS}
    assert one_slice(places).pixel_m == pytest.approx(60e-9)
    places["TLD"] = save(tmp_path / "none.ome.tif", names=("TLD",), pixel_um=None)
    assert one_slice(places).pixel_m == pytest.approx(60e-9)
    assert one_slice({"TLD": places["TLD"]}).pixel_m is None
    tifffile.imwrite(tmp_path / "stack.tif", greys(4), photometric="minisblack")
    with pytest.raises(ValueError, match=r"stack\.tif hold 4 images each where one is expected"):
        one_slice({"CBS": tmp_path / "stack.tif"})
