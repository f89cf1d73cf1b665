"""Names that the emulated client doesn't have: refused where they are read or set, with their path."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any

import numpy as np
import pytest

from simulator.autoscript import structures
from simulator.autoscript.images import AdornedImage
from simulator.autoscript.tree import ApplicationServerException
from tests.contract.emulation import client


@pytest.fixture(scope="module")
def scope() -> Iterator[Any]:
    with client() as connected:
        yield connected


# -- what can be set --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "name", "meant"),
    [
        (structures.GrabFrameSettings(), "resolutoin", "GrabFrameSettings.resolutoin .* did you mean resolution"),
        (structures.StagePosition(), "X", r"StagePosition\.X .* did you mean x\?"),
        (structures.Point(1, 2), "z", r"Point\.z is not there.*it has x, y"),
        (structures.StreamPatternDefinition(), "bitdepth", "did you mean bit_depth"),
        (structures.BitmapPatternDefinition(), "point", "did you mean points"),
        (AdornedImage(np.zeros((2, 3), np.uint8)), "meta", "AdornedImage.meta "),
    ],
)
def test_a_structure_takes_no_name_but_its_own(made: Any, name: str, meant: str) -> None:
    with pytest.raises(AttributeError, match=meant):
        setattr(made, name, 1)
    assert not hasattr(made, name)


def test_all_fields_of_a_structure_can_be_set_and_a_subclass_may_have_more() -> None:
    settings = structures.GrabFrameSettings(resolution="768x512")
    settings.reduced_area, settings.bit_depth = structures.Rectangle(0, 0, 1, 1), 16
    assert (settings.bit_depth, settings.reduced_area.width) == (16, 1)

    class Sector(structures.StagePosition):
        def __init__(self, name: str, **axes: float) -> None:
            super().__init__(**axes)
            self.name = name

    assert (Sector("a", x=1.0).name, Sector("a", x=1.0).x) == ("a", 1.0)


def test_a_client_takes_no_name_but_its_own(scope: Any) -> None:
    with pytest.raises(AttributeError, match=r"microscope\.foo is not there"):
        scope.foo = 1
    with pytest.raises(AttributeError, match="did you mean specimen"):
        scope.speciman = 1
    with pytest.raises(AttributeError, match="did you mean imaging"):
        _ = scope.imagin
    with pytest.raises(AttributeError, match=r"microscope\.imaging\.grab_frames .* did you mean grab_frame\?"):
        scope.imaging.grab_frames()

    with pytest.raises(AttributeError, match=r"ion_beam\.beam_current\.limits is not there(?!.*did you mean)"):
        _ = scope.beams.ion_beam.beam_current.limits  # it has a list

    class Mine(type(scope)):  # type: ignore[misc]
        pass

    mine = Mine()
    mine.notes = "kept"
    assert mine.notes == "kept"


# -- hardware that is not fitted --------------------------------------------------------------------------------------


def test_hardware_that_is_not_fitted_says_so(scope: Any) -> None:
    compustage = scope.specimen.compustage
    assert (compustage.is_installed, compustage.is_homed, compustage.is_linked) == (False, False, False)
    assert scope.beams.electron_beam.protective_shutter.state == "Retracted"


@pytest.mark.parametrize(
    ("path", "use"),
    [
        ("specimen.compustage.current_position", lambda found: found.x),
        ("specimen.compustage.absolute_move", lambda found: found(structures.CompustagePosition(x=0))),
        ("specimen.compustage.state", bool),
        ("specimen.autoloader.get_slots", list),
        ("specimen.sputter_coater.current", lambda found: found.value),
        ("specimen.sputter_coater.current", lambda found: setattr(found, "value", 1e-2)),
        ("beams.electron_beam.protective_shutter.mode", lambda found: found.value),
        ("beams.electron_beam.protective_shutter.mode", lambda found: found == "Off"),
        ("detector.camera_settings.focus", lambda found: found.value),
    ],
)
def test_what_is_done_with_hardware_that_is_not_fitted_fails_with_its_path(
    scope: Any, path: str, use: Callable[[Any], Any]
) -> None:
    with pytest.raises(ApplicationServerException, match=rf"microscope\.{path}.* is not installed"):
        use(attrgetter(path)(scope))


def test_nothing_can_be_set_of_hardware_that_is_not_fitted(scope: Any) -> None:
    with pytest.raises(ApplicationServerException, match=r"compustage\.speed is not installed"):
        scope.specimen.compustage.speed = 1


# -- the stage's places -----------------------------------------------------------------------------------------------


def test_both_columns_look_at_one_place_and_no_camera_has_another(scope: Any) -> None:
    stage = scope.specimen.stage
    before = stage.current_position
    for column in (1, 2):
        stage.move_to_device(column)
        assert stage.current_position.x == pytest.approx(before.x, abs=1e-7)
    with pytest.raises(ApplicationServerException, match="imaging device 5"):
        stage.move_to_device(5)


@pytest.mark.parametrize("column", ["electron_beam", "ion_beam"])
def test_both_columns_have_a_lens_alignment(scope: Any, column: str) -> None:
    alignment = getattr(scope.beams, column).lens_alignment
    alignment.value += structures.Point(7e-4, -7e-4)
    assert alignment.value == structures.Point(7e-4, -7e-4)
    alignment.value = structures.Point(0, 0)
    other = scope.beams.ion_beam if column == "electron_beam" else scope.beams.electron_beam
    assert other.lens_alignment.value == structures.Point(0, 0)
