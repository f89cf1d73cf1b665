"""The queue of nights: which recipe begins when, by when it must have ended, and whether a person armed it.

One SQLite file of this user; any process may add, list and remove, one worker does what is due, one night at a time.
A night that a person begins by hand stands in it as well, so that the worker goes on with it after a reboot. What
doesn't fit its window is said when it is added, by evening, and not found out at three in the morning.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

from instrument import durable
from instrument.errors import BadData
from instrument.settings import Description
from workflows.journal import set_aside
from workflows.launch import is_simulator
from workflows.plan import Plan, plan
from workflows.recipe import Recipe
from workflows.store import RunFolder

#: A person who arms a night has looked at this mounting; it holds for so long (night.md 10), and is no leave for the
#: hours after the night was to begin: by then people have the room, and the instrument, for themselves again.
ARMED = timedelta(hours=24)
LATE = timedelta(hours=1)
_BUSY_S = 10.0
_SCHEMA = 1
#: A file that begins so is one of SQLite, whatever became of the rest; SQLite's codes for one that is damaged.
_MAGIC = b"SQLite format 3\0"
_DAMAGE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_TABLE = """
CREATE TABLE IF NOT EXISTS nights (
    id INTEGER PRIMARY KEY AUTOINCREMENT, recipe TEXT NOT NULL, folder TEXT NOT NULL UNIQUE, begins TEXT NOT NULL,
    ends TEXT, images INTEGER, armed INTEGER NOT NULL, options TEXT NOT NULL, state TEXT NOT NULL, why TEXT NOT NULL,
    added TEXT NOT NULL
);
"""


class NightState(StrEnum):
    """Where an entry of the queue stands; only a waiting one can be removed."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    HELD = "held"
    FAILED = "failed"
    MISSED = "missed"
    REMOVED = "removed"


