"""Acts are done once, wherever the run or the server dies."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instrument.errors import ConnectionLost, DeviceFault, Refused, TimedOut
from instrument.frame import FrameRef, reference
from instrument.ledger import Record
from instrument.settings import DetectorSettings, Done, PatternJob, Rectangle, Scan, Setup, State
from instrument.wire import Command, Result, WritePattern
from tests.workflows.frames import frame, still
from workflows.acts import Acts, Held, Interrupted
from workflows.journal import ActState, Journal, ReplayMismatch
from workflows.settling import Settle, Settled, given_again, left_out, likeliest
from workflows.store import RunFolder


class Killed(BaseException):
    """The run's process is gone."""


@dataclass
class Server:
    """A server with a ledger: it outlives the run, and is told at which of the run's calls the run dies."""

    spool: Path
    ledger: dict[str, Record] = field(default_factory=dict)
    dose: dict[str, float] = field(default_factory=dict)
    frames_taken: int = 0
    released: list[str] = field(default_factory=list)
    calls: int = 0
    die_at: int = 0
    cut_next: float | None = None
    damage_next: bool = False
    error_next: Exception | None = None

    def step(self) -> None:
        self.calls += 1
        if self.calls == self.die_at:
            raise Killed

    def perform(self, action_id: str, command: Command) -> Result:
        self.step()
        known = self.ledger.get(action_id)
        if known is None:
            if self.error_next is not None:
                error, self.error_next = self.error_next, None
                raise error
            known = self.ledger[action_id] = self.do(command)
        self.step()
        assert known.result is not None
        return known.result

    def do(self, command: Command) -> Record:
        if isinstance(command, WritePattern):
            job = command.job
            end = job.to_fraction if self.cut_next is None else self.cut_next
            self.cut_next = None
            charge = job.dose_c * (end - job.from_fraction)
            self.dose[job.area] = self.dose.get(job.area, 0.0) + charge
            done = Done(fraction=end, elapsed_s=charge / job.current_a, charge_c=charge, stopped=end < job.to_fraction)
            return Record("done", end, Result(done=done))
        self.frames_taken += 1
        uid = f"u{self.frames_taken}"
        path = self.spool / f"{uid}.ome.tif"
        made = frame(np.full((2, 12, 12), self.frames_taken, np.uint8), uid)
        made.save(path)
        return Record("done", 1.0, Result(frame=reference(made, path)))

    def lookup(self, action_id: str) -> Record | None:
        self.step()
        return self.ledger.get(action_id)

    def chunks(self, frame_ref: FrameRef) -> Iterator[bytes]:
        self.step()
        data = (self.spool / frame_ref.name).read_bytes()
        if self.damage_next:
            self.damage_next = False
            data = data[:-1] + b"?"
        yield data[:100]
        self.step()
        yield data[100:]

    def release_frame(self, frame_ref: FrameRef) -> None:
        self.step()
        self.released.append(frame_ref.name)


JOB = PatternJob(
    patterns=(Rectangle(x_m=0, y_m=0, width_m=1e-6, height_m=1e-6, depth_m=1e-6),),
    purpose="mill",
    area="face",
    current_a=1e-9,
    voltage_v=30e3,
    dose_c=1e-7,
)
SCAN = Scan(
    detectors=(DetectorSettings(name="CBS"), DetectorSettings(name="TLD")),
    width_px=12,
    height_px=12,
    pixel_m=1e-8,
    dwell_s=1e-6,
)
SETUP = Setup(pose="mill")
Make = Callable[[], Acts]


@pytest.fixture
def server(tmp_path: Path) -> Server:
    (tmp_path / "spool").mkdir()
    return Server(tmp_path / "spool")


@pytest.fixture
def make(tmp_path: Path, server: Server) -> Iterator[Make]:
    folder = RunFolder.create(tmp_path / "RUN")
    Journal.create(folder.journal, run_id="r").close()
    opened: list[Journal] = []

    def build(checkpoint: Callable[[str], None] = lambda _key: None, **more: Any) -> Acts:
        for journal in opened:
            journal.close()
        opened[:] = [Journal(folder.journal)]
        return Acts(opened[0], folder, server, ensure=ensure, checkpoint=checkpoint, **more)

    def ensure(_setup: Setup) -> State:
        server.step()
        return still()

    yield build
    for journal in opened:
        journal.close()


