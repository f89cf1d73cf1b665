"""The look at an instrument before a night: what is refused by evening, what a person is told of, what is not asked."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from math import nan
from pathlib import Path
from typing import Any

import pytest

from instrument.errors import ConnectionLost, InstrumentError
from instrument.holding import held
from instrument.hydra import hydra
from instrument.microscope import Microscope
from instrument.settings import Description, Device, GasState, State
from tests.instrument.values import state
from workflows import preflight, worker
from workflows.cli import run_command
from workflows.notify import Messenger
from workflows.plan import Plan
from workflows.preflight import Look, look, problems, unseen, warnings
from workflows.recipe import load
from workflows.schedule import NightState, Queue

FIRST = Path(__file__).parents[2] / "workflows" / "recipes" / "first-run.yaml"
VIRTUAL = hydra().replace(virtual=True)
EVENING = datetime(2026, 11, 25, 18, 0, tzinfo=UTC)
PLAN = Plan(name="A", instrument="B", gas_s={"Pt": 60.0})
QUIET = state(devices=dict.fromkeys(Device, False))


def with_beam(**changes: Any) -> State:
    """A quiet instrument whose ion column stands otherwise."""
    return QUIET.replace(ion=QUIET.ion.replace(**changes))


def with_gas(**changes: Any) -> State:
    """A quiet instrument whose platinum stands otherwise."""
    return QUIET.replace(gases={"Pt": QUIET.gases["Pt"].replace(**changes)})


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Description, State, dict[str, Any]] | InstrumentError]:
    """What the instrument answers, look for look, the last one for ever; an error is raised."""
    given: list[tuple[Description, State, dict[str, Any]] | InstrumentError] = []

    def examined(_url: str, _what: str) -> tuple[Description, State, dict[str, Any]]:
        answer = given.pop(0) if len(given) > 1 else given[0]
        if isinstance(answer, InstrumentError):
            raise answer
        return answer

    monkeypatch.setattr(preflight, "examined", examined)
    return given


# -- what is said ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seen", "field", "remedy"),
    [
        (QUIET.replace(pressure_pa=1e5), "instrument.pressure", "pump"),
        (QUIET.model_copy(update={"pressure_pa": nan}), "instrument.pressure", "pump"),
        (QUIET.replace(stage_homed=False), "instrument.stage", "home it"),
    ],
)
def test_what_would_hold_the_run_at_once_is_a_problem(seen: State, field: str, remedy: str) -> None:
    (problem,) = problems(load(FIRST), Look(VIRTUAL, seen))
    assert problem.startswith(f"{field}: ")
    assert remedy in problem


def test_an_instrument_that_is_ready_has_no_problem_and_nothing_to_see_to() -> None:
    assert problems(load(FIRST), Look(VIRTUAL, QUIET)) == ()
    assert warnings(PLAN, Look(VIRTUAL, QUIET)) == ()


def test_gas_that_flows_is_no_bad_vacuum() -> None:
    flowing = with_gas(valve_open=True).replace(pressure_pa=2e-2)
    assert problems(load(FIRST), Look(VIRTUAL, flowing)) == ()


def test_a_real_instrument_needs_its_site_and_its_application_files() -> None:
    recipe = load(FIRST).replace(site="never-taught-here")
    found = problems(recipe, Look(hydra(), QUIET, files=("Si",)))
    assert any("never taught" in one for one in found)
    assert any(one.startswith("protect.application") for one in found)


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (with_beam(source_on=False), "ion beam: its source is off"),
        (with_beam(measured_current_a=40e-9), "40 nA is measured where 60 nA is set"),
        (with_gas(heater_on=False, ready=False), "gas Pt: it is cold; heating takes about 10 min"),
        (with_gas(ready=False), "gas Pt: it is heating"),
        (with_gas(valve_open=True), "gas Pt: its valve is open"),
        (QUIET.replace(devices={Device.CBS: True}), "CBS: it is in"),
        (QUIET.replace(patterning=True), "somebody works there now"),
    ],
)
def test_what_a_run_can_do_without_is_told(seen: State, told: str) -> None:
    assert problems(load(FIRST), Look(VIRTUAL, seen)) == ()
    (warning,) = warnings(PLAN, Look(VIRTUAL, seen))
    assert told in warning


def test_a_gas_that_the_plan_does_not_use_may_be_cold_and_a_current_unread() -> None:
    cold = GasState(heater_on=False, ready=False, duty=1.0, valve_open=False)
    seen = with_beam(measured_current_a=nan).replace(gases={"Pt": QUIET.gases["Pt"], "W": cold})
    assert warnings(PLAN, Look(VIRTUAL, seen)) == ()


# -- what is looked at -------------------------------------------------------------------------------------------------


def test_an_instrument_that_is_in_use_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(url: str, *_: object) -> Microscope:
        pytest.fail(f"a second controller of {url}")

    monkeypatch.setattr("instrument.autoscript.opening.examine", opened)
    with held("autoscript://localhost", "an instrument server"):
        seen = look("autoscript://127.0.0.1", "kintsugi schedule add")
    assert (seen.state, seen.description) == (None, hydra())
    assert "in use by an instrument server" in seen.unseen
    assert problems(load(FIRST), seen) == ()
    assert warnings(PLAN, seen) == (seen.unseen,)


def test_a_simulator_is_looked_at_without_the_whole_of_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    class Opened:
        def describe(self) -> Description:
            return VIRTUAL

        def state(self) -> State:
            return QUIET

        def close(self) -> None:
            opened.append("closed")

    monkeypatch.setattr("instrument.connect", lambda url: opened.append(url) or Opened())
    assert look("simulator:3?depth=9um", "somebody").state == QUIET
    assert look("pyro://hydra:4711?token_file=T", "somebody").state == QUIET
    assert opened == [
        "simulator:3?depth=9um&width=4um&height=4um&above=4um", "closed", "pyro://hydra:4711?token_file=T", "closed",
    ]  # fmt: skip


# -- by evening --------------------------------------------------------------------------------------------------------


def add(tmp_path: Path, *more: str) -> int:
    """Add the first run for 20:00 to a queue of its own; returns the exit code."""
    queue = ["--queue", str(tmp_path / "nights.sqlite"), "--out", str(tmp_path / "RUN")]
    return run_command(["schedule", "add", str(FIRST), "--start", "20:00", *queue, *more])


def added(tmp_path: Path) -> int:
    return len(Queue(tmp_path / "nights.sqlite").entries())


def test_what_can_not_be_met_is_refused_when_the_night_is_added(
    answers: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers.append((VIRTUAL.replace(gases=("W",)), QUIET.replace(pressure_pa=1e5), {}))
    assert add(tmp_path) == 2
    told = capsys.readouterr().err.replace("\n", " ")
    assert "this instrument has no gas 'Pt'" in told
    assert "instrument.pressure" in told
    assert added(tmp_path) == 0


def test_what_is_to_be_seen_to_is_told_and_the_night_is_added(
    answers: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers.append((VIRTUAL, with_beam(source_on=False), {}))
    assert add(tmp_path) == 0
    assert "see to it: ion beam: its source is off" in capsys.readouterr().out
    assert add(tmp_path, "--out", str(tmp_path / "B")) == 0
    assert "night 1 is waiting" in capsys.readouterr().out
    assert added(tmp_path) == 2


def test_a_night_is_planned_without_an_instrument_only_when_that_is_said(
    answers: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers.append(ConnectionLost("no answer"))
    assert add(tmp_path) == 4
    told = capsys.readouterr().err.replace("\n", " ")
    assert "can't be looked at: no answer" in told
    assert "--offline" in told
    assert added(tmp_path) == 0
    assert add(tmp_path, "--offline") == 0
    assert "checked without it" in capsys.readouterr().out


def test_a_night_by_hand_looks_first(answers: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers.append((VIRTUAL, QUIET.replace(stage_homed=False), {}))
    assert run_command(["night", str(FIRST), "--out", str(tmp_path / "RUN")]) == 2
    assert "the stage is not homed" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "RUN").exists()


# -- when it is to begin -----------------------------------------------------------------------------------------------


class Begun:
    """A night that is over at once; keeps what it would have begun with."""

    begun: list[tuple[str, ...]]

    def __init__(self, _folder: Path, begin: list[str], *_: object, **__: object) -> None:
        self.begun.append(tuple(begin))

    def work(self) -> int:
        return 0


@pytest.fixture
def begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Queue, list[tuple[str, ...]], list[str]]:
    """A queue with a night on an instrument of its own, what was begun, and what people were told."""
    sent: list[str] = []
    monkeypatch.setattr(Begun, "begun", [], raising=False)
    monkeypatch.setattr(worker, "Night", Begun)
    monkeypatch.setattr(Messenger, "send", lambda _self, kind, _what, body, *_: sent.append(f"{kind}: {body}"))
    queue = Queue(tmp_path / "nights.sqlite")
    queue.add(FIRST, tmp_path / "RUN", EVENING, None, armed=True, options={"instrument": "simulator:7"})
    return queue, Begun.begun, sent


def test_the_look_is_repeated_when_it_is_to_begin_and_a_failure_is_sent(answers: list[Any], begins: Any) -> None:
    queue, begun, sent = begins
    answers.append((VIRTUAL, QUIET.replace(pressure_pa=1e5), {}))
    worker.work(queue, threading.Event(), once=True, now=lambda: EVENING)
    (entry,) = queue.entries(all_=True)
    assert (entry.state, begun) == (NightState.MISSED, [])
    assert "instrument.pressure" in entry.why
    assert sent == [f"failure: {entry.why}"]


def test_a_night_begins_on_the_instrument_that_was_asked_for(answers: list[Any], begins: Any) -> None:
    queue, begun, sent = begins
    answers.append((VIRTUAL, with_gas(ready=False), {}))
    worker.work(queue, threading.Event(), once=True, now=lambda: EVENING)
    ((*_, option, url),) = begun
    assert (option, url, sent) == ("--instrument", "simulator:7", [])


def test_an_instrument_that_does_not_answer_may_come_back(answers: list[Any], begins: Any) -> None:
    queue, begun, sent = begins
    answers.append(ConnectionLost("no answer"))
    worker.work(queue, threading.Event(), once=True, now=lambda: EVENING)
    (entry,) = queue.entries(all_=True)
    assert (entry.state, len(begun)) == (NightState.DONE, 1)
    assert sent == [f"warning: {unseen('no answer').unseen}"]


@pytest.mark.parametrize("described", [True, False])
def test_one_that_does_not_answer_is_as_it_was_described_by_evening(
    answers: list[Any], begins: Any, *, described: bool
) -> None:
    queue, begun, _ = begins
    (entry,) = queue.entries()
    no_platinum = VIRTUAL.replace(gases=("W",)).model_dump(mode="json")
    queue.add(
        FIRST, entry.folder.with_name("OTHER"), EVENING, None, armed=True,
        options={"instrument": "simulator:7", "described": no_platinum if described else None},
    )  # fmt: skip
    queue.remove(entry.id)
    answers.append(ConnectionLost("no answer"))
    worker.work(queue, threading.Event(), once=True, now=lambda: EVENING)
    assert len(begun) == (0 if described else 1)
