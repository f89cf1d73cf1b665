"""Journals of earlier versions: which there were, and what turns one into the next."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

#: The journal's schema now.
SCHEMA = 2
#: What turns a journal of one schema into the next: statements, by the schema that they begin with.
MIGRATIONS: dict[int, tuple[str, ...]] = {
    1: tuple(f"ALTER TABLE {table} ADD COLUMN seal TEXT" for table in ("meta", "acts", "events")),
}
TABLES = ("meta", "acts", "events")


class WrongSchema(RuntimeError):
    """The file was written by a kintsugi that this one can't follow."""

    def __init__(self, path: Path, found: int, remedy: str) -> None:
        super().__init__(f"{path} has journal schema {found}, this kintsugi reads {readable()}: {remedy}")
        self.path = path
        self.found = found


class JournalTooNew(WrongSchema):
    """The file was written by a newer kintsugi than this one."""

    def __init__(self, path: Path, found: int) -> None:
        super().__init__(path, found, "install a newer one")


class JournalTooOld(WrongSchema):
    """The file has a schema that nothing here leads on from."""

    def __init__(self, path: Path, found: int) -> None:
        super().__init__(path, found, "go on with the kintsugi that wrote it")


def oldest() -> int:
    """Return the oldest schema that can be read."""
    return min(MIGRATIONS, default=SCHEMA)


def readable() -> str:
    """Return the schemas that can be read, as a sentence has them."""
    return f"{oldest()} up to {SCHEMA}" if oldest() < SCHEMA else f"{SCHEMA} alone"


def check(db: sqlite3.Connection, path: Path) -> int:
    """Return a journal's schema.

    Raises
    ------
    JournalTooNew, JournalTooOld : it can't be read
    sqlite3.DatabaseError : it is no journal
    """
    found = _schema(db)
    if found > SCHEMA:
        raise JournalTooNew(path, found)
    if found < oldest():
        raise JournalTooOld(path, found)
    there = {str(row[0]) for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    missing = [name for name in TABLES if name not in there]
    if missing:
        msg = f"it has no table {', '.join(missing)}"
        raise sqlite3.DatabaseError(msg)
    return found


def migrate(db: sqlite3.Connection, wall: str) -> None:
    """Turn a journal into one of the schema now, in one transaction that leaves an event; `wall` is the time (ISO)."""
    db.execute("BEGIN IMMEDIATE")
    try:
        found = _schema(db)  # again: another process may have been quicker
        for schema in range(found, SCHEMA):
            for statement in MIGRATIONS[schema]:
                db.execute(statement)
        if found < SCHEMA:
            db.execute("UPDATE meta SET value = ?, seal = NULL WHERE key = 'schema'", (json.dumps(SCHEMA),))
            data = json.dumps({"from": found, "to": SCHEMA})
            db.execute("INSERT INTO events (wall, kind, data) VALUES (?, 'migrated', ?)", (wall, data))
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")


def _schema(db: sqlite3.Connection) -> int:
    row = db.execute("SELECT value FROM meta WHERE key = 'schema'").fetchone()
    return int(json.loads(row[0])) if row else 0
