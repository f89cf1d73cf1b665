"""FIBSEM_Maestro, its control layer unmodified, on the emulated client.

It is on no registry: FIBSEM_MAESTRO names the folder of a checkout that holds `fibsem_maestro`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import simulator
from simulator.autoscript import client_path, console
from simulator.autoscript.profiles import profile

pytestmark = pytest.mark.skipif("FIBSEM_MAESTRO" not in os.environ, reason="FIBSEM_MAESTRO names no checkout of it")

URL = "simulator:3?width=12um&height=10um&depth=4um&coating=8um&above=3um&voxel=80nm&layer=100nm&pace=100"
PORT = 7591


@pytest.fixture(scope="session")
def scope() -> Iterator[Any]:
    sys.path[:0] = [str(client_path()), os.environ["FIBSEM_MAESTRO"]]
    console.put("localhost", PORT, console.Console(simulator.open(URL), profile("hydra")))
    from fibsem_maestro.microscope_control import autoscript_control

    assert not autoscript_control.virtual_mode
    yield autoscript_control.AutoscriptMicroscopeControl(f"localhost:{PORT}")
    console.forget("localhost", PORT)


def test_the_stage_goes_where_it_is_sent(scope: Any) -> None:
    from fibsem_maestro.microscope_control.abstract_control import StagePosition

    start = scope.position
    scope.relative_position = StagePosition(x=5e-6, y=-3e-6)
    now = scope.position
    assert now.x - start.x == pytest.approx(5e-6, abs=0.5e-6)
    assert now.y - start.y == pytest.approx(-3e-6, abs=0.5e-6)
    scope.position = start
    assert scope.position.x == pytest.approx(start.x, abs=0.5e-6)


@pytest.mark.parametrize("name", ["electron_beam", "ion_beam"])
def test_what_is_set_of_a_beam_is_read_back(scope: Any, name: str) -> None:
    from fibsem_maestro.tools.support import Point

    beam = getattr(scope, name)
    for setting, value in (("dwell_time", 3e-7), ("horizontal_field_width", 5e-5), ("scan_rotation", 0.0)):
        setattr(beam, setting, value)
        assert getattr(beam, setting) == pytest.approx(value)
    beam.beam_shift = Point(1e-6, -2e-6)
    assert (beam.beam_shift.x, beam.beam_shift.y) == pytest.approx((1e-6, -2e-6))
    beam.beam_shift = Point(0, 0)
    wide = beam.working_distance
    beam.working_distance = wide + 1e-6
    assert beam.working_distance == pytest.approx(wide + 1e-6)
    beam.working_distance = wide


def test_pictures_come_as_they_were_asked_for(scope: Any) -> None:
    beam = scope.electron_beam
    beam.resolution = [768, 512]
    beam.dwell_time = 1e-7
    beam.bit_depth = 8
    beam.blank()
    dark = np.asarray(beam.grab_frame().data)
    beam.unblank()
    light = np.asarray(beam.grab_frame().data)
    assert sorted(light.shape) == [512, 768]
    assert light.mean() > 2 * dark.mean()
