"""The journal of a run: every act with its intent before and its outcome after, both durable before going on.

One SQLite file (WAL, synchronous=FULL) on a local disk. One process writes; others read at any time.

    meta    key, value                       schema version, run id, instrument, armed_until, ...
    acts    key (once), seq, kind, args, args_hash, replay_version, setup, action_id, attempt, state,
            intended_at, intended_wall, done_at, done_wall, result, evidence
    events  seq, at, wall, kind, data        notes, state changes, requests

`*_at` is the instrument's clock in seconds, `*_wall` ISO 8601 with zone. `args`, `setup`, `result`, `evidence`, `data`
are JSON in which NaN and infinity survive. States of an act: `intended` (asked for, outcome unknown), `done`,
`cut` (ended early; the evidence says how far), `settled` (the rest was given, or a person decided; it has an outcome).
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from instrument import durable

SCHEMA = 1
_BUSY_S = 10.0

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE acts (
    key TEXT PRIMARY KEY, seq INTEGER NOT NULL UNIQUE, kind TEXT NOT NULL,
    args TEXT NOT NULL, args_hash TEXT NOT NULL, replay_version INTEGER NOT NULL, setup TEXT,
    action_id TEXT NOT NULL UNIQUE, attempt INTEGER NOT NULL, state TEXT NOT NULL,
    intended_at REAL, intended_wall TEXT NOT NULL, done_at REAL, done_wall TEXT, result TEXT, evidence TEXT
);
CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL, wall TEXT NOT NULL, kind TEXT NOT NULL, data TEXT);
"""


#: SQLite's primary codes for what lies in the machine and not in the file: others' locks, a full disk, memory, rights.
_NOT_ITS_FAULT = (
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM,
)  # fmt: skip


class JournalDamaged(RuntimeError):
    """The file is not a sound journal; `kept_as` is where it was set aside (None when it was only read)."""

    def __init__(self, path: Path, finding: str, kept_as: Path | None = None) -> None:
        where = f"; set aside as {kept_as.name}, restore a copy to go on" if kept_as else ""
        super().__init__(f"{path} is damaged ({finding}){where}")
        self.path = path
        self.finding = finding
        self.kept_as = kept_as


class JournalTooNew(RuntimeError):
    """The file was written by a newer kintsugi than this one."""

    def __init__(self, path: Path, found: int) -> None:
        super().__init__(f"{path} has journal schema {found}, this kintsugi reads up to {SCHEMA}: install a newer one")
        self.path = path
        self.found = found


class ReplayMismatch(RuntimeError):
    """At replay a step asked for something else than the journal has under that key; the run is held."""

    def __init__(self, key: str, journalled: dict[str, Any], asked: dict[str, Any]) -> None:
        differs = [name for name in asked if asked[name] != journalled.get(name)]
        shown = "; ".join(f"{name}: journal {journalled.get(name)!r}, now {asked[name]!r}" for name in differs)
        super().__init__(f"act {key} was journalled differently: {shown}")
        self.key = key
        self.journalled = journalled
        self.asked = asked


class ActState(StrEnum):
    """Where an act stands."""

    INTENDED = "intended"
    DONE = "done"
    CUT = "cut"
    SETTLED = "settled"


@dataclass(frozen=True)
class Act:
    """A row of the journal. `result` and `evidence` are plain values; times as in the module's text."""

    key: str
    seq: int
    kind: str
    args: Any
    args_hash: str
    replay_version: int
    setup: Any
    action_id: str
    attempt: int
    state: ActState
    intended_at: float | None
    intended_wall: str
    done_at: float | None
    done_wall: str | None
    result: Any
    evidence: Any

    @property
    def has_outcome(self) -> bool:
        """Whether a replay takes `result` as it is."""
        return self.state in (ActState.DONE, ActState.SETTLED)


@dataclass(frozen=True)
class Event:
    """A note, a state change or a request."""

    seq: int
    at: float | None
    wall: str
    kind: str
    data: Any


_COLUMNS = ", ".join(Act.__dataclass_fields__)


def wall_now() -> str:
    """Return the wall clock's time as ISO 8601 with zone."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def canonical(value: Any) -> str:
    """Return plain values as JSON with one spelling: keys sorted, no spaces, NaN and infinity as constants."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def hash_of(value: Any) -> str:
    """Return the SHA-256 (hexadecimal) of plain values in their canonical spelling."""
    return hashlib.sha256(canonical(value).encode("utf-8")).hexdigest()


