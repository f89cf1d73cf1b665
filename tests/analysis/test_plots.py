"""Plots are well-formed, show their points where they belong, and leave out what isn't finite."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.plots import Line, Span, bars, chart, midpoints, reliability, ticks


def _parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def test_ticks_by_hand() -> None:
    assert ticks(0.0, 1.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(0.0, 23.0) == [0.0, 5.0, 10.0, 15.0, 20.0]
    assert ticks(-0.5, 0.5, 3) == [-0.5, 0.0, 0.5]
    assert ticks(2.0, 2.0) == [2.0]


@given(low=st.floats(-1e6, 1e6), span=st.floats(1e-6, 1e6))
def test_ticks_lie_inside_and_are_few(low: float, span: float) -> None:
    found = ticks(low, low + span)
    assert len(found) <= 7
    slack = 1e-6 * max(1.0, abs(low), span)
    assert all(low - slack <= value <= low + span + slack for value in found)


def test_points_and_gaps() -> None:
    line = Line("a < b", [0, 1, 2, 3, 4], [0, 1, math.nan, 3, 4], "red")
    root = _parsed(chart([line], x_label="x", y_label="y", title="t & u"))
    circles = [item for item in root.iter() if item.tag == "circle"]
    assert len(circles) == 4
    assert len([item for item in root.iter() if item.tag == "polyline"]) == 2
    xs = [float(item.get("cx", "nan")) for item in circles]
    ys = [float(item.get("cy", "nan")) for item in circles]
    assert xs == sorted(xs)
    assert ys == sorted(ys, reverse=True)
    assert (xs[1] - xs[0]) == pytest.approx(xs[3] - xs[2], abs=0.2)
    assert root.get("aria-label") == "t & u"
    assert "a < b" in [item.text for item in root.iter("text")]


def test_bands_errors_levels_and_fills() -> None:
    line = Line("", [0, 1], [1, 2], "red", dashed=True, low=[0.5, 1.5], high=[1.5, 2.5], errors=[0.1, math.nan])
    svg = chart([line], x_label="x", y_label="y", title="t", level=(2.0, "limit"), fills=[0.5])
    root = _parsed(svg)
    assert len(list(root.iter("polygon"))) == 1
    texts = [item.text for item in root.iter("text")]
    assert {"fill", "limit"} <= set(texts)
    assert "stroke-dasharray" in svg
    # the band's top is inside the axes
    points = next(root.iter("polygon")).get("points", "").split()
    assert all(0 <= float(point.split(",")[1]) <= 280 for point in points)


def test_nothing_to_draw() -> None:
    assert chart([Line("", [], [], "red")], x_label="x", y_label="y", title="t") == ""
    assert chart([Line("", [math.nan], [1.0], "red")], x_label="x", y_label="y", title="t") == ""
    assert bars([("a", [])], x_label="h", title="t", legend=[]) == ""
    _parsed(chart([Line("", [1.0], [0.0], "red")], x_label="x", y_label="y", title="one point"))


def test_bars_are_as_long_as_their_time() -> None:
    rows = [("this run", [Span(0, 1, "red", "cut"), Span(1, 3, "blue", "film")]), ("plan", [Span(0, 8, "red", "cut")])]
    root = _parsed(bars(rows, x_label="hours", title="t", legend=[("cut", "red"), ("film", "blue")]))
    drawn = [float(item.get("width", "0")) for item in root.iter("rect") if item.find("title") is not None]
    assert drawn[1] == pytest.approx(3 * drawn[0], rel=0.01)
    assert drawn[2] == pytest.approx(8 * drawn[0], rel=0.01)


def test_marks_stand_between_points() -> None:
    assert midpoints([0.0, 1.0, 3.0], [True, False, True]) == [2.0]


def test_labels_that_are_less_right_than_sure_lie_below_the_diagonal() -> None:
    root = _parsed(reliability([(0.5, 0.4, 0.1), (0.9, 0.6, 0.9)], title="how right"))
    right, shares = (list(root.iter("circle"))[start : start + 2] for start in (0, 2))
    diagonal = next(root.iter("polyline")).get("points", "").split()
    (x0, y0), (x1, y1) = (map(float, point.split(",")) for point in (diagonal[0], diagonal[-1]))
    for circle, below in zip(right, (0.1, 0.3), strict=True):
        x, y = float(circle.get("cx", "nan")), float(circle.get("cy", "nan"))
        assert y - (y0 + (y1 - y0) * (x - x0) / (x1 - x0)) == pytest.approx(below * (y0 - y1), abs=0.2)
    assert float(shares[0].get("cy", "nan")) > float(shares[1].get("cy", "nan"))
    assert reliability([], title="nothing known") == ""
