"""A run's planes before and after their fills: what they say of its labels, and what a model can be taught by."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflows import results
from workflows.journal import Act, Journal
from workflows.store import RunFolder, frame_name

if TYPE_CHECKING:
    from analysis.pair_lessons import Pair
    from analysis.pairs import OpenPores, Side

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Fill:
    """A fill with the acts that took its plane before and after: `results.fill_rows`' row of it, and the two."""

    row: dict[str, Any]
    before: Act
    after: Act


def fills(journal: Journal) -> Iterator[Fill]:
    """Yield the fills of which both pictures were taken; before a refill that is the slice's own."""
    for row in results.fill_rows(journal):
        after = journal.find(f"{row['name']}/after")
        before = journal.find(f"{row['name']}/before") or journal.find(f"slice/{int(row['after_slice']):04d}/image")
        if after is not None and before is not None and after.has_outcome and before.has_outcome:
            yield Fill(row, before, after)


def pairs(folder: RunFolder, journal: Journal) -> Iterator[Pair]:
    """Yield the pictures of the fills, one pair read at a time; ValueError where a file can't be read."""
    from analysis.ometiff import read_slice
    from analysis.pair_lessons import Pair

    for fill in fills(journal):
        before, after = (folder.root / act.result["name"] for act in (fill.before, fill.after))
        if before.exists() and after.exists():
            yield Pair(str(fill.row["name"]), read_slice(before), read_slice(after), fill.row["lost_m"])


def open_pores(folder: RunFolder, journal: Journal) -> OpenPores | None:
    """Return how right a run's labels are about open pores, by its pairs; None where no pair shows one plane."""
    from analysis.pairs import OpenPores, known_before
    from analysis.pairs import open_pores as counted

    counts = []
    for fill in fills(journal):
        try:
            before, after = _side(folder, fill.before), _side(folder, fill.after)
        except ValueError as error:
            log.warning("%s: %s", fill.row["name"], error)
            continue
        if before is None or after is None:
            continue
        known = known_before(before, after, fill.row["lost_m"])
        if known is not None:
            counts.append(counted(before, known))
    return OpenPores.of(counts) if counts else None


def _side(folder: RunFolder, act: Act) -> Side | None:
    """Return one picture with the labels that were given live, None where they or the picture are missing."""
    import numpy as np
    import tifffile

    from analysis.ometiff import read_slice
    from analysis.pairs import Side

    path, name = folder.root / act.result["name"], frame_name(act.result["name"])
    files: list[Path] = [folder.labels / f"{name}.tif", folder.labels / f"{name}-confidence.tif"]
    if not all(file.exists() for file in (path, *files)):
        return None
    picture = read_slice(path)
    labels, confidence = (np.asarray(tifffile.imread(file), np.uint8) for file in files)
    return Side.of(picture.channels, labels, confidence, picture.pixel_m)
