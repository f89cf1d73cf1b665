"""Files of element maps as X-ray programs export them: .h5oina, TIFF of one element, TIFF of several.

All return counts (element, y, x), summed over frames. Two lines of one element, as `Ni Ka1` and `Ni La1`, are counts of
that element both, and are summed too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from instrument.errors import BadData, DeviceFault

OINA = ".h5oina"
KINDS = (OINA, ".tif", ".tiff")
ACCEPTED = (
    "taken are one .h5oina file; one TIFF for each element, a picture or a stack of frames, its symbol last in its "
    "name (map_Ni.tif); or one TIFF whose pages or OME channels are named by element"
)


def can_read_oina() -> bool:
    """Tell whether .h5oina files can be read here."""
    return find_spec("h5py") is not None


def is_oina(path: Path) -> bool:
    """Tell whether a file is an .h5oina file."""
    return path.suffix.lower() == OINA


def element_of(path: Path) -> str:
    """Return what a file's name ends with, which is its element where it has one only: map_Ni.tif -> Ni."""
    return path.stem.removesuffix(".ome").rpartition("_")[2]


def of_one_element(path: Path, elements: Iterable[str]) -> bool:
    """Tell whether a file's name says that it is the TIFF of one element, of the given ones or another."""
    last = element_of(path)
    return not is_oina(path) and (last in elements or re.fullmatch(r"[A-Z][a-z]?", last) is not None)


def pages_of(path: Path) -> list[str]:
    """Return which element each page of a TIFF is named by, "" for one that is named otherwise or not at all.

    Raises
    ------
    BadData : it can't be read
    """
    with _opened(path) as tif:
        return _names(tif)


def read_tiffs(paths: list[Path]) -> NDArray[np.float64]:
    """Read a TIFF for each element; frames are summed.

    Raises
    ------
    BadData : one can't be read, is a coloured picture, or they differ in size
    """
    maps = []
    for path in paths:
        with _opened(path) as tif:
            maps.append(_planes(tif, path).sum(axis=0))
    return _stacked(maps, [path.name for path in paths])


def read_pages(path: Path, elements: tuple[str, ...]) -> NDArray[np.float64]:
    """Read one TIFF whose pages, or OME channels, are named by element; pages of one element are summed.

    Raises
    ------
    BadData : it can't be read, or lacks an element
    """
    with _opened(path) as tif:
        names, planes = _names(tif), _planes(tif, path)
    return _summed(path, zip(names, planes, strict=True), elements)


def read_oina(path: Path, elements: tuple[str, ...]) -> NDArray[np.float64]:
    """Read window integrals of elements from an .h5oina file, below .../Window Integral; an element's are summed.

    Raises
    ------
    BadData : it can't be read, or lacks an element
    DeviceFault : there is nothing to read it with
    """
    try:
        import h5py
    except ImportError as error:
        msg = f"{path.name} needs the package h5py to be read: pip install 'kintsugi[eds]', or export TIFF files"
        raise DeviceFault(msg, package="h5py") from error
    try:
        with h5py.File(path, "r") as file:
            windows = file["1/EDS/Data/Window Integral"]
            header = file["1/EDS/Header"]
            size = (int(np.ravel(header["Y Cells"])[0]), int(np.ravel(header["X Cells"])[0]))
            found = [(_element(name), np.asarray(windows[name], np.float64).reshape(size)) for name in windows]
    except (OSError, KeyError, ValueError) as error:
        msg = f"{path.name} can't be read as an export of element maps: {error}"
        raise BadData(msg, file=path.name) from error
    return _summed(path, found, elements)


# -- private ----------------------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open a TIFF; BadData where it can't be read."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            yield tif
    except (ValueError, KeyError, OSError, SyntaxError, tifffile.TiffFileError) as error:  # XML's own is a SyntaxError
        msg = f"an exported map can't be read: {path.name}: {error}"
        raise BadData(msg, file=path.name) from error


def _names(tif: Any) -> list[str]:
    if not _is_one_ome(tif):
        return [_element(page.aspage().description) for page in _alike(tif)]
    axes, shape = tif.series[0].axes[:-2], tif.series[0].shape[:-2]
    channels = _channels(tif.ome_metadata)
    if "C" not in axes or len(channels) != shape[axes.index("C")]:
        return [""] * int(np.prod(shape))
    return [channels[number] for number in np.indices(shape)[axes.index("C")].ravel()]


def _planes(tif: Any, path: Path) -> NDArray[np.float64]:
    """Return the pages of a TIFF (page, y, x), in the order of their names."""
    if tif.pages[0].samplesperpixel > 1:
        msg = f"{path.name} is a coloured picture, which has no counts; {ACCEPTED}"
        raise BadData(msg, file=path.name)
    if not _is_one_ome(tif):
        return np.stack([np.asarray(page.asarray(), np.float64) for page in _alike(tif)])
    planes = np.asarray(tif.series[0].asarray(), np.float64)
    return planes.reshape(-1, *planes.shape[-2:])


def _is_one_ome(tif: Any) -> bool:
    return bool(tif.is_ome) and len(tif.series) == 1


def _alike(tif: Any) -> list[Any]:
    """Return the pages of the first one's size: a thumbnail may follow."""
    return [page for page in tif.pages if page.shape == tif.pages[0].shape]


def _channels(ome: str) -> list[str]:
    import tifffile

    given = tifffile.xml2dict(ome)["OME"]["Image"]["Pixels"].get("Channel", [])
    return [_element(str(one.get("Name", ""))) for one in (given if isinstance(given, list | tuple) else [given])]


def _element(name: str) -> str:
    """Return the element that a line is named by: `Ni Ka1` -> Ni."""
    return next(iter(name.split()), "")


def _summed(
    path: Path, found: Iterable[tuple[str, NDArray[np.float64]]], elements: tuple[str, ...]
) -> NDArray[np.float64]:
    by_element: dict[str, NDArray[np.float64]] = {}
    for element, counts in found:
        by_element[element] = by_element[element] + counts if element in by_element else counts
    lacking = [one for one in elements if one not in by_element]
    if lacking:
        msg = f"{path.name} has no map of {', '.join(lacking)}; it has {', '.join(filter(None, by_element)) or 'none'}"
        raise BadData(msg, file=path.name)
    return np.stack([by_element[one] for one in elements])


def _stacked(maps: list[NDArray[np.float64]], names: list[str]) -> NDArray[np.float64]:
    sizes = {one.shape for one in maps}
    if len(sizes) > 1:
        msg = f"element maps {', '.join(names)} differ in size (y, x): {', '.join(map(str, sorted(sizes)))}"
        raise BadData(msg, files=names)
    return np.stack(maps)