class Journal:
    """A run's journal. Any thread of the writing process may call; each call is one durable transaction.

    Parameters
    ----------
    path : journal.sqlite of a run; FileNotFoundError when it isn't there (see `create`)
    read_only : look on while another process writes; nothing is changed, nothing set aside

    Raises JournalDamaged, JournalTooNew.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        if not path.exists():
            msg = f"{path} does not exist"
            raise FileNotFoundError(msg)
        self.path = path
        self._lock = threading.RLock()
        self._db = self._open(read_only)

    @classmethod
    def create(cls, path: Path, *, run_id: str | None = None, **meta: Any) -> Journal:
        """Make a new journal; FileExistsError when there is one. `meta` are plain values kept with it."""
        if path.exists():
            msg = f"{path} exists already"
            raise FileExistsError(msg)
        draft = durable.temporary_for(path)
        draft.unlink(missing_ok=True)
        db = sqlite3.connect(draft)
        try:
            db.executescript(_TABLES)
            values = {"schema": SCHEMA, "run_id": run_id or uuid.uuid4().hex, "created": wall_now(), **meta}
            db.executemany("INSERT INTO meta VALUES (?, ?)", [(key, canonical(value)) for key, value in values.items()])
            db.commit()
        finally:
            db.close()
        durable.commit(draft, path)
        return cls(path)

    def _open(self, read_only: bool) -> sqlite3.Connection:
        source = f"{self.path.absolute().as_uri()}?mode={'ro' if read_only else 'rw'}"
        db = sqlite3.connect(source, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            if not read_only:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=FULL")
            findings = [str(row[0]) for row in db.execute("PRAGMA integrity_check(3)")]
            if findings != ["ok"]:
                raise sqlite3.DatabaseError("; ".join(findings))
            row = db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
            found = int(json.loads(row[0])) if row else 0
        except sqlite3.OperationalError as error:
            db.close()
            if (error.sqlite_errorcode & 0xFF) in _NOT_ITS_FAULT:
                raise
            raise self._damaged(error, read_only) from error
        except (sqlite3.DatabaseError, ValueError) as error:
            db.close()
            raise self._damaged(error, read_only) from error
        if found > SCHEMA:
            db.close()
            raise JournalTooNew(self.path, found)
        return db

    def _damaged(self, error: Exception, read_only: bool) -> JournalDamaged:
        return JournalDamaged(self.path, str(error), None if read_only else set_aside(self.path))

    # -- acts ------------------------------------------------------------------------------------------------------

    def intend(
        self,
        key: str,
        kind: str,
        args: Any,
        setup: Any = None,
        *,
        replay_version: int = 1,
        clock_s: float | None = None,
    ) -> Act:
        """Write down that an act is about to be done, or return the one that has this key already.

        Parameters
        ----------
        key : the act's path, unique in the run, such as "slice/0012/mill"
        kind : what it is: mill, deposit, frame, eds, measure, decide, answer, asked
        args, setup : plain values; the hash of `args` with `kind` and `replay_version` must be the same at replay
        clock_s : the instrument's clock, seconds

        Raises ReplayMismatch when the journal has another act under this key.
        """
        asked_hash = hash_of(args)
        with self._writing() as db:
            old = self._find(key)
            if old is not None:
                asked = {"kind": kind, "args": args, "replay_version": replay_version}
                kept = {"kind": old.kind, "args": old.args, "replay_version": old.replay_version}
                if old.args_hash != asked_hash or old.kind != kind or old.replay_version != replay_version:
                    raise ReplayMismatch(key, kept, asked)
                return old
            seq = int(db.execute("SELECT coalesce(max(seq), 0) + 1 FROM acts").fetchone()[0])
            row: tuple[Any, ...] = (key, seq, kind, canonical(args), asked_hash, replay_version, _text(setup))
            row += (self._action_id(key, 1), 1, ActState.INTENDED, clock_s, wall_now(), None, None, None, None)
            db.execute(f"INSERT INTO acts ({_COLUMNS}) VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608
            return self._must(key)

    def done(self, key: str, result: Any, *, clock_s: float | None = None) -> Act:
        """Write down an act's outcome: `done`, or `settled` when an attempt before was cut short."""
        with self._writing():
            old = self._must(key)
            if old.has_outcome:
                msg = f"act {key} has its outcome already"
                raise ValueError(msg)
            state = ActState.DONE if old.attempt == 1 and old.state is ActState.INTENDED else ActState.SETTLED
            return self._close(key, state, clock_s, result, old.evidence)

    def cut(self, key: str, evidence: Any, *, clock_s: float | None = None) -> Act:
        """Write down that an act ended early; `evidence` says how far it came (plain values)."""
        with self._writing():
            old = self._must(key)
            if old.has_outcome:
                msg = f"act {key} has its outcome already and can't be cut short"
                raise ValueError(msg)
            return self._close(key, ActState.CUT, clock_s, None, evidence)

    def again(self, key: str, evidence: Any = None, *, clock_s: float | None = None) -> Act:
        """Intend the rest of an act anew, under a fresh action id; what was kept as evidence stays."""
        with self._writing() as db:
            old = self._must(key)
            if old.has_outcome:
                msg = f"act {key} has its outcome and is never done again"
                raise ValueError(msg)
            attempt = old.attempt + 1
            kept = old.evidence if evidence is None else evidence
            db.execute(
                "UPDATE acts SET state = ?, attempt = ?, action_id = ?, evidence = ?,"
                " intended_at = ?, intended_wall = ?"
                " WHERE key = ?",
                (ActState.INTENDED, attempt, self._action_id(key, attempt), _text(kept), clock_s, wall_now(), key),
            )
            return self._must(key)

    def find(self, key: str) -> Act | None:
        """Return the act of this key, None where there is none."""
        with self._lock:
            return self._find(key)

    def acts(self, prefix: str = "", *, kind: str | None = None, state: ActState | None = None) -> list[Act]:
        """Return acts in the order in which they were intended, by the start of their key, kind and state."""
        query = f"SELECT {_COLUMNS} FROM acts WHERE substr(key, 1, ?) = ?"  # noqa: S608
        values: list[Any] = [len(prefix), prefix]
        for column, value in (("kind", kind), ("state", state)):
            if value is not None:
                query += f" AND {column} = ?"
                values.append(str(value))
        with self._lock:
            return [_act(row) for row in self._db.execute(query + " ORDER BY seq", values)]

    def unsettled(self) -> list[Act]:
        """Return the acts without outcome, in order."""
        return [act for act in self.acts() if not act.has_outcome]

    # -- events and meta --------------------------------------------------------------------------------------------

    def note(self, kind: str, data: Any = None, *, clock_s: float | None = None) -> Event:
        """Add an event: a note, a state change, a request (plain values)."""
        with self._writing() as db:
            cursor = db.execute(
                "INSERT INTO events (at, wall, kind, data) VALUES (?, ?, ?, ?)",
                (clock_s, wall_now(), kind, _text(data)),
            )
            row = db.execute("SELECT seq, at, wall, kind, data FROM events WHERE seq = ?", (cursor.lastrowid,))
            return _event(row.fetchone())

    def events(self, since: int = 0, *, kind: str | tuple[str, ...] | None = None) -> list[Event]:
        """Return the events after number `since`, in order: all, or those of a kind or of some."""
        kinds = (kind,) if isinstance(kind, str) else kind
        query = "SELECT seq, at, wall, kind, data FROM events WHERE seq > ?"
        if kinds is not None:
            query += f" AND kind IN ({', '.join('?' * len(kinds))})"
        with self._lock:
            return [_event(row) for row in self._db.execute(f"{query} ORDER BY seq", (since, *(kinds or ())))]

    def meta(self, key: str, default: Any = None) -> Any:
        """Return a value of the run's own table (run_id, instrument, armed_until, ...)."""
        with self._lock:
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else default

    def set_meta(self, key: str, value: Any) -> None:
        """Keep a plain value in the run's own table."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, canonical(value)))

    @property
    def run_id(self) -> str:
        """The run's own id, made with the journal."""
        return str(self.meta("run_id"))

    def close(self) -> None:
        """Close the file; a closed journal is not used again."""
        with self._lock:
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- private ----------------------------------------------------------------------------------------------------

    def _action_id(self, key: str, attempt: int) -> str:
        return f"{self.run_id}/{key}#{attempt}"

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _close(self, key: str, state: ActState, clock_s: float | None, result: Any, evidence: Any) -> Act:
        self._db.execute(
            "UPDATE acts SET state = ?, done_at = ?, done_wall = ?, result = ?, evidence = ? WHERE key = ?",
            (state, clock_s, wall_now(), _text(result), _text(evidence), key),
        )
        return self._must(key)

    def _find(self, key: str) -> Act | None:
        row = self._db.execute(f"SELECT {_COLUMNS} FROM acts WHERE key = ?", (key,)).fetchone()  # noqa: S608
        return _act(row) if row else None

    def _must(self, key: str) -> Act:
        act = self._find(key)
        if act is None:
            msg = f"no act {key!r} in {self.path.name}"
            raise KeyError(msg)
        return act


def set_aside(path: Path) -> Path:
    """Rename a journal that can't be used, with its -wal and -shm, to NAME.damaged-1 (or the next free number)."""
    number = 1
    while (kept := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    for suffix in ("-wal", "-shm", ""):
        part = path.with_name(path.name + suffix)
        if part.exists():
            durable.replace(part, kept.with_name(kept.name + suffix))
    return kept


def _text(value: Any) -> str | None:
    return None if value is None else canonical(value)


def _value(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _act(row: tuple[Any, ...]) -> Act:
    fields = dict(zip(Act.__dataclass_fields__, row, strict=True))
    for name in ("args", "setup", "result", "evidence"):
        fields[name] = _value(fields[name])
    return Act(**{**fields, "state": ActState(fields["state"])})


def _event(row: tuple[Any, ...]) -> Event:
    seq, at, wall, kind, data = row
    return Event(seq, at, wall, kind, _value(data))
