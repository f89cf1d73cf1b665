"""The journal of a run: every act with its intent before and its outcome after, both durable before going on.

One SQLite file (WAL, synchronous=FULL) on a local disk. One process writes; others read at any time.

    meta    key, value, seal                 schema version, run id, instrument, armed_until, ...
    acts    key (once), seq, kind, args, args_hash, replay_version, setup, action_id, attempt, state,
            intended_at, intended_wall, done_at, done_wall, result, evidence, seal
    events  seq, at, wall, kind, data, seal  notes, state changes, requests

A row's `seal` is the SHA-256 of its other values: one digit that has changed on the disk, which SQLite can't see, makes
the journal a damaged one. A row that an earlier schema wrote has none until it is written again.

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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from instrument import durable
from workflows import schemas
from workflows.schemas import JournalTooNew, JournalTooOld, WrongSchema

__all__ = [
    "COLUMNS",
    "SEALED",
    "TABLES",
    "Act",
    "ActState",
    "Event",
    "Journal",
    "JournalDamaged",
    "JournalTooNew",
    "JournalTooOld",
    "ReplayMismatch",
    "WrongSchema",
    "act_of",
    "action_id",
    "canonical",
    "copies",
    "event_of",
    "hash_of",
    "is_sealed",
    "row_of",
    "seal_all",
    "set_aside",
    "wall_now",
]  # fmt: skip

_BUSY_S = 10.0

TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL, seal TEXT) WITHOUT ROWID;
CREATE TABLE acts (
    key TEXT PRIMARY KEY, seq INTEGER NOT NULL UNIQUE, kind TEXT NOT NULL,
    args TEXT NOT NULL, args_hash TEXT NOT NULL, replay_version INTEGER NOT NULL, setup TEXT,
    action_id TEXT NOT NULL UNIQUE, attempt INTEGER NOT NULL, state TEXT NOT NULL,
    intended_at REAL, intended_wall TEXT NOT NULL, done_at REAL, done_wall TEXT, result TEXT, evidence TEXT,
    seal TEXT
);
CREATE TABLE events (seq INTEGER PRIMARY KEY AUTOINCREMENT, at REAL, wall TEXT NOT NULL, kind TEXT NOT NULL, data TEXT,
    seal TEXT);
"""


#: SQLite's primary codes for what lies in the machine and not in the file: others' locks, a full disk, memory, rights.
_NOT_ITS_FAULT = (
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM,
)  # fmt: skip


class JournalDamaged(RuntimeError):
    """The file is not a sound journal. It stays as it is until the run is resumed, which salvages what can be read."""

    def __init__(self, path: Path, finding: str) -> None:
        there = [copy.name for copy in copies(path) if copy.exists()]
        also = f" and from {' and '.join(there)}" if there else ""
        finding = "; ".join(finding.splitlines())
        super().__init__(
            f"{path} is damaged ({finding}); `kintsugi resume {path.parent}` makes it again from what can be read of "
            f"it{also}, and goes on"
        )
        self.path = path
        self.finding = finding


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


COLUMNS = ", ".join(Act.__dataclass_fields__)
#: The columns that a row's seal is of, by table; the first is what a row is found by.
SEALED = {"meta": "key, value", "acts": COLUMNS, "events": ", ".join(Event.__dataclass_fields__)}


def wall_now() -> str:
    """Return the wall clock's time as ISO 8601 with zone."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def canonical(value: Any) -> str:
    """Return plain values as JSON with one spelling: keys sorted, no spaces, NaN and infinity as constants."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def hash_of(value: Any) -> str:
    """Return the SHA-256 (hexadecimal) of plain values in their canonical spelling."""
    return hashlib.sha256(canonical(value).encode("utf-8")).hexdigest()


def action_id(run_id: str, key: str, attempt: int) -> str:
    """Return the id under which a server does an attempt (from 1) of an act, and its ledger knows it."""
    return f"{run_id}/{key}#{attempt}"


