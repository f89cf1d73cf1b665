"""What must outlive a power cut: the only place that fsyncs, renames, appends durably and locks files.

Windows and POSIX. A call that returns has its bytes on the disk, as far as the operating system can promise it; a
call that is interrupted leaves the old file or the new one, never a mixture.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

log = logging.getLogger(__name__)

_REPLACE_TRIES = 50
_REPLACE_PAUSE_S = 0.02
#: What SQLite says where it can't enlarge a file of its own.
_SQLITE_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)
_LOCK_BYTE = 1 << 30  # Windows locks are mandatory: lock a byte far behind the owner's text, so that others can read it


class AlreadyLocked(RuntimeError):
    """Somebody else holds the lock; `owner` is what they wrote about themselves (empty when unreadable)."""

    def __init__(self, path: Path, owner: dict[str, Any]) -> None:
        who = ", ".join(f"{key} {value}" for key, value in owner.items()) or "an unknown process"
        super().__init__(f"{path} is in use by {who}")
        self.path = path
        self.owner = owner


def no_room(error: BaseException) -> bool:
    """Tell whether an error of the operating system or of SQLite says that a disk is full."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) in _SQLITE_FULL
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextmanager
def if_room(what: str) -> Iterator[None]:
    """Let what is done within fail on a full disk: that there was no room for `what` is logged."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        if not no_room(error):
            raise
        log.error("no room for %s: %s", what, error)


def fsync_file(file: IO[Any]) -> None:
    """Flush an open file down to the disk."""
    file.flush()
    if sys.platform == "darwin":
        fcntl.fcntl(file.fileno(), fcntl.F_FULLFSYNC)  # fsync alone leaves the bytes in the drive's cache there
    else:
        os.fsync(file.fileno())


def fsync_dir(folder: Path) -> None:
    """Make a folder's names durable (a new or renamed file); Windows keeps names with the file and needs nothing."""
    if sys.platform == "win32":
        return
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_dir(folder: Path) -> None:
    """Make a folder and its missing parents, durably; one that is there is left alone."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in missing:
        fsync_dir(place.parent)


def replace(source: Path, target: Path, *, sync: bool = True) -> None:
    """Rename `source` to `target` in one step, over an older `target`; durably, unless `sync` is off.

    On Windows a target that is open elsewhere (a browser reading a picture) cannot be replaced at that moment: it is
    tried for a second before PermissionError.
    """
    for attempt in range(_REPLACE_TRIES):
        try:
            source.replace(target)
            break
        except PermissionError:
            if sys.platform != "win32" or attempt == _REPLACE_TRIES - 1:
                raise
            threading.Event().wait(_REPLACE_PAUSE_S)
    if sync:
        fsync_dir(target.parent)


def temporary_for(target: Path) -> Path:
    """Return the hidden name under which a file is written before it is renamed to `target`."""
    return target.with_name(f".{target.name}.{os.getpid()}-{threading.get_ident()}.tmp")


def commit(source: Path, target: Path) -> None:
    """Make a finished file durable and give it its final name in one step; both lie on the same disk."""
    with source.open("rb+") as file:
        fsync_file(file)
    replace(source, target)


def atomic_write_bytes(path: Path, data: bytes, *, sync: bool = True) -> None:
    """Write a whole file: `path` then holds all of `data`, durably, or is as it was. OSError when the disk refuses.

    Without `sync` it outlives the process, not a power cut.
    """
    temporary = temporary_for(path)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            if sync:
                fsync_file(file)
        replace(temporary, path, sync=sync)
    finally:
        temporary.unlink(missing_ok=True)


def atomic_write_json(path: Path, value: Any) -> None:
    """Write plain values as indented JSON, atomically; NaN and infinity are written as Python's own constants."""
    atomic_write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode("utf-8"))


def append_line(path: Path, line: str) -> None:
    """Append one line of text durably; a line torn by a power cut is closed first, so that it can't join this one.

    ValueError when `line` itself has a line break.
    """
    if "\n" in line:
        msg = "a line that is appended has no line break inside"
        raise ValueError(msg)
    new = not path.exists()
    with path.open("ab+") as file:
        size = file.seek(0, os.SEEK_END)
        torn = False
        if size:
            file.seek(size - 1)
            torn = file.read(1) != b"\n"
        file.write(((b"\n" if torn else b"") + line.encode("utf-8")) + b"\n")
        fsync_file(file)
    if new:
        fsync_dir(path.parent)


def write_secret(path: Path, data: bytes) -> None:
    """Write a new file that only its user can read, durably; FileExistsError when there is one."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        fsync_file(file)
    fsync_dir(path.parent)


def read_lines(path: Path) -> list[str]:
    """Return the complete lines of a file of `append_line`; a torn last one is left out, a missing file is empty."""
    if not path.exists():
        return []
    text = path.read_bytes()
    return [line.decode("utf-8", errors="replace") for line in text.split(b"\n")[:-1] if line]


class FileLock:
    """A lock between processes that ends with its holder, however that ends; taken at once or not at all.

    The lock is the operating system's own on an open file, so a killed process leaves none behind. The file stays and
    tells who holds it, or held it last.

    Parameters
    ----------
    path : the lock's file; made when missing
    owner : plain values that tell others who holds it; process id and host are added
    """

    def __init__(self, path: Path, **owner: Any) -> None:
        self.path = path
        self._owner = {"pid": os.getpid(), "host": socket.gethostname(), **owner}
        self._file: IO[bytes] | None = None

    @property
    def held(self) -> bool:
        """Whether this object holds the lock."""
        return self._file is not None

    def acquire(self) -> Self:
        """Take the lock; AlreadyLocked, with what its holder wrote, when somebody else has it."""
        if self._file is not None:
            raise AlreadyLocked(self.path, self._owner)
        file = self.path.open("ab+")
        try:
            _lock(file)
        except OSError as error:
            file.close()
            raise AlreadyLocked(self.path, self.owner_of(self.path)) from error
        file.truncate(0)
        file.write(json.dumps(self._owner).encode("utf-8"))
        file.flush()
        self._file = file
        return self

    def release(self) -> None:
        """Give the lock back; harmless when it isn't held."""
        if self._file is None:
            return
        _unlock(self._file)
        self._file.close()
        self._file = None

    @staticmethod
    def owner_of(path: Path) -> dict[str, Any]:
        """Return what the holder (or the last one) wrote into the lock's file; empty where nothing can be read."""
        try:
            owner = json.loads(path.read_bytes().decode("utf-8"))
        except (OSError, ValueError):
            return {}
        return owner if isinstance(owner, dict) else {}

    @classmethod
    def is_held(cls, path: Path) -> bool:
        """Tell whether any process holds the lock at `path` now."""
        if not path.exists():
            return False
        with path.open("ab+") as file:
            try:
                _lock(file)
            except OSError:
                return True
            _unlock(file)
        return False

    def __enter__(self) -> Self:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


if sys.platform == "win32":

    def _lock(file: IO[bytes]) -> None:
        file.seek(_LOCK_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        file.seek(0, os.SEEK_END)

    def _unlock(file: IO[bytes]) -> None:
        file.seek(_LOCK_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)

else:

    def _lock(file: IO[bytes]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(file: IO[bytes]) -> None:
        fcntl.flock(file.fileno(), fcntl.LOCK_UN)
