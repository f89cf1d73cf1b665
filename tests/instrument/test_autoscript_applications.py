"""Application files: told by the words of their names, tried in turn, and named in a recipe where neither helps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_mock import MockerFixture

from instrument.autoscript import applications, writing
from instrument.autoscript.microscope import AutoscriptMicroscope
from instrument.errors import Refused
from instrument.settings import (
    Beam,
    Bitmap,
    CleaningCrossSection,
    Pattern,
    PatternJob,
    Rectangle,
    RegularCrossSection,
)
from tests.contract.emulation import BARE, emulated

#: As one system lists them.
REAL = [
    "Si", "Si-ccs", "Si-multipass", "Al dep", "Au e-dep", "C dep", "C dep high", "C e-dep surface", "Enh etch", "IEE",
    "Pt dep", "Pt dep structures", "Pt dep surface", "Pt e-dep surface", "SCE", "W dep", "W e-dep surface",
]  # fmt: skip
BOX = Rectangle(x_m=0.0, y_m=0.0, width_m=2e-6, height_m=2e-6, depth_m=0.1e-6)
CUT = CleaningCrossSection(x_m=0.0, width_m=2e-6, start_y_m=0.0, end_y_m=1e-7, depth_m=1e-6)
STAIR = RegularCrossSection(x_m=0.0, y_m=1e-6, width_m=4e-6, height_m=2e-6, depth_m=1e-6, deep="bottom")
DOTS = Bitmap(x_m=0.0, y_m=1e-6, width_m=2e-6, height_m=2e-6, depth_m=1e-6, shares=((0.0, 1.0), (0.25, 0.5)))


@pytest.fixture
def scope() -> Iterator[AutoscriptMicroscope]:
    with emulated(BARE) as opened:
        yield opened


def film(gases: dict[str, float], **changes: object) -> PatternJob:
    plain = PatternJob(
        patterns=(BOX,), purpose="deposit", area="cap", current_a=1e-9, voltage_v=30e3, dose_c=20e-9, gases=gases
    )
    return plain.replace(**changes)


def found(job: PatternJob, listed: list[str]) -> list[str]:
    return applications.candidates(job, job.patterns[0].kind, listed)


@pytest.mark.parametrize(
    ("gases", "listed", "first"),
    [
        ({"Pt": 1.0, "C": 0.02}, [*REAL, "Pt-C dep"], "Pt-C dep"),
        ({"Pt": 1.0, "C": 0.02}, [*REAL, "Pt 100 % + C 2 % dep"], "Pt 100 % + C 2 % dep"),
        ({"Pt": 1.0}, REAL, "Pt dep"),
        ({"C": 1.0}, REAL, "C dep"),
        ({"Pt": 1.0}, ["Si", "cryo_Pt_dep"], "cryo_Pt_dep"),
    ],
)
def test_a_film_s_file_has_its_gases_as_words(gases: dict[str, float], listed: list[str], first: str) -> None:
    assert found(film(gases), listed)[0] == first


def test_a_letter_inside_a_word_is_no_gas() -> None:
    with pytest.raises(Refused, match="Pt dep surface"):  # sur-f-a-c-e, stru-c-tures
        found(film({"Pt": 1.0, "C": 0.02}), REAL)


def test_a_film_s_file_is_for_its_beam() -> None:
    assert found(film({"Pt": 1.0}, beam=Beam.ELECTRON), REAL)[0] == "Pt e-dep surface"
    assert found(film({"Pt": 1.0}), REAL)[-1] == "Pt e-dep surface"


def test_what_is_milled_has_its_usual_file_or_is_refused_with_what_there_is() -> None:
    assert found(film({}, purpose="mill"), REAL) == ["Si"]
    assert found(film({}, purpose="mill", patterns=(CUT,)), [*REAL, "NMC-ccs"]) == ["Si-ccs", "NMC-ccs"]
    with pytest.raises(Refused, match="GaAs") as caught:
        found(film({}, purpose="mill"), ["GaAs"])
    assert "application:" in caught.value.remedy


def test_a_file_that_is_named_is_taken_alone_or_refused() -> None:
    assert found(film({"Pt": 1.0}, application="SCE"), REAL) == ["SCE"]
    with pytest.raises(Refused, match="My Pt"):
        found(film({"Pt": 1.0}, application="My Pt"), REAL)


def test_stairs_bitmaps_and_boxes_have_files_of_their_own() -> None:
    assert found(film({}, purpose="mill", patterns=(STAIR,)), [*REAL, "NMC-multipass"]) == [
        "Si-multipass", "NMC-multipass",
    ]  # fmt: skip
    assert found(film({}, purpose="mill", patterns=(DOTS,)), REAL) == ["Si"]


@pytest.mark.parametrize(
    ("pattern", "application"), [(STAIR, "Si"), (STAIR, "Si-ccs"), (BOX, "Si-multipass"), (DOTS, "Si-ccs")]
)
def test_a_file_that_is_named_for_another_shape_is_refused_with_one_that_does(
    pattern: Pattern, application: str
) -> None:
    right = "Si-multipass" if pattern is STAIR else "Si"
    with pytest.raises(Refused, match=f"{application}' for a {pattern.kind}.* it has {right};"):
        found(film({}, purpose="mill", patterns=(pattern,), application=application), REAL)


def test_a_stair_and_a_bitmap_are_drawn_as_what_they_are(scope: AutoscriptMicroscope) -> None:
    both = film({}, purpose="mill", patterns=(STAIR, DOTS), dose_c=40e-9)
    stair, dots = scope._do("draw", lambda client: writing.draw(client.patterning, both))
    assert (type(stair).__name__, stair.application_file, stair.scan_direction, stair.center_y) == (
        "RegularCrossSectionPattern", "Si-multipass", "TopToBottom", -1e-6,
    )  # fmt: skip
    assert (type(dots).__name__, dots.application_file) == ("BitmapPattern", "Si")
    assert dots.bitmap_pattern_definition.points.astype(float).tolist() == [
        [[0.0, 1.0], [1.0, 0.0]], [[0.25, 0.0], [0.5, 0.0]],
    ]  # fmt: skip
    assert stair.time / dots.time == pytest.approx((4 * 2 / 2) / (2 * 2 * 0.4375), rel=0.02)  # as what they take
    assert stair.drawn(0.0, 1.0) == (STAIR,)
    assert dots.drawn(0.0, 1.0) == (DOTS,)


def test_a_file_with_another_gas_is_passed_over_and_leaves_nothing_drawn(
    scope: AutoscriptMicroscope, mocker: MockerFixture
) -> None:
    mocker.patch.dict("simulator.autoscript.patterning.APPLICATIONS", {"Pt dp dep": ("Pt", "C"), "Pt dep": ("W",)})
    mocker.patch.dict("simulator.autoscript.patterns.APPLICATIONS", {"Pt dp dep": ("Pt", "C"), "Pt dep": ("W",)})
    wanted = film({"Pt": 0.5})
    drawn = scope._do("draw", lambda client: writing.draw(client.patterning, wanted))
    assert [(one.application_file, list(one.gas_flow)) for one in drawn] == [("Pt e-dep surface", [50.0])]
    assert len(scope._acts.client.patterning._patterns) == 1


def test_no_file_with_the_job_s_gases_is_refused_naming_what_was_tried(
    scope: AutoscriptMicroscope, mocker: MockerFixture
) -> None:
    mocker.patch.dict("simulator.autoscript.patterns.APPLICATIONS", {"Pt-C dep": ("Pt",)})
    with pytest.raises(Refused, match="'Pt-C dep' works with 'Pt'") as caught:
        scope._do("draw", lambda client: writing.draw(client.patterning, film({"Pt": 1.0, "C": 0.02})))
    assert "application:" in caught.value.remedy
