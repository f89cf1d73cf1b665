"""Labels images that exist already: one image a detector, stacks, folders of slices, our own runs.

The function behind `kintsugi segment`. Slices are read, labelled and written one by one, so that memory does not grow
with their number.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from analysis.core import FILLABLE_M, UNFAMILIAR, SegmentationCore, Share, SliceNumbers
from analysis.files import write_whole
from analysis.ometiff import label_bytes, read_slice, scaled
from analysis.phases import IGNORE, NAMES, Phase

_TIFF = (".tif", ".tiff")
_PICTURES = (*_TIFF, ".png", ".jpg", ".jpeg", ".bmp")
#: A pixel size that differs from the file's own by this share is told of.
_PIXEL_ROOM = 0.01
_RED_GREEN_BLUE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601 luma

Told = Callable[[int, int], None]
"""Called with slices done and slices in all."""


class Agreement(BaseModel):
    """How labels agree with a reference: intersection over union by phase, its mean, share of pixels alike."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    mean_iou: Share
    iou: dict[str, Share]
    accuracy: Share
    pixels: int


class Summary(BaseModel):
    """What `segment_images` found, as written to summary.json; shares 0..1, lengths in metres, times in seconds.

    `novelty` is that of the slice most unlike what the network was trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    slices: int
    width_px: int
    height_px: int
    pixel_m: float
    channels: tuple[str, ...]
    ignored_channels: tuple[str, ...]
    phase_fractions: dict[str, Share]
    electrode_fractions: dict[str, Share]
    film_fraction: Share
    unfilled_share: Share
    confidence: Share
    doubt: Share
    novelty: Share
    seconds: float
    model_id: str
    agreement: Agreement | None
    remarks: tuple[str, ...]
    files: dict[str, str]
    versions: dict[str, str]


@dataclass(frozen=True)
class _Image:
    """One image: greys (y, x), the pixel's edge (m) where its file says it, rows of a databar that were cut off."""

    grey: NDArray[np.float32]
    pixel_m: float | None = None
    databar_px: int = 0


@dataclass(frozen=True)
class _Read:
    """One slice: greys (y, x) by channel, the pixel's edge (m) where the files say it, rows of databar cut off."""

    channels: dict[str, NDArray[np.float32]]
    pixel_m: float | None
    databar_px: int = 0


@dataclass(frozen=True)
class _Source:
    """One slice to be read."""

    read: Callable[[], _Read]


def segment_images(
    channels: Mapping[str, Path],
    out: Path,
    *,
    inputs: Sequence[Path] = (),
    pixel_m: float | None = None,
    model: Path | None = None,
    fillable_m: float = FILLABLE_M,
    reference: Path | None = None,
    told: Told | None = None,
) -> Summary:
    """Label images and write labels/s0001.tif..., overlay.png and summary.json into `out`.

    Parameters
    ----------
    channels : by detector name (CBS, TLD), an image, a TIFF stack, or a folder of images in the order of their names;
        8 or 16 bit, grey or RGB, all of one size and number; one detector is enough
    out : folder, made when missing
    inputs : OME-TIFF slices with named channels, folders of them, a run's folder; images without names are taken as CBS
    pixel_m : the pixel's edge, metres; needed where the files don't say it, and preferred to what they say; OME-TIFF
        and the microscope's own TIFF (FEI, whose databar is cut off) say it
    model : model folder; None is the one that comes with the package
    fillable_m : width (m) below which a pore counts as one that platinum could fill
    reference : label image (0..4, 255 not labelled) of the only or first slice; the agreement is put into the summary
    told : told how many slices are done

    Raises
    ------
    ValueError : nothing to label, unreadable or unlike images, an unknown pixel size, no known detector
    OSError : a file cannot be read or written
    """
    sources = _sources(channels, inputs)
    core = SegmentationCore(model)
    (out / "labels").mkdir(parents=True, exist_ok=True)
    numbers: list[SliceNumbers] = []
    size = (0, 0)
    names: tuple[str, ...] = ()
    agreement: Agreement | None = None
    noted: dict[str, None] = {}  # in order, each once
    files = {"labels": "labels", "overlay": "overlay.png", "summary": "summary.json"}
    for index, source in enumerate(sources):
        name = f"s{index + 1:04d}"
        read = source.read()
        images, pixel = read.channels, _pixel(pixel_m, read.pixel_m, name)
        _told_of(read, pixel, noted)
        result = core.segment(images, pixel, fillable_m, name=name)
        digest = write_whole(out / "labels" / f"{name}.tif", label_bytes(result.labels, pixel))
        numbers.append(result.numbers.model_copy(update={"labels_sha256": digest}))
        _write_json(out / "labels" / f"{name}.json", numbers[-1])
        if index == 0:
            size, names = result.labels.shape, tuple(images)
            write_whole(out / "overlay.png", _picture(images, result.labels, numbers[0], pixel))
            if reference is not None:
                agreement = _agreement(result.labels, reference)
        if told is not None:
            told(index + 1, len(sources))
    gaps = sorted({gap for place in (*channels.values(), *inputs) for gap in missing_numbers(_files(place))})
    noted |= {f"no image has the number {missing}": None for missing in gaps}
    summary = _summary(numbers, size, names, agreement, core, files, tuple(noted))
    _write_json(out / "summary.json", summary)
    return summary


