"""Rehearsing: right signs pass, wrong ones stop it before any pose; nobody is taken to have said yes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from math import radians
from pathlib import Path
from typing import Any

import pytest
from pytest_mock import MockerFixture

import simulator
from instrument.errors import Refused
from instrument.geometry import PoseName
from instrument.guard import Guarded
from instrument.holding import held
from instrument.microscope import Microscope
from instrument.settings import Beam, BeamSettings, Device, GasSetting, Lens, StagePosition
from tests.contract.emulation import emulated
from workflows.cli import run_command
from workflows.layout import Layout
from workflows.moving import FREE_TURN_RAD, move_low
from workflows.recipe import Recipe, load
from workflows.rehearse import Sign, drive, envelope, poses_of, signs

URL = "simulator:3?width=40um&height=20um&depth=4um&coating=16um&above=3um&voxel=100nm&layer=100nm"
RECIPE = Path(__file__).parents[2] / "workflows" / "recipes" / "first-run.yaml"


@pytest.fixture(scope="module")
def scope() -> Iterator[Microscope]:
    opened = simulator.open(URL)
    yield opened
    opened.close()


def recipe(rocking: float = 0.0) -> Recipe:
    found = load(RECIPE)
    slicing = found.slicing
    assert slicing is not None
    turned = slicing.replace(cut=slicing.cut.replace(rocking=rocking))
    return found.replace(
        steps=tuple(step if step.slice is None else step.replace(slice=turned) for step in found.steps)
    )


def test_signs_are_right_in_process_and_through_autoscript(scope: Microscope) -> None:
    before = scope.state()
    assert [one.name for one in signs(scope) if not one.right] == []
    after = scope.state()
    assert after.electron.settings == before.electron.settings
    with emulated(URL) as other:
        assert [one.name for one in signs(other) if not one.right] == []


@pytest.mark.parametrize(
    ("function", "wrong"),
    [("shift_to_client", {"beam shift to the right"}), ("stage_to_client", {"stage X", "stage Y"})],
)
def test_a_sign_that_is_the_other_way_is_seen(mocker: MockerFixture, function: str, wrong: set[str]) -> None:
    """As on an instrument whose axes go the other way than open software says."""
    from instrument.autoscript import values

    with emulated(URL) as scope:
        really = getattr(values, function)

        def mirrored(*given: Any) -> Any:
            out = really(*given)
            out.x = None if out.x is None else -out.x
            if function == "stage_to_client":
                out.y = None if out.y is None else -out.y
            return out

        mocker.patch.object(values, function, mirrored)
        mocker.patch("instrument.autoscript.microscope.taken")
        mocker.patch("instrument.autoscript.microscope.STAGE_ROOM_M", 1.0)
        assert {one.name for one in signs(scope) if not one.right} == wrong


def test_all_poses_are_driven_to_and_back(scope: Microscope) -> None:
    start = scope.state().stage
    reached, turned = drive(scope, poses_of(Layout.at(recipe(radians(3)), None)), lambda _question: True)
    assert [one.pose for one in reached] == [
        PoseName.MILL, PoseName.FACE_ON, PoseName.DEPOSIT, PoseName.CUT, PoseName.ROCK_PLUS, PoseName.ROCK_MINUS,
    ]  # fmt: skip
    assert turned.right
    assert scope.state().stage.t == start.t
    assert scope.state().safe


def test_no_pose_without_a_yes_and_none_with_a_device_in(scope: Microscope) -> None:
    start = scope.state().stage
    with pytest.raises(Refused, match="not confirmed"):
        drive(scope, poses_of(Layout.at(recipe(), None)), lambda _question: False)
    assert scope.state().stage == start
    scope.insert(Device.NEEDLE)
    with pytest.raises(Refused, match="needle"):
        drive(scope, poses_of(Layout.at(recipe(), None)), lambda _question: True)
    scope.retract(Device.NEEDLE)


def test_poses_are_driven_to_low_field_free_and_within_what_the_rehearsal_needs(
    scope: Microscope, mocker: MockerFixture
) -> None:
    scope.set_beam(Beam.ELECTRON, BeamSettings(lens=Lens.IMMERSION))
    layout = Layout.at(recipe(radians(3)), None)
    poses, start = poses_of(layout), scope.make_safe().stage
    guarded = Guarded(scope, envelope(scope.state(), scope.describe(), poses, layout.stage))
    moves = mocker.spy(scope, "move_stage")
    asked: list[str] = []

    def yes(question: str) -> bool:
        asked.append(question)
        return True

    signs(guarded)
    moves.reset_mock()
    drive(guarded, poses, yes, stands=layout.stage)
    assert scope.state().electron.settings.lens is Lens.FIELD_FREE
    assert guarded.refusals == 0
    z, r, t, far = start.z, start.r, start.t, 0
    for call in moves.call_args_list:
        to = call.args[0]
        turn = max(abs((to.r if to.r is not None else r) - r), abs((to.t if to.t is not None else t) - t))
        if turn > FREE_TURN_RAD:
            far += 1
            assert z < start.z - 4.8e-3
            assert to.z is None
        z, r, t = (new if new is not None else old for new, old in ((to.z, z), (to.r, r), (to.t, t)))
    assert far >= 4  # mill, face-on, deposit, back to cut
    assert len(asked) == len(moves.call_args_list)
    assert z == pytest.approx(start.z, abs=0.2e-6)
    with pytest.raises(Refused, match="no pose of this run"):
        guarded.move_stage(StagePosition(t=radians(30)))
    with pytest.raises(Refused, match="no gas of this run"):
        guarded.set_gas("Pt", GasSetting(heater_on=True))


def test_a_low_turn_comes_through_autoscript() -> None:
    with emulated(URL) as other:
        start = other.make_safe().stage
        layout = Layout.at(recipe(), None)
        poses = (layout.pose(PoseName.MILL), layout.pose(PoseName.DEPOSIT))
        guarded = Guarded(other, envelope(other.state(), other.describe(), poses, layout.stage))
        drive(guarded, poses, lambda _question: True, stands=layout.stage)
        assert guarded.refusals == 0
        now = other.state().stage
        assert (now.r, now.t) == pytest.approx((start.r, start.t), abs=1e-3)
        assert now.z == pytest.approx(start.z, abs=1e-6)


def test_who_says_no_on_the_way_leaves_the_sample_low(scope: Microscope) -> None:
    start = scope.state().stage
    answers = iter([True, True, False])  # lowered, turned, not raised
    with pytest.raises(Refused, match="not confirmed"):
        drive(scope, poses_of(Layout.at(recipe(), None)), lambda _question: next(answers))
    stands = scope.state().stage
    assert stands.z is not None
    assert stands.z < start.z - 4.8e-3
    assert move_low(scope, start, "back?", lambda _question: True) is not None


def test_z_is_lowered_no_farther_than_it_goes(scope: Microscope) -> None:
    start, asked = scope.state().stage, list[str]()
    scope.move_stage(StagePosition(z=-4.5e-3))
    assert move_low(scope, StagePosition(t=radians(20)), "tilt?", lambda question: asked.append(question) or True)
    assert asked == ["lower Z by 0.50 mm first?", "tilt?", "raise Z by 0.50 mm again?"]
    asked.clear()
    scope.move_stage(StagePosition(z=scope.describe().stage.z[0]))
    assert move_low(scope, StagePosition(t=radians(10)), "tilt?", lambda question: asked.append(question) or True)
    assert asked == ["tilt?"]  # it stands as low as it can
    assert move_low(scope, start, "back?", lambda _question: True)


def test_a_sign_says_what_was_seen() -> None:
    wrong = Sign(name="stage X", expected_px=(40.0, 0.0), seen_px=(-39.0, 1.0))
    assert not wrong.right
    assert "NOT AS IT SHOULD" in wrong.sentence()
    assert Sign(name="stage X", expected_px=(40.0, 0.0), seen_px=(36.0, 5.0)).right


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workflows.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.slow
def test_the_commands_say_what_there_is() -> None:
    told = run("doctor", URL, "--recipe", RECIPE, "--json")
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert found["instrument"]["virtual"]
    assert found["packages"]["numpy"]
    assert found["problems"] == []
    assert run("doctor", "--recipe", RECIPE).returncode == 2
    lost = run("doctor", "autoscript://localhost")
    assert lost.returncode == 2
    assert "can't be imported" in lost.stderr
    assert run("autoscript", "--path").stdout.strip().endswith("site")


@pytest.mark.parametrize(
    "command",
    [
        ["doctor", "autoscript://127.0.0.1:7520"],
        ["rehearse", str(RECIPE), "--instrument", "autoscript://127.0.0.1"],
        ["site", "edge-A", "--recipe", str(RECIPE), "--instrument", "autoscript://[::1]"],
    ],
)
def test_nothing_is_asked_of_a_microscope_that_is_in_use(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def opened(url: str, *_: object) -> Microscope:
        pytest.fail(f"a second controller of {url}")

    monkeypatch.setattr("instrument.connect", opened)
    monkeypatch.setattr("instrument.autoscript.opening.examine", opened)
    with held("autoscript://localhost", "an instrument server"):
        assert run_command(command) == 4
    assert "in use by an instrument server (pid" in capsys.readouterr().err
