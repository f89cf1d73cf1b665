"""Journals of other versions are migrated, or refused in one sentence."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from workflows import schemas
from workflows.journal import Journal, JournalDamaged, JournalTooOld

#: A journal as a later version might have it: how long an act took is a column.
NEXT = {1: ("ALTER TABLE events ADD COLUMN by TEXT", "UPDATE events SET by = 'run'")}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "journal.sqlite"
    with Journal.create(made, run_id="r") as journal:
        journal.intend("a", "mill", {"depth_m": float("inf")})
        journal.note("note", "seen")
    return made


@pytest.fixture
def later(path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(schemas, "SCHEMA", 2)
    monkeypatch.setattr(schemas, "MIGRATIONS", NEXT)
    return path


def columns(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as db:
        return [row[1] for row in db.execute("PRAGMA table_info(events)")]


def test_an_older_journal_is_migrated_once_after_a_copy(later: Path) -> None:
    with Journal(later) as journal:
        assert journal.meta("schema") == 2
        assert [act.key for act in journal.acts()] == ["a"]
        assert [event.kind for event in journal.events()] == ["note", "migrated"]
    with Journal(later) as journal:
        assert [event.data for event in journal.events(kind="migrated")] == [{"from": 1, "to": 2}]
    assert "by" in columns(later)
    assert "by" not in columns(later.with_name("journal.schema-1.sqlite"))


def test_who_only_looks_migrates_nothing_on_the_disk(later: Path) -> None:
    before = later.read_bytes()
    with Journal(later, read_only=True) as journal:
        assert journal.meta("schema") == 2
        assert [event.kind for event in journal.events()] == ["note", "migrated"]
    assert later.read_bytes() == before
    assert not later.with_name("journal.schema-1.sqlite").exists()


def test_a_migration_that_fails_leaves_the_journal_as_it_was(later: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "MIGRATIONS", {1: (*NEXT[1], "UPDATE nowhere SET x = 1")})
    with pytest.raises(JournalDamaged, match="no such table: nowhere"):
        Journal(later)
    assert "by" not in columns(later)
    monkeypatch.setattr(schemas, "MIGRATIONS", NEXT)
    with Journal(later) as journal:
        assert journal.meta("schema") == 2


def test_one_below_the_oldest_known_is_refused(path: Path) -> None:
    with Journal(path) as journal:
        journal.set_meta("schema", 0)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TABLE events")
    for read_only in (True, False):
        with pytest.raises(JournalTooOld, match="schema 0, this kintsugi reads 1 alone: go on with the kintsugi that"):
            Journal(path, read_only=read_only)
    assert not list(path.parent.glob("*damaged*"))


def test_one_without_all_its_tables_is_damaged(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TABLE events")
    with pytest.raises(JournalDamaged, match="it has no table events"):
        Journal(path)
