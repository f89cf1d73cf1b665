"""Pictures of a run that are not what its journal says: set aside by name, told, and worked around.

A frame can't be taken again once its face is cut away, so nothing is deleted: what is left of it may still be read by
somebody. All that follows goes on as if the slice had not come.
"""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

from instrument import durable
from instrument.frame import FrameRef, sha256_of
from workflows.journal import Journal
from workflows.store import RunFolder

log = logging.getLogger(__name__)


def set_aside_damaged(folder: RunFolder, journal: Journal) -> list[str]:
    """Set pictures aside that have another size or SHA-256 than when they were fetched; return their names.

    One that is missing is told as well. What was told once is not told again. A file that nobody has written since it
    was looked at is read once per process.
    """
    told = {str(event.data["file"]) for event in journal.events(kind="damaged")}
    found = []
    for act in journal.acts():
        if act.kind not in ("frame", "eds") or not act.has_outcome:
            continue
        ref = FrameRef.model_validate(act.result)
        path = folder.root / ref.name
        wrong = _wrong(path, ref)
        if wrong is None or (wrong == _MISSING and ref.name in told):
            continue
        kept = None if wrong == _MISSING else _aside(path)
        journal.note("damaged", {"file": ref.name, "why": wrong, "kept_as": kept and kept.name})
        log.error("%s %s", ref.name, wrong)
        found.append(Path(ref.name).name)
    return found


_MISSING = "is missing"


def _wrong(path: Path, ref: FrameRef) -> str | None:
    """Return what is wrong with a picture's file, None where it is as it was fetched."""
    if not path.exists():
        return _MISSING
    now = path.stat()
    if now.st_size != ref.size_bytes:
        return f"is {now.st_size} bytes long, {ref.size_bytes} were fetched"
    if _sha256(path, now.st_size, now.st_mtime_ns) != ref.sha256:
        return "has another SHA-256 than what was fetched"
    return None


@cache
def _sha256(path: Path, size: int, written_ns: int) -> str:
    """Return the SHA-256 of a file as it was written last; a night's slices are gigabytes."""
    del size, written_ns  # what tells a file from the one that was read
    return sha256_of(path)


def _aside(path: Path) -> Path:
    number = 1
    while (kept := path.with_name(f"damaged-{number}-{path.name}")).exists():
        number += 1
    durable.replace(path, kept)
    return kept
