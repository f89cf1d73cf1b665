"""Finds images to be labelled and reads them as greys: pictures, stacks, folders, OME-TIFF, a microscope's own TIFF."""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from analysis.ometiff import read_slice, readable, scaled
from analysis.phases import IGNORE, Phase

if TYPE_CHECKING:
    from tifffile import TiffPageSeries

_TIFF = (".tif", ".tiff")
_OME = (".ome.tif", ".ome.tiff")
_PICTURES = (*_TIFF, ".png", ".jpg", ".jpeg", ".bmp")
#: A pixel size that differs from the file's own by this share is told of.
PIXEL_ROOM = 0.01
_RED_GREEN_BLUE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601 luma


@dataclass(frozen=True)
class Image:
    """One image: greys (y, x), where it was read, the pixel's edge (m) where its file says it, rows of databar cut."""

    grey: NDArray[np.float32]
    file: str
    pixel_m: float | None = None
    databar_px: int = 0


@dataclass(frozen=True)
class Read:
    """One slice: greys (y, x) by channel, the pixel's edge (m) where the files say it, rows of databar cut off.

    `files` says by channel where it was read.
    """

    channels: dict[str, NDArray[np.float32]]
    pixel_m: float | None
    databar_px: int = 0
    files: dict[str, str] = field(default_factory=dict)


Reader = Callable[[], Image]
Source = Callable[[], Read]
"""Reads one slice."""


# -- finding -----------------------------------------------------------------------------------------------------------


def sources_of(channels: Mapping[str, Path], inputs: Sequence[Path]) -> list[Source]:
    """Return the slices to label, in order; ValueError when there are none or the channels don't fit together."""
    if channels and inputs:
        msg = "give either one file a channel, or files that name their channels themselves, not both"
        raise ValueError(msg)
    if channels:
        return _by_channel(channels)
    sources: list[Source] = []
    for place in inputs:
        for path in files_in(place):
            sources.extend(_in_file(path))
    if not sources:
        msg = f"there is nothing to label in {', '.join(map(str, inputs)) or 'no input'}"
        raise ValueError(msg)
    return sources


def files_in(place: Path) -> list[Path]:
    """Return a file, or the pictures of a folder or a run in the order of their names, slice_2 before slice_10."""
    if not place.exists():
        msg = f"{place} does not exist"
        raise ValueError(msg)
    if place.is_file():
        return [place]
    folder = place / "slices" if (place / "slices").is_dir() else place
    found = (path for path in folder.iterdir() if path.suffix.lower() in _PICTURES and path.name[0] != ".")
    return sorted(found, key=_in_order)


def _in_order(path: Path) -> tuple[list[str | int], str]:
    parts = re.split(r"(\d+)", path.name)  # text and numbers in turn
    return [int(part) if index % 2 else part.casefold() for index, part in enumerate(parts)], path.name


def _number_in(path: Path) -> int | None:
    """Return the last number in a file's name, None for a name without."""
    found = re.search(r"(\d+)\D*$", path.name.split(".")[0])
    return None if found is None else int(found.group(1))


def _by_number(paths: Sequence[Path]) -> dict[int, Path] | None:
    """Return files by the numbers in their names; None where one has none, or two have the same."""
    found = {number: path for path in paths if (number := _number_in(path)) is not None}
    return found if len(found) == len(paths) else None


def missing_numbers(paths: Sequence[Path]) -> list[str]:
    """Return the numbers that are left out between the first and the last of files with numbers in their names."""
    numbers = _by_number(paths)
    if len(paths) < 2 or numbers is None:
        return []
    lacking = [(a + 1, b - 1) for a, b in pairwise(sorted(numbers)) if b > a + 1]
    return [str(a) if a == b else f"{a} to {b}" for a, b in lacking]


