"""What the emulated client reports as possible is possible: every limit can be set or moved to, and reads back."""

from __future__ import annotations

from collections.abc import Iterator
from math import pi, radians
from typing import Any

import pytest

from simulator.autoscript.structures import Limits, Point, StagePosition
from simulator.autoscript.tree import ApplicationServerException, Node, Setting
from tests.contract.emulation import client

#: The stage stands where it was sent but for this, m and rad.
OFF_M, OFF_RAD = 2e-6, radians(0.05)
#: What other profiles than `offline` set to the nearest calibrated value, without a word.
CALIBRATED = ("high_voltage", "beam_current")


def with_limits(node: Node) -> Iterator[Setting]:
    """All settings below a node that have limits and can be set."""
    for member in vars(node).values():
        if isinstance(member, Setting) and member._set is not None and member._limits is not None:
            yield member
        elif isinstance(member, Node):
            yield from with_limits(member)


def ends_of(limits: Any) -> tuple[Any, Any]:
    if isinstance(limits, Limits):
        return limits.min, limits.max
    x, y = limits.limits_x, limits.limits_y
    return Point(x.min, y.min), Point(x.max, y.max)


@pytest.mark.parametrize("kind", ["hydra", "offline"])
def test_every_limit_can_be_set_and_reads_back(kind: str) -> None:
    with client(kind) as scope:
        found = [one for branch in ("beams", "imaging", "detector") for one in with_limits(getattr(scope, branch))]
        assert len(found) > 20
        for setting in found:
            if kind != "offline" and setting._path.endswith(CALIBRATED):
                continue
            before = setting.value
            for end in ends_of(setting.limits):
                setting.value = end
                assert setting.value == end, setting._path
            setting.value = before


@pytest.mark.parametrize("kind", ["hydra", "offline"])
@pytest.mark.parametrize("axis", ["x", "y", "z", "r", "t"])
def test_the_stage_goes_to_the_ends_of_its_travel(kind: str, axis: str) -> None:
    with client(kind) as scope:
        stage = scope.specimen.stage
        stage.set_default_coordinate_system("Raw")
        limits, off = stage.get_axis_limits(axis), OFF_RAD if axis in "rt" else OFF_M
        for end in (limits.min, limits.max):
            stage.absolute_move(StagePosition(**{axis: end}))
            away = getattr(stage.current_position, axis) - end
            assert abs((away + pi) % (2 * pi) - pi if axis == "r" else away) <= off
        if axis != "r":
            with pytest.raises(ApplicationServerException, match=f"stage {axis} .* out of range"):
                stage.absolute_move(StagePosition(**{axis: limits.max + 0.1}))
        stage.home()
        assert getattr(stage.current_position, axis) == pytest.approx(0.0, abs=off)


def test_an_office_installation_reads_what_was_asked_for_and_moves_on_from_there() -> None:
    with client("offline") as scope:
        stage, ion = scope.specimen.stage, scope.beams.ion_beam
        stage.set_default_coordinate_system("Raw")
        stage.absolute_move(StagePosition(z=0.01, t=radians(70)))
        stage.relative_move(StagePosition(z=-0.002, t=radians(20)))
        assert (stage.current_position.z, stage.current_position.t) == pytest.approx((0.008, radians(90)))
        with pytest.raises(ApplicationServerException, match="out of range"):
            stage.relative_move(StagePosition(z=-0.01))
        assert stage.current_position.z == pytest.approx(0.008)
        for current in (15e-9, 6.4e-9, 5e-9):
            ion.beam_current.value = current
            assert ion.beam_current.value == current