class QueueDamaged(BadData):
    """The queue's file is damaged; it was set aside, and a new one is empty."""

    symptom = "queue-damaged"

    def __init__(self, path: Path, finding: str, kept_as: Path) -> None:
        super().__init__(
            f"{path}, the queue of nights, is damaged ({finding}): it is set aside as {kept_as.name}, and no night "
            "waits any more; add them again (`kintsugi schedule add`)",
            path=str(path), finding=finding, kept_as=str(kept_as),
        )  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A night of the queue.

    recipe, folder : absolute paths; begins, ends : with time zone, no end: as long as it takes
    images : at most so many, None: as the recipe says; armed : whether a person has said that it may begin alone
    options : instrument, model, notify, watcher, restarts of `kintsugi night`; `url`, that of the instrument in use;
        shorten; `described`, the instrument as it was by evening
    """

    id: int
    recipe: Path
    folder: Path
    begins: datetime
    ends: datetime | None
    images: int | None
    armed: bool
    options: dict[str, Any]
    state: NightState
    why: str
    added: datetime

    @property
    def supervised(self) -> bool:
        """Whether a process looks after its run now."""
        return RunFolder(self.folder).supervised


@dataclass(frozen=True)
class Fit:
    """Whether a recipe fits a window: `problems` empty means that it does, with so many images."""

    problems: tuple[str, ...]
    images: int | None
    plan: Plan


def fits(
    recipe: Recipe,
    description: Description,
    begins: datetime,
    ends: datetime | None,
    *,
    shorten: bool,
    free_bytes: int | None = None,
) -> Fit:
    """Plan a recipe for a window; with `shorten` fewer images are taken rather than none.

    Parameters
    ----------
    recipe, description : what is to be done on what; free_bytes : what the disk has free
    begins, ends : the window; no end: any length fits
    """
    whole = plan(recipe, description, free_bytes=free_bytes, options=False)
    if whole.problems or ends is None:
        return Fit(whole.problems, None, whole)
    window = (ends - begins).total_seconds()
    if whole.total_s <= window:
        return Fit((), None, whole)
    left = window - whole.prelude_s
    shorter = None if left <= 0 else plan(
        recipe, description, finish_by=f"{left / 3600:.4f} h", free_bytes=free_bytes, options=False
    )  # fmt: skip
    images = 0 if shorter is None else shorter.images_planned
    told = f"{recipe.name} takes {_hours(whole.total_s)} and the window from {begins:%H:%M} to {ends:%H:%M} has "
    told += f"{_hours(window)}: {images} of {whole.images_planned} images fit"
    if shorter is None or images < 1:
        return Fit((f"{told}; begin earlier, or end later",), None, whole)
    if not shorten:
        return Fit((f"{told}; --shorten takes these, or begin earlier, or end later",), images, whole)
    return Fit(shorter.problems, images, shorter)


def next_time(text: str, after: datetime) -> datetime:
    """Return a time written as "20:00" (the next one), "now", or "2026-11-26 20:00" (local).

    Raises
    ------
    ValueError
        When it is none of these, or lies before `after`.
    """
    if text == "now":
        return after
    if found := re.fullmatch(r"(\d{1,2}):(\d{2})", text):
        hour, minute = int(found[1]), int(found[2])
        if hour > 23 or minute > 59:
            msg = f"{text!r} is no time of day"
            raise ValueError(msg)
        at = after.replace(hour=hour, minute=minute, second=0, microsecond=0)
        return at if at >= after else at + timedelta(days=1)
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        msg = f"{text!r} is no time; write 20:00, or 2026-11-26 20:00"
        raise ValueError(msg) from error
    at = at.astimezone() if at.tzinfo is None else at
    if at < after:
        msg = f"{text} is over already"
        raise ValueError(msg)
    return at


def too_far_ahead(added: datetime, begins: datetime) -> str | None:
    """Return why a real instrument may not begin so long after a person has looked at it, None where it may."""
    if begins - added <= ARMED:
        return None
    return (
        f"it begins {_hours((begins - added).total_seconds())} after it was added, and a last look at a real "
        f"instrument holds for {_hours(ARMED.total_seconds())}; add it again after another look"
    )


def too_late(entry: Entry, now: datetime) -> str | None:
    """Return why a night on a real instrument may not begin any more, None where it may."""
    if now - entry.begins > LATE:
        return (
            f"it was to begin at {entry.begins:%Y-%m-%d %H:%M} and it is {now:%Y-%m-%d %H:%M}: more than "
            f"{_hours(LATE.total_seconds())} late, a real instrument is not begun alone; add it again after a last look"
        )
    return too_far_ahead(entry.added, now)


def usual_file() -> Path:
    """Return the file of this user's own queue: KINTSUGI_NIGHTS, or among the program's state."""
    from platformdirs import user_state_path

    given = os.environ.get("KINTSUGI_NIGHTS")
    return Path(given) if given else user_state_path("kintsugi") / "nights.sqlite"


class Queue:
    """The nights of one user.

    Parameters
    ----------
    path : the SQLite file; made with its folder when missing

    Its methods raise QueueDamaged, once for a file that is damaged and was set aside, and ValueError for one that is no
    queue, or of a newer kintsugi.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        #: Whom the nights that were read last would have told: who is told that the queue itself is damaged.
        self.targets: tuple[str, ...] = ()

    def add(
        self,
        recipe: Path,
        folder: Path,
        begins: datetime,
        ends: datetime | None,
        *,
        armed: bool,
        images: int | None = None,
        options: dict[str, Any] | None = None,
    ) -> Entry:
        """Add a night; ValueError where its folder is that of another one that waits or runs."""
        return self._put_in(recipe, folder, begins, ends, NightState.WAITING, armed, images, options)

    def begun(self, recipe: Path, folder: Path, now: datetime, options: dict[str, Any]) -> Entry:
        """Put in a night that a person has begun, in the place of what the queue has for its folder."""
        return self._put_in(recipe, folder, now, None, NightState.RUNNING, armed=True, images=None, options=options)

    def entries(self, *, all_: bool = False) -> list[Entry]:
        """Return what waits and runs, by its beginning; with `all_` also what is over."""
        with self._open() as db:
            found = [_entry(row) for row in db.execute(f"SELECT {_COLUMNS} FROM nights ORDER BY begins, id")]  # noqa: S608
        ahead = [one for one in found if one.state in _AHEAD]
        self.targets = tuple(dict.fromkeys(target for one in ahead for target in one.options.get("notify", ())))
        return found if all_ else ahead

    def remove(self, number: int) -> Entry:
        """Take a waiting night out; ValueError where there is none of this number, or it has begun."""
        with self._open() as db:
            changed = db.execute(
                "UPDATE nights SET state = ? WHERE id = ? AND state = ?",
                (NightState.REMOVED, number, NightState.WAITING),
            ).rowcount
            if not changed:
                state = db.execute("SELECT state FROM nights WHERE id = ?", (number,)).fetchone()
                msg = f"night {number} is {state[0]}; only one that waits can be removed" if state else (
                    f"there is no night {number}"
                )  # fmt: skip
                raise ValueError(msg)
            return self._one(db, number)

    def due(self, now: datetime) -> Entry | None:
        """Return what is to be done now: a night whose supervisor died while it ran, else the first that is due.

        One waits for the instrument where a night that a person has begun runs on it.
        """
        ahead = self.entries()
        running = [one for one in ahead if one.state is NightState.RUNNING]
        by_others = [one for one in running if one.supervised]
        left = [one for one in running if one not in by_others]
        busy = {url for one in by_others if (url := one.options.get("url")) and not is_simulator(url)}
        due = [one for one in ahead if one not in running and one.begins <= now and one.options.get("url") not in busy]
        return next(iter(left or due), None)

    def in_the_way(self, begins: datetime, ends: datetime) -> list[Entry]:
        """Return the nights that wait or run and have the worker for some of this window; no end: until further."""
        return [one for one in self.entries() if one.begins < ends and (one.ends is None or one.ends > begins)]

    def put(self, number: int, state: NightState, why: str = "") -> None:
        """Write down where a night stands."""
        with self._open() as db:
            db.execute("UPDATE nights SET state = ?, why = ? WHERE id = ?", (state, why, number))

    # -- private ----------------------------------------------------------------------------------------------------

    def _put_in(
        self,
        recipe: Path,
        folder: Path,
        begins: datetime,
        ends: datetime | None,
        state: NightState,
        armed: bool,
        images: int | None,
        options: dict[str, Any] | None,
    ) -> Entry:
        """Write an entry; one of its folder that is over gives way to it, and to one that runs any does."""
        row = (
            str(recipe.absolute()), str(folder.absolute()), begins.isoformat(), None if ends is None else
            ends.isoformat(), images, int(armed), json.dumps(options or {}), state, "",
            datetime.now().astimezone().isoformat(),
        )  # fmt: skip
        kept = _AHEAD if state is NightState.WAITING else ("", "")
        try:
            with self._open() as db:
                db.execute("DELETE FROM nights WHERE folder = ? AND state NOT IN (?, ?)", (row[1], *kept))
                cursor = db.execute(
                    "INSERT INTO nights (recipe, folder, begins, ends, images, armed, options, state, why, added)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    row,
                )
                return self._one(db, int(cursor.lastrowid or 0))
        except sqlite3.IntegrityError as error:
            msg = f"{folder} is another night's folder already; `kintsugi schedule list` shows it"
            raise ValueError(msg) from error

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        durable.make_dir(self.path.parent)
        with suppress(FileExistsError):  # targets of messages may hold passwords
            durable.write_secret(self.path, b"")
        db = sqlite3.connect(self.path, timeout=_BUSY_S)
        try:
            self._see_sound(db)
            db.execute("PRAGMA journal_mode=WAL")
            db.execute("PRAGMA synchronous=FULL")
            with db:
                yield db
        except sqlite3.DatabaseError as error:
            db.close()
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in _DAMAGE:
                raise
            raise self._damaged(str(error)) from error
        finally:
            db.close()

    def _see_sound(self, db: sqlite3.Connection) -> None:
        """See that an opened file is a queue of this version, and make its table in an empty one."""
        found = int(db.execute("PRAGMA user_version").fetchone()[0])
        tables = [str(row[0]) for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        if tables and "nights" not in tables:
            raise ValueError(self._no_queue())
        if found > _SCHEMA:
            msg = f"{self.path} was written by a newer kintsugi (schema {found}): install that one"
            raise ValueError(msg)
        if not tables:
            db.executescript(_TABLE)
            db.execute(f"PRAGMA user_version={_SCHEMA}")

    def _damaged(self, finding: str) -> Exception:
        """Set a damaged file aside, once, and return what to raise; a file that was never a queue stays."""
        with self.path.open("rb") as file:
            was_one = self.path.suffix == ".sqlite" or file.read(len(_MAGIC)) == _MAGIC
        if not was_one:
            return ValueError(self._no_queue())
        return QueueDamaged(self.path, finding, set_aside(self.path))

    def _no_queue(self) -> str:
        return f"{self.path} is no queue of nights; --queue names its file, and without it this user's own is taken"

    @staticmethod
    def _one(db: sqlite3.Connection, number: int) -> Entry:
        return _entry(db.execute(f"SELECT {_COLUMNS} FROM nights WHERE id = ?", (number,)).fetchone())  # noqa: S608


_AHEAD = (NightState.WAITING, NightState.RUNNING)
_COLUMNS = ", ".join(Entry.__dataclass_fields__)


def _entry(row: tuple[Any, ...]) -> Entry:
    values = dict(zip(Entry.__dataclass_fields__, row, strict=True))
    return Entry(
        id=values["id"],
        recipe=Path(values["recipe"]),
        folder=Path(values["folder"]),
        begins=datetime.fromisoformat(values["begins"]),
        ends=None if values["ends"] is None else datetime.fromisoformat(values["ends"]),
        images=values["images"],
        armed=bool(values["armed"]),
        options=json.loads(values["options"]),
        state=NightState(values["state"]),
        why=values["why"],
        added=datetime.fromisoformat(values["added"]),
    )


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h"
