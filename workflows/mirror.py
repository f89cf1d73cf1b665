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

from analysis.core import FILLABLE_M, SegmentationCore
from analysis.watch import ORDER, ORDERS, answered, work
from instrument.errors import BadData
from instrument.frame import sha256_of
from instrument.link import Line, Place
from workflows.sharing import MADE, OBJECT, PIECE_BYTES

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
        self._run = folder.resolve()
        self._orders = self._run / "labels" / ORDERS
        self._orders.mkdir(parents=True, exist_ok=True)

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
                told = self._answered(core, Path(file).name, order)
                self._send(f"labels/{ORDERS}/{answered(Path(file)).name}", json.dumps(told).encode("utf-8"))
            elif left:
                name = left[0]
                order = {"name": name, "path": f"slices/{name}.ome.tif", "fillable_m": waiting["fillable_m"]}
                told = self._answered(core, f"{name}{ORDER}", order)
                if told["error"]:
                    failed.add(name)
            else:
                return
            yield told

    def close(self) -> None:
        """Close the connection."""
        self._line.close()

    def _answered(self, core: SegmentationCore, file: str, order: dict[str, Any]) -> dict[str, Any]:
        """Do one order here and send its labels; return its answer, with its error where either side can't."""
        mine = self._orders / file
        try:
            for key in ("path", "before", "after"):
                if order.get(key):
                    self._fetch(str(order[key]))
            mine.write_text(json.dumps(order), encoding="utf-8")
            (told,) = work(core, self._run, set(), fillable_m=FILLABLE_M, ordering=True)
            if told["labels"]:
                made = Path(told["labels"])
                for ending in MADE:
                    part = made.with_name(f"{told['name']}{ending}")
                    self._send(part.relative_to(self._run).as_posix(), part.read_bytes())
                    part.unlink()
        except BadData as error:
            return {"name": order["name"], "labels": None, "numbers": None, "error": error.message}
        finally:
            mine.unlink(missing_ok=True)
            answered(mine).unlink(missing_ok=True)
        return told

    def _fetch(self, name: str) -> None:
        """Have a frame here, whole; what isn't there is left to the answer to tell."""
        target = self._run / name
        if self._run not in target.resolve().parents:
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
        draft = target.with_name(f".{target.name}.part")
        with draft.open("wb") as file:
            while piece := self._line.call("chunk", name, file.tell()):
                file.write(piece)
        if sha256_of(draft) != expected:
            draft.unlink()
            msg = f"{name} arrived damaged: its SHA-256 differs"
            raise BadData(msg, name=name)
        draft.replace(target)
        frames = sorted(self._run.glob("*/*.ome.tif"), key=lambda path: path.stat().st_mtime, reverse=True)
        for old in frames[KEPT:]:
            old.unlink()

    def _send(self, name: str, data: bytes) -> None:
        for offset in range(0, max(1, len(data)), PIECE_BYTES):
            self._line.call("put", name, offset, data[offset : offset + PIECE_BYTES])
        self._line.call("keep", name, hashlib.sha256(data).hexdigest())
