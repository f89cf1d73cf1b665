import math
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from instrument.units import (
    WITH_UNITS,
    Angle,
    Counted,
    Extent2,
    Fraction,
    Length,
    Of,
    UnitError,
    lengths,
    quantity,
    show,
    show_lengths,
)


@pytest.mark.parametrize(
    ("text", "dimension", "value"),
    [
        ("54 nm", "length", 54e-9),
        ("54nm", "length", 54e-9),
        (" 0.6 µm ", "length", 0.6e-6),
        ("8 kV", "voltage", 8e3),
        ("2500 nA", "current", 2500e-9),
        ("1.6 nA", "current", 1.6e-9),
        ("4 pA/um2", "density", 4.0),
        ("4 pA/µm²", "density", 4.0),
        ("180 deg", "angle", math.pi),
        ("3 us", "time", 3e-6),
        ("12 h", "time", 43200.0),
        ("20 %", "fraction", 0.2),
        ("96 wt%", "mass fraction", 0.96),
        ("10 nm/min", "rate", 1e-8 / 60),
        ("0 degC", "temperature", 273.15),
        ("1e-3 m", "length", 1e-3),
    ],
)
def test_reads_exactly(text, dimension, value):
    assert quantity(text, dimension) == value


@pytest.mark.parametrize(
    ("text", "dimension", "remedy"),
    [
        ("1,5 um", "length", "'1.5 um'"),
        ("54", "length", "54 um"),
        ("0.2", "fraction", "20 %"),
        ("5 kv", "voltage", "did you mean '5 kV'"),
        ("5 kV", "length", "write a length"),
        ("5 furlong", "length", "m, cm, mm, um, nm, pm"),
        ("25 nm/2", "length", "did you mean"),
        ("nan nm", "length", "54 nm"),
        ("inf m", "length", "54 nm"),
        ("1e999 m", "length", "fits"),
        ("", "length", "54 nm"),
        ("5 um 3", "length", "did you mean"),
    ],
)
def test_refuses_and_says_what_to_write(text, dimension, remedy):
    with pytest.raises(UnitError) as caught:
        quantity(text, dimension)
    assert remedy in str(caught.value)


def test_extents():
    assert lengths("60 um x 45 um", 2) == (60e-6, 45e-6)
    assert lengths("20 x 20 x 2 um", 3) == (20e-6, 20e-6, 2e-6)
    assert show_lengths((200e-6, 30e-6)) == "200 um x 30 um"
    with pytest.raises(UnitError, match="has 1 length, not 2"):
        lengths("60 um", 2)


@pytest.mark.parametrize(
    ("value", "dimension", "text"),
    [
        (54e-9, "length", "54 nm"),
        (110e-6, "length", "110 um"),
        (2500e-9, "current", "2500 nA"),
        (1.6e-9, "current", "1.6 nA"),
        (5e3, "voltage", "5 kV"),
        (math.radians(3), "angle", "3 deg"),
        (0.2, "fraction", "20 %"),
        (3e-6, "time", "3 us"),
    ],
)
def test_shows_as_people_write(value, dimension, text):
    assert show(value, dimension) == text


def test_shows_rounded_for_people():
    assert show(53.2671e-9, "length", 3) == "53.3 nm"
    assert show(float("nan"), "length") == "nan"


@given(st.floats(allow_nan=False, allow_infinity=False, width=64, min_value=-1e6, max_value=1e6))
@pytest.mark.parametrize("dimension", ["length", "voltage", "current", "time", "fraction", "density", "rate", "angle"])
def test_show_then_read_gives_the_same_number(dimension, value):
    assert quantity(show(value, dimension), dimension) == value


class Block(BaseModel):
    depth: Length = 1e-6
    tilt: Angle = 0.0
    face: Extent2 = (1e-6, 1e-6)
    share: Fraction = 0.5
    thick: Annotated[float, Of("length", above=0.0, high=1e-3)] = 1e-6
    every: Annotated[int, Counted("cut")] = 1


def test_models_take_texts_and_floats():
    block = Block.model_validate({"depth": "3 um", "face": "60 um x 45 um", "share": "20 %", "every": "2 cuts"})
    assert (block.depth, block.face, block.share, block.every) == (3e-6, (60e-6, 45e-6), 0.2, 2)
    assert Block(depth=3e-6, face=(60e-6, 45e-6), share=0.2, every=2) == block
    assert Block.model_validate_json(block.model_dump_json()) == block


def test_models_write_texts_that_read_back():
    block = Block(depth=3e-6, tilt=math.radians(1.5))
    written = block.model_dump(context=WITH_UNITS)
    assert written["depth"] == "3 um"
    assert written["tilt"] == "1.5 deg"
    assert written["every"] == "1 cut"
    assert Block.model_validate(written, context=WITH_UNITS) == block


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("depth", 5, "bare number"),
        ("share", 0.2, "20 %"),
        ("face", [60e-6, 45e-6], "bare number"),
        ("thick", "-3 um", "more than 0"),
        ("thick", "2 mm", "at most 1 mm"),
        ("share", "120 %", "at most 100 %"),
        ("face", "0 um x 3 um", "more than 0"),
        ("every", "2 slices", "2 cuts"),
        ("every", "0 cuts", "at least 1"),
        ("depth", True, "is not a length"),
    ],
)
def test_models_refuse_in_a_recipe(field, value, words):
    with pytest.raises(ValidationError) as caught:
        Block.model_validate({field: value}, context=WITH_UNITS)
    assert words in caught.value.errors()[0]["msg"]


def test_not_finite_is_refused():
    with pytest.raises(ValidationError):
        Block(depth=float("inf"))
