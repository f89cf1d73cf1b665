"""What a set-up needs beyond numbers: the mark found and kept, the focus following the face, gas that really flows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instrument.errors import DeviceFault, NotReached
from instrument.frame import Frame, FrameMeta
from instrument.geometry import PoseName, Site
from instrument.hydra import hydra
from instrument.settings import (
    Beam,
    BeamSettings,
    Device,
    GasSetting,
    GasState,
    Scan,
    Setup,
    StagePosition,
    State,
    Tune,
    Tuning,
)
from tests.workflows.frames import still
from tests.workflows.test_tracking import drawn_mark, drawn_marks
from workflows.alignment import Aligner, look_scan
from workflows.layout import Layout
from workflows.recipe import load
from workflows.recipe_rules import LOOK_PX
from workflows.untouched import AnotherHand

FIRST = Path(__file__).parents[2] / "workflows" / "recipes" / "first-run.yaml"


class Clock:
    """Time that passes when it is waited for."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        return self.seconds

    def wait(self, seconds: float) -> None:
        self.seconds += seconds


class Scope:
    """A microscope with a mark that lies off by `off`, and gas that flows or doesn't."""

    def __init__(self, off: tuple[float, float] = (0.0, 0.0), *, flows: bool = True) -> None:
        self.off = off
        self.flows = flows
        self.looks = 0
        self.tunes = 0
        self.clock = Clock()
        self.marks: list[tuple[float, float]] = []
        self.size_m = 5e-6
        self.blind: set[int] = set()
        calm = still()
        self.now: State = calm.replace(
            ion=calm.ion.replace(settings=BeamSettings()),
            devices=dict.fromkeys(Device, False),
            gases={"Pt": GasState(heater_on=True, ready=True, duty=1.0, valve_open=False)},
        )

    def state(self) -> State:
        return self.now

    def set_beam(self, beam: Beam, settings: BeamSettings) -> BeamSettings:
        column = self.now.beam(beam)
        after = column.settings.replace(**settings.model_dump(exclude_none=True))
        changed = column.replace(settings=after, measured_current_a=after.current_a or 0.0)
        self.now = self.now.replace(**{str(beam): changed})
        return after

    def move_stage(self, to: StagePosition) -> StagePosition:
        moved = self.now.stage.replace(**to.model_dump(exclude_none=True))
        self.now = self.now.replace(stage=moved)
        return moved

    def insert(self, device: Device, position: str | None = None) -> None:
        del position
        self.now = self.now.replace(devices={**self.now.devices, device: True})

    def retract(self, device: Device) -> None:
        self.now = self.now.replace(devices={**self.now.devices, device: False})

    def set_gas(self, gas: str, setting: GasSetting) -> GasSetting:
        valve = bool(setting.valve_open)
        self.now = self.now.replace(
            gases={gas: self.now.gases[gas].replace(valve_open=valve)},
            pressure_pa=2e-3 if valve and self.flows else 1e-4,
        )
        return setting

    def acquire(self, scan: Scan) -> Frame:
        self.looks += 1
        shift = self.now.ion.settings
        u, v = self.off[0] - (shift.shift_x_m or 0.0), self.off[1] - (shift.shift_y_m or 0.0)
        pixel = 25e-9
        if self.looks in self.blind:
            grey = np.full((442, 512), 0.3)
        elif scan.width_px == LOOK_PX[0]:  # from afar
            pixel = scan.pixel_m
            grey = drawn_marks(
                [(a + u - scan.centre_x_m, b + v - scan.centre_y_m) for a, b in self.marks], pixel, self.size_m
            )
        else:
            grey = drawn_mark(u, v, seed=self.looks)
        meta = FrameMeta(
            uid=f"look-{self.looks}", channels=("ICE",), pixel_x_m=pixel, pixel_y_m=pixel, started_s=self.clock.now(),
            seconds=1.0, scan=scan, state=self.now,
        )  # fmt: skip
        return Frame(np.clip(255 * grey, 0, 255).astype(np.uint8)[None], meta)

    def tune(self, routine: Tune, scan: Scan) -> Tuning:
        del scan
        self.tunes += 1
        return Tuning(routine=routine, score=1.0, working_distance_m=4.001e-3)


def aligner_on(scope: Scope, budget_m: float = 0.3e-6) -> tuple[Aligner, Layout, list[tuple[str, Any]]]:
    notes: list[tuple[str, Any]] = []
    made: Any = scope
    aligner = Aligner(made, hydra(), lambda kind, data: notes.append((kind, data)), budget_m)
    recipe = load(FIRST)
    layout = Layout(recipe, Site(sx=0.0, sy=0.0, sz=0.0, pretilt=recipe.sample.pretilt))
    aligner.layout, aligner.marks = layout, layout.marks
    return aligner, layout, notes


def milling(layout: Layout, pose: PoseName = PoseName.MILL, current: float = 4e-9) -> Setup:
    at = layout.pose(pose, 0.05)
    return Setup(
        pose=str(pose), stage=layout.stage(at), register_on_mark=True,
        ion=BeamSettings(voltage_v=30e3, current_a=current, scan_rotation_rad=at.ion_scan_rotation),
    )  # fmt: skip


