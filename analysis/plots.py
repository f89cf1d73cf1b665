"""The few plots that a report needs, as inline SVG: lines with bands, marks and errors; bars of time.

Colours are CSS variables or names, so that a page can be light, dark or printed.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

_WIDTH = 560
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 14, 44


@dataclass(frozen=True)
class Line:
    """A curve: points (x, y) in order, NaN leaves a gap. low and high: a band; errors: bars of +- that."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    colour: str
    dashed: bool = False
    points: bool = True
    joined: bool = True
    low: Sequence[float] | None = None
    high: Sequence[float] | None = None
    errors: Sequence[float] | None = None


@dataclass(frozen=True)
class Span:
    """A stretch of a bar of time: begin and length in the axis's unit."""

    start: float
    length: float
    colour: str
    label: str


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Return round values from low to high, at most `most` of them or so."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    raw = span / max(1, most - 1)
    decade = 10.0 ** math.floor(math.log10(raw))
    step = next(decade * factor for factor in (1, 2, 5, 10) if decade * factor >= raw * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    y_label: str,
    title: str,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    fills: Sequence[float] = (),
    level: tuple[float, str] | None = None,
    height: int = 280,
) -> str:
    """Return a plot as an <svg>.

    Parameters
    ----------
    lines : what is drawn; the legend stands above the axes
    x_label, y_label : with units
    title : for those who can't see it
    x_range, y_range : of the axes; from the points when None, y from 0 when nothing is negative
    fills : x of vertical marks
    level : a horizontal dashed line and what it is
    height : of the picture, in its own units (it is 560 wide)
    """
    xs = [x for line in lines for x in line.x if math.isfinite(x)]
    if not xs:
        return ""
    x0, x1 = x_range or _padded(min(xs), max(xs), 0.02)
    y0, y1 = y_range or _y_range(lines, level)
    rows = list(_legend_rows(lines))
    top = _TOP + 20 * len(rows)
    bottom = height - _BOTTOM

    def px(x: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (x - x0) / (x1 - x0)

    def py(y: float) -> float:
        return bottom - (bottom - top) * (min(max(y, y0), y1) - y0) / (y1 - y0)

    parts = [f'<svg class="plot" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{html.escape(title)}">']
    parts += [f'<g transform="translate(0 {12 + 20 * number})">{row}</g>' for number, row in enumerate(rows)]
    for value in ticks(y0, y1):
        parts.append(f'<path class="grid" d="M{_LEFT} {py(value):.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{py(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in ticks(x0, x1, 7):
        parts.append(f'<path class="axis" d="M{px(value):.1f} {bottom}v5"/>')
        parts.append(f'<text class="tick" x="{px(value):.1f}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<path class="axis" d="M{_LEFT} {top}V{bottom}H{_WIDTH - _RIGHT}"/>')
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text class="label" x="{middle}" y="{height - 6}" text-anchor="middle">{html.escape(x_label)}</text>'
    )
    parts.append(
        f'<text class="label" transform="translate(13 {(top + bottom) / 2:.0f}) rotate(-90)" '
        f'text-anchor="middle">{html.escape(y_label)}</text>'
    )
    for at in fills:
        parts.append(f'<path class="fill" d="M{px(at):.1f} {top}V{bottom}"/>')
        parts.append(f'<text class="fill" x="{px(at) + 4:.1f}" y="{top + 11}">fill</text>')
    if level is not None:
        parts.append(f'<path class="level" d="M{_LEFT} {py(level[0]):.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(
            f'<text class="tick" x="{_WIDTH - _RIGHT - 2}" y="{py(level[0]) - 5:.1f}" text-anchor="end">'
            f"{html.escape(level[1])}</text>"
        )
    for line in lines:
        parts.extend(_drawn(line, px, py))
    return "".join([*parts, "</svg>"])


def reliability(points: Sequence[tuple[float, float, float]], *, title: str) -> str:
    """Return how right labels are by how sure they are, as an <svg>; "" without points.

    `points` are (confidence, right, share of the pixels), each 0..1.
    """
    if not points:
        return ""
    sure, right, shares = zip(*points, strict=True)
    lines = [
        Line("as right as it says", [0, 1], [0, 1], "var(--dim)", dashed=True, points=False),
        Line("right", sure, right, "var(--accent)"),
        Line("share of the pixels", sure, shares, "var(--dim)", joined=False),
    ]
    return chart(lines, x_label="confidence", y_label="part of the labels", title=title, x_range=(0, 1), y_range=(0, 1))


def bars(
    rows: Sequence[tuple[str, Sequence[Span]]], *, x_label: str, title: str, legend: Sequence[tuple[str, str]]
) -> str:
    """Return bars of time as an <svg>: a row is its name and its spans; legend pairs are (label, colour)."""
    last = max((span.start + span.length for _, spans in rows for span in spans), default=0.0)
    if last <= 0:
        return ""
    keys = list(_legend_rows([Line(label, (), (), colour) for label, colour in legend], box=True))
    top = 20 * len(keys) + 6
    row_height, gap = 26, 20
    height = top + len(rows) * (row_height + gap) + 36
    left, right = 8, _WIDTH - 8

    def px(x: float) -> float:
        return left + (right - left) * x / last

    parts = [f'<svg class="plot" viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{html.escape(title)}">']
    parts += [f'<g transform="translate(0 {12 + 20 * number})">{row}</g>' for number, row in enumerate(keys)]
    for number, (name, spans) in enumerate(rows):
        y = top + number * (row_height + gap) + gap
        parts.append(f'<text class="tick" x="{left}" y="{y - 5}">{html.escape(name)}</text>')
        for span in spans:
            width = max(0.3, px(span.start + span.length) - px(span.start))
            parts.append(
                f'<rect x="{px(span.start):.2f}" y="{y}" width="{width:.2f}" height="{row_height}" '
                f'fill="{span.colour}"><title>{html.escape(span.label)}</title></rect>'
            )
    bottom = top + len(rows) * (row_height + gap) + 6
    parts.append(f'<path class="axis" d="M{left} {bottom}H{right}"/>')
    for value in ticks(0.0, last, 8):
        anchor = "start" if value == 0 else "middle"
        parts.append(f'<path class="axis" d="M{px(value):.1f} {bottom}v4"/>')
        parts.append(
            f'<text class="tick" x="{px(value):.1f}" y="{bottom + 16}" text-anchor="{anchor}">{value:g}</text>'
        )
    parts.append(f'<text class="label" x="{right}" y="{bottom + 29}" text-anchor="end">{html.escape(x_label)}</text>')
    return "".join([*parts, "</svg>"])


def _drawn(line: Line, px: Callable[[float], float], py: Callable[[float], float]) -> Iterator[str]:
    """Yield the elements of one curve: band, line, errors, points."""
    yield from _band(line, px, py)
    at = [
        (px(x), py(y)) if math.isfinite(x) and math.isfinite(y) else None for x, y in zip(line.x, line.y, strict=True)
    ]
    if line.joined:
        for piece in _pieces(at):
            points = " ".join(f"{x:.1f},{y:.1f}" for x, y in piece)
            yield f'<polyline points="{points}" fill="none" stroke="{line.colour}" stroke-width="2"{_dash(line)}/>'
    for x, y, error in zip(line.x, line.y, line.errors or (), strict=False):
        if math.isfinite(x) and math.isfinite(y) and math.isfinite(error):
            yield f'<path d="M{px(x):.1f} {py(y - error):.1f}V{py(y + error):.1f}" stroke="{line.colour}"/>'
    if line.points:
        yield from (f'<circle cx="{p[0]:.1f}" cy="{p[1]:.1f}" r="2.6" fill="{line.colour}"/>' for p in at if p)


def _padded(low: float, high: float, share: float) -> tuple[float, float]:
    span = high - low or max(abs(high), 1.0)
    return low - share * span, high + share * span


def _y_range(lines: Sequence[Line], level: tuple[float, str] | None) -> tuple[float, float]:
    values = [level[0]] if level is not None else []
    for line in lines:
        values += [y for y in line.y if math.isfinite(y)]
        values += [y for y in (*(line.low or ()), *(line.high or ())) if math.isfinite(y)]
        errors = line.errors or [0.0] * len(line.y)
        values += [
            y + sign * e for y, e in zip(line.y, errors, strict=True) for sign in (-1, 1) if math.isfinite(y + e)
        ]
    low, high = min(values, default=0.0), max(values, default=1.0)
    if low >= 0:
        return 0.0, high * 1.08 or 1.0
    return _padded(low, high, 0.08)


def _dash(line: Line) -> str:
    return ' stroke-dasharray="6 4"' if line.dashed else ""


def _pieces(points: Sequence[tuple[float, float] | None]) -> Iterator[list[tuple[float, float]]]:
    """Yield the stretches without gaps that have two points or more."""
    piece: list[tuple[float, float]] = []
    for point in (*points, None):
        if point is not None:
            piece.append(point)
            continue
        if len(piece) > 1:
            yield piece
        piece = []


def _band(line: Line, px: Callable[[float], float], py: Callable[[float], float]) -> Iterator[str]:
    if line.low is None or line.high is None:
        return
    corners = [
        (x, low, high)
        for x, low, high in zip(line.x, line.low, line.high, strict=True)
        if math.isfinite(x) and math.isfinite(low) and math.isfinite(high)
    ]
    if len(corners) < 2:
        return
    outline = [(x, low) for x, low, _ in corners] + [(x, high) for x, _, high in reversed(corners)]
    points = " ".join(f"{px(x):.1f},{py(y):.1f}" for x, y in outline)
    yield f'<polygon points="{points}" fill="{line.colour}" opacity="0.18"/>'


def _legend_rows(lines: Sequence[Line], *, box: bool = False) -> Iterator[str]:
    """Yield rows of legend entries, broken where the width ends; an entry without a label is left out."""
    row: list[str] = []
    x = float(_LEFT if not box else 8)
    for line in lines:
        if not line.label:
            continue
        width = 42 + 7.1 * len(line.label)
        if row and x + width > _WIDTH:
            yield "".join(row)
            row, x = [], float(_LEFT if not box else 8)
        if box:
            row.append(f'<rect x="{x:.0f}" y="-9" width="12" height="12" fill="{line.colour}"/>')
        else:
            row.append(f'<path d="M{x:.0f} -4h18" stroke="{line.colour}" stroke-width="2.5"{_dash(line)}/>')
        offset = 16 if box else 23
        row.append(f'<text class="tick" x="{x + offset:.0f}" y="1">{html.escape(line.label)}</text>')
        x += width
    if row:
        yield "".join(row)


def midpoints(x: Sequence[float], marked: Sequence[bool]) -> list[float]:
    """Return, for each marked point but the first, the middle between it and the one before."""
    return [(a + b) / 2 for (a, b), mark in zip(pairwise(x), marked[1:], strict=True) if mark]
