"""The ledger remembers over any death of its server what was fired, or says that nobody can know."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from instrument.errors import ConnectionLost, DeviceFault, Refused
from instrument.frame import FrameRef
from instrument.ledger import Ledger, Record, same_command
from instrument.settings import Done, PatternJob
from instrument.wire import Acquire, Result, WritePattern
from tests.instrument.fake_microscope import job, scan

LOOK = Acquire(scan=scan())
REF = FrameRef(
    name="a.ome.tif", sha256="0" * 64, size_bytes=1, channels=("ETD",), shape=(1, 16, 16), uid="u", started_s=0.0,
    seconds=1.0,
)  # fmt: skip
LONG = job(seconds=300.0)


def so_far(fraction: float, of: PatternJob = LONG) -> Done:
    given = fraction - of.from_fraction
    return Done(fraction=fraction, elapsed_s=300.0 * given, charge_c=of.dose_c * given)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.jsonl"


def test_what_has_ended_is_found_again(path: Path) -> None:
    records = {
        "a": Record("done", 1.0, Result(frame=REF)),
        "b": Record("failed", None, None, DeviceFault("source off", beam="ion")),
        "c": Record("cut", 0.4, Result(done=so_far(0.4).replace(stopped=True))),
    }
    ledger = Ledger(path)
    for action_id, record in records.items():
        ledger.start(action_id, LOOK if action_id != "c" else WritePattern(job=LONG), 1.0)
        ledger.end(action_id, record, 2.0)
    again = Ledger(path)
    for action_id, record in records.items():
        found = again.find(action_id)
        assert found is not None
        assert (found.state, found.fraction, found.result) == (record.state, record.fraction, record.result)
        assert (found.error is None) == (record.error is None)
    fault = again.find("b")
    assert fault is not None
    assert isinstance(fault.error, DeviceFault)
    assert fault.error.evidence == {"beam": "ion"}
    assert again.find("d") is None


def test_a_frame_that_the_server_died_in_is_cut(path: Path) -> None:
    Ledger(path).start("a", LOOK, 0.0)
    found = Ledger(path).find("a")
    assert found is not None
    assert (found.state, found.fraction) == ("cut", None)
    assert isinstance(found.error, ConnectionLost)


def test_a_pattern_that_the_server_died_in_says_between_what(path: Path) -> None:
    ledger = Ledger(path)
    ledger.start("a", WritePattern(job=LONG), 0.0, to=1 / 3)
    ledger.progress("a", so_far(1 / 3), 2 / 3)
    found = Ledger(path).find("a")
    assert found is not None
    assert (found.state, found.fraction) == ("cut", None)
    assert found.error is not None
    assert found.error.evidence["at_least"] == pytest.approx(1 / 3)
    assert found.error.evidence["at_most"] == pytest.approx(2 / 3)


def test_a_pattern_with_nothing_in_hand_says_how_far_it_came(path: Path) -> None:
    ledger = Ledger(path)
    ledger.start("a", WritePattern(job=LONG), 0.0, to=0.5)
    ledger.progress("a", so_far(0.5), 0.5)
    found = Ledger(path).find("a")
    assert found is not None
    assert (found.state, found.fraction) == ("cut", 0.5)


def test_a_death_at_any_byte_leaves_what_was_acknowledged(path: Path) -> None:
    """Cut anywhere, as by a power cut, it opens, keeps every whole line, and goes on with lines of its own."""
    ledger = Ledger(path)
    ledger.claim("run-1")
    ledger.start("a", WritePattern(job=LONG), 0.0, to=0.5)
    ledger.progress("a", so_far(0.5), 1.0)
    ledger.end("a", Record("done", 1.0, Result(done=so_far(1.0))), 1.0)
    ledger.start("b", LOOK, 2.0)
    ledger.end("b", Record("done", 1.0, Result(frame=REF)), 3.0)
    whole = path.read_bytes()
    lines = whole.count(b"\n")
    seen: set[tuple[str, str]] = set()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        kept = whole[:size].count(b"\n")
        again = Ledger(path)
        states = [record.state for one in "ab" if (record := again.find(one)) is not None]
        assert "running" not in states
        assert states == [[], [], ["cut"], ["cut"], ["done"], ["done", "cut"]][kept]
        seen.add((str(kept), ",".join(states)))
        if size % 97 == 0:
            again.claim("run-2")
            third = Ledger(path)
            assert third.run == "run-2"
            assert [r.state for one in "ab" if (r := third.find(one)) is not None] == states
    assert len(seen) == lines


def test_epochs_rise_over_restarts(path: Path) -> None:
    assert [Ledger(path).claim(run) for run in ("run-1", "run-1", "run-2")] == [1, 2, 3]
    assert Ledger(path).run == "run-2"


def test_charge_is_counted_by_run_and_area(path: Path) -> None:
    ledger = Ledger(path)
    ledger.claim("run-1")
    ledger.start("a", WritePattern(job=LONG), 0.0)
    ledger.end("a", Record("done", 1.0, Result(done=so_far(1.0).replace(charge_c=1.7e-5))), 0.0)
    ledger.start("b", WritePattern(job=job(seconds=10.0, area="face")), 0.0)
    ledger.end("b", Record("failed", 0.0, error=Refused("no")), 0.0)
    ledger.start("c", LOOK, 0.0)
    for known in (ledger, Ledger(path)):
        assert known.charge("trench") == pytest.approx(1.7e-5)
        assert known.charge("face") == 0.0
    ledger.claim("run-2")
    assert ledger.charge("trench") == 0.0


def test_a_piece_of_which_nobody_knows_counts_in_full_once_its_action_has_ended(path: Path) -> None:
    ledger = Ledger(path)
    ledger.claim("run-1")
    ledger.start("a", WritePattern(job=LONG), 0.0, to=1 / 3)
    ledger.progress("a", so_far(1 / 3), 2 / 3)
    assert ledger.charge("trench") == pytest.approx(LONG.dose_c / 3)  # the piece in hand is the guard's question
    assert Ledger(path).charge("trench") == pytest.approx(LONG.dose_c * 2 / 3)
    ledger.end("a", Record("failed", None, error=DeviceFault("gone")), 0.0)
    assert ledger.charge("trench") == pytest.approx(LONG.dose_c * 2 / 3)


def test_one_id_one_command(path: Path) -> None:
    ledger = Ledger(path)
    ledger.start("a", LOOK, 0.0)
    again = Ledger(path)
    same_command("a", again.digest("a"), LOOK)
    same_command("b", again.digest("b"), WritePattern(job=LONG))
    with pytest.raises(Refused):
        same_command("a", again.digest("a"), WritePattern(job=LONG))


def written(path: Path) -> Ledger:
    """A ledger of five frames, with the pattern `mill` among them; all ended."""
    ledger = Ledger(path)
    ledger.claim("run-1")
    for one in ("a", "b", "mill", "c", "d"):
        if one == "mill":
            ledger.start(one, WritePattern(job=LONG), 0.0, to=0.5)
            ledger.progress(one, so_far(0.5), 1.0)
            ledger.end(one, Record("done", 1.0, Result(done=so_far(1.0))), 1.0)
        else:
            ledger.start(one, LOOK, 0.0)
            ledger.end(one, Record("done", 1.0, Result(frame=REF)), 1.0)
    return ledger


def damage(
    path: Path, *numbers: int, how: Callable[[bytes], bytes] = lambda line: line[:20] + b"\xff" + line[21:]
) -> None:
    lines = path.read_bytes().splitlines()
    for number in numbers:
        lines[number] = how(lines[number])
    path.write_bytes(b"\n".join(lines) + b"\n")


def number_of(path: Path, action_id: str, event: str) -> int:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return next(n for n, one in enumerate(found) if one.get("id") == action_id and one["event"] == event)


def never_fired_again(ledger: Ledger, action_id: str) -> None:
    found = ledger.find(action_id)
    assert found is not None
    assert (found.state, found.fraction) == ("cut", None)
    assert found.error is not None
    assert (found.error.evidence["at_least"], found.error.evidence["at_most"]) == (0.0, 1.0)
    assert ledger.known(action_id) is None
    with pytest.raises(Refused) as caught:
        ledger.check_new(action_id)
    assert caught.value.rule == "never-twice"
    assert caught.value.remedy


CHANGED = {
    "a byte": lambda line: line.replace(b'"event"', b'"evemt"'),
    "another id": lambda line: line.replace(b'"mill"', b'"bill"'),
    "half a line": lambda line: line[: len(line) // 2],
    "zeros": lambda line: b"\0" * len(line),
    "nothing": lambda _line: b"",
}


@pytest.mark.parametrize("how", CHANGED.values(), ids=CHANGED)
def test_a_start_that_was_lost_is_not_never_seen(path: Path, how: Callable[[bytes], bytes]) -> None:
    """Whatever became of its lines: the next start names it, and all other ids stay what they are."""
    written(path)
    mine = [number for number, line in enumerate(path.read_text().splitlines()) if '"id":"mill"' in line]
    damage(path, *mine, how=how)
    again = Ledger(path)
    never_fired_again(again, "mill")
    for one in "abcd":
        found = again.find(one)
        assert found is not None
        assert found.state == "done"
    assert again.find("new") is None
    again.check_new("new")
    again.start("new", LOOK, 0.0)
    never_fired_again(Ledger(path), "mill")  # and so it stays


def test_all_that_a_bad_sector_took_is_doubtful(path: Path) -> None:
    written(path)
    damage(path, *range(number_of(path, "b", "start"), number_of(path, "d", "start")))
    again = Ledger(path)
    for one in ("b", "mill", "c"):
        never_fired_again(again, one)
    assert again.find("new") is None
    assert again.find("a") is not None


def test_where_nothing_names_what_was_lost_no_id_is_surely_new(path: Path) -> None:
    written(path)
    damage(path, number_of(path, "d", "start"), number_of(path, "d", "end"))
    again = Ledger(path)
    for one in ("d", "anything"):
        never_fired_again(again, one)
    kept = again.find("c")
    assert kept is not None
    assert kept.state == "done"


def test_a_damaged_ledger_is_kept_as_it_was(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    written(path)
    damage(path, number_of(path, "b", "end"))
    as_it_was = path.read_bytes()
    again = Ledger(path)
    assert again.damaged == [number_of_line(as_it_was, b"\xff")]
    assert again.copy is not None
    assert again.copy.read_bytes() == as_it_was
    assert "is damaged" in caplog.text
    again.claim("run-2")
    assert Ledger(path).copy == again.copy  # one copy of one damage
    assert again.copy.read_bytes() == as_it_was


def number_of_line(text: bytes, part: bytes) -> int:
    return next(number for number, line in enumerate(text.splitlines(), start=1) if part in line)


def test_a_lost_end_or_progress_loosens_the_bounds(path: Path) -> None:
    """A pattern whose end is lost may have come to any fraction from what is known on."""
    written(path)
    damage(path, number_of(path, "mill", "end"))
    found = Ledger(path).find("mill")
    assert found is not None
    assert (found.state, found.fraction) == ("cut", None)
    assert found.error is not None
    assert (found.error.evidence["at_least"], found.error.evidence["at_most"]) == (0.5, 1.0)


def test_a_lost_progress_does_not_hide_what_came_after_it(path: Path) -> None:
    ledger = Ledger(path)
    ledger.start("mill", WritePattern(job=LONG), 0.0, to=0.2)
    ledger.progress("mill", so_far(0.2), 0.4)
    damage(path, number_of(path, "mill", "progress"))
    found = Ledger(path).find("mill")
    assert found is not None
    assert found.error is not None
    assert (found.error.evidence["at_least"], found.error.evidence["at_most"]) == (0.0, 1.0)
    assert Ledger(path).charge("trench") == pytest.approx(LONG.dose_c)  # what nobody can know counts in full


def test_an_end_without_its_start_is_an_end(path: Path) -> None:
    written(path)
    damage(path, number_of(path, "mill", "start"))
    found = Ledger(path).find("mill")
    assert found is not None
    assert (found.state, found.fraction) == ("done", 1.0)


def test_a_lost_claim_gives_no_epoch_twice(path: Path) -> None:
    Ledger(path).claim("run-1")
    last = Ledger(path).claim("run-2")
    damage(path, 1)
    assert Ledger(path).claim("run-3") > last


def test_a_ledger_of_before_has_no_checksums_and_is_read(path: Path) -> None:
    written(path)
    older = [json.loads(line) for line in path.read_text().splitlines()]
    for one in older:
        for key in ("crc", "number", "before"):
            one.pop(key, None)
    path.write_text("".join(json.dumps(one, separators=(",", ":")) + "\n" for one in older))
    again = Ledger(path)
    assert (again.damaged, again.blind, again.epoch) == ([], False, 1)
    assert again.find("mill") == written(path.with_name("other")).find("mill")
    again.start("e", LOOK, 0.0)
    assert not Ledger(path).damaged
    damage(path, number_of(path, "mill", "start"), number_of(path, "mill", "progress"), number_of(path, "mill", "end"))
    never_fired_again(Ledger(path), "mill")


def test_the_patterns_of_a_run_are_listed_however_they_ended(path: Path) -> None:
    ledger = Ledger(path)
    ledger.claim("one")
    ledger.start("one/a#1", WritePattern(job=LONG), 0.0)
    ledger.end("one/a#1", Record("done", 1.0, Result(done=so_far(1.0))), 1.0)
    ledger.start("one/look#1", LOOK, 1.0)
    ledger.start("one/a#2", WritePattern(job=LONG), 2.0)
    ledger.claim("two")
    ledger.start("two/a#1", WritePattern(job=LONG), 3.0)
    assert Ledger(path).patterns("one") == ledger.patterns("one") == ["one/a#1", "one/a#2"]
    assert ledger.patterns("nobody") == []