def read_grey(path: Path) -> NDArray[np.float32]:
    """Read one picture as greys 0..1, float32 (y, x); colours turn grey, a microscope's databar is cut off.

    ValueError when it is no such picture.
    """
    planes = [_grey(plane, path) for plane in _planes(path)]
    if len(planes) != 1:
        msg = f"{path} holds {len(planes)} images where one is expected"
        raise ValueError(msg)
    return planes[0]


def _write_json(path: Path, value: BaseModel) -> None:
    write_whole(path, (value.model_dump_json(indent=1) + "\n").encode("utf-8"))


def _pixel(given: float | None, said: float | None, name: str) -> float:
    pixel = given if given is not None else said
    if pixel is None:
        msg = f'{name}: the file does not say its pixel size; give it, for example --pixel-size "20 nm"'
        raise ValueError(msg)
    return pixel


def _told_of(read: _Read, pixel_m: float, noted: dict[str, None]) -> None:
    """Note what a person should know of how a slice was read."""
    if read.databar_px:
        noted[f"the databar, {read.databar_px} rows below the picture, was cut off"] = None
    if read.pixel_m is not None and abs(pixel_m - read.pixel_m) > _PIXEL_ROOM * read.pixel_m:
        said = f"the file says pixels of {read.pixel_m * 1e9:.4g} nm, and {pixel_m * 1e9:.4g} nm was given and is used"
        noted[f"{said}; areas and widths depend on it"] = None


# -- finding and reading -----------------------------------------------------------------------------------------------


def _sources(channels: Mapping[str, Path], inputs: Sequence[Path]) -> list[_Source]:
    """Return the slices to label, in order; ValueError when there are none or the channels don't fit together."""
    if channels and inputs:
        msg = "give either one file a channel, or files that name their channels themselves, not both"
        raise ValueError(msg)
    if channels:
        return _by_channel(channels)
    sources: list[_Source] = []
    for place in inputs:
        for path in _files(place):
            sources.extend(_in_file(path))
    if not sources:
        msg = f"there is nothing to label in {', '.join(map(str, inputs)) or 'no input'}"
        raise ValueError(msg)
    return sources


def _files(place: Path) -> list[Path]:
    if not place.exists():
        msg = f"{place} does not exist"
        raise ValueError(msg)
    if place.is_file():
        return [place]
    folder = place / "slices" if (place / "slices").is_dir() else place
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES and path.name[0] != ".")


def missing_numbers(paths: Sequence[Path]) -> list[str]:
    """Return the numbers that are left out between the first and the last of files with numbers in their names."""
    found = [re.search(r"(\d+)\D*$", path.name.split(".")[0]) for path in paths]
    numbers = sorted({int(one.group(1)) for one in found if one is not None})
    if len(paths) < 2 or len(numbers) != len(paths):
        return []
    lacking = [(a + 1, b - 1) for a, b in pairwise(numbers) if b > a + 1]
    return [str(a) if a == b else f"{a} to {b}" for a, b in lacking]


