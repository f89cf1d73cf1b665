"""Set-up is ensured: compared, brought about, verified."""

from __future__ import annotations

import math

import pytest

from instrument.errors import NotReached
from instrument.settings import Beam, BeamSettings, Device, GasSetting, GasState, Setup, StagePosition, State
from tests.workflows.frames import still
from workflows.ensure import Ensurer, Stood


class Table:
    """An instrument that does what it is told, 3 um beside, and writes it down."""

    def __init__(self, error_m: float = 3e-6) -> None:
        self.error_m = error_m
        self.calls: list[str] = []
        self.now = still().replace(
            devices={Device.CBS: False, Device.NEEDLE: False},
            gases={"Pt": GasState(heater_on=False, ready=False, duty=0, valve_open=False)},
        )

    def state(self) -> State:
        return self.now

    def set_beam(self, beam: Beam, settings: BeamSettings) -> BeamSettings:
        self.calls.append(f"{beam} {sorted(settings.model_dump(exclude_none=True))}")
        column = self.now.beam(beam)
        reached = column.settings.replace(**settings.model_dump(exclude_none=True))
        self.now = self.now.replace(**{beam.value: column.replace(settings=reached)})
        return reached

    def move_stage(self, to: StagePosition) -> StagePosition:
        asked = to.model_dump(exclude_none=True)
        self.calls.append(f"stage {sorted(asked)}")
        moved = {axis: value + (self.error_m if axis in "xyz" else 0) for axis, value in asked.items()}
        self.now = self.now.replace(stage=self.now.stage.replace(**moved))
        return self.now.stage

    def insert(self, device: Device, position: str | None = None) -> None:
        self.calls.append(f"in {device}")
        self.now = self.now.replace(devices={**self.now.devices, device: True})

    def retract(self, device: Device) -> None:
        self.calls.append(f"out {device}")
        self.now = self.now.replace(devices={**self.now.devices, device: False})

    def set_gas(self, gas: str, setting: GasSetting) -> GasSetting:
        self.calls.append(f"heat {gas}")
        self.now = self.now.replace(gases={gas: GasState(heater_on=True, ready=True, duty=0, valve_open=False)})
        return setting


MILL = Setup(
    pose="mill",
    stage=StagePosition(x=0.0, y=1e-3, z=0.0, r=0.0, t=math.radians(7)),
    ion=BeamSettings(voltage_v=30e3, current_a=60e-9, shift_x_m=1e-6),
    retracted=(Device.CBS,),
)
IMAGE = Setup(pose="image", stage=MILL.stage, electron=BeamSettings(voltage_v=5e3), inserted=(Device.CBS,))


def test_it_is_brought_about_in_a_safe_order() -> None:
    table = Table()
    table.insert(Device.CBS)
    table.calls.clear()
    Ensurer(table).ensure(MILL.replace(gases_ready=("Pt",)))
    beam = "ion ['current_a', 'shift_x_m', 'voltage_v']"
    assert table.calls == ["out CBS", "heat Pt", "stage ['r', 't', 'x', 'y', 'z']", beam]


def test_what_stands_is_left_alone() -> None:
    table = Table()
    ensurer = Ensurer(table)
    ensurer.ensure(MILL)
    table.calls.clear()
    ensurer.ensure(MILL)
    assert table.calls == []
    ensurer.ensure(IMAGE)
    assert table.calls == ["electron ['voltage_v']", "in CBS"]
    table.calls.clear()
    ensurer.ensure(MILL)
    assert table.calls == ["out CBS"]


def test_only_the_axis_that_changes_moves() -> None:
    table = Table()
    ensurer = Ensurer(table)
    ensurer.ensure(MILL)
    table.calls.clear()
    ensurer.ensure(MILL.replace(stage=MILL.stage.replace(r=math.radians(4.24))))
    assert table.calls == ["stage ['r']"]


def test_a_focus_is_set_with_every_change_of_current_and_kept_nearly() -> None:
    table = Table()
    sent: list[BeamSettings] = []
    plain = table.set_beam

    def seen(beam: Beam, settings: BeamSettings) -> BeamSettings:
        sent.append(settings)
        return plain(beam, settings)

    table.set_beam = seen  # type: ignore[method-assign]
    ensurer = Ensurer(table)
    ion = BeamSettings(voltage_v=30e3, current_a=4e-9, working_distance_m=16.52e-3)
    ensurer.ensure(MILL.replace(ion=ion))
    ensurer.ensure(MILL.replace(ion=ion.replace(working_distance_m=16.521e-3)))  # depth of focus is larger
    count = len(sent)
    ensurer.ensure(MILL.replace(ion=ion.replace(current_a=1e-9)))
    assert len(sent) == count + 1
    assert sent[-1] == BeamSettings(current_a=1e-9, working_distance_m=16.52e-3)


