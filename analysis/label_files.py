"""The files that a labelled slice leaves: labels, confidence, doubt and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from analysis.core import Labelled, SegmentationCore, SliceNumbers
from analysis.files import write_whole
from analysis.ometiff import label_bytes

#: What is made of a slice, by the ends of the files' names; the numbers come last, as who sees them sees the rest.
ENDS = (".tif", "-confidence.tif", "-doubt.tif", ".json")


def write_labelled(
    core: SegmentationCore,
    found: Labelled,
    folder: Path,
    name: str,
    fillable_m: float,
    *,
    frame_sha256: str | None = None,
    read_from: Mapping[str, str] | None = None,
) -> SliceNumbers:
    """Measure a labelled slice, write NAME.tif, NAME-confidence.tif, NAME-doubt.tif, then NAME.json, into `folder`.

    Each is there whole or not at all. OSError when one cannot be written.
    """

    def write(end: str, image: NDArray[np.uint8]) -> str:
        return write_whole(folder / f"{name}{end}", label_bytes(image, found.pixel_m))

    of_labels, of_confidence, of_doubt, of_numbers = ENDS
    with ThreadPoolExecutor() as pool:  # files are compressed while pores are measured
        labels = pool.submit(write, of_labels, found.labels)
        others = [pool.submit(write, of_confidence, found.confidence), pool.submit(write, of_doubt, found.doubtful)]
        numbers = core.numbers_of(found, fillable_m, name, frame_sha256)
        for other in others:
            other.result()
    numbers = numbers.model_copy(update={"labels_sha256": labels.result(), "read_from": dict(read_from or {})})
    write_whole(folder / f"{name}{of_numbers}", (numbers.model_dump_json(indent=1) + "\n").encode("utf-8"))
    return numbers


def labelled_in(folder: Path) -> set[str]:
    """Return the names of the slices of which a folder holds any of these files; none where there is no folder."""
    ends = sorted(ENDS, key=len, reverse=True)  # what ends in -doubt.tif ends in .tif too
    names: set[str] = set()
    for path in folder.glob("*"):
        end = next((end for end in ends if path.name.endswith(end)), None)
        if end is not None and not path.name.startswith("."):
            names.add(path.name.removesuffix(end))
    return names
