"""Journals of other versions are migrated, or refused in one sentence."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from workflows import schemas
from workflows.journal import Journal, JournalDamaged, JournalTooOld

#: A journal as a later version might have it: who wrote an event is a column.
NOW = schemas.SCHEMA
NEXT = {NOW: ("ALTER TABLE events ADD COLUMN by TEXT", "UPDATE events SET by = 'run'")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "journal.sqlite"
    with Journal.create(made, run_id="r") as journal:
        journal.intend("a", "mill", {"depth_m": float("inf")})
        journal.note("note", "seen")
    return made


@pytest.fixture
def later(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(schemas, "SCHEMA", NOW + 1)
    monkeypatch.setattr(schemas, "MIGRATIONS", NEXT)
    return path


def columns(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return [row[1] for row in db.execute("PRAGMA table_info(events)")]


def test_an_older_journal_is_migrated_once_after_a_copy(later: Path) -> None:
    with Journal(later) as journal:
        assert journal.meta("schema") == NOW + 1
        assert [act.key for act in journal.acts()] == ["a"]
        assert [event.kind for event in journal.events()] == ["note", "migrated"]
    with Journal(later) as journal:
        assert [event.data for event in journal.events(kind="migrated")] == [{"from": NOW, "to": NOW + 1}]
    assert "by" in columns(later)
    assert "by" not in columns(later.with_name(f"journal.schema-{NOW}.sqlite"))


def test_who_only_looks_migrates_nothing_on_the_disk(later: Path) -> None:
    before = later.read_bytes()
    with Journal(later, read_only=True) as journal:
        assert journal.meta("schema") == NOW + 1
        assert [event.kind for event in journal.events()] == ["note", "migrated"]
    assert later.read_bytes() == before
    assert not later.with_name(f"journal.schema-{NOW}.sqlite").exists()


def test_a_migration_that_fails_leaves_the_journal_as_it_was(later: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "MIGRATIONS", {NOW: (*NEXT[NOW], "UPDATE nowhere SET x = 1")})
    with pytest.raises(JournalDamaged, match="no such table: nowhere"):
        Journal(later)
    assert "by" not in columns(later)
    monkeypatch.setattr(schemas, "MIGRATIONS", NEXT)
    with Journal(later) as journal:
        assert journal.meta("schema") == NOW + 1


def test_rows_of_a_journal_that_had_no_seals_are_believed_and_sealed_when_they_are_written(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        for table in ("meta", "acts", "events"):
            db.execute(f"ALTER TABLE {table} DROP COLUMN seal")
        db.execute("UPDATE meta SET value = '1' WHERE key = 'schema'")
    with Journal(path) as journal:
        assert journal.meta("schema") == NOW
        journal.done("a", {"fraction": 1.0})
        journal.note("note", "after")
    with closing(sqlite3.connect(path)) as db:
        assert [row[0] is None for row in db.execute("SELECT seal FROM events ORDER BY seq")] == [True, True, False]
        assert [row[0] is None for row in db.execute("SELECT seal FROM acts")] == [False]
    with Journal(path, read_only=True) as journal:
        assert [act.state for act in journal.acts()] == ["done"]


def test_one_below_the_oldest_known_is_refused(path: Path) -> None:
    with Journal(path) as journal:
        journal.set_meta("schema", 0)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TABLE events")
    for read_only in (True, False):
        with pytest.raises(JournalTooOld, match="schema 0, this kintsugi reads 1 up to 2: go on with the"):
            Journal(path, read_only=read_only)
    assert not list(path.parent.glob("*damaged*"))


def test_one_without_all_its_tables_is_damaged(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TABLE events")
    with pytest.raises(JournalDamaged, match="it has no table events"):
        Journal(path)
