"""Poses and projections against worked-out angles, and what must hold for every stub, angle and place."""

from __future__ import annotations

from math import acos, degrees, pi, radians, sin

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instrument.errors import Refused
from instrument.geometry import (
    COLUMN_ANGLE,
    Pose,
    PoseName,
    Site,
    View,
    block_to_chamber,
    field_axes,
    pose,
    rocking_angle,
    rocking_pose,
    stage_for,
    towards_column,
)
from instrument.settings import Beam, StagePosition

PRETILT = radians(45.0)
FACE_NORMAL = np.array([0.0, 0.0, -1.0])
SURFACE_NORMAL = np.array([0.0, -1.0, 0.0])

pretilts = st.floats(radians(10.0), radians(60.0))
rockings = st.floats(radians(-5.0), radians(5.0))
places = st.floats(-5e-3, 5e-3)
points = st.tuples(*[st.floats(-2e-4, 2e-4)] * 3)
shifts = st.tuples(*[st.floats(-1.5e-5, 1.5e-5)] * 2)
turns = st.floats(-pi, pi)
axes = st.floats(-3e-4, 3e-4)
sites = st.builds(Site, sx=places, sy=places, sz=places, pretilt=pretilts, turned=turns, ax=axes, ay=axes)


def site_of(pretilt: float) -> Site:
    return Site(sx=0.0, sy=0.0, sz=0.0, pretilt=pretilt)


def angle_to(beam: Beam, normal: np.ndarray, at: Pose, pretilt: float = PRETILT) -> float:
    """Degrees between a beam and a normal of the block."""
    turned = block_to_chamber(site_of(pretilt), at) @ normal
    return degrees(acos(max(-1.0, min(1.0, float(towards_column(beam) @ turned)))))


@pytest.mark.parametrize(
    ("name", "tilt", "rotation", "ion", "electron"),
    [
        ("mill", 7.0, 0.0, (0.0, 90.0), (52.0, 38.0)),
        ("face-on", 45.0, 0.0, (38.0, 52.0), (90.0, 0.0)),
        ("deposit", 7.0, 180.0, (90.0, 0.0), (38.0, 52.0)),
    ],
)
def test_the_pose_table_of_a_stub_of_45_deg(name, tilt, rotation, ion, electron):
    at = pose(name, PRETILT)
    assert degrees(at.t) == pytest.approx(tilt, abs=1e-9)
    assert degrees(at.r) == pytest.approx(rotation, abs=1e-9)
    for beam, angles in ((Beam.ION, ion), (Beam.ELECTRON, electron)):
        assert angle_to(beam, SURFACE_NORMAL, at) == pytest.approx(angles[0], abs=1e-5)
        assert angle_to(beam, FACE_NORMAL, at) == pytest.approx(angles[1], abs=1e-5)


@given(pretilts)
def test_every_stub_has_the_three_poses(pretilt):
    assert angle_to(Beam.ION, SURFACE_NORMAL, pose("mill", pretilt), pretilt) == pytest.approx(0, abs=1e-5)
    assert angle_to(Beam.ELECTRON, FACE_NORMAL, pose("face-on", pretilt), pretilt) == pytest.approx(0, abs=1e-5)
    assert angle_to(Beam.ION, FACE_NORMAL, pose("deposit", pretilt), pretilt) == pytest.approx(0, abs=1e-5)
    assert angle_to(Beam.ION, SURFACE_NORMAL, pose("deposit", pretilt), pretilt) == pytest.approx(90, abs=1e-5)


@given(pretilts, rockings)
def test_rocking_leaves_the_ion_beam_in_the_face(pretilt, angle):
    at, site = rocking_pose(pretilt, angle), site_of(pretilt)
    out_of_face = towards_column(Beam.ION) @ block_to_chamber(site, at) @ FACE_NORMAL
    assert abs(float(out_of_face)) < 1e-12
    assert rocking_angle(site, at) == pytest.approx(angle, abs=1e-8)


@given(pretilts, st.floats(radians(0.01), radians(5.0)))
def test_both_sides_share_one_tilt(pretilt, angle):
    plus, minus = pose("rock-plus", pretilt, rocking=angle), pose("rock-minus", pretilt, rocking=angle)
    assert plus.t == minus.t
    assert plus.r == -minus.r
    assert plus.ion_scan_rotation == pytest.approx(-minus.ion_scan_rotation, abs=1e-12)
    assert (plus.name, minus.name) == (PoseName.ROCK_PLUS, PoseName.ROCK_MINUS)


