"""The instrument's geometry and the simulator's own beams agree in every pose: a sign error can't cancel."""

from __future__ import annotations

from math import pi, radians

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instrument.geometry import PoseName, Site, View, pose, stage_for
from instrument.settings import Beam, StagePosition
from simulator.beams import Sight, Standing

lengths = st.floats(-5e-3, 5e-3)
turns = st.floats(-pi, pi)
points = st.tuples(*[st.floats(-2e-4, 2e-4)] * 3)
shifts = st.tuples(*[st.floats(-1.5e-5, 1.5e-5)] * 2)
pretilts = st.floats(radians(10), radians(60))
holders = st.tuples(lengths, lengths, lengths)
axes = st.tuples(*[st.floats(-5e-4, 5e-4)] * 2)
#: Doubles of some millimetres carry 1e-18 m; what is left after a few products stays below this.
EXACT_M = 1e-15


def both(
    beam: Beam, stage: StagePosition, holder: tuple[float, float, float], pretilt: float,
    turn: float, shift: tuple[float, float], axis: tuple[float, float],
) -> tuple[View, Sight]:  # fmt: skip
    """The same beam on the same block, by each side's own matrices."""
    site = Site(sx=holder[0], sy=holder[1], sz=holder[2], pretilt=pretilt, ax=axis[0], ay=axis[1])
    view = View(site, beam, stage, scan_rotation=turn, shift=shift)
    at = [value or 0.0 for value in (stage.x, stage.y, stage.z, stage.r, stage.t)]
    standing = Standing(*at, pretilt=pretilt, holder=holder, axis=axis)
    sight = Sight(beam, standing, scan_rotation=turn, shift=shift)
    return view, sight


def agree(view: View, sight: Sight, point: tuple[float, float, float]) -> None:
    seen = view.field(point)
    assert sight.field(point) == pytest.approx(seen, abs=EXACT_M)
    start, along = view.ray(seen)
    place, flight = sight.path(seen)
    assert flight == pytest.approx(along, abs=1e-12)
    assert np.cross(place - start, along) == pytest.approx([0, 0, 0], abs=EXACT_M)
    if abs(along[2]) > 0.05:
        x, y = view.on_plane_z(seen, point[2])
        assert sight.on_plane(2, point[2])(*seen) == pytest.approx((x, y), abs=2e-14)
    (du, dv), deeper = view.slice_shift(1e-6)
    behind = (point[0], point[1], point[2] + 1e-6)
    moved = sight.field(behind)
    assert (moved[0] - seen[0], moved[1] - seen[1]) == pytest.approx((du, dv), abs=EXACT_M)
    assert sight.working_distance(behind) - sight.working_distance(point) == pytest.approx(deeper, abs=EXACT_M)


@pytest.mark.parametrize("beam", list(Beam))
@pytest.mark.parametrize("name", list(PoseName))
@given(pretilt=pretilts, holder=holders, angle=st.floats(0, radians(5)), point=points, shift=shifts, axis=axes)
def test_in_every_pose(
    name: PoseName, beam: Beam, pretilt: float, holder: tuple[float, float, float], angle: float,
    point: tuple[float, float, float], shift: tuple[float, float], axis: tuple[float, float],
) -> None:  # fmt: skip
    at = pose(name, pretilt, rocking=angle)
    site = Site(sx=holder[0], sy=holder[1], sz=holder[2], pretilt=pretilt, ax=axis[0], ay=axis[1])
    stage = stage_for(site, at, (0.0, 0.0, 0.0))
    turn = at.ion_scan_rotation if beam is Beam.ION else at.electron_scan_rotation
    view, sight = both(beam, stage, holder, pretilt, turn, shift, axis)
    assert sight.field((0.0, 0.0, 0.0)) == pytest.approx((-shift[0], -shift[1]), abs=EXACT_M)
    agree(view, sight, point)


@pytest.mark.parametrize("beam", list(Beam))
@given(
    stage=st.builds(StagePosition, x=lengths, y=lengths, z=lengths, r=turns, t=st.floats(radians(-38), radians(60))),
    holder=holders, pretilt=st.floats(0, radians(70)), turn=turns, shift=shifts, point=points, axis=axes,
)  # fmt: skip
def test_wherever_the_stage_stands(
    beam: Beam, stage: StagePosition, holder: tuple[float, float, float], pretilt: float, turn: float,
    shift: tuple[float, float], point: tuple[float, float, float], axis: tuple[float, float],
) -> None:  # fmt: skip
    agree(*both(beam, stage, holder, pretilt, turn, shift, axis), point)


def test_a_turned_matrix_would_be_seen() -> None:
    """What is compared depends on every angle: with any of them the other way round, the two part."""
    stage = StagePosition(x=1e-4, y=2e-4, z=-1e-4, r=radians(20), t=radians(10))
    for beam in Beam:
        view, _ = both(beam, stage, (1e-4, -2e-4, 3e-4), radians(45), radians(15), (1e-6, 2e-6), (1e-4, -5e-5))
        for wrong in (stage.replace(r=-(stage.r or 0)), stage.replace(t=-(stage.t or 0))):
            _, sight = both(beam, wrong, (1e-4, -2e-4, 3e-4), radians(45), radians(15), (1e-6, 2e-6), (1e-4, -5e-5))
            with pytest.raises(AssertionError):
                agree(view, sight, (1e-5, 2e-5, 3e-5))
        for pretilt, turn in ((radians(-45), radians(15)), (radians(45), radians(-15))):
            _, sight = both(beam, stage, (1e-4, -2e-4, 3e-4), pretilt, turn, (1e-6, 2e-6), (1e-4, -5e-5))
            with pytest.raises(AssertionError):
                agree(view, sight, (1e-5, 2e-5, 3e-5))
        _, sight = both(beam, stage, (1e-4, -2e-4, 3e-4), radians(45), radians(15), (1e-6, 2e-6), (1e-4, 5e-5))
        with pytest.raises(AssertionError):
            agree(view, sight, (1e-5, 2e-5, 3e-5))