def _by_channel(channels: Mapping[str, Path]) -> list[_Source]:
    """Return slices from one file, stack or folder a channel."""
    stacks: dict[str, list[Callable[[], _Image]]] = {}
    for name, place in channels.items():
        stacks[name] = [reader for path in _files(place) for reader in _readers(path)]
    counts = {name: len(stack) for name, stack in stacks.items()}
    if len(set(counts.values())) > 1 or 0 in counts.values():
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        msg = f"every channel has the same number of images, at least one; here {told}"
        raise ValueError(msg)

    def source(index: int) -> _Source:
        return _Source(lambda: _together({name: stack[index]() for name, stack in stacks.items()}))

    return [source(index) for index in range(next(iter(counts.values())))]


def _together(images: Mapping[str, _Image]) -> _Read:
    """Return the channels of one slice; ValueError where their files give it pixels of different sizes."""
    said = {name: image.pixel_m for name, image in images.items() if image.pixel_m is not None}
    pixel = next(iter(said.values()), None)
    if pixel is not None and any(abs(other - pixel) > _PIXEL_ROOM * pixel for other in said.values()):
        shown = ", ".join(f"{name} {other * 1e9:.4g} nm" for name, other in said.items())
        msg = f"the channels of a slice show the same pixels, and their files say {shown}"
        raise ValueError(msg)
    databar = max(image.databar_px for image in images.values())
    return _Read({name: image.grey for name, image in images.items()}, pixel, databar)


def _readers(path: Path) -> list[Callable[[], _Image]]:
    """Return a reader for every image in a file; a stack's pages are read one at a time."""
    if path.suffix.lower() not in _TIFF:
        return [lambda: _Image(read_grey(path))]

    def reader(page: int) -> Callable[[], _Image]:
        return lambda: _page(path, page)

    return [reader(page) for page in range(_pages(path))]


def _in_file(path: Path) -> list[_Source]:
    """Return the slices of a file that names its channels; a picture that names none counts as CBS."""

    def named() -> _Read:
        plane = read_slice(path)
        return _Read(plane.channels, plane.pixel_m)

    def plain(read: Callable[[], _Image]) -> _Source:
        return _Source(lambda: _together({"CBS": read()}))

    if path.suffix.lower() in _TIFF and _is_ome(path):
        return [_Source(named)]
    return [plain(read) for read in _readers(path)]


def _is_ome(path: Path) -> bool:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            return bool(tif.is_ome)
    except (tifffile.TiffFileError, OSError) as error:
        msg = f"{path} cannot be read as a TIFF image: {error}"
        raise ValueError(msg) from error


def _pages(path: Path) -> int:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            return len(tif.pages)
    except (tifffile.TiffFileError, OSError) as error:
        msg = f"{path} cannot be read as a TIFF image: {error}"
        raise ValueError(msg) from error


def _page(path: Path, page: int) -> _Image:
    """Read one page of a TIFF as greys."""
    pixels, pixel_m, databar = _scan_of(path, page)
    return _Image(_grey(pixels, path), pixel_m, databar)


