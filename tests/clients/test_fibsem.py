"""fibsem's ThermoMicroscope, unmodified, on the emulated client. Runs where the extra `clients` is installed."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fibsem", reason="fibsem is not installed: pip install -e '.[clients]'")

import simulator
from simulator.autoscript import client_path, console
from simulator.autoscript.profiles import profile
from workflows.tracking import moved

#: A block with much to see from both sides, its time running fast: fibsem sleeps on the wall's.
URL = "simulator:3?width=30um&height=22um&depth=4um&coating=18um&above=3um&voxel=100nm&layer=100nm&pace=100"
PORT = 7590
WITHIN_S = 120.0


@pytest.fixture(scope="session")
def scope() -> Iterator[Any]:
    sys.path.insert(0, str(client_path()))
    console.put("localhost", PORT, console.Console(simulator.open(URL), profile("hydra")))
    from fibsem import microscope, utils

    logging.getLogger().setLevel(logging.ERROR)
    settings = utils.load_microscope_configuration()
    settings.system.ion.plasma = True
    made = microscope.ThermoMicroscope(settings.system)
    made.connect_to_microscope("localhost", PORT)
    yield made
    made.disconnect()


@pytest.fixture(scope="session")
def settings(scope: Any) -> Any:
    from fibsem.structures import ImageSettings

    del scope
    return lambda beam, hfw=60e-6: ImageSettings(
        resolution=(768, 512), dwell_time=300e-9, hfw=hfw, beam_type=beam, autocontrast=False, save=False
    )


def electron() -> Any:
    from fibsem.structures import BeamType

    return BeamType.ELECTRON


def ion() -> Any:
    from fibsem.structures import BeamType

    return BeamType.ION


def detail(image: Any) -> float:
    return float(np.abs(np.diff(image.filtered_data.astype(float), axis=1)).mean())


def test_it_connects_and_reads_its_state(scope: Any) -> None:
    state = scope.get_microscope_state()
    assert state.electron_beam.voltage == 5000
    assert state.stage_position.coordinate_system == "RAW"
    assert scope.system.info.software_version == "4.13.1"
    assert 1e-9 in scope.get_available_values("current", ion())
    assert len(scope.get_available_values("current", electron())) > 5
    assert "Xenon" in scope.get_available_values("plasma_gas", ion())


def test_a_picture_is_taken_saved_and_loaded(scope: Any, settings: Any, tmp_path: Path) -> None:
    from fibsem.structures import FibsemImage

    for beam in (electron(), ion()):
        image = scope.acquire_image(settings(beam))
        assert image.data.shape == (512, 768)
        assert image.metadata.pixel_size.x == pytest.approx(60e-6 / 768)
        image.save(tmp_path / f"{beam.name}.tif")
        assert np.array_equal(FibsemImage.load(tmp_path / f"{beam.name}.tif").data, image.data)
    assert scope.last_image(electron()).data.shape == (512, 768)


def test_the_stage_moves_what_was_clicked_into_the_middle(scope: Any, settings: Any) -> None:
    from fibsem.structures import Point

    before = scope.acquire_image(settings(electron()))
    scope.stable_move(dx=4e-6, dy=0.0, beam_type=electron())
    after = scope.acquire_image(settings(electron()))
    _, right = moved(before.data, after.data)
    assert right * before.metadata.pixel_size.x == pytest.approx(-4e-6, abs=1e-6)
    scope.stable_move(dx=-4e-6, dy=0.0, beam_type=electron())
    assert isinstance(scope.get_beam_shift(electron()), Point)


def test_its_alignment_closes_the_loop(scope: Any, settings: Any) -> None:
    """A shift is put on; fibsem's own alignment finds it and takes it away."""
    from fibsem import alignment

    for beam in (electron(), ion()):
        reference = scope.acquire_image(settings(beam))
        scope.beam_shift(2.0e-6, -1.5e-6, beam)
        alignment.beam_shift_alignment_v2(scope, reference)
        left = scope.get_beam_shift(beam)
        assert np.hypot(left.x, left.y) < 0.5e-6, beam
        scope.reset_beam_shifts()


