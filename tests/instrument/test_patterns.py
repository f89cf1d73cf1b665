"""Patterns: what they take, what part of one is, where they lie."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from instrument.guard_rules import extent
from instrument.settings import BITMAP_PX, Bitmap, PatternJob, Rectangle, RegularCrossSection, volume

BOX = {"x_m": 1e-6, "y_m": -2e-6, "width_m": 4e-6, "height_m": 2e-6, "depth_m": 3e-6}
WHOLE = Rectangle(**BOX)
STAIR = RegularCrossSection(**BOX, deep="top")
DOTS = Bitmap(**BOX, shares=((0.0, 1.0, 0.5, 0.0), (0.25, 0.0, 0.25, 0.0)))


def job(*patterns: object, **changes: object) -> PatternJob:
    plain = {
        "patterns": patterns, "purpose": "mill", "area": "trench", "current_a": 1e-9, "voltage_v": 30e3, "dose_c": 1e-6,
    }  # fmt: skip
    return PatternJob.model_validate({**plain, **changes})


def test_a_stair_takes_half_of_its_box_and_a_bitmap_its_mean_share() -> None:
    assert volume(STAIR) == pytest.approx(volume(WHOLE) / 2)
    assert volume(DOTS) == pytest.approx(volume(WHOLE) / 4)


def test_they_lie_where_their_box_lies() -> None:
    assert extent(STAIR) == extent(DOTS) == extent(WHOLE)


def test_a_part_of_several_has_each_as_far_as_its_share_of_the_dose_goes() -> None:
    both = job(STAIR, DOTS)  # two thirds of the dose, and one
    assert both.replace(from_fraction=0.5).part().patterns == (STAIR.replace(depth_m=0.75e-6), DOTS)
    assert job(DOTS, from_fraction=0.5).part().patterns == (DOTS,)


@pytest.mark.parametrize(
    ("shares", "match"),
    [
        (((0.0, 0.0),), "mill nothing"),
        (((1.0, 0.0), (1.0,)), "one length"),
        (((1.5,),), "less than or equal to 1"),
        ((), "at least 1"),
        (((),), "at least 1"),
        (((1.0,) * (BITMAP_PX + 1),), f"at most {BITMAP_PX}"),
        (((1.0,),) * (BITMAP_PX + 1), f"at most {BITMAP_PX}"),
    ],
)
def test_a_bitmap_that_says_nothing_clear_is_refused(shares: object, match: str) -> None:
    with pytest.raises(ValidationError, match=match):
        Bitmap.model_validate({**BOX, "shares": shares})


@pytest.mark.parametrize("pattern", [STAIR, DOTS])
def test_films_are_laid_by_neither(pattern: object) -> None:
    with pytest.raises(ValidationError, match="milled only"):
        job(pattern, purpose="deposit", gases={"Pt": 1.0})
