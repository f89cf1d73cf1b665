"""The journal: intent before, outcome after, replay, damage."""

from __future__ import annotations

import math
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from workflows import journal as module
from workflows.journal import ActState, Journal, JournalDamaged, JournalTooNew, ReplayMismatch

ROOT = Path(module.__file__).parent.parent


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.create(tmp_path / "journal.sqlite", run_id="r1", instrument={"model": "virtual"}) as opened:
        yield opened


def test_an_act_goes_from_intent_to_outcome(journal: Journal) -> None:
    act = journal.intend("slice/0001/mill", "mill", {"dose": 1.5}, {"pose": "mill"}, clock_s=10.0)
    assert (act.state, act.seq, act.attempt, act.action_id) == (ActState.INTENDED, 1, 1, "r1/slice/0001/mill#1")
    assert not act.has_outcome
    done = journal.done("slice/0001/mill", {"fraction": 1.0}, clock_s=12.0)
    assert done.has_outcome
    assert (done.result, done.intended_at, done.done_at) == ({"fraction": 1.0}, 10.0, 12.0)
    assert journal.intend("slice/0001/mill", "mill", {"dose": 1.5}) == done
    with pytest.raises(ValueError, match="outcome already"):
        journal.done("slice/0001/mill", {})


def test_it_survives_closing_and_reading_by_others(journal: Journal) -> None:
    journal.intend("a", "frame", {})
    journal.done("a", {"x": math.nan, "y": math.inf, "z": -math.inf})
    with Journal(journal.path, read_only=True) as other:
        result = other.find("a").result
        assert math.isnan(result["x"])
        assert (result["y"], result["z"]) == (math.inf, -math.inf)
        assert other.run_id == "r1"
        assert other.meta("instrument") == {"model": "virtual"}
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            other.note("note", "no")


@pytest.mark.parametrize(
    ("kind", "args", "version"), [("mill", {"dose": 2.0}, 1), ("mill", {"dose": 1.0}, 2), ("frame", {"dose": 1.0}, 1)]
)
def test_another_act_under_the_same_key_is_shown_with_both(
    journal: Journal, kind: str, args: dict[str, float], version: int
) -> None:
    journal.intend("k", "mill", {"dose": 1.0})
    with pytest.raises(ReplayMismatch, match=r"journal .*, now ") as mismatch:
        journal.intend("k", kind, args, replay_version=version)
    assert mismatch.value.journalled["args"] == {"dose": 1.0}
    assert mismatch.value.asked["args"] == args
    assert journal.find("k").state is ActState.INTENDED


def test_the_order_of_keys_in_arguments_is_no_difference(journal: Journal) -> None:
    journal.intend("k", "mill", {"a": 1, "b": [1.0, math.nan]})
    journal.intend("k", "mill", {"b": [1.0, math.nan], "a": 1})


def test_a_cut_act_gets_a_fresh_id_and_is_settled(journal: Journal) -> None:
    journal.intend("k", "mill", {})
    cut = journal.cut("k", {"fraction": 0.4})
    assert (cut.state, cut.evidence) == (ActState.CUT, {"fraction": 0.4})
    assert [act.key for act in journal.unsettled()] == ["k"]
    again = journal.again("k")
    assert (again.attempt, again.action_id, again.evidence) == (2, "r1/k#2", {"fraction": 0.4})
    assert again.state is ActState.INTENDED
    settled = journal.done("k", {"fraction": 1.0})
    assert settled.state is ActState.SETTLED
    assert settled.has_outcome
    assert settled.evidence == {"fraction": 0.4}
    assert journal.unsettled() == []
    for call in (lambda: journal.again("k"), lambda: journal.cut("k", {})):
        with pytest.raises(ValueError, match="has its outcome"):
            call()


def test_unknown_keys_are_errors(journal: Journal) -> None:
    assert journal.find("none") is None
    with pytest.raises(KeyError, match="none"):
        journal.done("none", {})


def test_acts_are_found_by_prefix_kind_and_state(journal: Journal) -> None:
    for key, kind in (("slice/0001/mill", "mill"), ("slice/0001/image", "frame"), ("slice_/x", "mill")):
        journal.intend(key, kind, {})
    journal.done("slice/0001/image", {})
    assert [act.key for act in journal.acts("slice/")] == ["slice/0001/mill", "slice/0001/image"]
    assert [act.key for act in journal.acts(kind="mill")] == ["slice/0001/mill", "slice_/x"]
    assert [act.key for act in journal.acts(state=ActState.DONE)] == ["slice/0001/image"]


def test_events_and_meta(journal: Journal) -> None:
    first = journal.note("state", {"to": "running"}, clock_s=1.0)
    journal.note("note", "stigmator looked off")
    assert [event.kind for event in journal.events()] == ["state", "note"]
    assert [event.data for event in journal.events(first.seq)] == ["stigmator looked off"]
    assert [event.at for event in journal.events(kind="state")] == [1.0]
    assert [event.kind for event in journal.events(kind=("note", "state"))] == ["state", "note"]
    assert journal.events(kind=("nothing",)) == journal.events(kind=()) == []
    journal.set_meta("armed_until", "2026-01-01T08:00:00+00:00")
    journal.set_meta("armed_until", None)
    assert journal.meta("armed_until", "x") is None
    assert journal.meta("nothing", 3) == 3


def test_threads_of_the_writer_do_not_collide(journal: Journal) -> None:
    def work(name: int) -> None:
        for i in range(10):
            journal.intend(f"{name}/{i}", "frame", {"i": i})
            journal.done(f"{name}/{i}", i)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    acts = journal.acts()
    assert [act.seq for act in acts] == list(range(1, 31))
    assert all(act.has_outcome for act in acts)


def test_a_second_journal_is_not_made_over_the_first(journal: Journal) -> None:
    with pytest.raises(FileExistsError):
        Journal.create(journal.path)
    with pytest.raises(FileNotFoundError):
        Journal(journal.path.with_name("none.sqlite"))


def test_a_newer_journal_is_refused(journal: Journal) -> None:
    journal.set_meta("schema", 99)
    with pytest.raises(JournalTooNew, match=r"schema 99, this kintsugi reads 1 up to 2: install a newer"):
        Journal(journal.path)
    assert journal.path.exists()


@pytest.mark.parametrize("damage", ["no database at all", "flipped page"])
def test_a_damaged_journal_is_named_with_what_to_do_and_left(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal.create(path) as made:
        for i in range(200):
            made.intend(f"k{i}", "mill", {"i": i, "text": "x" * 200})
    if damage == "flipped page":
        data = bytearray(path.read_bytes())
        for offset in range(4096 * 3, 4096 * 12):
            data[offset] ^= 0x5A
        path.write_bytes(bytes(data))
    else:
        path.write_bytes(b"not a database, by any means" * 100)
    before = path.read_bytes()
    for read_only in (True, False):
        with pytest.raises(JournalDamaged, match=r"is damaged .*`kintsugi resume .*` makes it again"):
            Journal(path, read_only=read_only)
    assert path.read_bytes() == before


def test_what_was_intended_is_there_after_kill(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    code = (
        "import sys, pathlib; from workflows.journal import Journal\n"
        "j = Journal.create(pathlib.Path(sys.argv[1]), run_id='r')\n"
        "j.intend('a', 'mill', {}); j.done('a', 1); j.intend('b', 'mill', {})\n"
        "print('now', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline().strip() == b"now"
        child.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        child.wait(10)
    with Journal(path) as opened:
        assert [(act.key, act.state) for act in opened.acts()] == [("a", ActState.DONE), ("b", ActState.INTENDED)]