def test_three_degrees_on_a_stub_of_45():
    at = rocking_pose(PRETILT, radians(3.0))
    assert degrees(at.r) == pytest.approx(4.24, abs=0.005)
    assert degrees(at.t) == pytest.approx(6.92, abs=0.005)
    assert abs(degrees(at.ion_scan_rotation)) == pytest.approx(3.0, abs=0.01)
    assert degrees(rocking_pose(PRETILT, radians(-3.0)).r) == pytest.approx(-4.24, abs=0.005)


def test_rotation_alone_would_leave_the_face():
    """0.08 deg, 315 nm at the foot of 230 um: why the tilt follows the rotation (night.md 8)."""
    careless = Pose(name=PoseName.ROCK_PLUS, r=radians(4.24), t=radians(7.0))
    out = 90.0 - angle_to(Beam.ION, FACE_NORMAL, careless)
    assert abs(out) == pytest.approx(0.08, abs=0.005)


@given(pretilts, rockings)
def test_the_turned_field_is_level_with_the_face(pretilt, angle):
    at = rocking_pose(pretilt, angle)
    view = View(site_of(pretilt), Beam.ION, stage_for(site_of(pretilt), at, (0.0, 0.0, 0.0)),
                scan_rotation=at.ion_scan_rotation)  # fmt: skip
    along_x, across = view.field((1e-5, 0.0, 0.0)), view.field((0.0, 0.0, 1e-5))
    assert (view.rotation.T @ view.u)[2] == pytest.approx(0.0, abs=1e-12)
    assert along_x[1] == pytest.approx(0.0, abs=1e-17)
    assert across[0] == pytest.approx(0.0, abs=1e-17)
    assert along_x[0] > 0


@pytest.mark.parametrize("pretilt", [0.0, 5.0, 9.9])
def test_a_flat_stub_refuses_to_rock(pretilt):
    with pytest.raises(Refused) as caught:
        rocking_pose(radians(pretilt), radians(3.0))
    assert caught.value.rule == "rocking-needs-pretilt"
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("beam", "name", "sideways", "deeper"),
    [
        (Beam.ELECTRON, "mill", 0.616, 0.788),
        (Beam.ELECTRON, "face-on", 0.0, 1.0),
        (Beam.ION, "deposit", 0.0, 1.0),
        (Beam.ION, "mill", 1.0, 0.0),
    ],
)
def test_how_a_slice_moves_the_face(beam, name, sideways, deeper):
    site, at = site_of(PRETILT), pose(name, PRETILT)
    (du, dv), distance = View(site, beam, stage_for(site, at, (0.0, 0.0, 0.0))).slice_shift(1e-6)
    assert du == pytest.approx(0.0, abs=1e-15)
    assert abs(dv) * 1e6 == pytest.approx(sideways, abs=5e-4)
    assert distance * 1e6 == pytest.approx(deeper, abs=5e-4)  # a face that recedes lies farther from the column


def test_the_face_goes_down_the_electron_picture_as_in_the_ion_picture_from_above():
    """In the mill pose the ion beam looks down on the block: its front (z = 0) lies lower than what is behind it."""
    site, at = site_of(PRETILT), pose("mill", PRETILT)
    stage = stage_for(site, at, (0.0, 0.0, 0.0))
    assert View(site, Beam.ION, stage).field((0.0, 0.0, 1e-6))[1] < 0
    assert View(site, Beam.ELECTRON, stage).field((0.0, 1e-6, 0.0))[1] > 0


@pytest.mark.parametrize("beam", list(Beam))
@given(turn=turns)
def test_right_down_and_up_are_a_picture_seen_from_the_column(beam, turn):
    u, v = field_axes(beam, turn)
    assert np.cross(u, -v) == pytest.approx(towards_column(beam), abs=1e-12)


@pytest.mark.parametrize("beam", list(Beam))
@given(site=sites, name=st.sampled_from(PoseName), angle=st.floats(0, radians(5)), point=points)
def test_the_stage_brings_a_point_under_both_beams(beam, site, name, angle, point):
    at = pose(name, site.pretilt, rocking=angle)
    assert View(site, beam, stage_for(site, at, point)).field(point) == pytest.approx((0, 0), abs=1e-15)