def test_the_beam_is_shifted_onto_the_mark_once_until_something_moves() -> None:
    scope = Scope(off=(0.7e-6, -0.4e-6))
    aligner, layout, notes = aligner_on(scope)
    aligner.ensure(milling(layout))
    shift = scope.now.ion.settings
    assert (shift.shift_x_m, shift.shift_y_m) == pytest.approx((0.7e-6, -0.4e-6), abs=25e-9)
    aligner.ensure(milling(layout))
    assert scope.looks == 1
    aligner.ensure(milling(layout, PoseName.ROCK_PLUS))
    assert scope.looks == 2
    aligner.ensure(milling(layout, PoseName.ROCK_PLUS, current=15e-9))
    assert scope.looks == 3
    assert [kind for kind, _ in notes].count("look") == 3


def test_a_mark_out_of_reach_holds() -> None:
    aligner, layout, _ = aligner_on(Scope(off=(30e-6, 0.0)))
    with pytest.raises(NotReached, match="fiducial was not found"):
        aligner.ensure(milling(layout))


@pytest.mark.parametrize("blind", [{1, 2}, {1, 2, 4}], ids=["then the mark again", "then the spare"])
def test_a_mark_far_off_is_found_together_with_the_spare(blind: set[int]) -> None:
    scope = Scope(off=(9e-6, -2e-6))
    aligner, layout, _ = aligner_on(scope)
    view = layout.view(layout.pose(PoseName.MILL, 0.05), Beam.ION)
    scope.marks, scope.size_m = [view.field(mark.centre) for mark in layout.marks], layout.marks[0].size
    scope.blind = blind
    assert len(scope.marks) == 2
    aligner.ensure(milling(layout))
    assert scope.looks == max(3, *blind) + 1
    shift = scope.now.ion.settings
    assert (shift.shift_x_m, shift.shift_y_m) == pytest.approx((9e-6, -2e-6), abs=40e-9)


def test_looks_are_budgeted() -> None:
    aligner, layout, _ = aligner_on(Scope(), budget_m=1e-12)
    with pytest.raises(NotReached, match=r"fiducial\.budget"):
        aligner.ensure(milling(layout))


def test_no_film_without_a_flow() -> None:
    aligner, layout, _ = aligner_on(Scope(flows=False))
    at = layout.pose(PoseName.DEPOSIT)
    setup = Setup(pose="deposit", stage=layout.stage(at), inserted=(Device.NEEDLE,), gases_open={"Pt": 1.0})
    with pytest.raises(DeviceFault, match="no gas flows"):
        aligner.ensure(setup)
    good = Scope()
    aligner, layout, _ = aligner_on(good)
    assert aligner.ensure(setup).gases["Pt"].valve_open
    aligner.ensure(setup)  # open already: no rise is asked for again
    aligner.shut_gas()
    assert not good.now.gases["Pt"].valve_open


def test_the_focus_follows_the_face() -> None:
    scope = Scope()
    aligner, layout, _ = aligner_on(scope)
    at = layout.pose(PoseName.FACE_ON)
    setup = Setup(
        pose="face-on", stage=layout.stage(at), focus_z_m=4e-6,
        electron=BeamSettings(voltage_v=5e3, current_a=1.6e-9, working_distance_m=4e-3),
    )  # fmt: skip
    aligner.ensure(setup)
    assert scope.tunes == 1
    aligner.ensure(setup.replace(focus_z_m=6e-6, electron=BeamSettings(voltage_v=5e3, current_a=1.6e-9)))
    assert scope.tunes == 1
    assert scope.now.electron.settings.working_distance_m == pytest.approx(4.001e-3 + 2e-6, abs=1e-9)


def test_every_picture_of_the_face_is_registered_anew() -> None:
    """A run that goes on knows nothing of the last registration; one that didn't die mustn't lie by it either."""
    scope = Scope()
    aligner, layout, _ = aligner_on(scope)
    setup = Setup(
        pose="face-on", stage=layout.stage(layout.pose(PoseName.FACE_ON)), register_on_cap=True,
        electron=BeamSettings(voltage_v=5e3, current_a=1.6e-9, working_distance_m=4e-3),
    )  # fmt: skip
    aligner.ensure(setup)
    aligner.ensure(setup)
    assert scope.looks == 2


def test_a_focus_that_was_noted_is_gone_on_with() -> None:
    scope = Scope()
    aligner, layout, notes = aligner_on(scope)
    electron = BeamSettings(voltage_v=5e3, current_a=1.6e-9, working_distance_m=4e-3)
    setup = Setup(pose="face-on", stage=layout.stage(layout.pose(PoseName.FACE_ON)), focus_z_m=4e-6, electron=electron)
    aligner.ensure(setup)
    made: Any = scope
    noted = [json.loads(json.dumps(data)) for kind, data in notes if kind == "focused"]
    again = Aligner(made, hydra(), lambda _kind, _data: None, focused=noted)
    again.layout = layout
    again.ensure(setup.replace(electron=electron.replace(working_distance_m=None)))
    assert scope.tunes == 1
    again.ensure(setup.replace(pose="mill"))  # of another pose nothing was noted
    assert scope.tunes == 2