def test_a_small_step_is_made_and_a_foreign_hand_is_seen() -> None:
    table = Table()
    ensurer = Ensurer(table)
    ensurer.ensure(MILL)
    table.calls.clear()
    ensurer.ensure(MILL.replace(stage=MILL.stage.replace(y=1.002e-3)))
    assert table.calls == ["stage ['y']"]
    table.now = table.now.replace(stage=table.now.stage.replace(x=50e-6))
    table.calls.clear()
    ensurer.ensure(MILL)
    assert table.calls == ["stage ['r', 't', 'x', 'y', 'z']"]


def test_a_new_process_that_remembers_leaves_the_stage_alone() -> None:
    table = Table()
    kept: list[Stood] = []
    Ensurer(table, moved=kept.append).ensure(MILL)
    table.calls.clear()
    Ensurer(table, kept[-1]).ensure(MILL)
    assert table.calls == []
    Ensurer(table, kept[-1]).ensure(MILL.replace(stage=MILL.stage.replace(y=1.0005e-3)))
    assert table.calls == ["stage ['y']"]


def test_a_new_process_that_knows_nothing_sends_the_stage() -> None:
    """It stood half a micron from where it is wanted: nearer than stages repeat, and yet another place."""
    table = Table()
    Ensurer(table).ensure(MILL)
    table.calls.clear()
    Ensurer(table).ensure(MILL.replace(stage=MILL.stage.replace(y=1.0005e-3)))
    assert table.calls == ["stage ['r', 't', 'x', 'y', 'z']"]


def test_turning_is_compared_round_the_circle() -> None:
    table = Table()
    turned = MILL.replace(stage=MILL.stage.replace(r=math.pi))
    ensurer = Ensurer(table)
    ensurer.ensure(turned)
    table.now = table.now.replace(stage=table.now.stage.replace(r=-math.pi))
    table.calls.clear()
    ensurer.ensure(turned)
    assert table.calls == []


@pytest.mark.parametrize("broken", ["stage", "beam", "device", "gas"])
def test_what_is_not_reached_is_said_with_both_values(broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table(error_m=1e-3 if broken == "stage" else 0.0)
    nothing = {"beam": "set_beam", "device": "insert", "gas": "set_gas"}
    if broken in nothing:
        monkeypatch.setattr(table, nothing[broken], lambda *_: None)
    setup = IMAGE.replace(gases_ready=("Pt",))
    with pytest.raises(NotReached, match="set-up for image was not reached") as seen:
        Ensurer(table).ensure(setup)
    assert seen.value.evidence["setup"]["pose"] == "image"


def test_a_stage_that_creeps_at_rest_is_not_moved_but_looked_at_again() -> None:
    table = Table()
    ensurer = Ensurer(table)
    before = ensurer.standing(ensurer.ensure(MILL), 60e-9)
    table.calls.clear()

    def creep(by_m: float) -> None:
        at = table.now.stage
        table.now = table.now.replace(stage=at.replace(y=(at.y or 0.0) + by_m))

    creep(30e-9)  # a recorded stage: 20 nm in 10 minutes
    assert ensurer.standing(ensurer.ensure(MILL), 60e-9).holds(before)
    creep(120e-9)
    assert not ensurer.standing(ensurer.ensure(MILL), 60e-9).holds(before)
    assert table.calls == []


def test_what_was_seen_before_a_move_is_not_believed_though_the_stage_reads_the_same_again() -> None:
    table = Table()
    ensurer = Ensurer(table)
    before = ensurer.standing(ensurer.ensure(MILL), 60e-9)
    assert ensurer.standing(ensurer.ensure(MILL), 60e-9).holds(before)
    assert not ensurer.standing(ensurer.ensure(MILL), 15e-9).holds(before)
    ensurer.ensure(MILL.replace(stage=MILL.stage.replace(t=math.radians(38))))
    again = ensurer.ensure(MILL)
    assert again.stage == before.stage
    assert not ensurer.standing(again, 60e-9).holds(before)
    assert not before.holds(None)