def program(acts: Acts, slices: int = 3) -> list[str]:
    """Mill, picture, measure, decide: what a run does."""
    seen = []
    for k in range(1, slices + 1):
        acts.pattern(f"slice/{k}/mill", JOB.replace(area=f"plane {k}"), SETUP)
        taken = acts.frame(f"slice/{k}/image", SCAN, SETUP, "slices", f"s{k:04d}")
        seen.append(acts.value(f"slice/{k}/measure", "measure", {"frame": taken.sha256}, lambda t=taken: t.uid))
    return seen


def test_every_act_once_wherever_the_run_dies(tmp_path: Path, server: Server, make: Make) -> None:
    program(make())
    total = server.calls
    assert total > 20
    for die_at in range(1, total + 1):
        shutil.rmtree(tmp_path / "RUN")
        folder = RunFolder.create(tmp_path / "RUN")
        Journal.create(folder.journal, run_id=f"r{die_at}").close()
        server.calls, server.die_at = 0, die_at
        server.ledger, server.dose, server.frames_taken = {}, {}, 0
        with pytest.raises(Killed):
            program(make())
        server.die_at = 0
        seen = program(make())
        assert server.dose == {f"plane {k}": pytest.approx(1e-7) for k in (1, 2, 3)}, die_at
        assert server.frames_taken == 3, die_at
        assert seen == ["u1", "u2", "u3"]
        assert folder.slice_names() == ["s0001", "s0002", "s0003"]


def test_a_replay_fires_nothing(server: Server, make: Make) -> None:
    first = program(make())
    calls = server.calls
    assert program(make()) == first
    assert server.calls == calls


def test_a_pattern_cut_short_gets_its_rest(server: Server, make: Make) -> None:
    server.cut_next = 0.3
    done = make().pattern("a", JOB, SETUP)
    assert done.fraction == 1.0
    assert done.charge_c == pytest.approx(1e-7)
    assert server.dose["face"] == pytest.approx(1e-7)
    assert sorted(server.ledger) == ["r/a#1", "r/a#2"]


def test_a_run_killed_in_the_rest_does_not_give_it_twice(server: Server, make: Make) -> None:
    server.cut_next = 0.3
    server.die_at = 6  # ensure, perform, perform; ensure, perform, and it dies when the rest was given
    with pytest.raises(Killed):
        make().pattern("a", JOB, SETUP)
    assert server.dose["face"] == pytest.approx(1e-7)
    done = make().pattern("a", JOB, SETUP)
    assert server.dose["face"] == pytest.approx(1e-7)
    assert done.charge_c == pytest.approx(1e-7)


def test_the_servers_own_death_leaves_the_rest_or_a_question(server: Server, make: Make) -> None:
    server.die_at = 2
    with pytest.raises(Killed):
        make().pattern("a", JOB, SETUP)
    server.ledger["r/a#1"] = Record("cut", 0.75)
    server.dose["face"] = 0.75e-7
    assert make().pattern("a", JOB, SETUP).charge_c == pytest.approx(1e-7)
    assert server.dose["face"] == pytest.approx(1e-7)
    server.calls = 0
    with pytest.raises(Killed):
        make().pattern("b", JOB, SETUP)
    server.ledger["r/b#1"] = Record("cut", None)
    with pytest.raises(Held, match="can't say how much"):
        make().pattern("b", JOB, SETUP)


def test_a_frame_cut_short_is_taken_again(server: Server, make: Make) -> None:
    server.die_at = 2
    with pytest.raises(Killed):
        make().frame("f", SCAN, SETUP, "slices", "s0001")
    server.ledger["r/f#1"] = Record("cut", 0.5)
    ref = make().frame("f", SCAN, SETUP, "slices", "s0001")
    assert ref.name == "slices/s0001.ome.tif"
    assert server.released == ["u1.ome.tif"]


def test_a_frame_that_arrives_damaged_is_fetched_again(server: Server, make: Make, tmp_path: Path) -> None:
    server.damage_next = True
    ref = make().frame("f", SCAN, SETUP, "looks", "fiducial-1")
    data = (tmp_path / "RUN" / ref.name).read_bytes()
    assert hashlib.sha256(data).hexdigest() == ref.sha256
    assert server.frames_taken == 1


def test_what_is_refused_is_journalled_and_can_be_asked_again(server: Server, make: Make, tmp_path: Path) -> None:
    server.error_next = Refused("no ion beam with CBS in", rule="cbs-out")
    with pytest.raises(Refused):
        make().pattern("a", JOB, SETUP)
    with Journal(tmp_path / "RUN" / "journal.sqlite", read_only=True) as journal:
        assert [event.data["key"] for event in journal.events(kind="refused")] == ["a"]
    server.ledger["r/a#1"] = Record("failed", None, None, Refused("no ion beam with CBS in"))
    assert make().pattern("a", JOB, SETUP).fraction == 1.0
    assert server.dose["face"] == pytest.approx(1e-7)


