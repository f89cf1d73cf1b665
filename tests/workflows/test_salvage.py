"""A damaged journal is made again from what is left of it and its copies, and nothing is fired twice for it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from instrument.ledger import Record
from tests.workflows.test_acts import JOB, SETUP, Make, Server, make, program, server
from workflows import cli
from workflows.acts import Acts, Held
from workflows.journal import ActState, Journal, JournalDamaged, copies
from workflows.kept_recipe import META, keep
from workflows.recipe import dump, load
from workflows.salvage import missing_patterns, salvage
from workflows.schemas import SCHEMA
from workflows.session import Session
from workflows.store import RunFolder

__all__ = ["make", "server"]  # fixtures
FIRST = Path(__file__).parents[2] / "workflows" / "recipes" / "first-run.yaml"
PAGE = 4096


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of 200 acts, of which a copy has 150."""
    made = tmp_path / "journal.sqlite"
    with Journal.create(made, run_id="r", url="simulator:1") as journal:
        for number in range(200):
            key = f"slice/{number:04d}/cut"
            journal.intend(key, "mill", {"i": number, "text": "x" * 300})
            if number == 150:
                journal.copy()  # its last act is intended there
            journal.done(key, {"fraction": 1.0})
            journal.note("slice", {"name": number})
    return made


def garble(path: Path, first: int, last: int) -> None:
    """Change whole pages of a file."""
    data = bytearray(path.read_bytes())
    for offset in range(PAGE * first, min(PAGE * last, len(data))):
        data[offset] ^= 0x5A
    path.write_bytes(bytes(data))


def flip(path: Path, text: bytes, at: int, to: bytes) -> None:
    """Change one byte of a text where a file has it last, which SQLite doesn't see."""
    data = path.read_bytes()
    where = data.rindex(text) + at
    path.write_bytes(data[:where] + to + data[where + 1 :])
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_sound_journal_is_left_alone(path: Path) -> None:
    assert salvage(path) is None
    assert salvage(path.with_name("none.sqlite")) is None
    assert not list(path.parent.glob("*damaged*"))


def test_pages_that_are_gone_are_made_up_for_by_the_copy(path: Path) -> None:
    garble(path, 4, 7)
    with pytest.raises(JournalDamaged, match=r"from what can be read of it and from journal\.copy-1\.sqlite"):
        Journal(path)
    told = salvage(path)
    assert told is not None
    assert "kept as journal.sqlite.damaged-1" in told
    with Journal(path) as journal:
        acts = {act.key: act for act in journal.acts()}
        assert journal.run_id == "r"
        assert journal.meta("url") == "simulator:1"
        assert set(acts) >= {f"slice/{number:04d}/cut" for number in range(151)}
        assert len(acts) > 151  # the end was read from the damaged one
        assert [act.seq for act in journal.acts()] == list(range(1, len(acts) + 1))
        assert acts["slice/0199/cut"].state is ActState.DONE
        assert len(journal.events(kind="salvaged")) == 1
        last = journal.events()[-1].seq
        assert journal.note("note", "after").seq == last + 1 > 1000
    assert salvage(path) is None


