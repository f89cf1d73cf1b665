"""Detectors through the client: what is not asked for is left as the operator set it, and a frame says how it stood."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pytest_mock import MockerFixture

from instrument.autoscript import opening, screen
from instrument.autoscript.microscope import AutoscriptMicroscope
from instrument.errors import NotReached, Refused
from instrument.settings import Beam, DetectorSettings, Scan, Tune
from tests.contract.emulation import BARE, emulated


@pytest.fixture
def scope() -> Iterator[AutoscriptMicroscope]:
    with emulated(BARE) as opened:
        yield opened


def scan(*detectors: DetectorSettings) -> Scan:
    return Scan(detectors=detectors, width_px=512, height_px=442, pixel_m=20e-9, dwell_s=1e-7)


def taken(scope: AutoscriptMicroscope, *detectors: DetectorSettings) -> tuple[DetectorSettings, ...]:
    """How detectors stood in a picture."""
    told = scope.acquire(scan(*detectors)).meta.scan
    assert isinstance(told, Scan)
    return told.detectors


def by_hand(scope: AutoscriptMicroscope, name: str, **values: Any) -> None:
    """Set a detector as a person does at the screen."""

    def work(client: Any) -> None:
        client.imaging.set_active_view(1)
        client.imaging.set_active_device(1)
        client.detector.type.value = name
        for field, value in values.items():
            getattr(client.detector, field).value = value

    scope._do("set by hand", work)


def test_contrast_and_brightness_stay_as_the_operator_set_them(scope: AutoscriptMicroscope) -> None:
    by_hand(scope, "ETD", contrast=0.94, brightness=0.41)
    (stood,) = taken(scope, DetectorSettings(name="ETD"))
    assert (stood.contrast, stood.brightness) == (0.94, 0.41)
    (stood,) = taken(scope, DetectorSettings(name="ETD", contrast=0.3))
    assert (stood.contrast, stood.brightness) == (0.3, 0.41)


def test_a_contrast_that_is_not_taken_is_told(scope: AutoscriptMicroscope, mocker: MockerFixture) -> None:
    mocker.patch.object(screen, "LEVEL_ROOM", -1.0)
    with pytest.raises(NotReached, match="contrast"):
        taken(scope, DetectorSettings(name="ETD", contrast=0.3))
    assert taken(scope, DetectorSettings(name="ETD"))  # nothing asked, nothing to be taken


def test_tld_gives_backscattered_electrons_unless_another_mode_is_asked(scope: AutoscriptMicroscope) -> None:
    by_hand(scope, "TLD", mode="SecondaryElectrons")
    assert taken(scope, DetectorSettings(name="TLD"))[0].mode == "BackscatterElectrons"
    assert taken(scope, DetectorSettings(name="TLD", mode="SecondaryElectrons"))[0].mode == "SecondaryElectrons"
    by_hand(scope, "ETD", mode="BackscatterElectrons")
    assert taken(scope, DetectorSettings(name="ETD"))[0].mode == "BackscatterElectrons"  # left alone, and told
    assert scope._do("look", lambda client: client.detector.mode.value) == "BackscatterElectrons"


def test_a_mode_that_a_detector_lacks_is_refused_naming_those_it_has(scope: AutoscriptMicroscope) -> None:
    with pytest.raises(Refused, match=r"Custom.*BackscatterElectrons, SecondaryElectrons"):
        taken(scope, DetectorSettings(name="TLD", mode="Custom"))


def test_contrast_that_a_routine_found_keeps_the_mode(scope: AutoscriptMicroscope) -> None:
    found = scope.tune(Tune.CONTRAST, scan(DetectorSettings(name="TLD"))).detectors
    assert [one.mode for one in found] == ["BackscatterElectrons"]
    assert found[0].contrast is not None


def test_modes_are_listed_and_the_view_is_left_as_it_was(scope: AutoscriptMicroscope) -> None:
    by_hand(scope, "ETD")
    listed = scope._do("list", lambda client: screen.modes(client, Beam.ELECTRON))
    assert listed["TLD"] == ("BackscatterElectrons", "SecondaryElectrons")
    assert scope._do("look", lambda client: client.detector.type.value) == "ETD"


def test_examining_lists_files_and_modes() -> None:
    with emulated(BARE, place=("localhost", 7520)):
        _, _, more = opening.examine("autoscript://localhost")
    assert "Si" in more["application_files"]
    assert more["detector_modes"]["CBS"]