def test_defocus_blurs_and_autofocus_sharpens(scope: Any, settings: Any) -> None:
    scope.set_working_distance(4e-3, electron())
    scope.auto_focus(electron())
    sharp = detail(scope.acquire_image(settings(electron(), 20e-6)))
    scope.set_working_distance(scope.get_working_distance(electron()) + 60e-6, electron())
    blurred = detail(scope.acquire_image(settings(electron(), 20e-6)))
    assert blurred < 0.8 * sharp
    scope.set_working_distance(4e-3, electron())
    scope.autocontrast(electron())


def test_milling_leaves_a_hole(scope: Any, settings: Any) -> None:
    from fibsem.structures import FibsemMillingSettings, FibsemRectangleSettings, FibsemStagePosition

    scope.move_stage_absolute(FibsemStagePosition(x=0, y=0, z=0, r=0, t=np.radians(7), coordinate_system="RAW"))
    before = scope.acquire_image(settings(ion(), 40e-6)).data.astype(float)
    milling = FibsemMillingSettings(
        milling_current=15e-9, milling_voltage=30e3, hfw=40e-6, application_file="Si", patterning_mode="Serial"
    )
    scope.setup_milling(milling)
    pattern = FibsemRectangleSettings(width=8e-6, height=4e-6, depth=1e-6, centre_x=0, centre_y=8e-6, time=60.0)
    scope.draw_rectangle(pattern)
    assert scope.estimate_milling_time() == pytest.approx(60.0, rel=0.05)
    began = time.monotonic()
    scope.run_milling(15e-9, 30e3)
    assert time.monotonic() - began < WITHIN_S
    scope.finish_milling(1e-9, 30e3)
    changed = np.abs(scope.acquire_image(settings(ion(), 40e-6)).data.astype(float) - before)
    pixel, rows, columns = 40e-6 / 768, *before.shape
    middle = rows // 2 - round(8e-6 / pixel)
    high, wide = round(1e-6 / pixel), round(3e-6 / pixel)
    hole = changed[middle - high : middle + high, columns // 2 - wide : columns // 2 + wide].mean()
    mirrored = changed[rows - middle - high : rows - middle + high, columns // 2 - wide : columns // 2 + wide].mean()
    assert hole > 1.5 * mirrored


def test_every_kind_of_pattern_is_drawn(scope: Any) -> None:
    from fibsem.structures import (
        CrossSectionPattern,
        FibsemCircleSettings,
        FibsemLineSettings,
        FibsemRectangleSettings,
    )

    scope.clear_patterns()
    for kind in CrossSectionPattern:
        box = FibsemRectangleSettings(
            width=2e-6, height=1e-6, depth=1e-7, centre_x=0, centre_y=0, cross_section=kind, passes=2
        )
        scope.draw_rectangle(box)
    scope.draw_line(FibsemLineSettings(start_x=0, end_x=1e-6, start_y=0, end_y=1e-6, depth=1e-7))
    scope.draw_circle(FibsemCircleSettings(centre_x=0, centre_y=0, radius=1e-6, depth=1e-7))
    assert scope.estimate_milling_time() > 0
    scope.clear_patterns()


@pytest.mark.parametrize(("kind", "port", "gas"), [("hydra", None, "Pt"), ("hydra-gis", "Pt dep", None)])
def test_a_gas_is_warm_within_its_patience(scope: Any, kind: str, port: str | None, gas: str | None) -> None:
    """Its wait for the heater goes by the wall's time, and so does this microscope."""
    from fibsem import microscope, utils

    del scope  # which has put the emulation on the path
    place = PORT + 1
    slow = simulator.open("simulator:3?width=6um&height=5um&pace=1")
    console.put("localhost", place, console.Console(slow, profile(kind)))
    settings = utils.load_microscope_configuration()
    settings.system.gis.multichem = kind == "hydra"
    made = microscope.ThermoMicroscope(settings.system)
    made.connect_to_microscope("localhost", place)
    try:
        made.get_gis(port)
        made.gis_turn_heater_on(gas)
        assert made.gis.get_temperature(*([gas] if gas else [])) >= 300.0
    finally:
        made.disconnect()
        console.forget("localhost", place)


def test_the_plasma_gas_is_changed(scope: Any) -> None:
    scope.set("plasma_gas", "Argon", ion())
    assert scope.get("plasma_gas", ion()) == "Argon"
    scope.set("plasma_gas", "Xenon", ion())
