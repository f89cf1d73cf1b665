"""The spool: frames lie here, whole and durable, from the end of their scan until their run has them and says so."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from instrument import durable
from instrument.errors import BadData
from instrument.frame import Frame, FrameRef, reference

#: What one call carries at most, bytes.
CHUNK_BYTES = 1 << 20
_SUFFIX = ".ome.tif"
_LONGEST = 80


class Spool:
    """A folder of frames. A frame can't be retaken, for the next cut destroys its face: only a released one goes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        durable.make_dir(folder)

    def keep(self, action_id: str, frame: Frame) -> FrameRef:
        """Write an action's frame, durably, and return its reference. OSError when the disk refuses."""
        path = self._folder / _name(action_id)
        draft = durable.temporary_for(path)
        try:
            frame.save(draft)
            durable.commit(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        return reference(frame, path)

    def read(self, name: str, offset: int) -> bytes:
        """Return a frame's bytes from an offset on, 1 MiB at most, none at its end; BadData where it isn't here."""
        try:
            return chunk_of(self._path(name), offset)
        except FileNotFoundError as error:
            msg = f"there is no frame {name!r} in the spool: it was fetched and released, or never taken"
            raise BadData(msg, name=name) from error

    def release(self, name: str) -> None:
        """Delete a frame that was fetched; harmless when it is gone."""
        self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        if not re.fullmatch(r"[A-Za-z0-9_-]+" + re.escape(_SUFFIX), name):
            msg = f"{name!r} is not the name of a frame in the spool"
            raise BadData(msg, name=name)
        return self._folder / name


def chunk_of(path: Path, offset: int) -> bytes:
    """Return a file's bytes from an offset on, as many as one call carries, none at its end."""
    with path.open("rb") as file:
        file.seek(max(0, offset))
        return file.read(CHUNK_BYTES)


def _name(action_id: str) -> str:
    """Return a file name that tells the action and is its alone."""
    told = re.sub(r"[^A-Za-z0-9]+", "-", action_id)[-_LONGEST:].strip("-")
    return f"{told}-{hashlib.sha256(action_id.encode()).hexdigest()[:8]}{_SUFFIX}"
