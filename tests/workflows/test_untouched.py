"""What another hand changes while a run has the instrument is seen; wobble, faults and the run itself are no hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from instrument.settings import Beam, BeamSettings, Device, StagePosition, State
from tests.workflows.test_handover import LEFT, SETTINGS
from workflows.untouched import AnotherHand, Untouched, untouched


@pytest.mark.parametrize(
    ("field", "wobbles", "turned"),
    [
        ("voltage_v", 5.001e3, 10e3), ("current_a", 1.62e-9, 3.2e-9), ("working_distance_m", 4.0002e-3, 4.004e-3),
        ("stigmator_x", 0.1002, 0.2), ("shift_x_m", 2e-9, 0.1e-6), ("scan_rotation_rad", 1e-6, 0.05),
    ],
)  # fmt: skip
def test_a_setting_that_wobbles_is_untouched_and_one_that_was_turned_is_not(
    field: str, wobbles: float, turned: float
) -> None:
    def reading(value: float) -> State:
        return left.replace(electron=left.electron.replace(settings=left.electron.settings.replace(**{field: value})))

    left = LEFT.replace(electron=LEFT.electron.replace(settings=SETTINGS.replace(shift_x_m=0.0, scan_rotation_rad=0.0)))
    untouched(left, reading(wobbles))
    with pytest.raises(AnotherHand, match=r"electron beam, .* -> ") as seen:
        untouched(left, reading(turned))
    assert seen.value.evidence["left"] == left.model_dump(mode="json")
    assert len(seen.value.evidence["changes"]) == 1


def test_stage_species_and_detectors_show_a_hand_and_what_the_server_makes_safe_does_not() -> None:
    untouched(
        LEFT, LEFT.replace(devices={Device.CBS: False, Device.NEEDLE: True}, stage=LEFT.stage.replace(r=math.tau))
    )
    argon = LEFT.ion.replace(settings=BeamSettings(species="Argon"))
    for now in (
        LEFT.replace(stage=LEFT.stage.replace(y=3e-6)), LEFT.replace(ion=argon),
        LEFT.replace(devices={Device.CBS: True, Device.NEEDLE: False}),
    ):  # fmt: skip
        with pytest.raises(AnotherHand):
            untouched(LEFT, now)


def test_a_source_that_went_out_and_a_reference_that_was_lost_are_no_hand() -> None:
    dark = LEFT.electron.replace(source_on=False, settings=SETTINGS.replace(current_a=None, voltage_v=None))
    untouched(LEFT, LEFT.replace(electron=dark))
    untouched(LEFT.replace(electron=dark), LEFT)
    untouched(LEFT, LEFT.replace(stage_homed=False, stage=LEFT.stage.replace(x=1e-3)))
    with pytest.raises(AnotherHand, match="stage x"):
        untouched(LEFT, LEFT.replace(electron=dark, stage=LEFT.stage.replace(x=1e-3)))


class Panel:
    """An instrument at whose screen somebody turns the electron beam while a verb is in hand."""

    def __init__(self) -> None:
        self.now = LEFT
        self.turns: dict[str, float] = {}

    def state(self) -> State:
        return self.now

    def turn(self) -> None:
        electron = self.now.electron
        self.now = self.now.replace(electron=electron.replace(settings=electron.settings.replace(**self.turns)))

    def insert(self, device: Device, _position: str | None = None) -> None:
        self.turn()
        self.now = self.now.replace(devices={**self.now.devices, device: True})

    def move_stage(self, to: StagePosition) -> StagePosition:
        self.turn()
        self.now = self.now.replace(stage=self.now.stage.replace(**to.model_dump(exclude_none=True)))
        return self.now.stage

    def set_beam(self, beam: Beam, settings: BeamSettings) -> BeamSettings:
        self.now = self.now.replace(**{str(beam): self.now.beam(beam).replace(settings=settings)})
        return settings


def test_a_verb_changes_its_own_part_and_what_else_changes_with_it_is_a_hand() -> None:
    panel: Any = Panel()
    own = Untouched(panel)
    own.state()
    own.insert(Device.CBS)
    own.set_beam(Beam.ION, BeamSettings(voltage_v=30e3, current_a=1e-9))
    own.move_stage(StagePosition(x=1e-3))
    own.state()
    panel.turns = {"working_distance_m": 4.2e-3}
    own.move_stage(StagePosition(x=2e-3))  # which may take focus and shift along
    panel.turns = {"stigmator_x": 0.7}
    with pytest.raises(AnotherHand, match=r"changed the microscope: electron beam, stigmator x: 0\.1"):
        own.insert(Device.NEEDLE)


def test_a_hand_on_the_part_that_the_next_verb_changes_is_seen_before_it_is_overwritten() -> None:
    panel: Any = Panel()
    own = Untouched(panel)
    own.state()
    panel.turns = {"stigmator_x": 0.7}
    panel.turn()
    turned = panel.now
    with pytest.raises(AnotherHand, match="stigmator x"):
        own.set_beam(Beam.ELECTRON, BeamSettings(shift_x_m=1e-6))
    assert panel.now == turned


def test_a_stage_that_creeps_is_no_hand() -> None:
    panel: Any = Panel()
    own = Untouched(panel)
    at = own.state().stage.x
    assert at is not None
    for step in range(1, 101):  # 2 um in all
        panel.now = panel.now.replace(stage=panel.now.stage.replace(x=at + step * 20e-9))
        own.state()
