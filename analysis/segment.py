"""Labels images that exist already: one image a detector, stacks, folders of slices, our own runs.

The function behind `kintsugi segment`. Slices are read, labelled and written one by one, so that memory does not grow
with their number.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from analysis.core import DOUBTFUL, ELECTRODE, FILLABLE_M, UNFAMILIAR, SegmentationCore, Share, SliceNumbers
from analysis.files import write_whole
from analysis.label_files import labelled_in, write_labelled
from analysis.neighbours import alike, laid_over
from analysis.ometiff import Slice
from analysis.phases import NAMES, Phase
from analysis.sources import PIXEL_ROOM, Read, files_in, missing_numbers, named, read_labels, sources_of
from analysis.trust import warnings

if TYPE_CHECKING:
    from analysis.network import Channels

#: Height and width below which an image shows nothing that could be labelled, pixels.
_LEAST_PX = 32

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

    Shares and `electrode_intervals` are means over the slices; these are what each of `electrode_fractions` is at least
    and at most, and `doubt` is as in SliceNumbers. `novelty` is that of the slice most unlike what the network was
    trained on.
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
    electrode_intervals: dict[str, tuple[Share, Share]]
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
    quick: bool = False,
    device: str = "cpu",
    told: Told | None = None,
) -> Summary:
    """Label images and write labels/s0001.tif..., overlay.png and summary.json into `out`.

    The network sees the slice before each one too, where the files are a stack or have numbers in turn; the slices on
    both sides make no better labels than that (model card).

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
    quick : leave out the mirror image, which the network is asked about too: half the time, labels a little worse
    device : of torch, such as cpu, cuda, mps
    told : told how many slices are done

    Raises
    ------
    ValueError : nothing to label, unreadable or unlike images, an unknown pixel size, no known detector, an `out` that
        holds other labels than these
    RuntimeError : torch has no such device here
    OSError : a file cannot be read or written
    """
    sources = sources_of(channels, inputs)
    names = [f"s{index:04d}" for index in range(1, len(sources) + 1)]
    _check_out(out, names)
    truth = None if reference is None else read_labels(reference)
    core = SegmentationCore(model, device)
    folder = out / "labels"
    folder.mkdir(parents=True, exist_ok=True)
    numbers: list[SliceNumbers] = []
    size = (0, 0)
    seen: tuple[str, ...] = ()
    agreement: Agreement | None = None
    noted: dict[str, None] = {}  # in order, each once
    before: tuple[Read, float] | None = None
    for name, source in zip(names, sources, strict=True):
        read = source()
        pixel = _pixel(pixel_m, read.pixel_m, name)
        _check(read, name, truth if not numbers else None)
        _told_of(read, pixel, noted)
        beside, before = _help_for(read, pixel, before), None  # large slices are not held twice
        found = core.label(read.channels, pixel, before=beside, mirrored=not quick)
        del beside
        if not numbers:  # from here on an older summary would tell of labels that are replaced
            (out / "summary.json").unlink(missing_ok=True)
        numbers.append(write_labelled(core, found, folder, name, fillable_m, read_from=read.files))
        if len(numbers) == 1:
            size, seen = found.labels.shape, tuple(read.channels)
            write_whole(out / "overlay.png", _picture(read.channels, found.labels, numbers[0], pixel))
            agreement = None if truth is None else _agreement(found.labels, truth)
        before = read, pixel
        if told is not None:
            told(len(numbers), len(sources))
    gaps = sorted({gap for place in (*channels.values(), *inputs) for gap in missing_numbers(files_in(place))})
    noted |= {f"no image has the number {missing}": None for missing in gaps}
    files = {"labels": "labels", "overlay": "overlay.png", "summary": "summary.json"}
    summary = _summary(numbers, size, seen, agreement, core, files, tuple(noted))
    write_whole(out / "summary.json", (summary.model_dump_json(indent=1) + "\n").encode("utf-8"))
    return summary


def _check_out(out: Path, names: Sequence[str]) -> None:
    """Refuse a folder with labels that would be taken for these, or lost to them."""
    if (out / "slices").is_dir():
        msg = f"{out} is a run's folder, whose labels are kept as the run made them; give another --out"
        raise ValueError(msg)
    if theirs := sorted(labelled_in(out / "labels") - set(names)):
        msg = f"{out / 'labels'} holds labels of {named(theirs)}, which are not made now; give another --out"
        raise ValueError(msg)


def _check(read: Read, name: str, truth: NDArray[np.uint8] | None) -> None:
    """Refuse a slice too small to be one, or of another size than its reference."""
    from analysis.network import by_detector

    height, width = next(iter(by_detector(read.channels).values())).shape
    if min(height, width) < _LEAST_PX:
        msg = f"{name} has {height} x {width} pixels, and labels need {_LEAST_PX} x {_LEAST_PX} or more"
        raise ValueError(msg)
    if truth is not None and truth.shape != (height, width):
        other = " x ".join(map(str, truth.shape))
        msg = f"the reference has {other} pixels and {name} {height} x {width}: it is labels of the first slice"
        raise ValueError(msg)


def _help_for(read: Read, pixel_m: float, before: tuple[Read, float] | None) -> Channels | None:
    """Return the greys of the slice before on a slice's pixels; None where it is not the very one before, or unlike."""
    from analysis.network import by_detector

    if before is None or not read.follows(before[0]):
        return None
    this = Slice(by_detector(read.channels), pixel_m)
    beside = laid_over(this, Slice(by_detector(before[0].channels), before[1]))
    return beside if beside is not None and alike(this.channels, beside) else None


def _pixel(given: float | None, said: float | None, name: str) -> float:
    pixel = given if given is not None else said
    if pixel is None:
        msg = f'{name}: the file does not say its pixel size; give it, for example --pixel-size "20 nm"'
        raise ValueError(msg)
    return pixel


