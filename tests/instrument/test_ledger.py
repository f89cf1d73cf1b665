"""The ledger remembers over any death of its server what was fired, or says that nobody can know."""

from __future__ import annotations

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
