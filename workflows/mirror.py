"""The workstation's side of a shared run: fetches what an order names, has it labelled here, and sends labels back.

What it fetched lies in a folder of its own, and only as long as it may be needed again. Nothing is lost when one side
dies: an order stands until its answer is there, and the answer goes last.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from analysis.core import SegmentationCore
from analysis.label_files import ENDS
from analysis.watch import ORDERS, answered, done, frames_of, order_for
from instrument.errors import BadData
from instrument.link import Line, Place
from instrument.spool import CHUNK_BYTES
from workflows.sharing import OBJECT
from workflows.store import RunFolder

#: Frames that are kept: the slice, those beside it, and some for what is asked again.
KEPT = 12


class Mirror:
    """A shared run's copy in `folder`.

    Raises
    ------
    ConnectionLost : the other side does not answer; it may be back later
    NotInControl : it does not take our token
    """

    def __init__(self, place: Place, folder: Path) -> None:
        self._line = Line(place.host, place.port, place.token, name=OBJECT)
        self._run = RunFolder(folder.resolve())
        self._run.labels.mkdir(parents=True, exist_ok=True)

    def work(self, core: SegmentationCore, failed: set[str], *, every: bool = False) -> Iterator[dict[str, Any]]:
        """Answer what waits over there, one at a time, orders first; yield each answer once it is there.

        `failed` are names of slices that can't be labelled, not tried again; those that turn out so are added. `every`
        slice that nobody ordered is labelled, of a run that goes on too.
        """
        while True:
            waiting = self._line.call("waiting", every)
            left = [name for name in waiting["pending"] if name not in failed]
            if waiting["orders"]:
                file, order = next(iter(waiting["orders"].items()))
                told = self._done(core, order)
                self._send(f"labels/{ORDERS}/{answered(Path(file)).name}", json.dumps(told).encode("utf-8"))
            elif left:
                told = self._done(core, order_for(left[0], waiting["fillable_m"]))
                if told["error"]:
                    failed.add(left[0])
            else:
                return
            yield told

    def close(self) -> None:
        """Close the connection."""
        self._line.close()

    def _done(self, core: SegmentationCore, order: dict[str, Any]) -> dict[str, Any]:
        """Do one order here and send its labels; return its answer, with its error where either side can't."""
        try:
            for name in frames_of(order).values():
                self._fetch(name)
            told = done(core, self._run.root, order)
            if told["labels"]:
                made = Path(told["labels"])
                for ending in ENDS:
                    part = made.with_name(f"{told['name']}{ending}")
                    self._send(self._run.relative(part), part.read_bytes())
                    part.unlink()
        except BadData as error:
            return {"name": order["name"], "labels": None, "numbers": None, "error": error.message}
        return told

    def _fetch(self, name: str) -> None:
        """Have a frame here, whole; what isn't there is left to the answer to tell."""
        target = self._run.root / name
        if self._run.root not in target.resolve().parents:
            msg = f"{name!r} is no frame of a run"
            raise BadData(msg, name=name)
        if target.exists():
            target.touch()
            return
        try:
            expected = self._line.call("sha256", name)
        except BadData:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        self._run.receive(target, self._chunks(name), expected)
        frames = sorted(self._run.root.glob("*/*.ome.tif"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in frames[KEPT:]:
            old.unlink()

    def _chunks(self, name: str) -> Iterator[bytes]:
        offset = 0
        while chunk := self._line.call("chunk", name, offset):
            offset += len(chunk)
            yield bytes(chunk)

    def _send(self, name: str, data: bytes) -> None:
        for offset in range(0, max(1, len(data)), CHUNK_BYTES):
            self._line.call("put", name, offset, data[offset : offset + CHUNK_BYTES])
        self._line.call("keep", name, hashlib.sha256(data).hexdigest())
