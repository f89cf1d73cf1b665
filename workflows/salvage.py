"""A journal that can't be opened any more is made again: from what can be read of it, and from its copies.

What was done after the last copy may lack in it. The server's ledger knows that by each action's id: patterns that the
ledger has and the journal has not (`missing_patterns`) are taken from there by `acts`, and none is fired before them.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from instrument import durable
from workflows.journal import (
    COLUMNS,
    SEALED,
    TABLES,
    Act,
    ActState,
    Event,
    Journal,
    JournalDamaged,
    act_of,
    action_id,
    canonical,
    copies,
    event_of,
    hash_of,
    is_sealed,
    row_of,
    seal_all,
    set_aside,
    wall_now,
)
from workflows.schemas import SCHEMA

log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Numbers of events go on so far behind the last one known: acts tell by number which events they took up.
_GAP = 1000
#: So many rows are looked for where a table does not say how many it has.
_BLIND, _MOST = 10_000, 1_000_000


@dataclass
class _Found:
    """What can be read of a file: the run's own values, acts by key, events by number."""

    meta: dict[str, Any] = field(default_factory=dict)
    acts: dict[str, Act] = field(default_factory=dict)
    events: dict[int, Event] = field(default_factory=dict)


def salvage(path: Path) -> str | None:
    """Make a run's journal again if it is damaged or was set aside; return what to say of it, None where it is sound.

    The caller holds the run's lock. What can't be used is kept as NAME.damaged-1.

    Raises
    ------
    JournalDamaged : neither it nor a copy says which run it is of
    """
    finding = _finding(path)
    if finding is None:
        return None
    damaged = path if path.exists() else _set_aside_before(path)
    sources = [*(copy for copy in copies(path) if copy.exists()), *([] if damaged is None else [damaged])]
    if not sources:
        return None  # there never was one
    merged = _merged([_read(source) for source in sources])
    if "run_id" not in merged.meta:
        raise JournalDamaged(path, f"{finding}; nothing that is left says which run it is of")
    kept = set_aside(path) if path.exists() else damaged
    told = {"why": finding, "kept_as": kept and kept.name, "acts": len(merged.acts), "events": len(merged.events)}
    _write(path, merged, told)
    return (
        f"{path.name} is damaged ({finding}); it is made again with {len(merged.acts)} acts"
        + ("" if kept is None else f", and kept as {kept.name}")
        + "; what it lacks is taken from the server's ledger"
    )


def missing_patterns(journal: Journal, fired: Iterable[str]) -> set[str]:
    """Return the ids of patterns that were fired and that the journal has no row for.

    Intents are durable before anything fires, so a whole journal lacks none.

    fired : the ids of all patterns of this run by the server's ledger
    """
    known = {
        action_id(journal.run_id, act.key, attempt) for act in journal.acts() for attempt in range(1, act.attempt + 1)
    }
    return {one for one in fired if "#" in one} - known  # without it: done by a session for itself, as looks are


# -- private ----------------------------------------------------------------------------------------------------------


def _finding(path: Path) -> str | None:
    """Return what is wrong with a journal, None where every row of it can be read."""
    if not path.exists():
        return "it is missing"
    try:
        with Journal(path, read_only=True) as journal:
            journal.events()
            wrong = [act.key for act in journal.acts() if not _is_whole(act, journal.run_id)]
    except JournalDamaged as error:
        return error.finding
    except (ValueError, TypeError) as error:
        return f"a row can't be read: {error}"
    return f"{wrong[0]} is not what was written" if wrong else None


def _is_whole(act: Act, run_id: str) -> bool:
    return act.args_hash == hash_of(act.args) and act.action_id == action_id(run_id, act.key, act.attempt)


def _set_aside_before(path: Path) -> Path | None:
    """Return the journal that was set aside last, by a version that did no more or by a process that died then."""
    aside = [one for one in path.parent.glob(f"{path.name}.damaged-*") if one.name.rpartition("-")[2].isdecimal()]
    return max(aside, key=lambda one: int(one.name.rpartition("-")[2]), default=None)