class Journal:
    """A run's journal. Any thread of the writing process may call; each call is one durable transaction.

    Parameters
    ----------
    path : journal.sqlite of a run; FileNotFoundError when it isn't there (see `create`)
    read_only : look on while another process writes; nothing is changed

    One of an earlier schema is migrated, after a copy; read only, in memory. Raises JournalDamaged, WrongSchema.
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
            db.executescript(TABLES)
            values = {"schema": schemas.SCHEMA, "run_id": run_id or uuid.uuid4().hex, "created": wall_now(), **meta}
            rows = [(key, canonical(value)) for key, value in values.items()]
            db.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", rows)
            seal_all(db)
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
            found = schemas.check(db, self.path)
            db = db if found == schemas.SCHEMA else self._migrated(db, found, read_only)
            if (unsound := _unsound(db)) is not None:
                raise sqlite3.DatabaseError(unsound)
            return db
        except sqlite3.OperationalError as error:
            db.close()
            if (getattr(error, "sqlite_errorcode", 0) & 0xFF) in _NOT_ITS_FAULT:
                raise
            raise JournalDamaged(self.path, str(error)) from error
        except (sqlite3.DatabaseError, ValueError) as error:
            db.close()
            raise JournalDamaged(self.path, str(error)) from error
        except WrongSchema:
            db.close()
            raise

    def _migrated(self, db: sqlite3.Connection, found: int, read_only: bool) -> sqlite3.Connection:
        """Return a journal of the schema now: the file itself, once it is copied, or its copy in memory."""
        if read_only:
            memory = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
            db.backup(memory)
            db.close()
            db = memory
        else:
            before = self.path.with_name(f"{self.path.stem}.schema-{found}{self.path.suffix}")
            draft = durable.temporary_for(before)
            draft.unlink(missing_ok=True)
            db.execute("VACUUM INTO ?", (str(draft),))
            durable.commit(draft, before)
        schemas.migrate(db, wall_now())
        return db

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
            row += (action_id(self.run_id, key, 1), 1, ActState.INTENDED, clock_s, wall_now(), None, None, None, None)
            db.execute(f"INSERT INTO acts ({COLUMNS}) VALUES ({', '.join('?' * len(row))})", row)  # noqa: S608
            _seal(db, "acts", key)
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
            under = action_id(self.run_id, key, attempt)
            db.execute(
                "UPDATE acts SET state = ?, attempt = ?, action_id = ?, evidence = ?,"
                " intended_at = ?, intended_wall = ?"
                " WHERE key = ?",
                (ActState.INTENDED, attempt, under, _text(kept), clock_s, wall_now(), key),
            )
            _seal(db, "acts", key)
            return self._must(key)

    def find(self, key: str) -> Act | None:
        """Return the act of this key, None where there is none."""
        with self._lock:
            return self._find(key)

    def acts(self, prefix: str = "", *, kind: str | None = None, state: ActState | None = None) -> list[Act]:
        """Return acts in the order in which they were intended, by the start of their key, kind and state."""
        query = f"SELECT {COLUMNS} FROM acts WHERE substr(key, 1, ?) = ?"  # noqa: S608
        values: list[Any] = [len(prefix), prefix]
        for column, value in (("kind", kind), ("state", state)):
            if value is not None:
                query += f" AND {column} = ?"
                values.append(str(value))
        with self._lock:
            return [act_of(row) for row in self._db.execute(query + " ORDER BY seq", values)]

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
            _seal(db, "events", cursor.lastrowid)
            row = db.execute("SELECT seq, at, wall, kind, data FROM events WHERE seq = ?", (cursor.lastrowid,))
            return event_of(row.fetchone())

    def events(self, since: int = 0, *, kind: str | tuple[str, ...] | None = None) -> list[Event]:
        """Return the events after number `since`, in order: all, or those of a kind or of some."""
        kinds = (kind,) if isinstance(kind, str) else kind
        query = "SELECT seq, at, wall, kind, data FROM events WHERE seq > ?"
        if kinds is not None:
            query += f" AND kind IN ({', '.join('?' * len(kinds))})"
        with self._lock:
            return [event_of(row) for row in self._db.execute(f"{query} ORDER BY seq", (since, *(kinds or ())))]

    def meta(self, key: str, default: Any = None) -> Any:
        """Return a value of the run's own table (run_id, instrument, armed_until, ...)."""
        with self._lock:
            row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else default

    def set_meta(self, key: str, value: Any) -> None:
        """Keep a plain value in the run's own table."""
        with self._writing() as db:
            db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, canonical(value)))
            _seal(db, "meta", key)

    def copy(self) -> Path:
        """Write the journal's copy anew, durably, and return it; the one before it is kept as the second of `copies`.

        Raises sqlite3.DatabaseError where the journal can't be read whole.
        """
        with self._lock:
            newest, older = copies(self.path)
            draft = durable.temporary_for(newest)
            draft.unlink(missing_ok=True)
            try:
                self._db.execute("VACUUM INTO ?", (str(draft),))  # reads every row: no damage is carried along
                if newest.exists():
                    durable.replace(newest, older)
                durable.commit(draft, newest)
            finally:
                draft.unlink(missing_ok=True)
        return newest

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
        _seal(self._db, "acts", key)
        return self._must(key)

    def _find(self, key: str) -> Act | None:
        row = self._db.execute(f"SELECT {COLUMNS} FROM acts WHERE key = ?", (key,)).fetchone()  # noqa: S608
        return act_of(row) if row else None

    def _must(self, key: str) -> Act:
        act = self._find(key)
        if act is None:
            msg = f"no act {key!r} in {self.path.name}"
            raise KeyError(msg)
        return act