@given(site=sites, ax=axes, ay=axes, point=points, tilt=st.floats(radians(-38), radians(60)))
def test_about_another_axis_a_site_is_where_it_was_taught_and_elsewhere_after_half_a_turn(site, ax, ay, point, tilt):
    other = site.about(ax, ay)
    taught = Pose(name=PoseName.MILL, r=site.turned, t=tilt)
    there = [stage_for(one, taught, point) for one in (site, other)]
    assert [there[1].x, there[1].y, there[1].z] == pytest.approx([there[0].x, there[0].y, there[0].z], abs=1e-15)
    back = taught.replace(r=site.turned + pi)
    one, two = (stage_for(site_, back, point) for site_ in (site, other))
    assert (one.x - two.x, one.y - two.y) == pytest.approx((2 * (ax - site.ax), 2 * (ay - site.ay)), abs=1e-14)


def test_a_site_that_was_kept_before_axes_were_told_is_read():
    kept = {"sx": 1e-3, "sy": 2e-3, "sz": 3e-6, "pretilt": PRETILT, "turned": 0.02, "column": COLUMN_ANGLE}
    site = Site.model_validate(kept)
    assert (site.ax, site.ay) == (0.0, 0.0)
    assert Site.model_validate_json(site.about(1e-4, -2e-4).model_dump_json()) == site.about(1e-4, -2e-4)


stages = st.builds(
    StagePosition, x=places, y=places, z=places, r=st.floats(-pi, pi), t=st.floats(radians(-38), radians(60))
)


@pytest.mark.parametrize("beam", list(Beam))
@given(site=sites, stage=stages, turn=turns, shift=shifts, point=points)
def test_what_is_seen_somewhere_is_hit_there(beam, site, stage, turn, shift, point):
    view = View(site, beam, stage, scan_rotation=turn, shift=shift)
    seen = view.field(point)
    start, along = view.ray(seen)
    assert float(np.linalg.norm(along)) == pytest.approx(1.0, abs=1e-12)
    off = np.array(point) - start
    assert float(np.linalg.norm(off - along * (off @ along))) < 1e-15
    if abs(along[2]) > 0.01:
        assert view.on_plane_z(seen, point[2]) == pytest.approx(point[:2], abs=1e-13)


@given(site=sites, stage=stages, shift=shifts, point=points)
def test_a_shift_moves_the_picture_and_nothing_else(site, stage, shift, point):
    plain, moved = View(site, Beam.ION, stage), View(site, Beam.ION, stage, shift=shift)
    seen, then = plain.field(point), moved.field(point)
    assert (seen[0] - then[0], seen[1] - then[1]) == pytest.approx(shift, abs=1e-15)


def test_a_beam_along_the_face_meets_no_point_of_it():
    site, at = site_of(PRETILT), pose("mill", PRETILT)
    with pytest.raises(Refused) as caught:
        View(site, Beam.ION, stage_for(site, at, (0.0, 0.0, 0.0))).on_plane_z((0.0, 0.0), 0.0)
    assert caught.value.rule == "beam-along-face"


def test_the_columns_are_52_deg_apart():
    assert float(towards_column(Beam.ION) @ towards_column(Beam.ELECTRON)) == pytest.approx(np.cos(COLUMN_ANGLE))


@given(pretilt=st.floats(radians(15), radians(60)), angle=st.floats(0, radians(5)), over=st.floats(0, radians(3)))
def test_over_tilt_drives_the_beam_into_the_foot_in_every_pose_that_cuts(
    pretilt: float, angle: float, over: float
) -> None:
    site = Site(sx=0.0, sy=0.0, sz=0.0, pretilt=pretilt)
    for name in (PoseName.CUT, PoseName.ROCK_PLUS, PoseName.ROCK_MINUS):
        at = pose(name, pretilt, rocking=angle, over_tilt=over)
        view = View(site, Beam.ION, stage_for(site, at, (0.0, 0.0, 0.0)), scan_rotation=at.ion_scan_rotation)
        flight = view.ray((0.0, 0.0))[1]
        assert flight[2] == pytest.approx(sin(over), abs=1e-9)
        across = view.rotation.T @ view.u
        assert across[2] == pytest.approx(0.0, abs=1e-9)
