"""A run's pictures over the wire, for a workstation that labels them and sees no folder of the run's computer.

`kintsugi share RUN` is a process of its own, so that nothing of it reaches the microscope: it lends the orders that the
run writes into labels/orders/ (analysis.elsewhere) and the frames that they name, and takes labels and answers back.
Nothing but what waits to be labelled can be read or written through it.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analysis.label_files import ENDS
from analysis.watch import ORDERS, answered, frames_of, orders, pending
from instrument import durable, link
from instrument.errors import BadData
from instrument.frame import sha256_of
from instrument.spool import chunk_of
from instrument.tokens import token, token_file
from workflows.store import FRAME_FOLDERS

OBJECT = "kintsugi.run"
#: No label file is larger than this, bytes: more than 8192 x 8192 pixels, uncompressed.
MOST_BYTES = 80 << 20

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_FRAME = re.compile(rf"(?:{'|'.join(FRAME_FOLDERS)})/{_PLAIN.pattern}\.ome\.tif")
_PART = ".part"

EXPOSED = ("waiting", "sha256", "chunk", "put", "keep")


class Share:
    """What a workstation may call; names are paths in the run's folder.

    Parameters
    ----------
    root : the run's folder
    fillable_m : width (m) below which a pore counts as fillable, for slices that nobody ordered
    going_on : tells whether the run goes on; then it orders its slices itself
    """

    def __init__(self, root: Path, fillable_m: float, going_on: Callable[[], bool]) -> None:
        self._root = root
        self._fillable_m = fillable_m
        self._going_on = going_on
        self._lock = threading.Lock()

    def waiting(self, every: bool) -> dict[str, Any]:
        """Return the orders that have no answer, oldest first, by file name, and names of slices that nobody ordered.

        A run that goes on orders its slices itself, so that those are named only when asked for `every` one.
        """
        names = pending(self._root) if every or not self._going_on() else []
        return {"orders": self._orders(), "pending": names, "fillable_m": self._fillable_m}

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of a frame; BadData where it isn't here."""
        try:
            return sha256_of(self._frame(name))
        except FileNotFoundError as error:
            raise _gone(name) from error

    def chunk(self, name: str, offset: int) -> bytes:
        """Return a frame's bytes from an offset on, 1 MiB at most, none at its end; BadData where it isn't here."""
        try:
            return chunk_of(self._frame(name), int(offset))
        except FileNotFoundError as error:
            raise _gone(name) from error

    def put(self, name: str, offset: int, data: bytes) -> None:
        """Take a piece of a label file or an answer; BadData for one that doesn't follow the one before."""
        part = self._part(name)
        with self._lock:
            held = part.stat().st_size if offset and part.exists() else 0
            if offset != held or not isinstance(data, bytes):
                msg = f"{name}: {len(data)} bytes at {offset} don't follow the {held} that are here"
                raise BadData(msg, name=name)
            if held + len(data) > MOST_BYTES:
                msg = f"{name} is larger than {MOST_BYTES >> 20} MiB"
                raise BadData(msg, name=name)
            part.parent.mkdir(parents=True, exist_ok=True)
            with part.open("ab" if offset else "wb") as file:
                file.write(data)

    def keep(self, name: str, sha256: str) -> None:
        """Give what was put its name, in one durable step; BadData, and nothing kept, where it isn't what was sent."""
        part = self._part(name)
        with self._lock:
            found = sha256_of(part) if part.exists() else "nothing"
            if found != sha256:
                part.unlink(missing_ok=True)
                msg = f"{name} arrived damaged: its SHA-256 differs"
                raise BadData(msg, name=name, expected=sha256, found=found)
            durable.commit(part, self._root / name)

    def tidy(self) -> None:
        """Delete what a workstation that died has left half sent."""
        for part in (self._root / "labels").rglob(f".*{_PART}"):
            part.unlink(missing_ok=True)

    def _orders(self) -> dict[str, dict[str, Any]]:
        """Return the orders that wait by file name; one that a power cut has torn waits until it is written again."""
        found = {}
        for path in orders(self._root):
            try:
                order = json.loads(path.read_text(encoding="utf-8"))
            except (FileNotFoundError, ValueError):
                continue  # taken back in this very moment, or no order
            if isinstance(order, dict) and _PLAIN.fullmatch(str(order.get("name", ""))):
                found[path.name] = order
        return found

    def _frame(self, name: str) -> Path:
        """Return where a frame lies that waits to be labelled, or helps one to be."""
        lent = {name for order in self._orders().values() for name in frames_of(order).values()}
        lent |= {f"slices/{one}.ome.tif" for one in pending(self._root)}
        if name not in lent or not _FRAME.fullmatch(name):
            msg = f"{name!r} is no frame that waits to be labelled"
            raise BadData(msg, name=str(name))
        return self._root / name

    def _part(self, name: str) -> Path:
        """Return where a file that is asked for lies until it is whole."""
        taken = {f"labels/{one}{ending}" for one in pending(self._root) for ending in ENDS}
        for file, order in self._orders().items():
            folder = "labels/final" if order.get("final") else "labels"
            taken |= {f"{folder}/{order['name']}{ending}" for ending in ENDS}
            taken.add(f"labels/{ORDERS}/{answered(Path(file)).name}")
        if name not in taken:
            msg = f"{name!r} is no label file or answer that is waited for"
            raise BadData(msg, name=str(name))
        path = self._root / name
        return path.with_name(f".{path.name}.{link.caller()}{_PART}")


def serve(
    share: Share, folder: Path, *, port: int = 0, host: str = "", certificates: Path | None = None,
    stopping: threading.Event | None = None, told: Callable[[dict[str, Any]], None] = lambda _: None,
) -> None:  # fmt: skip
    """Lend a run until `stopping` is set; tokens and share.json, which says where, lie in `folder`.

    Elsewhere than on the loopback only over two-way TLS, with a folder of certificates.
    """
    link.configure(certificates)
    durable.make_dir(folder)
    share.tidy()
    daemon: Any = link.TokenDaemon({"operate": token(folder, "operate")}, port, host or link.LOOPBACK)
    daemon.register(link.published(share, EXPOSED), OBJECT)
    where = {
        "host": host or link.LOOPBACK, "port": daemon.sock.getsockname()[1], "pid": os.getpid(),
        "token_file": str(token_file(folder, "operate")),
    }  # fmt: skip
    place, stop = folder / "share.json", stopping or threading.Event()
    durable.atomic_write_json(place, where)
    told(where)
    try:
        daemon.requestLoop(lambda: not stop.is_set())
    finally:
        place.unlink(missing_ok=True)
        daemon.close()
        share.tidy()


def _gone(name: str) -> BadData:
    msg = f"there is no {name} in this run"
    return BadData(msg, name=name)
