"""Gas that nobody looks after: a valve left open is shut, a gas left hot is cooled, and nothing in use is touched."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from instrument.actions import Actions
from instrument.errors import DeviceFault
from instrument.guard import Guarded
from instrument.ledger import Ledger
from instrument.settings import Device, GasSetting, State
from instrument.spool import Spool
from instrument.tending import AGAIN_S, HOT_S, OPEN_S, Tending
from instrument.wire import Acquire, SetGas, WritePattern
from tests.instrument.fake_microscope import FakeMicroscope, job, scan
from tests.instrument.serving import until

LOOK_S = 0.5
#: What is done is done within so many looks more.
A_FEW = 5


class Stand:
    """A microscope with its commands, a lease and a clock that a test turns; looked at twice a second."""

    def __init__(self, state: Path) -> None:
        self.fake = FakeMicroscope()
        self.fake.insert(Device.NEEDLE)
        guarded = Guarded(self.fake)
        self.actions = Actions(guarded, Ledger(state / "ledger.jsonl"), Spool(state / "spool"))
        self.now, self.alive, self.idle_s, self.reads = 1000.0, True, 0.0, 0
        self.told: list[tuple[str, dict[str, Any]]] = []
        self.tending = Tending(self.actions, self, self.state, self._tell, lambda: self.now)

    def state(self) -> State:
        self.reads += 1
        return self.fake.state()

    def _tell(self, what: str, **data: Any) -> None:
        self.told.append((what, data))

    def does(self, name: str, command: SetGas | Acquire | WritePattern) -> None:
        self.actions.submit(name, command)
        self.settle()

    def settle(self) -> None:
        self.tending.close(5.0)
        until(lambda: not self.actions.busy)

    def passes(self, seconds: float) -> None:
        """Let time pass; what is begun on the way ends before time goes on."""
        for _ in range(round(seconds / LOOK_S)):
            self.now += LOOK_S
            self.idle_s = 0.0 if self.alive else self.idle_s + LOOK_S
            self.tending.look()
            self.tending.close(5.0)

    def is_open(self, gas: str = "Pt") -> bool:
        return self.fake.state().gases[gas].valve_open

    def is_hot(self, gas: str = "Pt") -> bool:
        return self.fake.state().gases[gas].heater_on


@pytest.fixture
def stand(tmp_path: Path) -> Iterator[Stand]:
    found = Stand(tmp_path)
    yield found
    found.fake.gate.set()
    found.tending.close(5.0)
    assert found.actions.close()


OPENED = SetGas(gas="Pt", setting=GasSetting(heater_on=True, valve_open=True))


def test_a_valve_that_a_living_run_left_open_is_shut_and_told(stand: Stand) -> None:
    stand.passes(LOOK_S)
    stand.does("open", OPENED)
    stand.passes(OPEN_S)
    assert stand.is_open()
    stand.passes(A_FEW * LOOK_S)
    stand.settle()
    assert not stand.is_open()
    assert stand.is_hot()
    assert stand.told == [("shut", {"gas": "Pt", "after_s": OPEN_S})]
    stand.passes(10 * OPEN_S)
    assert len(stand.told) == 1
    assert stand.reads <= 2  # once after each command: a run that thinks is left alone


def test_a_long_job_keeps_its_valve_open_and_so_do_many_short_ones(stand: Stand) -> None:
    stand.does("open", OPENED)
    stand.fake.hold()
    stand.actions.submit("film", WritePattern(job=job(1.0, purpose="deposit", gases={"Pt": 1.0})))
    assert stand.fake.begun.wait(5.0)
    stand.passes(20 * OPEN_S)
    stand.fake.gate.set()
    stand.settle()
    for number in range(6):
        stand.passes(0.9 * OPEN_S)
        stand.does(f"look {number}", Acquire(scan=scan()))
    assert stand.is_open()
    assert stand.told == []


def test_what_this_process_slept_through_does_not_count(stand: Stand) -> None:
    stand.does("open", OPENED)
    stand.passes(LOOK_S)
    stand.now += 3600.0
    stand.passes(0.9 * OPEN_S)
    assert stand.is_open()


def test_a_valve_that_does_not_shut_is_shut_again(stand: Stand) -> None:
    stand.does("open", OPENED)
    stand.passes(LOOK_S)
    stand.fake.fail_next = DeviceFault("the valve is stuck")
    stand.passes(OPEN_S + A_FEW * LOOK_S)
    stand.settle()
    assert stand.is_open()
    stand.passes(OPEN_S + A_FEW * LOOK_S)
    stand.settle()
    assert not stand.is_open()
    assert len(stand.told) == 2


def test_an_instrument_that_can_not_be_read_is_read_again(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent() -> State:
        msg = "it does not answer"
        raise DeviceFault(msg)

    stand.does("open", OPENED)
    with monkeypatch.context() as patched:
        patched.setattr(stand.fake, "state", silent)
        stand.passes(OPEN_S + A_FEW * LOOK_S)
    stand.passes(AGAIN_S + A_FEW * LOOK_S)
    stand.settle()
    assert not stand.is_open()


def test_gas_is_cooled_once_half_an_hour_after_the_last_lease(stand: Stand) -> None:
    stand.does("heat", SetGas(gas="Pt", setting=GasSetting(heater_on=True)))
    stand.alive = False
    stand.passes(HOT_S)
    assert stand.is_hot()
    stand.passes(A_FEW * LOOK_S)
    stand.settle()
    assert not stand.is_hot()
    assert [what for what, _ in stand.told] == ["cool"]
    stand.passes(2 * AGAIN_S)
    stand.fake.set_gas("Pt", GasSetting(heater_on=True))  # by hand, at the screen
    stand.passes(2 * HOT_S)
    assert stand.is_hot()
    stand.alive = True
    stand.passes(LOOK_S)
    stand.alive = False
    stand.passes(HOT_S + A_FEW * LOOK_S)
    stand.settle()
    assert not stand.is_hot()


def test_nothing_is_cooled_under_a_person_s_pattern_nor_under_a_run(stand: Stand) -> None:
    stand.does("heat", SetGas(gas="Pt", setting=GasSetting(heater_on=True)))
    stand.passes(2 * HOT_S)
    assert stand.is_hot()
    stand.alive = False
    stand.fake.hold()
    by_hand = threading.Thread(target=stand.fake.pattern, args=(job(1.0),))
    by_hand.start()
    assert stand.fake.begun.wait(5.0)
    stand.passes(2 * HOT_S)
    assert stand.is_hot()
    stand.fake.gate.set()
    by_hand.join(5.0)
    stand.passes(AGAIN_S + A_FEW * LOOK_S)
    stand.settle()
    assert not stand.is_hot()
