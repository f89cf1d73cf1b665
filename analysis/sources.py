"""Finds images to be labelled and reads them as greys: pictures, stacks, folders, OME-TIFF, a microscope's own TIFF."""

from __future__ import annotations

import math
import re
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analysis.ometiff import read_slice, readable, scaled
from analysis.phases import IGNORE, Phase
from analysis.scans import scan_of

if TYPE_CHECKING:
    from tifffile import TiffPageSeries

_TIFF = (".tif", ".tiff")
_OME = (".ome.tif", ".ome.tiff")
_PICTURES = (*_TIFF, ".png", ".jpg", ".jpeg", ".bmp")
#: A pixel size that differs from the file's own by this share is told of.
PIXEL_ROOM = 0.01
#: Red, green and blue that differ by more than this share of white are colours.
_COLOURED = 0.03
#: A TIFF with so many images and no names may hold the detectors of one slice as well as slices.
_DETECTORS_OR_SLICES = (2, 3)
_RED_GREEN_BLUE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601 luma


Place = tuple[str, int]
"""Where an image stands among others: a stack or the text about the number in a file's name, and the number."""


@dataclass(frozen=True)
class Image:
    """One image: greys (y, x), where it was read, the pixel's edge (m) where its file says it, rows of databar cut.

    `notes` are what a person should know of how it was read; `place` is None where nothing numbers it.
    """

    grey: NDArray[np.float32]
    file: str
    pixel_m: float | None = None
    databar_px: int = 0
    notes: tuple[str, ...] = ()
    place: Place | None = None


@dataclass(frozen=True)
class Read:
    """One slice: greys (y, x) by channel, the pixel's edge (m) where the files say it, rows of databar cut off.

    `files` says by channel where it was read, `notes` what a person should know of that; `places` are by channel too.
    """

    channels: dict[str, NDArray[np.float32]]
    pixel_m: float | None
    databar_px: int = 0
    files: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    places: dict[str, Place | None] = field(default_factory=dict)

    def follows(self, other: Read) -> bool:
        """Tell whether this is the very next slice: in every channel the next image of a stack, or the next number."""
        return self.places.keys() == other.places.keys() and all(
            place is not None and other.places[name] == (place[0], place[1] - 1) for name, place in self.places.items()
        )


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
    unnamed: list[str] = []
    for path in (path for place in inputs for path in files_in(place)):
        found = _in_file(path)
        sources += found.sources
        if found.unnamed and len(found.sources) in _DETECTORS_OR_SLICES:
            unnamed.append(path.name)
    if len(unnamed) > 1:
        msg = (
            f"{named(unnamed)}: each holds a few images, slices or detectors, and no labels that say which; save them "
            "one file a detector, and give them as --channel CBS=... --channel TLD=..."
        )
        raise ValueError(msg)
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
    found = _last_number(path)
    return None if found is None else int(found.group(1))


def _last_number(path: Path) -> re.Match[str] | None:
    return re.search(r"(\d+)\D*$", path.name.split(".")[0])


def _place_of(path: Path) -> Place | None:
    """Return where a file of one image stands among its folder's, None for a name without a number."""
    found = _last_number(path)
    if found is None:
        return None
    return str(path.with_name(f"{path.name[: found.start(1)]}#{path.name[found.end(1) :]}")), int(found.group(1))


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


def one_slice(channels: Mapping[str, Path]) -> Read:
    """Read one slice from one picture a channel. ValueError where there is more than one, or what can't be read."""
    found = _by_channel(channels)
    if len(found) != 1:
        msg = f"{', '.join(map(str, channels.values()))} hold {len(found)} images each where one is expected"
        raise ValueError(msg)
    return found[0]()


def _by_channel(channels: Mapping[str, Path]) -> list[Source]:
    """Return slices from one file, stack or folder a channel; ValueError where two channels are of one detector."""
    from analysis.network import detector_of

    given: dict[str, str] = {}
    for name in channels:
        detector = detector_of(name) or name
        if detector in given:
            msg = f"{given[detector]} and {name} are both {detector}: give each detector once"
            raise ValueError(msg)
        given[detector] = name
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
        return Read(
            greys, pixel, databar, {name: image.file for name, image in images.items()},
            tuple(f"{name}: {note}" for name, image in images.items() for note in image.notes),
            {name: image.place for name, image in images.items()},
        )  # fmt: skip

    return read


@dataclass(frozen=True)
class _InFile:
    """The slices of a file; `unnamed` where it holds several of which nothing says what they are."""

    sources: list[Source]
    unnamed: bool = False