def is_sealed(row: Sequence[Any], seal: str | None) -> bool:
    """Say whether a row of `SEALED` columns is what was written; one without a seal is believed."""
    return seal is None or seal == _seal_of(row)


def seal_all(db: sqlite3.Connection) -> None:
    """Seal every row of a journal that is being made."""
    for table, columns in SEALED.items():
        name = columns.partition(",")[0]
        for (key,) in db.execute(f"SELECT {name} FROM {table}").fetchall():  # noqa: S608
            _seal(db, table, key)


def _seal_of(row: Sequence[Any]) -> str:
    texts = ["\0" if value is None else value if isinstance(value, str) else repr(value) for value in row]
    return hashlib.sha256("\x1f".join(texts).encode("utf-8")).hexdigest()


def _seal(db: sqlite3.Connection, table: str, key: Any) -> None:
    """Seal a row as it lies in the file, which may spell a number otherwise than it was given."""
    columns = SEALED[table]
    name = columns.partition(",")[0]
    row = db.execute(f"SELECT {columns} FROM {table} WHERE {name} = ?", (key,)).fetchone()  # noqa: S608
    db.execute(f"UPDATE {table} SET seal = ? WHERE {name} = ?", (_seal_of(row), key))  # noqa: S608


def _unsound(db: sqlite3.Connection) -> str | None:
    """Return which row is not what was written, None where all are."""
    for table, columns in SEALED.items():
        for *row, seal in db.execute(f"SELECT {columns}, seal FROM {table}"):  # noqa: S608
            if not is_sealed(row, seal):
                return f"{row[0]} of the {table} is not what was written"
    return None


def copies(path: Path) -> tuple[Path, Path]:
    """Return where a journal's copies lie, the newest first."""
    return path.with_name(f"{path.stem}.copy-1{path.suffix}"), path.with_name(f"{path.stem}.copy-2{path.suffix}")


def set_aside(path: Path, how: str = "damaged") -> Path:
    """Rename a file that can't be used, a journal with its -wal and -shm, to NAME.damaged-1 (or the next number)."""
    number = 1
    while (kept := path.with_name(f"{path.name}.{how}-{number}")).exists():
        number += 1
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            durable.replace(part, kept.with_name(kept.name + suffix))
    return kept


def _text(value: Any) -> str | None:
    return None if value is None else canonical(value)


def _value(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def act_of(row: tuple[Any, ...]) -> Act:
    """Return the act of a row of `COLUMNS`; ValueError where its values are none."""
    fields = dict(zip(Act.__dataclass_fields__, row, strict=True))
    for name in ("args", "setup", "result", "evidence"):
        fields[name] = _value(fields[name])
    return Act(**{**fields, "state": ActState(fields["state"])})


def row_of(entry: Act | Event) -> tuple[Any, ...]:
    """Return the row of an act or event: the inverse of `act_of` and `event_of`."""
    plain = ("args", "setup", "result", "evidence", "data")
    return tuple(
        _text(getattr(entry, name)) if name in plain else getattr(entry, name) for name in entry.__dataclass_fields__
    )


def event_of(row: tuple[Any, ...]) -> Event:
    """Return the event of a row (seq, at, wall, kind, data); ValueError where its values are none."""
    seq, at, wall, kind, data = row
    return Event(seq, at, wall, kind, _value(data))
