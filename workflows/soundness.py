"""Pictures of a run that are not what its journal says: set aside by name, told, and worked around.

A frame can't be taken again once its face is cut away, so nothing is deleted: what is left of it may still be read by
somebody. All that follows goes on as if the slice had not come.
"""

from __future__ import annotations

import logging
from pathlib import Path

from instrument import durable
from instrument.frame import FrameRef
from workflows.journal import Journal
from workflows.store import RunFolder

log = logging.getLogger(__name__)


def set_aside_damaged(folder: RunFolder, journal: Journal) -> list[str]:
    """Set pictures aside that have another size than they had when they were fetched; return their names.

    One that is missing is told as well. What was told once is not told again.
    """
    told = {str(event.data["file"]) for event in journal.events(kind="damaged")}
    found = []
    for act in journal.acts():
        if act.kind not in ("frame", "eds") or not act.has_outcome:
            continue
        ref = FrameRef.model_validate(act.result)
        path = folder.root / ref.name
        size = path.stat().st_size if path.exists() else None
        if size == ref.size_bytes or (size is None and ref.name in told):
            continue
        kept = None if size is None else _aside(path)
        journal.note(
            "damaged",
            {"file": ref.name, "bytes": size, "expected_bytes": ref.size_bytes, "kept_as": kept and kept.name},
        )
        log.error("%s is %s, %d bytes were fetched", ref.name, "missing" if size is None else f"{size} bytes long",
                  ref.size_bytes)  # fmt: skip
        found.append(Path(ref.name).name)
    return found


def _aside(path: Path) -> Path:
    number = 1
    while (kept := path.with_name(f"damaged-{number}-{path.name}")).exists():
        number += 1
    durable.replace(path, kept)
    return kept
