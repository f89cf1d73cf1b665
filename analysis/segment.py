"""Labels images that exist already: one image a detector, stacks, folders of slices, our own runs.

The function behind `kintsugi segment`. Slices are read, labelled and written one by one, so that memory does not grow
with their number.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from analysis.core import FILLABLE_M, UNFAMILIAR, SegmentationCore, Share, SliceNumbers
from analysis.files import write_whole
from analysis.ometiff import label_bytes
from analysis.phases import NAMES, Phase
from analysis.sources import PIXEL_ROOM, Read, files_in, missing_numbers, named, read_labels, sources_of

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
    channels : by detector name (CBS, TLD), an image, a TIFF stack, or a folder of images in the order of their names,
        paired by their numbers where every name has one; 8 or 16 bit, grey or RGB, all of one size and number; one
        detector is enough
    out : folder, made when missing
    inputs : OME-TIFF slices with named channels, Fiji's hyperstacks whose labels name detectors, folders of them, a
        run's folder; images without channels are taken as CBS
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
    sources = sources_of(channels, inputs)
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
        read = source()
        images, pixel = read.channels, _pixel(pixel_m, read.pixel_m, name)
        _told_of(read, pixel, noted)
        result = core.segment(images, pixel, fillable_m, name=name)
        digest = write_whole(out / "labels" / f"{name}.tif", label_bytes(result.labels, pixel))
        numbers.append(result.numbers.model_copy(update={"labels_sha256": digest, "read_from": read.files}))
        _write_json(out / "labels" / f"{name}.json", numbers[-1])
        if index == 0:
            size, names = result.labels.shape, tuple(images)
            write_whole(out / "overlay.png", _picture(images, result.labels, numbers[0], pixel))
            if reference is not None:
                agreement = _agreement(result.labels, reference)
        if told is not None:
            told(index + 1, len(sources))
    gaps = sorted({gap for place in (*channels.values(), *inputs) for gap in missing_numbers(files_in(place))})
    noted |= {f"no image has the number {missing}": None for missing in gaps}
    summary = _summary(numbers, size, names, agreement, core, files, tuple(noted))
    _write_json(out / "summary.json", summary)
    return summary


def _write_json(path: Path, value: BaseModel) -> None:
    write_whole(path, (value.model_dump_json(indent=1) + "\n").encode("utf-8"))


def _pixel(given: float | None, said: float | None, name: str) -> float:
    pixel = given if given is not None else said
    if pixel is None:
        msg = f'{name}: the file does not say its pixel size; give it, for example --pixel-size "20 nm"'
        raise ValueError(msg)
    return pixel


def _told_of(read: Read, pixel_m: float, noted: dict[str, None]) -> None:
    """Note what a person should know of how a slice was read."""
    if read.databar_px:
        noted[f"the databar, {read.databar_px} rows below the picture, was cut off"] = None
    if read.pixel_m is not None and abs(pixel_m - read.pixel_m) > PIXEL_ROOM * read.pixel_m:
        said = f"the file says pixels of {read.pixel_m * 1e9:.4g} nm, and {pixel_m * 1e9:.4g} nm was given and is used"
        noted[f"{said}; areas and widths depend on it"] = None


# -- results -----------------------------------------------------------------------------------------------------------


def _agreement(labels: NDArray[np.uint8], reference: Path) -> Agreement:
    from analysis.score import confusion, iou, mean_iou

    truth = read_labels(reference)
    counts = confusion(labels, truth)
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
    for detector in sorted({one for n in numbers for one in n.blank}):
        without = named([n.name for n in numbers if detector in n.blank])
        remarks.append(f"{without}: the picture of {detector} shows nothing and was left out; look at that detector")
    strange = [n.name for n in numbers if n.novelty > UNFAMILIAR]
    if strange:
        remarks.append(
            f"{named(strange)}: unlike anything the network was trained on, so don't trust the labels; teach it by "
            "strokes (`kintsugi annotate`)"
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
