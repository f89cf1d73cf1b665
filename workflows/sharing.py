"""A run's pictures over the wire, for a workstation that labels them and sees no folder of the run's computer.

`kintsugi share RUN` is a process of its own, so that nothing of it reaches the microscope: it lends the orders that the
run writes into labels/orders/ (analysis.elsewhere) and the frames that they name, and takes labels and answers back.
Nothing else of the run can be read or written through it.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analysis.watch import ANSWER, ORDERS, orders, pending
from instrument import durable, link
from instrument.errors import BadData, NotInControl
from instrument.frame import sha256_of
from instrument.tokens import token, token_file
from workflows.store import FRAME_FOLDERS

OBJECT = "kintsugi.run"
#: What one call carries at most, bytes.
PIECE_BYTES = 1 << 20
#: No label file is larger than this, bytes: 6144 x 4096 pixels, uncompressed.
MOST_BYTES = 64 << 20

_PLAIN = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_FRAME = re.compile(rf"(?:{'|'.join(FRAME_FOLDERS)})/{_PLAIN}\.ome\.tif")
_MADE = re.compile(rf"labels/(?:(?:final/)?{_PLAIN}\.(?:tif|json)|{ORDERS}/{_PLAIN}{re.escape(ANSWER)})")

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

    def waiting(self) -> dict[str, Any]:
        """Return the orders that have no answer, oldest first, as [file name, text], and slices that nobody ordered."""
        found = []
        for path in orders(self._root):
            try:
                found.append([path.name, path.read_text(encoding="utf-8")])
            except FileNotFoundError:
                continue  # taken back in this very moment
        names = [] if self._going_on() else pending(self._root)
        return {"orders": found, "pending": names, "fillable_m": self._fillable_m}

    def sha256(self, name: str) -> str:
        """Return the SHA-256 of a frame; BadData where it isn't here."""
        try:
            return sha256_of(self._frame(name))
        except FileNotFoundError as error:
            raise _gone(name) from error

    def chunk(self, name: str, offset: int) -> bytes:
        """Return a frame's bytes from an offset on, 1 MiB at most, none at its end; BadData where it isn't here."""
        try:
            with self._frame(name).open("rb") as file:
                file.seek(max(0, int(offset)))
                return file.read(PIECE_BYTES)
        except FileNotFoundError as error:
            raise _gone(name) from error

    def put(self, name: str, offset: int, data: bytes) -> None:
        """Take a piece of a label file or an answer; BadData for one that doesn't follow the one before."""
        part = self._part(name)
        with self._lock:
            held = part.stat().st_size if offset and part.exists() else 0
            if offset != held or not isinstance(data, bytes) or held + len(data) > MOST_BYTES:
                msg = f"{name}: {len(data)} bytes at {offset} don't follow the {held} that are here"
                raise BadData(msg, name=name)
            part.parent.mkdir(parents=True, exist_ok=True)
            with part.open("ab" if offset else "wb") as file:
                file.write(data)

    def keep(self, name: str, sha256: str) -> None:
        """Give what was put its name, in one durable step; BadData, and nothing kept, where it isn't what was sent."""
        part = self._part(name)
        with self._lock:
            found = hashlib.sha256(part.read_bytes()).hexdigest() if part.exists() else "nothing"
            if found != sha256:
                part.unlink(missing_ok=True)
                msg = f"{name} arrived damaged: its SHA-256 differs"
                raise BadData(msg, name=name, expected=sha256, found=found)
            durable.commit(part, self._root / name)

    def _frame(self, name: str) -> Path:
        if not isinstance(name, str) or not _FRAME.fullmatch(name):
            msg = f"{name!r} is not the name of a frame"
            raise BadData(msg, name=str(name))
        return self._root / name

    def _part(self, name: str) -> Path:
        """Return where a file lies until it is whole."""
        if not link.may_operate():
            msg = "this token may look, not write labels"
            raise NotInControl(msg)
        if not isinstance(name, str) or not _MADE.fullmatch(name):
            msg = f"{name!r} is neither a label file nor an answer"
            raise BadData(msg, name=str(name))
        path = self._root / name
        return path.with_name(f".{path.name}.part")


def serve(
    share: Share, folder: Path, *, port: int = 0, host: str = "", certificates: Path | None = None,
    stopping: threading.Event | None = None, told: Callable[[dict[str, Any]], None] = lambda _: None,
) -> None:  # fmt: skip
    """Lend a run until `stopping` is set; tokens and share.json, which says where, lie in `folder`.

    Elsewhere than on the loopback only over two-way TLS, with a folder of certificates.
    """
    link.configure(certificates)
    durable.make_dir(folder)
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


def _gone(name: str) -> BadData:
    msg = f"there is no {name} in this run"
    return BadData(msg, name=name)
