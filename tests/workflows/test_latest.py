"""The picture and the page of a run that goes on, and its progress line."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from workflows import latest, live, png

COLOURS = {1: (60, 110, 210), 2: (220, 80, 80), 3: (200, 200, 200), 4: (220, 160, 50)}


def standing(count: int = 5) -> latest.Standing:
    numbers = [
        (f"s{k:04d}", k * 1e-7, {"phase_fractions": {"pore": 0.3, "cbd": 0.1}, "unfilled_share": 0.05 * k}, k == 3)
        for k in range(1, count + 1)
    ]
    return latest.Standing("NMC <811>", True, "slice", "slice 5 of 20", "12 min left", latest.rows_from(numbers), 0.2)


def decode(data: bytes) -> np.ndarray:
    imageio = pytest.importorskip("imageio.v3")
    return np.asarray(imageio.imread(io.BytesIO(data), extension=".png"))


@pytest.mark.parametrize("shape", [(7, 5), (4, 6, 3)])
def test_png_holds_what_was_given(shape: tuple[int, ...]) -> None:
    picture = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    assert np.array_equal(decode(png.encode(picture)), picture)


def test_png_refuses_other_pixels() -> None:
    with pytest.raises(ValueError, match="uint8"):
        png.encode(np.zeros((3, 3), np.uint16))


def test_letters_and_lines_stay_inside() -> None:
    picture = png.blank(10, 20, (0, 0, 0))
    png.write(picture, 12, 4, "S0012 %", (255, 255, 255))
    png.line(picture, -5, -5, 40, 30, (255, 0, 0), thick=2)
    assert picture.any()


def test_the_picture_has_slice_overlay_and_curve() -> None:
    grey = np.random.default_rng(1).integers(0, 200, (300, 400)).astype(np.uint16)
    labels = np.full((300, 400), 3, np.uint8)
    shown = decode(latest.picture(grey, labels, COLOURS, standing()))
    assert shown.shape == (326, 400 + 6 + 400 + 6 + 420, 3)
    without = decode(latest.picture(grey, None, COLOURS, standing(0)))
    assert not np.array_equal(without[26:, 406:806], shown[26:, 406:806])
    assert np.array_equal(without[26:, :400], shown[26:, :400])


def test_a_big_slice_is_made_small() -> None:
    grey = np.zeros((1000, 2000), np.uint8)
    assert decode(latest.picture(grey, None, COLOURS, standing(1))).shape[1] == 400 * 2 + 12 + 420


def test_the_page_says_virtual_and_escapes() -> None:
    text = latest.page(standing())
    assert "VIRTUAL" in text
    assert "NMC &lt;811&gt;" in text
    assert text.count("<tr>") == 6
    assert "latest.png" in text


def test_durations() -> None:
    assert [live.duration(s) for s in (None, 5, 600, 11000)] == ["?", "5 s", "10 min", "3 h 03 min"]


def test_plain_lines_without_a_terminal() -> None:
    out = io.StringIO()
    with live.Live(Console(file=out, width=40)) as shown:
        shown.update("slice", slice_k=1, slice_n=20, doing="mill", seconds_left=600)
        shown.update("slice", slice_k=1, slice_n=20, doing="image")
        shown.update("slice", slice_k=2, slice_n=20, fractions={"pore": 0.31})
        shown.say("a line [that] stays")
    lines = out.getvalue().splitlines()
    assert lines == [
        "slice · slice 1 of 20 · mill · 10 min left",
        "slice · slice 2 of 20 · pore 31 %",
        "a line [that] stays",
    ]
