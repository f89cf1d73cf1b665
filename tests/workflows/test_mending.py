"""What a run mends by itself: how, how often, and that it leaves the rest to a person."""

from __future__ import annotations

from typing import Any

import pytest

from instrument.errors import ConnectionLost, DeviceFault, InstrumentError, NotReached, Refused, TimedOut
from instrument.hydra import hydra
from instrument.settings import Beam, BeamSettings, Description, Recovery, State
from tests.workflows.frames import still
from workflows.alignment import CurrentOff, SourceOff
from workflows.mending import PER_ACT, PER_RUN, RETRY_S, WARM_UP_S, Mender
from workflows.policy import action, symptom_of

#: Working points that every run uses.
POINTS = ((30e3, 0.25e-9), (30e3, 1e-9))


class Clock:
    def __init__(self) -> None:
        self.waited = 0.0

    def wait(self, seconds: float) -> None:
        self.waited += seconds


class Scope:
    """An instrument that writes down what mends it."""

    def __init__(self, *, pressure: float = 1e-4, source_on: bool = True, broken: bool = False) -> None:
        self.calls: list[str] = []
        self.clock = Clock()
        self.broken = broken
        ion = still().ion.replace(source_on=source_on, settings=BeamSettings(voltage_v=30e3, current_a=4e-9))
        self.now: State = still().replace(pressure_pa=pressure, ion=ion)

    def state(self) -> State:
        return self.now

    def describe(self) -> Description:
        return hydra()

    def recover(self, what: Recovery) -> State:
        if self.broken:
            msg = "it does not light"
            raise DeviceFault(msg)
        self.calls.append(what.value)
        return self.now

    def make_safe(self) -> State:
        self.calls.append("safe")
        return self.now

    def set_beam(self, beam: Beam, settings: BeamSettings) -> BeamSettings:
        self.calls.append(f"{beam} {settings.current_a}")
        return settings


class Forgetful:
    def __init__(self) -> None:
        self.forgot = 0

    def forget(self) -> None:
        self.forgot += 1


def mender(scope: Scope, earlier: tuple[str, ...] = ()) -> tuple[Mender, Forgetful, list[Any]]:
    aligner, notes = Forgetful(), []
    made = Mender(scope, aligner, lambda kind, data: notes.append((kind, data)), POINTS, earlier)  # type: ignore[arg-type]
    return made, aligner, notes


@pytest.mark.parametrize(
    ("scope", "error", "calls", "waited"),
    [
        (Scope(source_on=False), SourceOff("off"), ["relight-source"], WARM_UP_S),
        (Scope(source_on=False, pressure=2e-2), SourceOff("off"), ["pump", "relight-source"], WARM_UP_S),
        (Scope(), CurrentOff("5 % off"), ["ion 2.5e-10"], 0.0),
        (Scope(source_on=False), CurrentOff("nothing"), ["relight-source"], WARM_UP_S),
        (Scope(), Refused("bad vacuum", rule="vacuum-recovered"), ["pump"], 0.0),
        (Scope(), DeviceFault("the needle has not moved"), [], RETRY_S),
        (Scope(), TimedOut("no answer for 500 s"), [], RETRY_S),
    ],
)
def test_each_symptom_has_its_remedy(scope: Scope, error: InstrumentError, calls: list[str], waited: float) -> None:
    made, aligner, notes = mender(scope)
    assert made.mend("slice/0001/cut-1", error)
    assert scope.calls == ["safe", *calls]  # a source may have died with the gas flowing
    assert scope.clock.waited == waited
    assert aligner.forgot == 1
    assert notes[0][0] == "mended"
    assert notes[0][1]["symptom"] == symptom_of(error)


def test_a_current_that_is_off_again_wants_a_new_light() -> None:
    scope = Scope()
    made, _, _ = mender(scope)
    assert made.mend("a", CurrentOff("off"))
    assert made.mend("a", CurrentOff("off"))
    assert scope.calls[-1] == "relight-source"


def test_a_current_of_overviews_is_set_again_by_another() -> None:
    scope = Scope()
    scope.now = scope.now.replace(ion=scope.now.ion.replace(settings=BeamSettings(voltage_v=30e3, current_a=0.25e-9)))
    made, _, _ = mender(scope)
    assert made.mend("a", CurrentOff("5 % off", beam="ion"))
    assert scope.calls == ["safe", "ion 1e-09"]


@pytest.mark.parametrize(
    "error",
    [
        CurrentOff("5 % off", beam="electron"), Refused("5 % off", rule="current-as-asked", field="electron beam"),
    ],
)  # fmt: skip
def test_no_ion_current_is_set_for_the_electron_beam(error: InstrumentError) -> None:
    scope = Scope()
    assert not mender(scope)[0].mend("a", error)
    assert scope.calls == []


def test_either_source_is_lit_again() -> None:
    scope = Scope(pressure=2e-2)
    assert mender(scope)[0].mend("a", SourceOff("off", beam="electron"))
    assert scope.calls == ["safe", "pump", "relight-source"]


def test_a_needle_that_does_not_move_is_tried_again_before_anything_is_mended() -> None:
    scope = Scope()
    safe, tried = scope.make_safe, []

    def stuck() -> State:
        tried.append(1)
        if len(tried) == 1:
            msg = "the needle has not moved"
            raise DeviceFault(msg)
        return safe()

    scope.make_safe = stuck  # type: ignore[method-assign]
    assert mender(scope)[0].mend("a", DeviceFault("the needle has not moved"))
    assert (len(tried), scope.clock.waited) == (2, 2 * RETRY_S)


@pytest.mark.parametrize(
    "error",
    [
        NotReached("no fiducial"), ConnectionLost("gone"), Refused("too much", rule="dose-within-budget"),
        Refused("not homed", rule="stage-homed"),
    ],
)  # fmt: skip
def test_what_is_not_in_the_table_is_for_a_person(error: InstrumentError) -> None:
    scope = Scope()
    made, aligner, notes = mender(scope)
    assert not made.mend("a", error)
    assert (scope.calls, scope.clock.waited, aligner.forgot, notes) == ([], 0.0, 0, [])


def test_so_often_and_no_more() -> None:
    made, _, _ = mender(Scope())
    assert [made.mend("a", DeviceFault("stuck")) for _ in range(PER_ACT + 1)] == [True] * PER_ACT + [False]
    tired, _, _ = mender(Scope(), earlier=("device-fault",) * (PER_RUN - 1))
    assert tired.mend("b", DeviceFault("stuck"))
    assert not tired.mend("c", DeviceFault("stuck"))


def test_what_can_not_be_mended_says_so() -> None:
    made, aligner, notes = mender(Scope(source_on=False, broken=True))
    assert not made.mend("a", SourceOff("off"))
    assert aligner.forgot == 0
    assert notes[0][1]["failed"] == "it does not light"


def test_a_refusal_is_known_by_its_rule() -> None:
    assert symptom_of(Refused("x", rule="vacuum-recovered")) == "vacuum-recovered"
    assert symptom_of(Refused("x", rule="another")) == "refused"
    assert action("refused") == action("never heard of") == "hold"
