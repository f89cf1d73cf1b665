"""The emulated X-ray program: our backend drives it through the vendor's Laser.PythonControl, and scripts do."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from math import radians
from pathlib import Path
from types import ModuleType
from urllib.parse import quote

import numpy as np
import pytest
import tifffile
from pytest_mock import MockerFixture

import simulator
from instrument.autoscript import opening
from instrument.errors import BadData, DeviceFault
from instrument.settings import Device, EdsScan, StagePosition
from simulator.autoscript import console
from simulator.autoscript.profiles import profile
from simulator.autoscript.tree import ApplicationServerException
from simulator.autoscript.xray import control
from tests.contract.emulation import vendor_named

URL = "simulator:3?width=6um&height=5um&depth=1um&coating=4um&above=1um&voxel=100nm&layer=100nm&drift=0&steady=yes"
SCAN = EdsScan(elements=("C", "Ni"), width_px=96, height_px=64, pixel_m=100e-9, dwell_s=3e-3, frames=2)
MAP = "{}?elements=C,Ni&size=96x64&dwell=3 ms&frames=2"
PORT, ENDS_WITHIN_S = 7595, 60.0


@pytest.fixture
def place() -> Iterator[console.Console]:
    vendor_named()
    made = console.Console(simulator.open(URL), profile("hydra"))
    made.scope.move_stage(StagePosition(t=radians(7)))  # a detector comes in where it touches nothing
    console.put("localhost", PORT, made)
    yield made
    console.forget("localhost", PORT)


@pytest.fixture
def program(place: console.Console) -> ModuleType:
    del place
    return importlib.import_module("Laser.PythonControl")


def status_at_last(program: ModuleType) -> str:
    deadline = time.monotonic() + ENDS_WITHIN_S
    while (status := str(program.EDS_MappingStatus())) == "Active":
        assert time.monotonic() < deadline
    return status


def test_our_backend_has_its_maps_taken(
    place: console.Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mocker: MockerFixture
) -> None:
    monkeypatch.setenv("KINTSUGI_AUTOSCRIPT_MAP", MAP.format(tmp_path))
    mocker.patch("instrument.autoscript.elements._STILL_S", 0.2)
    mocker.patch("instrument.autoscript.xray._POLL_S", 0.05)
    url = f"autoscript://localhost:{PORT}?elements={quote(str(tmp_path))}&elements_start=laser-api"
    scope = opening.open_url(url)
    try:
        assert scope.describe().maps_by == "laser-api"
        scope.insert(Device.EDS)
        assert place.scope.state().devices[Device.EDS]
        frame = scope.acquire_eds(SCAN)
        assert place.beam(1).settings.hfw_m == pytest.approx(9.6e-6)
        assert np.array_equal(np.asarray(frame.pixels), np.asarray(place.scope.acquire_eds(SCAN).pixels))
        assert np.asarray(frame.pixels).any()
        monkeypatch.setenv("KINTSUGI_AUTOSCRIPT_MAP", MAP.format(tmp_path).replace("64", "60"))
        with pytest.raises(BadData, match=r"60, 96.* as asked"):
            scope.acquire_eds(SCAN)
        assert sorted(one.name for one in tmp_path.iterdir()) == [
            f"map{number:03d}_{element}.tif" for number in (1, 2) for element in ("C", "Ni")
        ]
        scope.retract(Device.EDS)
        with pytest.raises(DeviceFault, match="reports an error"):
            scope._elements.program.start(SCAN)  # type: ignore[union-attr]
    finally:
        scope.close()


def test_a_script_moves_the_detector_and_has_a_map_taken(
    program: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program.TestConnection()
    assert capsys.readouterr().out == "Connection test successful.\n"
    assert program.EDS_CameraStatus() == "Retracted"
    program.EDS_InsertCamera()
    assert program.EDS_CameraStatus() == "Inserted"
    monkeypatch.setenv("KINTSUGI_AUTOSCRIPT_MAP", MAP.format(tmp_path))
    program.EDS_StartMap()
    assert program.EDS_MappingStatus() == "Active"  # seen once, however short
    assert status_at_last(program) == "Idle"
    assert tifffile.imread(tmp_path / "map001_Ni.tif").shape == (64, 96)
    program.EDS_RetractCamera()
    program.EDS_StartMap()
    assert status_at_last(program) == "Error"
    assert "insert EDS first" in capsys.readouterr().err
    with pytest.raises(AttributeError, match="no laser"):
        program.Laser_FireContinuously_Start()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "can't read KINTSUGI_AUTOSCRIPT_MAP=''"),
        ("{}?elements=C&size=96x64&dwell=3&frames=2", "'3' has no unit"),
        ("{}?elements=C&size=96x0&dwell=3 ms&frames=2", "height_px"),
        ("{}?elements=C&size=0x64&dwell=3 ms&frames=2", "division"),
        ("{}/gone?elements=C&size=96x64&dwell=3 ms&frames=2", "is no folder"),
    ],
)
def test_a_map_that_is_not_set_up_well_is_not_started(
    place: console.Console, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, said: str
) -> None:
    del place
    monkeypatch.setenv("KINTSUGI_AUTOSCRIPT_MAP", text.format(tmp_path))
    with pytest.raises(ApplicationServerException, match=said):
        control.start_map()