def _read(path: Path) -> _Found:
    """Return all that can be read of a file and means something."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
        acts = _sound(act_of, _rows(db, "acts"))
        events = _sound(event_of, _rows(db, "events"))
        return _Found(
            dict(_sound(_meta_of, _meta_rows(db))),
            {act.key: act for act in acts},
            {event.seq: event for event in events},
        )


def _meta_of(row: tuple[Any, ...]) -> tuple[str, Any]:
    return str(row[0]), json.loads(row[1])


def _sound(make: Callable[[tuple[Any, ...]], _T], rows: Iterable[tuple[Any, ...]]) -> Iterator[_T]:
    """Yield what rows say, without those that say nothing any more."""
    for row in rows:
        try:
            yield make(row)
        except (ValueError, TypeError) as error:
            log.warning("a row is left out: %s", error)


def _meta_rows(db: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    try:
        yield from _whole(db.execute(_select(db, "meta")))
    except sqlite3.DatabaseError as error:
        log.warning("the journal's own values: %s", error)


def _select(db: sqlite3.Connection, table: str) -> str:
    """Return what asks for a table's rows and their seals; earlier schemas had none."""
    there = {str(row[1]) for row in db.execute(f"PRAGMA table_info({table})")}
    return f"SELECT {SEALED[table]}, {'seal' if 'seal' in there else 'NULL'} FROM {table}"  # noqa: S608


def _whole(rows: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Yield rows without their seals, those that are what was written."""
    for *row, seal in rows:
        if is_sealed(row, seal):
            yield tuple(row)
        else:
            log.warning("a row is left out: %s is not what was written", row[0])


def _rows(db: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    """Yield a table's rows one by one by their number, past those that can't be read or are not what was written."""
    try:
        last = int(db.execute(f"SELECT max(rowid) FROM {table}").fetchone()[0] or 0)  # noqa: S608
    except (sqlite3.DatabaseError, TypeError):
        last = _BLIND
    yield from _whole(_by_number(db, table, min(last, _MOST)))


def _by_number(db: sqlite3.Connection, table: str, last: int) -> Iterator[tuple[Any, ...]]:
    try:
        select = _select(db, table)
    except sqlite3.DatabaseError as error:
        log.warning("the %s can't be read: %s", table, error)
        return
    for number in range(1, last + 1):
        try:
            row = db.execute(f"{select} WHERE rowid = ?", (number,)).fetchone()
        except sqlite3.DatabaseError:
            continue
        if row is not None:
            yield row


def _merged(found: Sequence[_Found]) -> _Found:
    """Return what files say together, the most trusted first: an outcome stands, else the latest attempt does."""
    merged = _Found()
    for one in found:
        merged.meta = {**one.meta, **merged.meta}
        merged.events = {**one.events, **merged.events}
    run_id = str(merged.meta.get("run_id"))
    for one in found:
        for key, act in one.acts.items():
            before = merged.acts.get(key)
            if _is_whole(act, run_id) and (before is None or _standing(act) > _standing(before)):
                merged.acts[key] = act
    return merged


def _standing(act: Act) -> tuple[bool, int, bool]:
    return act.has_outcome, act.attempt, act.state is not ActState.INTENDED


def _write(path: Path, found: _Found, told: dict[str, Any]) -> None:
    """Write a journal of what was found, durably and in one step, with an event that says so."""
    draft = durable.temporary_for(path)
    draft.unlink(missing_ok=True)
    acts = sorted(found.acts.values(), key=lambda act: act.seq)
    events = [found.events[seq] for seq in sorted(found.events)]
    events.append(Event(max(found.events, default=0) + _GAP, None, wall_now(), "salvaged", told))
    try:
        with closing(sqlite3.connect(draft)) as db:
            db.executescript(TABLES)
            own = [(key, canonical(one)) for key, one in {**found.meta, "schema": SCHEMA}.items()]
            db.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", own)
            marks = ", ".join("?" * len(Act.__dataclass_fields__))
            rows = (row_of(replace(act, seq=number)) for number, act in enumerate(acts, start=1))
            db.executemany(f"INSERT INTO acts ({COLUMNS}) VALUES ({marks})", rows)  # noqa: S608
            db.executemany("INSERT INTO events (seq, at, wall, kind, data) VALUES (?, ?, ?, ?, ?)", map(row_of, events))
            seal_all(db)
            db.commit()
        durable.commit(draft, path)
    finally:
        draft.unlink(missing_ok=True)