@pytest.mark.parametrize("damage", ["garbage", "empty", "missing", "half"])
def test_what_is_gone_altogether_is_the_copy(path: Path, damage: str) -> None:
    if damage == "garbage":
        path.write_bytes(b"no database, by any means" * 1000)
    elif damage == "missing":
        path.unlink()
    else:
        os.truncate(path, 0 if damage == "empty" else path.stat().st_size // 2)
    assert salvage(path) is not None
    with Journal(path) as journal:
        assert {act.key for act in journal.acts()} >= {f"slice/{number:04d}/cut" for number in range(151)}
    assert path.with_name("journal.sqlite.damaged-1").exists() is (damage != "missing")


def test_one_that_was_set_aside_before_is_read(path: Path) -> None:
    for copy in copies(path):
        copy.unlink(missing_ok=True)
    path.rename(path.with_name("journal.sqlite.damaged-1"))
    assert salvage(path) is not None
    with Journal(path) as journal:
        assert len(journal.acts()) == 200


def test_a_row_with_other_values_than_were_written_counts_as_damaged(path: Path) -> None:
    flip(path, b'{"i":120,', 5, b"9")
    told = salvage(path)
    assert told is not None
    assert "slice/0120/cut of the acts is not what was written" in told
    with Journal(path) as journal:
        act = journal.find("slice/0120/cut")
        assert act is not None
        assert act.args["i"] == 120


@pytest.mark.parametrize(
    ("text", "at", "to", "what"),
    [
        (b'{"fraction":1.0}', 12, b"0", r"slice/\d+/cut of the acts"),
        (b'{"name":120}', 10, b"1", "121 of the events"),
        (b"simulator:1", 10, b"2", "url of the meta"),
    ],
)  # fmt: skip
def test_one_digit_that_has_changed_is_seen_and_no_outcome_of_that_row_is_used(
    path: Path, text: bytes, at: int, to: bytes, what: str
) -> None:
    flip(path, text, at, to)
    for read_only in (True, False):
        with pytest.raises(JournalDamaged, match=f"{what} is not what was written"):
            Journal(path, read_only=read_only)
    assert salvage(path) is not None
    with Journal(path) as journal:
        assert {act.result["fraction"] for act in journal.acts() if act.has_outcome} == {1.0}
        assert [event.data["name"] for event in journal.events(kind="slice")].count(121) == 1
        assert journal.meta("url") == "simulator:1"
    assert salvage(path) is None


def test_one_of_the_schema_before_is_salvaged_and_follows(path: Path) -> None:
    for copy in copies(path):
        copy.unlink(missing_ok=True)
    with closing(sqlite3.connect(path)) as db, db:
        for table in ("meta", "acts", "events"):
            db.execute(f"ALTER TABLE {table} DROP COLUMN seal")
        db.execute("UPDATE meta SET value = '1' WHERE key = 'schema'")
    with closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM")
    garble(path, 20, 30)
    assert salvage(path) is not None
    with Journal(path) as journal:
        assert journal.meta("schema") == SCHEMA
        assert 100 < len(journal.acts()) < 200


def test_without_a_name_nothing_is_made_up(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(JournalDamaged, match="nothing that is left says which run"):
        salvage(path)
    assert path.exists()


def test_copies_are_whole_and_the_last_two_are_kept(path: Path) -> None:
    with Journal(path) as journal:
        newest, older = copies(path)
        assert journal.copy() == newest
        with Journal(newest, read_only=True) as copy:
            assert copy.acts() == journal.acts()
            assert copy.events() == journal.events()
        with Journal(older, read_only=True) as before:
            assert len(before.acts()) == 151
    assert sorted(one.name for one in path.parent.glob(".*")) == []


# -- going on with a journal that lacks acts --------------------------------------------------------------------------


def aged(tmp_path: Path, make: Make, after: int) -> Journal:
    """Do a program of three slices; put the copy made after `after` of them in the journal's place."""
    acts = make()
    program(acts, after)
    acts._journal.copy()
    program(acts)
    acts._journal.close()
    path = tmp_path / "RUN" / "journal.sqlite"
    path.write_bytes(b"no database" * 1000)
    assert salvage(path) is not None
    return Journal(path)


def lacking(tmp_path: Path, server: Server, make: Callable[..., Acts], after: int) -> Acts:
    with aged(tmp_path, make, after) as journal:
        missing = missing_patterns(journal, [one for one in server.ledger if one.endswith(("mill#1", "mill#2"))])
    assert missing == {f"r/slice/{k}/mill#1" for k in range(after + 1, 4)}
    return make(missing=missing)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_what_the_copy_lacks_is_taken_from_the_ledger(tmp_path: Path, server: Server, make: Make, after: int) -> None:
    acts = lacking(tmp_path, server, make, after)
    assert program(acts, 4) == ["u1", "u2", "u3", "u4"]
    assert server.frames_taken == 4
    assert server.dose == {f"plane {k}": pytest.approx(1e-7) for k in (1, 2, 3, 4)}


def test_nothing_is_done_before_what_the_copy_lacks(tmp_path: Path, server: Server, make: Make) -> None:
    acts = lacking(tmp_path, server, make, 1)
    program(acts, 1)
    with pytest.raises(Held, match="2 patterns that the journal lacks, such as r/slice/2/mill#1"):
        acts.pattern("refill-1/film", JOB.replace(area="film"), SETUP)  # decided otherwise now
    assert "film" not in server.dose


def test_a_pattern_that_came_in_two_parts_is_taken_from_the_ledger_in_two(server: Server, make: Make) -> None:
    server.cut_next = 0.3
    first = make().pattern("a", JOB, SETUP)
    assert sorted(server.ledger) == ["r/a#1", "r/a#2"]
    acts = make()
    acts._journal._db.execute("DELETE FROM acts")
    again = make(missing={"r/a#1", "r/a#2"}).pattern("a", JOB, SETUP)
    assert again == first
    assert server.dose["face"] == pytest.approx(1e-7)


def test_a_picture_that_the_ledger_has_cut_short_twice_is_taken_anew(server: Server, make: Make) -> None:
    server.ledger = {f"r/f/image#{one}": Record("cut", 0.5) for one in (1, 2)}
    acts = make(missing={"r/later#1"})
    with pytest.raises(Held, match=r"f/image is not in the server's ledger"):
        program_frame(acts)
    acts = make()
    program_frame(acts)
    assert server.frames_taken == 1


def program_frame(acts: Acts) -> None:
    from tests.workflows.test_acts import SCAN

    acts.frame("f/image", SCAN, SETUP, "slices", "s0001")


def test_a_run_with_a_damaged_journal_is_resumed_and_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, text = RunFolder.create(tmp_path / "RUN"), dump(load(FIRST))
    folder.write_recipe(text)
    with Journal.create(folder.journal, run_id="r", url="simulator:1", **{META: keep(text)}) as journal:
        journal.copy()
    folder.journal.write_bytes(b"no database" * 1000)
    assert cli.run_command(["note", str(folder.root), "x"]) == 4
    assert "kintsugi resume" in capsys.readouterr().err
    worked: list[str] = []
    monkeypatch.setattr(Session, "work", lambda session, _until: worked.append(session.journal.run_id) or 0)
    assert cli.run_command(["resume", str(folder.root)]) == 0
    assert worked == ["r"]
    assert "made again with 0 acts, and kept as journal.sqlite.damaged-1" in capsys.readouterr().err