def _in_file(path: Path) -> _InFile:
    """Return the slices of a file that names its channels; a picture that has none counts as CBS."""

    def named_ones() -> Read:
        plane = read_slice(path)
        return Read(
            plane.channels, plane.pixel_m, files=dict.fromkeys(plane.channels, path.name),
            places=dict.fromkeys(plane.channels, _place_of(path)),
        )  # fmt: skip

    if path.suffix.lower() not in _TIFF:
        return _InFile([_together({"CBS": reader}) for reader in _readers(path)])
    stack = _stack(path)
    if stack.is_ome:
        return _InFile([named_ones])
    if path.name.lower().endswith(_OME):
        msg = f"{path} is called an OME-TIFF and has no OME-XML; name it .tif where it is a plain one"
        raise ValueError(msg)
    sources = [_together({name: stack.reader(place) for name, place in zip(stack.names, row, strict=True)})
               for row in stack.slices]  # fmt: skip
    count, unnamed = len(sources), stack.channels == 1
    if unnamed and count in _DETECTORS_OR_SLICES:
        note = f"{count} images in {path.name} were taken as slices of CBS; name detectors with --channel"
        sources = [_noted(source, note) for source in sources]
    return _InFile(sources, unnamed)


def _noted(source: Source, note: str) -> Source:
    def read() -> Read:
        found = source()
        return replace(found, notes=(*found.notes, note))

    return read


def _readers(path: Path) -> list[Reader]:
    """Return a reader for every image in a file of one channel; a stack's are read one at a time."""
    if path.suffix.lower() not in _TIFF:
        return [lambda: _image(_picture(path), path, path.name, _place_of(path))]
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
        file, at = self.path.name, _place_of(self.path)
        if len(every) > 1:
            file += f", image {every.index(place) + 1} of {len(every)}"
            at = str(self.path), next(number for number, row in enumerate(self.slices) if place in row)

        def read() -> Image:
            scan = scan_of(self.path, place)
            image = _image(scan.pixels, self.path, file, at, white_is_zero=scan.white_is_zero)
            return replace(image, pixel_m=scan.pixel_m, databar_px=scan.databar_px)

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


# -- greys -------------------------------------------------------------------------------------------------------------


def read_grey(path: Path) -> NDArray[np.float32]:
    """Read one picture as greys 0..1, float32 (y, x); colours turn grey, a microscope's databar is cut off.

    ValueError when it is no such picture.
    """
    must_exist(path)
    readers = _readers(path)
    if len(readers) != 1:
        msg = f"{path} holds {len(readers)} images where one is expected"
        raise ValueError(msg)
    return readers[0]().grey


def read_labels(path: Path) -> NDArray[np.uint8]:
    """Read labels, the first where there are several, uint8 (y, x): codes of phases, IGNORE where nothing is known.

    ValueError when the image holds anything else.
    """
    must_exist(path)
    tiff = path.suffix.lower() in _TIFF
    found = scan_of(path, (0, 0)).pixels if tiff else _picture(path)
    codes = {*map(int, Phase), IGNORE}
    if found.dtype != np.uint8 or found.ndim != 2 or not set(np.unique(found).tolist()) <= codes:
        msg = f"{path}: a reference is an 8-bit grey image of labels {sorted(codes)}"
        raise ValueError(msg)
    return found.astype(np.uint8)


def must_exist(path: Path) -> None:
    """Raise ValueError where there is no such file."""
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


def _image(
    pixels: NDArray[np.generic], path: Path, file: str, place: Place | None, *, white_is_zero: bool = False
) -> Image:
    """Return what was read as greys 0..1; 1 is white, whichever way the file counts."""
    values = _scaled(pixels, path)
    if values.ndim == 3 and values.shape[2] in (2, 4):  # the last says how opaque a pixel is
        values = values[..., :-1]
    notes: tuple[str, ...] = ()
    if values.ndim == 3 and values.shape[2] == 3:
        if bool((values.max(axis=2) - values.min(axis=2) > _COLOURED).any()):
            notes = ("colours were turned grey, and a detector's own picture has none",)
        values = values @ _RED_GREEN_BLUE
    elif values.ndim == 3 and values.shape[2] == 1:
        values = values[..., 0]
    if values.ndim != 2 or 0 in values.shape:
        msg = f"{path}: an image has height and width, this one is {' x '.join(map(str, pixels.shape))}"
        raise ValueError(msg)
    grey = np.ascontiguousarray(1.0 - values if white_is_zero else values, np.float32)
    return Image(grey, file, notes=notes, place=place)


def _scaled(pixels: NDArray[np.generic], path: Path) -> NDArray[np.float32]:
    if pixels.dtype == np.int32 and pixels.size and pixels.min() >= 0 and pixels.max() <= np.iinfo(np.uint16).max:
        pixels = pixels.astype(np.uint16)  # how some readers give 16-bit PNG
    try:
        return scaled(pixels)
    except ValueError as error:
        msg = f"{path}: {error}"
        raise ValueError(msg) from error
