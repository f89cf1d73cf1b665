"""The stage's rotation axis: measured from turned pictures, refused where they don't agree."""

from __future__ import annotations

from collections.abc import Iterator
from math import pi, radians

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import simulator
from instrument.errors import NotReached, Refused
from instrument.geometry import PoseName, Site, View, pose, rot_z, stage_for
from instrument.guard import Guarded
from instrument.microscope import Microscope
from instrument.settings import Beam, BeamSettings, StagePosition
from simulator.chamber import holder_point as true_place
from simulator.options import Options, parse
from tests.contract.emulation import emulated
from workflows import axis

URL = (
    "simulator:3?width=40um&height=20um&depth=4um&coating=16um&above=3um&voxel=100nm&layer=100nm&site=10um"
    "&axis=150um x -80um"
)
PRETILT, PLACE = radians(45), (0.0, 0.0, 0.0)


@pytest.fixture(scope="module")
def scope() -> Iterator[Microscope]:
    opened = simulator.open(URL)
    yield opened
    opened.close()


def taught(options: Options) -> Site:
    """What teaching finds: the block's true place, the axis not known."""
    sx, sy, sz = true_place(options)
    ax, ay = options.axis
    true = Site(sx=sx, sy=sy, sz=sz, pretilt=PRETILT, turned=-options.turned, ax=ax, ay=ay)
    if options.turned:  # its holder coordinates are those before it is turned on the holder
        origin = np.array([ax, ay, 0.0])
        sx, sy, sz = map(float, origin + rot_z(options.turned) @ (np.array([sx, sy, sz]) - origin))
        true = true.replace(sx=sx, sy=sy, sz=sz)
    return true.about(0.0, 0.0)


def yes(_question: str) -> bool:
    return True


def guarded(microscope: Microscope, site: Site) -> Guarded:
    microscope.make_safe()
    return Guarded(microscope, axis.envelope(microscope.state(), microscope.describe(), site, PLACE))


def off_m(found: Site, options: Options) -> float:
    return abs(complex(found.ax, found.ay) - complex(*options.axis))


def test_the_axis_is_found_and_the_block_is_under_the_beam_after_half_a_turn(scope: Microscope) -> None:
    options, told = parse(URL), list[str]()
    site, before = taught(options), scope.state()
    beam = before.electron.settings.replace(scan_rotation_rad=0.3, shift_x_m=2e-6, shift_y_m=-1e-6)
    scope.set_beam(Beam.ELECTRON, BeamSettings(scan_rotation_rad=0.3, shift_x_m=2e-6, shift_y_m=-1e-6))
    found, left = axis.measure(guarded(scope, site), site, PLACE, yes, told.append)
    assert scope.state().electron.settings == beam
    scope.set_beam(Beam.ELECTRON, before.electron.settings)
    assert off_m(found, options) < 5e-6
    assert left < axis.LEFT_M
    assert len(told) == len(axis.TURNS_RAD) + 1
    now, start = scope.state().stage, before.stage
    assert (now.r, now.t) == pytest.approx((start.r, start.t), abs=1e-3)
    assert (now.x, now.y, now.z) == pytest.approx((start.x, start.y, start.z), abs=1e-6)
    # where it is taught the place is as it was; turned by half a turn the untold axis would leave it 340 um off
    true = site.about(*options.axis)
    for name, was_off in ((PoseName.MILL, 0.0), (PoseName.DEPOSIT, 340e-6)):
        at = pose(name, PRETILT)
        seen = [View(true, Beam.ION, stage_for(one, at, PLACE)).field(PLACE) for one in (site, found)]
        assert np.hypot(*seen[0]) == pytest.approx(was_off, rel=0.1, abs=1e-9)
        assert np.hypot(*seen[1]) < 10e-6


def test_an_axis_is_found_on_a_sample_that_is_mounted_askew_and_through_autoscript() -> None:
    url = f"{URL}&turned=5deg"
    options = parse(url)
    site = taught(options)
    with emulated(url) as other:
        found, _ = axis.measure(guarded(other, site), site, PLACE, yes, lambda _: None)
    assert off_m(found, options) < 5e-6
    assert found.turned == site.turned


def test_a_known_axis_is_checked_and_another_one_refused(scope: Microscope) -> None:
    options, told = parse(URL), list[str]()
    site = taught(options)
    right = site.about(*options.axis)
    found, left = axis.measure(guarded(scope, right), right, PLACE, yes, told.append, known=True)
    assert found == right
    assert left < axis.LEFT_M
    assert len(told) == 1
    wrong = site.about(options.axis[0] + 20e-6, options.axis[1])
    with pytest.raises(NotReached, match=r"um from where.*5 um are allowed: teach the site again") as caught:
        axis.measure(guarded(scope, wrong), wrong, PLACE, yes, told.append, known=True)
    assert caught.value.evidence["left_m"] == pytest.approx(2**0.5 * 20e-6, abs=5e-6)


def test_what_shows_no_place_tells_no_axis_and_nothing_turns_without_a_yes(scope: Microscope) -> None:
    site = taught(parse(URL))
    far = site.replace(sx=site.sx + 3e-3, sy=site.sy - 3e-3)  # there is nothing to be seen
    with pytest.raises(NotReached, match=r"doesn't show the same place.*focus the electron beam"):
        axis.measure(guarded(scope, far), far, PLACE, yes, lambda _: None)
    scope.make_safe()
    stands = scope.state().stage
    with pytest.raises(Refused, match="not confirmed"):
        axis.measure(guarded(scope, site), site, PLACE, lambda _question: False, lambda _: None)
    assert scope.state().stage == stands


def test_an_axis_that_is_too_far_off_is_refused(scope: Microscope, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(axis, "MOST_M", 100e-6)
    site = taught(parse(URL))
    with pytest.raises(NotReached, match="100 um are allowed"):
        axis.measure(guarded(scope, site), site, PLACE, yes, lambda _: None)


def test_the_sample_is_turned_low_and_never_higher_than_it_is_taught(scope: Microscope) -> None:
    site = taught(parse(URL))
    allowed = guarded(scope, site)
    z = max(scope.state().stage.z or 0.0, stage_for(site, pose(PoseName.MILL, PRETILT), PLACE).z or 0.0)
    with pytest.raises(Refused, match="envelope"):
        allowed.move_stage(StagePosition(z=z + 0.5e-3))
    with pytest.raises(Refused, match="no pose"):
        allowed.move_stage(StagePosition(r=radians(60), t=0.0))


@given(turn=st.floats(0.05, 2 * pi - 0.05), x=st.floats(-3e-4, 3e-4), y=st.floats(-3e-4, 3e-4))
def test_what_a_turn_shifts_tells_the_axis(turn: float, x: float, y: float) -> None:
    """A point that is turned about another point and back about the middle is off by (R(-turn) - 1) of that."""
    about = np.array([x, y, 0.0])
    shifted = rot_z(-turn) @ (about - rot_z(turn) @ about)
    found = axis._axis_off(complex(shifted[0], shifted[1]), turn)
    assert found == pytest.approx((x, y), abs=1e-12)
