"""Strokes: painted in any program, read as codes; where one would help."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from analysis.phases import COLOURS, IGNORE, Phase
from analysis.scribbles import check, held_back, helpful, read_scribbles, strokes_in, template


def strokes() -> np.ndarray:
    drawn = np.full((40, 60), IGNORE, np.uint8)
    for phase in Phase:
        drawn[5 + 7 * phase, 4:20] = phase
    return drawn


@pytest.mark.parametrize("how", ["palette", "grey", "colours", "another palette", "see-through", "tiff"])
def test_what_was_painted_is_read_whatever_the_program_made_of_it(tmp_path: Path, how: str) -> None:
    drawn, path = strokes(), tmp_path / ("s.tif" if how == "tiff" else "s.png")
    if how == "tiff":
        tifffile.imwrite(path, drawn)
    elif how == "grey":
        Image.fromarray(drawn).save(path)
    else:
        path.write_bytes(template(drawn.shape, drawn))
        with Image.open(path) as picture:
            assert picture.mode == "P"
            assert picture.convert("RGB").getpixel((4, 5 + 7 * Phase.CBD)) == COLOURS[Phase.CBD]
            coloured = picture.convert("RGBA")
        if how == "colours":
            coloured.convert("RGB").save(path)
        if how == "another palette":
            coloured.convert("RGB").quantize(8).save(path)
        if how == "see-through":
            pixels = np.asarray(coloured).copy()
            pixels[drawn == IGNORE] = (0, 0, 0, 0)
            Image.fromarray(pixels).save(path)
    assert np.array_equal(read_scribbles(path), drawn)


def test_a_fresh_template_is_unmarked(tmp_path: Path) -> None:
    (tmp_path / "t.png").write_bytes(template((20, 30)))
    read = read_scribbles(tmp_path / "t.png")
    assert read.shape == (20, 30)
    assert (read == IGNORE).all()


def test_strokes_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    drawn = strokes()
    with pytest.raises(ValueError, match="40 x 61"):
        check(drawn, (40, 61))
    wrong = drawn.copy()
    wrong[0, 0] = 9
    with pytest.raises(ValueError, match=r"codes \[9\]"):
        check(wrong, drawn.shape)
    alone = np.where(drawn == Phase.CBD, drawn, np.uint8(IGNORE))
    with pytest.raises(ValueError, match="mark cbd; mark at least two"):
        check(alone, drawn.shape)
    with pytest.raises(ValueError, match="more than 50 % of the image is marked"):
        check(np.where(drawn == IGNORE, np.uint8(0), drawn), drawn.shape)
    with pytest.raises(ValueError, match="mark nothing"):
        check(np.full_like(drawn, IGNORE), drawn.shape)
    (tmp_path / "no.png").write_text("no picture")
    with pytest.raises(ValueError, match="cannot be read"):
        read_scribbles(tmp_path / "no.png")
    tifffile.imwrite(tmp_path / "deep.tif", drawn.astype(np.uint16))
    with pytest.raises(ValueError, match="one 8-bit grey image"):
        read_scribbles(tmp_path / "deep.tif")


def test_some_strokes_of_each_phase_are_kept_back_when_there_are_enough() -> None:
    few = strokes()
    assert strokes_in(few) == 5
    assert not held_back(few, 0).any()
    many = np.full((200, 60), IGNORE, np.uint8)
    for number in range(30):
        many[3 + 6 * number, 5:25] = 1 + number % 3
    kept = held_back(many, 0)
    for phase in (1, 2, 3):
        assert strokes_in(np.where(kept & (many == phase), many, np.uint8(IGNORE))) == 2
    assert (many[kept] != IGNORE).all()


def test_strokes_help_most_where_two_phases_are_alike_likely() -> None:
    shares = np.zeros((5, 80, 90), np.float32)
    shares[Phase.ACTIVE] = 1.0
    for y, x, tilt in ((20, 30, 0.5), (60, 70, 0.6)):
        shares[:, y - 4 : y + 5, x - 4 : x + 5] = 0
        shares[Phase.PORE, y - 4 : y + 5, x - 4 : x + 5] = tilt
        shares[Phase.CBD, y - 4 : y + 5, x - 4 : x + 5] = 1 - tilt
    first, second = helpful(shares, 200e-9, 2)
    assert (abs(first.y - 20) <= 2, abs(first.x - 30) <= 2) == (True, True)
    assert (abs(second.y - 60) <= 2, abs(second.x - 70) <= 2) == (True, True)
    assert set(first.phases) == {Phase.PORE, Phase.CBD}
    assert first.doubt > second.doubt
    assert len(helpful(shares, 200e-9, 20)) < 20  # where there is no doubt nothing is asked
