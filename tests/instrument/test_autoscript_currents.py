"""Lists of ion currents: a column tells its own only where it stands; the others are assumed until it stood there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pytest_mock import MockerFixture

import simulator
from instrument.autoscript.current_lists import FILE, CurrentLists
from instrument.autoscript.microscope import AutoscriptMicroscope
from instrument.errors import Refused
from instrument.hydra import hydra
from instrument.settings import Beam, BeamSettings
from simulator.autoscript import console
from simulator.autoscript.profiles import profile
from tests.contract.emulation import BARE, vendor_named

#: What this microscope really has at 8 kV; the list that is assumed there has none of the last two.
REAL_8_KV = (1.67e-9, 4e-9, 30e-9)
ASSUMED = hydra().currents(Beam.ION, 8e3)
NAME = "Xenon@8000"


@contextmanager
def opened(state: Path | None = None) -> Iterator[AutoscriptMicroscope]:
    """A microscope with lists of its own."""
    vendor_named()
    real = simulator.open(BARE)
    real.description = real.description.replace(ion_currents_a={**real.description.ion_currents_a, NAME: REAL_8_KV})
    console.put("currents", 7520, console.Console(real, profile("hydra")))
    microscope = AutoscriptMicroscope("currents", 7520, state=state)
    try:
        yield microscope
    finally:
        microscope.close()
        console.forget("currents", 7520)


def at_8_kv(current: float) -> BeamSettings:
    return BeamSettings(voltage_v=8e3, current_a=current)


def test_lists_are_assumed_but_for_where_the_column_stands() -> None:
    with opened() as scope:
        described = scope.describe()
    assert described.currents(Beam.ION, 8e3) == ASSUMED
    assert NAME in described.assumed_currents
    assert "Xenon@30000" not in described.assumed_currents


def test_a_current_that_only_the_real_list_has_is_set_and_the_list_is_known_from_then_on() -> None:
    assert not any(abs(30e-9 - one) <= 0.05 * one for one in ASSUMED)
    with opened() as scope:
        assert scope.set_beam(Beam.ION, at_8_kv(30e-9)).current_a == 30e-9
        described = scope.describe()
    assert described.currents(Beam.ION, 8e3) == REAL_8_KV
    assert NAME not in described.assumed_currents


def test_a_current_that_only_the_assumed_list_has_is_refused_with_what_to_write() -> None:
    with opened() as scope:
        with pytest.raises(Refused, match=r"13\.333.*1\.67, 4, 30 nA at 8 kV") as caught:
            scope.set_beam(Beam.ION, at_8_kv(ASSUMED[3]))
        assert caught.value.remedy == "write `current: 4 nA` in the recipe"
        scope.set_beam(Beam.ION, BeamSettings(voltage_v=30e3, current_a=1e-9))
        with pytest.raises(Refused, match="8 kV"):  # before anything is changed
            scope.set_beam(Beam.ION, at_8_kv(ASSUMED[3]))
        assert scope.state().ion.settings.voltage_v == 30e3


def test_a_current_beyond_an_assumed_list_is_refused_before_anything_is_changed() -> None:
    with opened() as scope:
        with pytest.raises(Refused, match="500 nA"):
            scope.set_beam(Beam.ION, at_8_kv(500e-9))
        assert scope.state().ion.settings.voltage_v == 30e3


def test_lists_outlive_a_process_for_the_same_microscope(tmp_path: Path) -> None:
    with opened(tmp_path) as scope:
        scope.set_beam(Beam.ION, at_8_kv(4e-9))
        scope.set_beam(Beam.ION, BeamSettings(voltage_v=30e3, current_a=1e-9))
        serial = scope.describe().serial
    with opened(tmp_path) as again:
        assert again.describe().currents(Beam.ION, 8e3) == REAL_8_KV
    described = hydra().replace(assumed_currents=(NAME,))
    assert CurrentLists(tmp_path, "another").put_into(described).currents(Beam.ION, 8e3) == ASSUMED
    (tmp_path / FILE).write_text("torn", encoding="utf-8")
    assert CurrentLists(tmp_path, serial).put_into(described).assumed_currents == (NAME,)


def test_a_column_without_plasma_works_with_its_only_species(mocker: MockerFixture) -> None:
    for module in ("columns", "description"):
        mocker.patch(f"instrument.autoscript.{module}.plasma_of", return_value=None)
    with opened() as scope:
        described = scope.describe()
        assert described.species == ("Gallium",)
        own = described.currents(Beam.ION, 30e3)
        assert own
        assert described.currents(Beam.ION, 8e3) == pytest.approx([one * 8 / 30 for one in own])
        asked = BeamSettings(voltage_v=30e3, current_a=own[3], species=described.usual_species)
        assert scope.set_beam(Beam.ION, asked).species == "Gallium"
