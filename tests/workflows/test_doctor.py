"""What `kintsugi doctor` tells of a microscope: one answer on standard output, and all that it lists with units."""

from __future__ import annotations

import json
from math import radians

import pytest
from pytest_mock import MockerFixture

from instrument.hydra import hydra
from instrument.settings import StageLimits
from tests.contract.emulation import BARE, emulated
from tests.instrument.values import state
from workflows.cli import run_command


def test_its_json_is_json_whatever_the_vendors_client_prints(capsys: pytest.CaptureFixture[str]) -> None:
    with emulated(BARE, place=("doctor", 7520)):
        capsys.readouterr()
        assert run_command(["doctor", "autoscript://doctor", "--json"]) == 0
        told = capsys.readouterr()
    found = json.loads(told.out)
    assert found["instrument"]["virtual"]
    assert "h5py" in found["packages"]
    assert "Client connected to [doctor:7520]" in told.err


def test_columns_limits_and_sources_are_listed_with_units(
    mocker: MockerFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    described = hydra().replace(
        electron_voltages_v=(1e3, 5e3), electron_currents_a=(25e-12, 1.6e-9), ion_voltages_v=(8e3, 30e3),
        ion_currents_a={"Xenon@8000": (1e-9, 13.3e-9)}, sixteen_bit_sizes=((512, 442), (768, 512)),
        stage=StageLimits(x=(-55e-3, 55e-3), y=(-40e-3, 55e-3), z=(0.0, 65e-3), t=(radians(-38), radians(60))),
    )  # fmt: skip
    stands = state()
    stands = stands.replace(electron=stands.electron.replace(source_on=False))
    mocker.patch("instrument.autoscript.opening.examine", return_value=(described, stands, {}))
    assert run_command(["doctor", "autoscript://localhost"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "electron column: 1 kV, 5 kV; 25 pA, 1.6 nA" in lines
    assert "ion column: 8 kV, 30 kV" in lines
    assert "Xenon@8000 V: 1 nA, 13.3 nA" in lines
    assert "limits: electron field 2.3 mm, ion field 900 um, beam shift 15 um" in lines
    assert "stage: x -55 mm to 55 mm, y -40 mm to 55 mm, z 0 um to 65 mm, t -38 deg to 60 deg" in lines
    assert "16-bit frames: 512 x 442, 768 x 512" in lines
    assert lines[-1].endswith("electron source off, ion source on")