def _told_of(read: Read, pixel_m: float, noted: dict[str, None]) -> None:
    """Note what a person should know of how a slice was read."""
    noted |= dict.fromkeys(read.notes)
    if read.databar_px:
        noted[f"the databar, {read.databar_px} rows below the picture, was cut off"] = None
    if read.pixel_m is not None and abs(pixel_m - read.pixel_m) > PIXEL_ROOM * read.pixel_m:
        said = f"the file says pixels of {read.pixel_m * 1e9:.4g} nm, and {pixel_m * 1e9:.4g} nm was given and is used"
        noted[f"{said}; areas and widths depend on it"] = None


# -- results -----------------------------------------------------------------------------------------------------------


def _agreement(labels: NDArray[np.uint8], truth: NDArray[np.uint8]) -> Agreement:
    from analysis.score import confusion, iou, mean_iou

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
    against = warnings(numbers)
    return overlay_png(normalised(images[shown]), labels, pixel_m, numbers.phase_fractions, title, against)


def _left_out(by_slice: Mapping[str, tuple[str, ...]], why: str, remedy: str) -> list[str]:
    """Return a sentence for each detector whose own pictures were left out, those of a slice beside apart."""
    from analysis.network import DETECTORS

    slices = {detector: [name for name, out in by_slice.items() if detector in out] for detector in DETECTORS}
    return [
        f"{named(names)}: the picture of {detector} {why} and was left out; {remedy}"
        for detector, names in slices.items() if names
    ]  # fmt: skip


def _laid_over(numbers: Sequence[SliceNumbers]) -> list[str]:
    """Return a sentence for each detector whose own pictures lay off the first one's."""
    from analysis.network import DETECTORS

    found = []
    for detector in DETECTORS:
        off = {n.name: n.moved[detector] for n in numbers if detector in n.moved}
        if off:
            most = max(max(map(abs, shift)) for shift in off.values())
            found.append(
                f"{named(list(off))}: {detector} lay up to {most} px off the other detector, and was laid over it; "
                "look at the two if that is new"
            )
    return found


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
    from analysis.network import DETECTORS, PIXEL_MAX_M, PIXEL_MIN_M, detector_of

    ones = [1.0] * len(numbers)
    firsts = {detector: name for name in reversed(names) if (detector := detector_of(name)) is not None}
    used = tuple(name for name in names if name in firsts.values())
    ignored = tuple(name for name in names if name not in used)
    pixel = numbers[0].pixel_m
    remarks: list[str] = []
    if pixel > PIXEL_MAX_M:
        remarks.append(f"pixels of {pixel * 1e9:.4g} nm were enlarged to {PIXEL_MAX_M * 1e9:.0f} nm or less")
    if pixel < PIXEL_MIN_M:
        remarks.append(f"pixels of {pixel * 1e9:.4g} nm were binned to {PIXEL_MIN_M * 1e9:.0f} nm or more")
    if unknown := [name for name in ignored if detector_of(name) is None]:
        many = len(unknown) > 1
        remarks.append(
            f"{named(unknown)} {'are' if many else 'is'}n't known and {'were' if many else 'was'} left out; known are "
            f"{', '.join(DETECTORS)} (and their other names)"
        )
    remarks += [
        f"{name} is {detector} once more and was left out; {firsts[detector]} is used"
        for name in ignored if (detector := detector_of(name)) is not None
    ]  # fmt: skip
    if not {"CBS", "TLD"} <= {detector_of(name) for name in used}:
        remarks.append(f"labelled from {', '.join(used)} alone; CBS and TLD together are better")
    remarks += _left_out({n.name: n.blank for n in numbers}, "shows nothing", "look at that detector")
    remarks += _left_out(
        {n.name: n.elsewhere for n in numbers}, "shows another place, or is mirrored or moved,",
        "give pictures of one scan",
    )  # fmt: skip
    remarks += _laid_over(numbers)
    strange = [n.name for n in numbers if n.novelty > UNFAMILIAR]
    if strange:
        remarks.append(
            f"{named(strange)}: unlike anything the network was trained on, so don't trust the labels; teach it by "
            "strokes (`kintsugi annotate`)"
        )
    doubtful = [n.name for n in numbers if DOUBTFUL < n.novelty <= UNFAMILIAR]
    if doubtful:
        remarks.append(
            f"{named(doubtful)}: perhaps not the kind of image that the network was trained on, so look at the overlay "
            "before you trust the labels"
        )
    remarks += noted
    return Summary(
        slices=len(numbers),
        width_px=size[1],
        height_px=size[0],
        pixel_m=pixel,
        channels=used,
        ignored_channels=ignored,
        phase_fractions={
            NAMES[phase]: _mean([n.phase_fractions[NAMES[phase]] for n in numbers], ones)
            for phase in (Phase.PORE, Phase.CBD, Phase.ACTIVE, Phase.COLLECTOR)
        },
        electrode_fractions={
            NAMES[phase]: _mean([n.electrode_fractions[NAMES[phase]] for n in numbers], ones) for phase in ELECTRODE
        },
        film_fraction=_mean([n.film_fraction for n in numbers], ones),
        unfilled_share=_mean([n.unfilled_share for n in numbers], [n.fillable_area_m2 for n in numbers]),
        confidence=_mean([n.confidence for n in numbers], ones),
        doubt=_mean([n.doubt for n in numbers], ones),
        electrode_intervals={
            NAMES[phase]: (
                _mean([n.electrode_intervals[NAMES[phase]][0] for n in numbers], ones),
                _mean([n.electrode_intervals[NAMES[phase]][1] for n in numbers], ones),
            )
            for phase in ELECTRODE
        },
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