def test_what_another_hand_has_turned_is_not_overwritten() -> None:
    scope = Scope(off=(0.7e-6, -0.4e-6))
    aligner, layout, _ = aligner_on(scope)
    at = layout.stage(layout.pose(PoseName.FACE_ON))
    electron = BeamSettings(voltage_v=5e3, current_a=1.6e-9)
    looking = Setup(pose="face-on", stage=at, focus_z_m=4e-6, electron=electron)
    scan = look_scan(hydra(), Beam.ELECTRON, (0.0, 0.0), 30e-6)
    for setup in (milling(layout), looking, milling(layout), looking.replace(focus_z_m=6e-6)):
        aligner.ensure(setup)  # what the run sets itself is no other hand's
    aligner.contrast(looking, scan)
    aligner.ion_focus(milling(layout), scan)
    turned = BeamSettings(stigmator_x=0.8)
    scope.set_beam(Beam.ELECTRON, turned)
    before = scope.now
    with pytest.raises(AnotherHand, match=r"electron beam, stigmator x: - -> 0\.8; `kintsugi resume DIR --adopt`"):
        aligner.ensure(looking)
    assert scope.now == before
    with pytest.raises(AnotherHand):
        aligner.state()
    aligner.forget()  # somebody else had the instrument, and it is known
    aligner.ensure(looking)


@pytest.mark.parametrize(
    ("score", "found", "kept"), [(0.8, 16.53e-3, True), (0.05, 16.53e-3, False), (0.8, 16.9e-3, False)]
)
def test_an_ion_focus_that_can_not_be_believed_is_set_back(score: float, found: float, kept: bool) -> None:
    scope = Scope()
    aligner, layout, _ = aligner_on(scope)
    setup = milling(layout)
    was = setup.replace(ion=BeamSettings(voltage_v=30e3, current_a=1e-9, working_distance_m=16.5e-3))

    def tuned(routine: Tune, scan: Scan) -> Tuning:
        del scan
        scope.set_beam(Beam.ION, BeamSettings(working_distance_m=found))
        return Tuning(routine=routine, score=score, working_distance_m=found)

    scope.tune = tuned  # type: ignore[method-assign]
    scan = look_scan(hydra(), Beam.ION, (0.0, 0.0), 30e-6)
    assert aligner.ion_focus(was, scan) == (found if kept else 16.5e-3)
    assert scope.now.ion.settings.working_distance_m == (found if kept else 16.5e-3)


def test_a_current_is_held_against_what_its_aperture_gave_in_this_session_or_one_before() -> None:
    scope = Scope()
    aligner, layout, notes = aligner_on(scope)
    aligner.ensure(milling(layout))

    def measured(share: float) -> None:
        scope.now = scope.now.replace(ion=scope.now.ion.replace(measured_current_a=share * 4e-9))

    known = {"beam": "ion", "measured_a": 1.25 * 4e-9, "point": {"voltage_v": 30e3, "current_a": 4e-9}}
    assert [data["measured_a"] for kind, data in notes if kind == "usual current"] == [4e-9]
    species = scope.now.ion.settings.species
    made: Any = scope
    again = Aligner(
        made, hydra(), lambda _kind, _data: None,
        usual=[{**known, "point": {**known["point"], "species": species}}],
    )  # fmt: skip
    again.layout, again.marks = layout, aligner.marks
    again.ensure(milling(layout))
    measured(1.22)  # a quarter more than its label says, as always
    again.ensure(milling(layout))
    with pytest.raises(NotReached, match="measured current"):
        aligner.ensure(milling(layout))
    measured(1.1)
    with pytest.raises(NotReached, match="5 nA was measured before"):
        again.ensure(milling(layout))


@pytest.mark.parametrize(
    ("voltage", "source_on", "assumed", "left"),
    [(30e3, True, (), 1e-12), (12e3, True, (), 1e-9), (30e3, False, (), 4e-9), (30e3, True, ("Xenon@30000",), 4e-9)],
)
def test_the_ion_beam_is_left_with_the_least_current_that_its_voltage_has(
    voltage: float, source_on: bool, assumed: tuple[str, ...], left: float
) -> None:
    scope = Scope()
    scope.set_beam(Beam.ION, BeamSettings(voltage_v=voltage, current_a=4e-9))
    scope.now = scope.now.replace(ion=scope.now.ion.replace(source_on=source_on))
    made: Any = scope
    Aligner(made, hydra().replace(assumed_currents=assumed), lambda _kind, _data: None).idle()
    assert scope.now.ion.settings.current_a == left


def test_a_wrong_current_holds() -> None:
    scope = Scope()
    aligner, layout, _ = aligner_on(scope)
    aligner.ensure(milling(layout))
    scope.now = scope.now.replace(ion=scope.now.ion.replace(measured_current_a=3e-9))
    with pytest.raises(NotReached, match="measured current"):
        aligner.ensure(milling(layout))
