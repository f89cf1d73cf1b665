"""Teaches a model a run's own sample, by planes before and after their fills: analysis.pairs, analysis.adapt."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.adapt import STEPS, About, Lesson, Progress, teach
from analysis.core import SegmentationCore
from analysis.evaluate import fitted_temperature
from analysis.model import Card, write_card
from analysis.network import Channels, by_detector
from analysis.ometiff import Slice
from analysis.pairs import OpenPores, Side, known_before, open_pores
from analysis.phases import IGNORE, MEMBERS, Phase
from analysis.samples import Sample

log = logging.getLogger(__name__)

#: Pixels of all pictures that a model is taught by; of larger ones the middle.
_MOST_PX = 24_000_000


@dataclass(frozen=True)
class Pair:
    """One plane before and after a fill, and by how much (m) the second lies behind the first, where that is known."""

    name: str
    before: Slice
    after: Slice
    apart_m: float | None = None


@dataclass(frozen=True)
class _Told:
    """A picture before a fill, its labels, and what the one after it tells about it: codes, 255 where nothing is."""

    picture: Slice
    side: Side
    known: NDArray[np.uint8]


@dataclass(frozen=True)
class _Known:
    """What is known of a picture, as a sample: fine classes, 255 where nothing is."""

    channels: Channels
    fine: NDArray[np.uint8]
    pixel_m: float
    beside: Mapping[str, Sample] = field(default_factory=dict)


def teach_pairs(
    pairs: Iterable[Pair],
    out: Path,
    *,
    model: Path | None = None,
    seed: int = 0,
    steps: int = STEPS,
    threads: int = 2,
    progress: Progress | None = None,
) -> Card:
    """Teach a model by planes before and after their fills, and write the new one into the folder `out`.

    The card says which share of the open pores the first model missed and which the new one misses, both of the pores
    that were not taught (one in five) where there are any, and at which temperature the first one would have been right
    about the pictures before the fills. For the parameters see `analysis.adapt.adapt`.

    Raises
    ------
    ValueError : no pair shows one plane with pores that were filled; a model that keeps no crops of its training
    """
    core = SegmentationCore(model)
    told = list(_told(core, pairs))
    if not OpenPores.of([open_pores(one.side, one.known) for one in told]).pixels:
        msg = "no pair of pictures shows one plane before and after a fill, with pores that it filled"
        raise ValueError(msg)
    lessons = [_lesson(one, _MOST_PX // len(told), seed) for one in told]
    samples = [_Known(one.picture.channels, _as_fine(one.known), one.picture.pixel_m) for one in told]
    figures = {"pairs": float(len(told)), "temperature by pairs": fitted_temperature(core, samples)}
    about = About(
        "pairs",
        f"{len(told)} planes before and after their fill",
        "taught by planes before and after their fill: made for that sample",
        figures,
    )
    card = teach(lessons, about, out, model=model, seed=seed, steps=steps, threads=threads, progress=progress)
    missed = {"first": _missed(core, lessons), "now": _missed(SegmentationCore(out), lessons)}
    card = card.model_copy(
        update={"figures": card.figures | {f"open pores missed, {when}": share for when, share in missed.items()}}
    )
    write_card(out, card)
    return card


def _told(core: SegmentationCore, pairs: Iterable[Pair]) -> Iterator[_Told]:
    """Yield what the pairs tell; those that don't show one plane are left out."""
    for pair in pairs:
        before = _side(core, pair.before)
        known = known_before(before, _side(core, pair.after), pair.apart_m)
        if known is None:
            log.warning("%s: the pictures before and after it don't show one plane; they are left out", pair.name)
        else:
            yield _Told(pair.before, before, known)


def _lesson(one: _Told, most: int, seed: int) -> Lesson:
    """Return what a pair teaches, by the middle of its picture where that has more than `most` pixels."""
    part = _middle(one.known.shape, most)
    channels = {name: grey[part] for name, grey in one.picture.channels.items()}
    labels = np.where(one.known == Phase.PORE, one.known, one.side.labels)
    return Lesson.of(channels, one.known[part], labels[part], one.picture.pixel_m, seed)


def _missed(core: SegmentationCore, lessons: Sequence[Lesson]) -> float:
    """Return the share of open pores that a model misses: of those kept back, of all where there are none."""
    kept = any((lesson.kept_back == Phase.PORE).any() for lesson in lessons)
    counts = []
    for lesson in lessons:
        side = _side(core, Slice(dict(lesson.channels), lesson.pixel_m))
        counts.append(open_pores(side, lesson.kept_back if kept else lesson.taught))
    return round(OpenPores.of(counts).missed, 4)


def _side(core: SegmentationCore, picture: Slice) -> Side:
    """Label one picture of a pair."""
    found = core.label(picture.channels, picture.pixel_m)
    grey = next(iter(by_detector(picture.channels).values()))
    return Side(grey, found.labels, found.confidence, picture.pixel_m)


def _as_fine(known: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a fine class of each phase, uint8 of the same shape; 255 stays."""
    table = np.full(256, IGNORE, np.uint8)
    for phase in Phase:
        table[phase] = MEMBERS[phase][0]
    return table[known]


def _middle(shape: tuple[int, ...], most: int) -> tuple[slice, slice]:
    """Return the middle of an image that has at most so many pixels."""
    part = min(1.0, math.sqrt(most / (shape[0] * shape[1])))
    rows, columns = (slice((size - int(part * size)) // 2, (size + int(part * size)) // 2) for size in shape)
    return rows, columns
