"""Element maps as X-ray programs export them: .h5oina, TIFF of one element, TIFF of several, and what is neither."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from pytest_mock import MockerFixture

from instrument.autoscript import elements, opening
from instrument.autoscript.elements import Exports, collected
from instrument.errors import BadData, DeviceFault, Refused, TimedOut
from instrument.settings import EdsScan
from tests.contract.emulation import vendor_named

SCAN = EdsScan(elements=("Ni", "Pt"), width_px=16, height_px=12, pixel_m=1e-7)


@pytest.fixture
def folder(tmp_path: Path, mocker: MockerFixture) -> Path:
    """A folder whose files rest as soon as they are there."""
    mocker.patch.object(elements, "_STILL_S", 0.0)
    return tmp_path


def counts(value: int, *lead: int) -> NDArray[np.uint16]:
    """Counts that tell rows from columns."""
    return np.full((*lead, 12, 16), value, np.uint16) + np.arange(16, dtype=np.uint16)


def taken(folder: Path, scan: EdsScan = SCAN, within_s: float = 5.0) -> NDArray[np.uint16]:
    return collected(Exports(folder, {}), scan, within_s)


def oina(path: Path, lines: dict[str, NDArray[Any]]) -> None:
    """Write the part of an .h5oina file that has the maps: flat window integrals by line, and the size."""
    with h5py.File(path, "w") as file:
        for name, value in (("X Cells", 16), ("Y Cells", 12)):
            file[f"1/EDS/Header/{name}"] = np.array([value], np.int32)
        for name, value in lines.items():
            file[f"1/EDS/Data/Window Integral/{name}"] = value.ravel()


def pages(path: Path, named: list[tuple[str, NDArray[np.uint16]]]) -> None:
    with tifffile.TiffWriter(path) as file:
        for name, one in named:
            file.write(one, description=name, metadata=None)


# -- .h5oina ----------------------------------------------------------------------------------------------------------


def test_an_oina_file_gives_the_elements_in_the_order_of_the_scan(folder: Path) -> None:
    oina(folder / "map.h5oina", {"C Ka1": counts(9), "Pt Ma1": counts(200), "Ni Ka1": counts(100)})
    found = taken(folder)
    assert found.dtype == np.uint16
    assert np.array_equal(found, [counts(100), counts(200)])


def test_two_lines_of_an_element_are_counts_of_it_both(folder: Path) -> None:
    oina(folder / "map.h5oina", {"Ni Ka1": counts(40_000), "Ni La1": counts(20_000), "Pt Ma1": counts(7)})
    assert np.array_equal(taken(folder)[0], counts(40_000).astype(int) + counts(20_000))


def test_a_sum_beyond_16_bit_is_bad_data(folder: Path) -> None:
    oina(folder / "map.h5oina", {"Ni Ka1": counts(40_000), "Ni La1": counts(40_000), "Pt Ma1": counts(7)})
    with pytest.raises(BadData, match="no counts of 16 bit"):
        taken(folder)


def test_an_oina_file_without_an_element_or_without_maps_is_bad_data(folder: Path) -> None:
    oina(folder / "map.h5oina", {"Ni Ka1": counts(100), "C Ka1": counts(1)})
    with pytest.raises(BadData, match="has no map of Pt; it has C, Ni"):
        taken(folder)
    (folder / "map.h5oina").write_bytes(b"no hdf5")
    with pytest.raises(BadData, match="can't be read"):
        taken(folder)


def test_without_its_package_an_oina_folder_is_refused_before_any_map(folder: Path, mocker: MockerFixture) -> None:
    vendor_named()
    mocker.patch.dict(sys.modules, {"h5py": None})
    url = f"autoscript://nowhere-at-all?elements={folder}"
    assert opening._elements(url) is not None  # TIFF files may come
    oina_file = folder / "earlier.H5OINA"
    oina_file.write_bytes(b"")
    with pytest.raises(Refused, match=r"h5py.*kintsugi\[eds\]"):
        opening.open_url(url)
    oina_file.write_bytes(b"a map")
    with pytest.raises(DeviceFault, match=r"pip install 'kintsugi\[eds\]'"):
        taken(folder)


# -- TIFF -------------------------------------------------------------------------------------------------------------


def test_a_stack_of_frames_of_each_element_is_summed(folder: Path) -> None:
    tifffile.imwrite(folder / "map_Ni.tif", counts(3, 5))
    tifffile.imwrite(folder / "map_Pt.ome.tif", counts(2, 4), metadata={"axes": "TYX"}, ome=True)
    pages(folder / "map_C.tif", [("", counts(1)), ("", counts(1))])  # of an element that was not asked for
    assert np.array_equal(taken(folder), [5 * counts(3), 4 * counts(2)])


def test_pages_are_told_apart_by_their_names_whatever_their_order(folder: Path) -> None:
    pages(
        folder / "export.tif",
        [("Pt Ma1", counts(200)), ("Electron", counts(0)), ("Ni Ka1", counts(30)), ("Ni La1", counts(5))],
    )
    assert np.array_equal(taken(folder), [counts(30) + counts(5), counts(200)])


@pytest.mark.parametrize("axes", ["CYX", "TCYX", "CTYX"])
def test_ome_channels_are_told_apart_by_their_names(folder: Path, axes: str) -> None:
    both = np.stack([counts(200), counts(30), counts(1)])
    frames = 1 if axes == "CYX" else 4
    shaped = {"CYX": both, "TCYX": np.stack([both] * 4), "CTYX": np.stack([both] * 4, axis=1)}[axes]
    names = {"axes": axes, "Channel": {"Name": ["Pt Ma1", "Ni", "C"]}}
    tifffile.imwrite(folder / "export.ome.tif", shaped, metadata=names, ome=True)
    assert np.array_equal(taken(folder), [frames * counts(30), frames * counts(200)])


def test_named_pages_that_lack_an_element_are_bad_data(folder: Path) -> None:
    pages(folder / "export.tif", [("Ni", counts(30)), ("C", counts(1))])
    with pytest.raises(BadData, match="has no map of Pt; it has Ni, C"):
        taken(folder)


@pytest.mark.parametrize("ome", [False, True])
def test_a_stack_that_nothing_tells_apart_is_bad_data_at_once(folder: Path, ome: bool) -> None:
    tifffile.imwrite(folder / "stack.tif", counts(3, 2), ome=ome)
    with pytest.raises(BadData, match=r"stack\.tif is a stack of 2 pages that no element names.*map_Ni\.tif"):
        taken(folder, within_s=600.0)


def test_a_stack_beside_a_whole_export_and_a_picture_alone_hinder_nothing(folder: Path) -> None:
    tifffile.imwrite(folder / "SEM.tif", counts(9))
    with pytest.raises(TimedOut):
        taken(folder, within_s=0.1)
    for name in ("Ni", "Pt"):
        tifffile.imwrite(folder / f"map_{name}.tif", counts(3))
    tifffile.imwrite(folder / "stack.tif", counts(3, 2))
    assert np.array_equal(taken(folder), [counts(3), counts(3)])


def test_a_coloured_map_and_maps_of_two_sizes_are_no_counts(folder: Path) -> None:
    tifffile.imwrite(folder / "map_Ni.tif", np.zeros((12, 16, 3), np.uint8), photometric="rgb")
    tifffile.imwrite(folder / "map_Pt.tif", counts(3))
    with pytest.raises(BadData, match=r"map_Ni\.tif is a coloured picture"):
        taken(folder)
    tifffile.imwrite(folder / "map_Ni.tif", counts(3)[:6])
    with pytest.raises(BadData, match="differ in size"):
        taken(folder)