def test_a_request_is_honoured_before_anything_fires(server: Server, make: Callable[..., Acts]) -> None:
    def stop(key: str) -> None:
        if key == "slice/2/mill":
            raise Interrupted("a stop was asked for")

    with pytest.raises(Interrupted):
        program(make(stop))
    assert server.frames_taken == 1
    assert list(server.dose) == ["plane 1"]
    program(make())
    assert server.frames_taken == 3


def test_a_stop_while_the_set_up_is_brought_about_fires_nothing(
    server: Server, make: Callable[..., Acts], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gas heats for minutes; whoever asks meanwhile must not wait for the whole pattern."""
    asked: list[str] = []

    def stop(_key: str) -> None:
        if asked:
            raise Interrupted("a stop was asked for")

    acts = make(stop)
    ensure = acts._ensure
    monkeypatch.setattr(acts, "_ensure", lambda setup: asked.append("now") or ensure(setup))
    with pytest.raises(Interrupted):
        acts.pattern("a", JOB, SETUP)
    assert server.ledger == {}
    with Journal(tmp_path / "RUN" / "journal.sqlite", read_only=True) as journal:
        act = journal.find("a")
        assert act is not None
        assert act.state is ActState.INTENDED
    assert make().pattern("a", JOB, SETUP).charge_c == pytest.approx(1e-7)
    assert server.dose["face"] == pytest.approx(1e-7)


def test_a_stop_in_a_pattern_keeps_what_was_given(server: Server, make: Callable[..., Acts], tmp_path: Path) -> None:
    asked: list[str] = []

    def stop(key: str) -> None:
        asked.append(key)
        if len(asked) == 4:  # intended, before the set-up, before it fires; and when it has ended early
            raise Interrupted("a stop was asked for")

    server.cut_next = 0.5
    with pytest.raises(Interrupted):
        make(stop).pattern("a", JOB, SETUP)
    with Journal(tmp_path / "RUN" / "journal.sqlite", read_only=True) as journal:
        act = journal.find("a")
        assert act is not None
        assert act.state is ActState.CUT
    make().pattern("a", JOB, SETUP)
    assert server.dose["face"] == pytest.approx(1e-7)


def test_one_that_ends_at_once_again_and_again_is_held(
    make: Make, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = Record("done", 0.0, Result(done=Done(fraction=0.0, elapsed_s=0, charge_c=0, stopped=True)))
    monkeypatch.setattr(server, "do", lambda _command: nothing)
    with pytest.raises(Held, match="again and again"):
        make().pattern("a", JOB, SETUP)


def test_a_fault_leaves_the_act_for_the_ledger(server: Server, make: Make) -> None:
    server.error_next = DeviceFault("source off")
    with pytest.raises(DeviceFault):
        make().pattern("a", JOB, SETUP)
    assert make().pattern("a", JOB, SETUP).fraction == 1.0


def test_another_recipe_at_replay_is_seen(make: Make) -> None:
    make().pattern("a", JOB, SETUP)
    with pytest.raises(ReplayMismatch, match="dose_c"):
        make().pattern("a", JOB.replace(dose_c=2e-7), SETUP)


def test_values_are_worked_out_once(make: Make) -> None:
    counted: list[int] = []
    for _ in range(2):
        value = make().value("decide/3", "decide", {"images": [1, 2]}, lambda: counted.append(1) or {"refill": True})
    assert value == {"refill": True}
    assert counted == [1]


def test_what_the_ledger_can_not_say_is_settled_by_the_step(server: Server, make: Make, tmp_path: Path) -> None:
    """Between 20 and 70 % was given; the step measures 40 %, the rest is 60 %."""
    server.die_at = 2
    with pytest.raises(Killed):
        make().pattern("a", JOB, SETUP)
    error = ConnectionLost("the server ended", at_least=0.2, at_most=0.7)
    server.ledger["r/a#1"] = Record("cut", None, error=error)
    server.dose["face"] = 0.4e-7
    asked: list[tuple[int, float, float]] = []

    def settle(attempt: int, at_least: float, at_most: float) -> Settled:
        asked.append((attempt, at_least, at_most))
        return Settled(0.4, "a test")

    done = make().pattern("a", JOB, SETUP, settle=settle)
    assert asked == [(1, 0.2, 0.7)]
    assert server.dose["face"] == pytest.approx(1e-7)
    assert done.charge_c == pytest.approx(1e-7)
    with Journal(tmp_path / "RUN" / "journal.sqlite", read_only=True) as journal:
        (event,) = journal.events(kind="counted")
    assert event.data == {"key": "a", "at_least": 0.2, "at_most": 0.7, "fraction": 0.4, "by": "a test"}


@pytest.mark.parametrize(("rule", "fraction"), [(given_again, 0.2), (left_out, 0.7)])
def test_what_does_no_harm_needs_no_measurement(rule: Settle, fraction: float) -> None:
    assert rule(1, 0.2, 0.7).fraction == fraction


@given(
    st.floats(0, 1), st.floats(0, 1), st.floats(-2, 3), st.floats(0, 2)
)  # fmt: skip
def test_the_likeliest_lies_between_the_bounds(one: float, other: float, measured: float, sigma: float) -> None:
    low, high = sorted((one, other))
    found = likeliest(low, high, measured, sigma)
    assert low <= found <= high
    if sigma > 100 * (high - low) and high > low:  # a measurement that says nothing leaves the middle
        assert found == pytest.approx(0.5 * (low + high), abs=0.02)
    if low < measured < high and 20 * sigma < min(measured - low, high - measured):
        assert found == pytest.approx(measured, abs=2 * sigma + 1e-6)


def test_a_fault_that_is_mended_does_not_end_the_act(server: Server, make: Callable[..., Acts]) -> None:
    asked: list[tuple[str, str]] = []
    server.error_next = DeviceFault("the needle does not move")
    acts = make(mend=lambda key, error: asked.append((key, error.message)) or True)
    assert acts.pattern("a", JOB, SETUP).charge_c == pytest.approx(1e-7)
    assert server.dose["face"] == pytest.approx(1e-7)
    server.error_next = TimedOut("no answer")
    assert acts.frame("f", SCAN, SETUP, "slices", "s0001").uid == "u1"
    assert asked == [("a", "the needle does not move"), ("f", "no answer")]


def test_a_fault_within_a_pattern_is_settled_before_the_rest_is_given(
    server: Server, make: Callable[..., Acts], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The source dies at an unknown place; the ledger has bounds, and nothing is given twice."""
    do = server.do

    def dies(command: Command) -> Record:
        monkeypatch.setattr(server, "do", do)
        server.dose["face"] = 0.5e-7
        return Record("failed", None, None, DeviceFault("source off", at_least=0.5, at_most=0.5))

    monkeypatch.setattr(server, "do", dies)
    perform = server.perform

    def told(action_id: str, command: Command) -> Result:
        known = server.ledger.setdefault(action_id, server.do(command)) if action_id not in server.ledger else (
            server.ledger[action_id]
        )  # fmt: skip
        if known.error is not None:
            raise known.error
        return perform(action_id, command)

    monkeypatch.setattr(server, "perform", told)
    done = make(mend=lambda _key, _error: True).pattern("a", JOB, SETUP, settle=given_again)
    assert server.dose["face"] == pytest.approx(1e-7)
    assert done.charge_c == pytest.approx(1e-7)


def test_a_beam_that_dies_within_a_pattern_leaves_the_rest_to_be_given(
    server: Server, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pattern ran to its end, but only 30 % of its charge arrived."""
    do = server.do

    def weak(command: Command) -> Record:
        monkeypatch.setattr(server, "do", do)
        server.dose["face"] = 0.3e-7
        return Record("done", 1.0, Result(done=Done(fraction=1.0, elapsed_s=100.0, charge_c=0.3e-7)))

    monkeypatch.setattr(server, "do", weak)
    done = make().pattern("a", JOB, SETUP)
    assert server.dose["face"] == pytest.approx(1e-7)
    assert done.charge_c == pytest.approx(1e-7)
    assert done.fraction == 1.0


def test_a_picture_that_broke_off_is_kept_aside_and_taken_again(
    server: Server, make: Callable[..., Acts], tmp_path: Path
) -> None:
    judged: list[str] = []

    def whole(path: Path) -> bool:
        judged.append(path.name)
        return len(judged) > 1

    ref = make(whole=whole).frame("f", SCAN, SETUP, "slices", "s0001")
    assert ref.uid == "u2"
    assert judged == ["s0001.ome.tif"] * 2
    kept = sorted(path.name for path in (tmp_path / "RUN" / "slices").iterdir())
    assert kept == ["broken-1-s0001.ome.tif", "s0001.ome.tif"]
    assert RunFolder(tmp_path / "RUN").slice_names() == ["s0001"]


def test_a_picture_that_always_breaks_off_is_taken_so_often_and_no_more(
    server: Server, make: Callable[..., Acts]
) -> None:
    assert make(whole=lambda _path: False).frame("f", SCAN, SETUP, "slices", "s0001").uid == "u3"