def _scan_of(path: Path, page: int) -> tuple[NDArray[np.generic], float | None, int]:
    """Read one page of a TIFF: its pixels above the databar, their edge (m) where the file says it, the databar's rows.

    A microscope writes the databar, scale bar and settings, below the picture; labelled, it would count as electrode.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            pixels = np.asarray(tif.pages[page].asarray())
            rows, pixel_m = _scanned(tif.fei_metadata or {}, pixels.shape)
    except (tifffile.TiffFileError, OSError, ValueError) as error:
        msg = f"{path} cannot be read as a TIFF image: {error}"
        raise ValueError(msg) from error
    return pixels[:rows], pixel_m, pixels.shape[0] - rows


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


def _planes(path: Path) -> Iterator[NDArray[np.generic]]:
    from PIL import Image, UnidentifiedImageError

    if not path.is_file():
        msg = f"{path} does not exist"
        raise ValueError(msg)
    if path.suffix.lower() in _TIFF:
        yield from (_scan_of(path, page)[0] for page in range(_pages(path)))
        return
    try:
        with Image.open(path) as image:
            yield np.asarray(image.convert("RGB") if image.mode in ("P", "CMYK") else image)
    except (UnidentifiedImageError, OSError) as error:
        msg = f"{path} cannot be read as an image: {error}"
        raise ValueError(msg) from error


def _grey(image: NDArray[np.generic], path: Path) -> NDArray[np.float32]:
    """Return greys 0..1 of a grey, grey + alpha, RGB or RGBA image."""
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
    return np.ascontiguousarray(values, np.float32)


# -- results -----------------------------------------------------------------------------------------------------------


def _agreement(labels: NDArray[np.uint8], reference: Path) -> Agreement:
    from analysis.score import confusion, iou, mean_iou

    truth = next(_planes(reference))
    codes = {*map(int, Phase), IGNORE}
    if truth.dtype != np.uint8 or truth.ndim != 2 or not set(np.unique(truth).tolist()) <= codes:
        msg = f"{reference}: a reference is an 8-bit grey image of labels {sorted(codes)}"
        raise ValueError(msg)
    counts = confusion(labels, truth.astype(np.uint8))
    total = int(counts.sum())
    right = float(np.trace(counts) / total) if total else 0.0
    return Agreement(mean_iou=mean_iou(counts), iou=iou(counts), accuracy=right, pixels=total)


def _picture(
    images: Mapping[str, NDArray[np.float32]], labels: NDArray[np.uint8], numbers: SliceNumbers, pixel_m: float
) -> bytes:
    from analysis.network import detector_of, normalised
    from analysis.overlay import overlay_png

    shown = next(name for name in images if detector_of(name) is not None)
    title = f"{shown}; labels by {numbers.model_id}, mean confidence {numbers.confidence:.2f}"
    return overlay_png(normalised(images[shown]), labels, pixel_m, numbers.phase_fractions, title)


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    total = sum(weights)
    return sum(v * w for v, w in zip(values, weights, strict=True)) / total if total else 0.0


def _summary(
    numbers: Sequence[SliceNumbers],
    size: tuple[int, ...],
    names: tuple[str, ...],
    agreement: Agreement | None,
    core: SegmentationCore,
    files: dict[str, str],
    noted: Sequence[str],
) -> Summary:
    from analysis.network import PIXEL_MAX_M, PIXEL_MIN_M, detector_of

    ones = [1.0] * len(numbers)
    used = tuple(name for name in names if detector_of(name) is not None)
    pixel = numbers[0].pixel_m
    remarks: list[str] = []
    if pixel > PIXEL_MAX_M:
        remarks.append(f"pixels of {pixel * 1e9:.0f} nm were enlarged to {PIXEL_MAX_M * 1e9:.0f} nm or less")
    if pixel < PIXEL_MIN_M:
        remarks.append(f"pixels of {pixel * 1e9:.0f} nm were binned to {PIXEL_MIN_M * 1e9:.0f} nm or more")
    if not {"CBS", "TLD"} <= {detector_of(name) for name in used}:
        remarks.append(f"labelled from {', '.join(used)} alone; CBS and TLD together are better")
    strange = [n.name for n in numbers if n.novelty > UNFAMILIAR]
    if strange:
        named = f"{', '.join(strange[:5])}{' and others' if len(strange) > 5 else ''}"
        remarks.append(
            f"{named}: unlike anything the network was trained on, so don't trust the labels; teach it by strokes "
            "(`kintsugi annotate`)"
        )
    remarks += noted
    return Summary(
        slices=len(numbers),
        width_px=size[1],
        height_px=size[0],
        pixel_m=pixel,
        channels=used,
        ignored_channels=tuple(name for name in names if name not in used),
        phase_fractions={
            NAMES[phase]: _mean([n.phase_fractions[NAMES[phase]] for n in numbers], ones)
            for phase in (Phase.PORE, Phase.CBD, Phase.ACTIVE, Phase.COLLECTOR)
        },
        electrode_fractions={
            NAMES[phase]: _mean([n.electrode_fractions[NAMES[phase]] for n in numbers], ones)
            for phase in (Phase.PORE, Phase.CBD, Phase.ACTIVE)
        },
        film_fraction=_mean([n.film_fraction for n in numbers], ones),
        unfilled_share=_mean([n.unfilled_share for n in numbers], [n.fillable_area_m2 for n in numbers]),
        confidence=_mean([n.confidence for n in numbers], ones),
        doubt=_mean([n.doubt for n in numbers], ones),
        novelty=max(n.novelty for n in numbers),
        seconds=sum(n.seconds for n in numbers),
        model_id=core.model_id,
        agreement=agreement,
        remarks=tuple(remarks),
        files=files,
        versions={
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("torch", "numpy", "scipy", "tifffile")},
        },
    )