def _by_channel(channels: Mapping[str, Path]) -> list[Source]:
    """Return slices from one file, stack or folder a channel."""
    files: Mapping[str, Sequence[Path]] = {name: files_in(place) for name, place in channels.items()}
    if all(place.is_dir() for place in channels.values()):
        files = _paired(files)
    stacks = {name: [reader for path in paths for reader in _readers(path)] for name, paths in files.items()}
    counts = {name: len(stack) for name, stack in stacks.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        msg = f"every channel has the same number of images, at least one; here {told}"
        raise ValueError(msg)
    return [
        _together({name: stack[index] for name, stack in stacks.items()})
        for index in range(next(iter(counts.values())))
    ]


def _paired(files: Mapping[str, Sequence[Path]]) -> Mapping[str, Sequence[Path]]:
    """Return the channels' files in the order of their numbers; as they are where not every name has its own number.

    ValueError where a channel lacks a number that another has.
    """
    numbered = {name: _by_number(paths) for name, paths in files.items()}
    known = {name: numbers for name, numbers in numbered.items() if numbers}
    if len(known) < len(files):
        return files
    every = sorted(set().union(*known.values()))
    lacking = {name: [str(one) for one in every if one not in numbers] for name, numbers in known.items()}
    if any(lacking.values()):
        told = "; ".join(f"{name} lacks {named(numbers)}" for name, numbers in lacking.items() if numbers)
        msg = f"files of one slice have the same number in their names, and here {told}: take out what has no partner"
        raise ValueError(msg)
    return {name: [numbers[one] for one in every] for name, numbers in known.items()}


def named(names: Sequence[str]) -> str:
    """Return the first few names in one line."""
    return f"{', '.join(names[:5])}{' and others' if len(names) > 5 else ''}"


def _together(readers: Mapping[str, Reader]) -> Source:
    """Return what reads one slice; ValueError then where its files give it pixels of different sizes."""

    def read() -> Read:
        images = {name: reader() for name, reader in readers.items()}
        said = {name: image.pixel_m for name, image in images.items() if image.pixel_m is not None}
        pixel = next(iter(said.values()), None)
        if pixel is not None and any(abs(other - pixel) > PIXEL_ROOM * pixel for other in said.values()):
            shown = ", ".join(f"{name} {other * 1e9:.4g} nm" for name, other in said.items())
            msg = f"the channels of a slice show the same pixels, and their files say {shown}"
            raise ValueError(msg)
        databar = max(image.databar_px for image in images.values())
        greys = {name: image.grey for name, image in images.items()}
        return Read(greys, pixel, databar, {name: image.file for name, image in images.items()})

    return read


def _in_file(path: Path) -> list[Source]:
    """Return the slices of a file that names its channels; a picture that has none counts as CBS."""

    def named_ones() -> Read:
        plane = read_slice(path)
        return Read(plane.channels, plane.pixel_m, files=dict.fromkeys(plane.channels, path.name))

    if path.suffix.lower() not in _TIFF:
        return [_together({"CBS": reader}) for reader in _readers(path)]
    stack = _stack(path)
    if stack.is_ome:
        return [named_ones]
    if path.name.lower().endswith(_OME):
        msg = f"{path} is called an OME-TIFF and has no OME-XML; name it .tif where it is a plain one"
        raise ValueError(msg)
    return [_together({name: stack.reader(place) for name, place in zip(stack.names, row, strict=True)})
            for row in stack.slices]  # fmt: skip


def _readers(path: Path) -> list[Reader]:
    """Return a reader for every image in a file of one channel; a stack's are read one at a time."""
    if path.suffix.lower() not in _TIFF:
        return [lambda: Image(_grey(_picture(path), path), path.name)]
    stack = _stack(path)
    if stack.channels > 1:
        msg = f"{path} has {stack.channels} channels where one is expected: give it without naming a channel"
        raise ValueError(msg)
    return [stack.reader(place) for row in stack.slices for place in row]


# -- TIFF --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stack:
    """The images of a TIFF by slice and channel, each told by its series and its place in that.

    `labels` are ImageJ's, one an image.
    """

    path: Path
    slices: list[list[tuple[int, int]]]
    labels: Sequence[str]
    is_ome: bool

    @property
    def channels(self) -> int:
        return max(len(row) for row in self.slices)

    @property
    def names(self) -> list[str]:
        """The channels' names; ValueError when there are several, and not one label that names a detector."""
        from analysis.network import detector_of

        if self.channels == 1:
            return ["CBS"]
        labels = [self.labels[place] if place < len(self.labels) else "" for _, place in self.slices[0]]
        detectors = [detector_of(label) for label in labels]
        known = [name for name in detectors if name is not None]
        if not known or len(set(known)) < len(known):
            msg = (
                f"{self.path} has {self.channels} channels, and no labels that say which detector each is; save them "
                "one file each, and give them as --channel CBS=... --channel TLD=..."
            )
            raise ValueError(msg)
        return [name or f"channel {number}" for number, name in enumerate(detectors, start=1)]

    def reader(self, place: tuple[int, int]) -> Reader:
        """Return what reads one of the images."""
        every = [one for row in self.slices for one in row]
        file = self.path.name
        if len(every) > 1:
            file += f", image {every.index(place) + 1} of {len(every)}"

        def read() -> Image:
            scan = _scan_of(self.path, place)
            return Image(
                _grey(scan.pixels, self.path, white_is_zero=scan.white_is_zero), file, scan.pixel_m, scan.databar_px
            )

        return read


def _stack(path: Path) -> _Stack:
    """Return how the images of a TIFF lie in it."""
    import tifffile

    with readable(path), tifffile.TiffFile(path) as tif:
        slices = [row for number, series in enumerate(tif.series) for row in _rows(number, series)]
        labels = (tif.imagej_metadata or {}).get("Labels", ())
        is_ome = bool(tif.is_ome)
    if not slices:
        msg = f"{path} holds no image"
        raise ValueError(msg)
    return _Stack(path, slices, [labels] if isinstance(labels, str) else labels, is_ome)


def _rows(number: int, series: TiffPageSeries) -> list[list[tuple[int, int]]]:
    """Return a series' images, (slices, channels)."""
    ahead = series.shape[: len(series.shape) - len(series.keyframe.shape)]
    places = np.arange(math.prod(ahead)).reshape(ahead)
    channel = series.axes[: len(ahead)].find("C")
    places = places.reshape(-1, 1) if channel < 0 else np.moveaxis(places, channel, -1).reshape(-1, ahead[channel])
    return [[(number, int(place)) for place in row] for row in places]


@dataclass(frozen=True)
class _Scan:
    """One image of a TIFF: its pixels above the databar, their edge (m) where the file says it, the databar's rows."""

    pixels: NDArray[np.generic]
    white_is_zero: bool
    pixel_m: float | None
    databar_px: int


def _scan_of(path: Path, place: tuple[int, int]) -> _Scan:
    """Read one image of a TIFF.

    A microscope writes the databar, scale bar and settings, below the picture; labelled, it would count as electrode.
    """
    import tifffile

    number, index = place
    with readable(path), tifffile.TiffFile(path) as tif:
        series = tif.series[number]
        page = series.keyframe
        if series.size == len(series.pages) * page.size:
            pixels = np.asarray(series.asarray(key=index))
        else:  # ImageJ describes one image, and the others follow it
            pixels = np.array(tifffile.memmap(path, series=number, mode="r").reshape(-1, *page.shape)[index])
        rows, pixel_m = _scanned(tif.fei_metadata or {}, pixels.shape)
        white_is_zero = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    return _Scan(pixels[:rows], white_is_zero, pixel_m, pixels.shape[0] - rows)


def _scanned(told: Mapping[str, Any], shape: tuple[int, ...]) -> tuple[int, float | None]:
    """Return how many of an image's rows were scanned, and the pixel's edge (m), by what FEI's tag 34682 tells.

    Nothing is believed of an image that isn't as wide as its scan: it was made larger or smaller after it was taken.
    """
    columns, rows, databar, pixel = (
        _number(told, section, name)
        for section, name in (
            ("Image", "ResolutionX"), ("Image", "ResolutionY"), ("PrivateFei", "DatabarHeight"), ("Scan", "PixelWidth"),
        )
    )  # fmt: skip
    height = shape[0]
    if columns is not None and len(shape) > 1 and columns != shape[1]:
        return height, None
    if rows is None:
        rows = height - (databar or 0)
    return (int(rows) if 0 < rows < height else height), pixel


def _number(told: Mapping[str, Any], section: str, name: str) -> float | None:
    """Return a positive number of FEI's metadata, None where there is none."""
    values = told.get(section)
    value = values.get(name) if isinstance(values, dict) else None
    return float(value) if isinstance(value, int | float) and 0 < value < float("inf") else None


# -- greys -------------------------------------------------------------------------------------------------------------


def read_grey(path: Path) -> NDArray[np.float32]:
    """Read one picture as greys 0..1, float32 (y, x); colours turn grey, a microscope's databar is cut off.

    ValueError when it is no such picture.
    """
    _there(path)
    readers = _readers(path)
    if len(readers) != 1:
        msg = f"{path} holds {len(readers)} images where one is expected"
        raise ValueError(msg)
    return readers[0]().grey


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Read labels, the first where there are several, uint8 (y, x): codes of phases, IGNORE where nothing is known.

    ValueError when the image holds anything else.
    """
    _there(path)
    tiff = path.suffix.lower() in _TIFF
    found = _scan_of(path, (0, 0)).pixels if tiff else _picture(path)
    codes = {*map(int, Phase), IGNORE}
    if found.dtype != np.uint8 or found.ndim != 2 or not set(np.unique(found).tolist()) <= codes:
        msg = f"{path}: a reference is an 8-bit grey image of labels {sorted(codes)}"
        raise ValueError(msg)
    return found.astype(np.uint8)


def _there(path: Path) -> None:
    if not path.is_file():
        msg = f"{path} does not exist"
        raise ValueError(msg)


def _picture(path: Path) -> NDArray[np.generic]:
    """Read a picture that is no TIFF."""
    from PIL import Image as Pictures

    try:
        with Pictures.open(path) as image:
            return np.asarray(image.convert("RGB") if image.mode in ("P", "CMYK") else image)
    except (OSError, SyntaxError, ValueError, struct.error, zlib.error) as error:  # by what is broken in it
        msg = f"{path} cannot be read as an image: {error}"
        raise ValueError(msg) from error


def _grey(image: NDArray[np.generic], path: Path, *, white_is_zero: bool = False) -> NDArray[np.float32]:
    """Return greys 0..1 of a grey, grey + alpha, RGB or RGBA image; 1 is white, whichever way the file counts."""
    if image.dtype == np.int32 and image.min() >= 0 and image.max() <= np.iinfo(np.uint16).max:
        image = image.astype(np.uint16)  # how some readers give 16-bit PNG
    try:
        values = scaled(image)
    except ValueError as error:
        msg = f"{path}: {error}"
        raise ValueError(msg) from error
    if values.ndim == 3 and values.shape[2] in (2, 4):
        values = values[..., :-1]
    if values.ndim == 3 and values.shape[2] == 3:
        values = values @ _RED_GREEN_BLUE
    elif values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2 or 0 in values.shape:
        msg = f"{path}: an image has height and width, this one is {' x '.join(map(str, image.shape))}"
        raise ValueError(msg)
    return np.ascontiguousarray(1.0 - values if white_is_zero else values, np.float32)
