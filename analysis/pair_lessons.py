"""Teaches a model a run's own sample, by planes before and after their fills: analysis.pairs, analysis.adapt."""

from __future__ import annotations

import itertools
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
from analysis.network import Channels
from analysis.ometiff import Slice
from analysis.pairs import OpenPores, Side, known_before, open_pores
from analysis.phases import IGNORE, MEMBERS, Phase
from analysis.samples import Sample

log = logging.getLogger(__name__)

#: Pairs that a model is taught by at most, and pixels of each; of larger pictures it is the middle.
_MOST_PAIRS, _MOST_PX = 24, 4_000_000


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
    device: str = "cpu",
    progress: Progress | None = None,
) -> Card:
    """Teach a model by planes before and after their fills, and write the new one into the folder `out`.

    The card says which share of the open pores the first model missed and which the new one misses, both of the pores
    that were not taught (one in five) where there are any, and at which temperature the new one is right about what was
    not taught. Of solids only those count that the first one had right, so that is on the cold side: where even so it
    is hotter than the new one's own, the new one was too sure, and takes it. For the parameters see
    `analysis.adapt.adapt`.

    Raises
    ------
    ValueError : no pair shows one plane with pores that were filled; a model that keeps no crops of its training
    """
    core = SegmentationCore(model)
    told = list(itertools.islice(_told(core, pairs), _MOST_PAIRS))
    if not OpenPores.of([open_pores(one.side, one.known) for one in told]).pixels:
        msg = "no pair of pictures shows one plane before and after a fill, with pores that it filled"
        raise ValueError(msg)
    lessons = [_lesson(one, seed) for one in told]
    about = About(
        "pairs",
        f"{len(told)} planes before and after their fill",
        "taught by planes before and after their fill: made for that sample",
        {"pairs": float(len(told))},
    )
    card = teach(
        lessons, about, out, model=model, seed=seed, steps=steps, threads=threads, device=device, progress=progress
    )
    taught = SegmentationCore(out)
    missed = {"first": _missed(core, lessons), "now": _missed(taught, lessons)}
    said = {f"open pores missed, {when}": share for when, share in missed.items() if share is not None}
    not_taught = [one for one in lessons if (one.kept_back != IGNORE).any()]
    if not_taught:
        samples = [_Known(one.channels, _as_fine(one.kept_back), one.pixel_m) for one in not_taught]
        said["temperature by pairs"] = fitted_temperature(taught, samples)
    hottest = max(card.temperature, said.get("temperature by pairs", 0.0))
    card = card.model_copy(update={"figures": card.figures | said, "temperature": hottest})
    write_card(out, card)
    return card


def _told(core: SegmentationCore, pairs: Iterable[Pair]) -> Iterator[_Told]:
    """Yield what the pairs tell, by the middle of large pictures; those that don't show one plane are left out."""
    for pair in pairs:
        before = _side(core, pair.before)
        known = known_before(before, _side(core, pair.after), pair.apart_m)
        if known is None:
            log.warning("%s: the pictures before and after it don't show one plane; they are left out", pair.name)
            continue
        part = _middle(known.shape, _MOST_PX)
        channels = {name: grey[part].copy() for name, grey in pair.before.channels.items()}
        side = Side.of(channels, before.labels[part].copy(), before.confidence[part].copy(), before.pixel_m)
        yield _Told(Slice(channels, pair.before.pixel_m), side, known[part].copy())


def _lesson(one: _Told, seed: int) -> Lesson:
    labels = np.where(one.known == Phase.PORE, one.known, one.side.labels)
    return Lesson.of(one.picture.channels, one.known, labels, one.picture.pixel_m, seed)


def _missed(core: SegmentationCore, lessons: Sequence[Lesson]) -> float | None:
    """Return the share of open pores that a model misses: of those kept back, else of those taught; None of none."""
    sides = [_side(core, Slice(dict(lesson.channels), lesson.pixel_m)) for lesson in lessons]
    for codes in ([one.kept_back for one in lessons], [one.taught for one in lessons]):
        found = OpenPores.of([open_pores(side, known) for side, known in zip(sides, codes, strict=True)])
        if found.pixels:
            return round(found.missed, 4)
    return None


def _side(core: SegmentationCore, picture: Slice) -> Side:
    """Label one picture of a pair."""
    found = core.label(picture.channels, picture.pixel_m)
    return Side.of(picture.channels, found.labels, found.confidence, picture.pixel_m)


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
