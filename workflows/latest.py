"""What one looks at while a run goes on: latest.png (slice, overlay, curve), and index.html around it."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analysis.phases import COLOURS, NAMES, Phase
from workflows import png

_WHITE: png.Colour = (235, 235, 235)
_DIM: png.Colour = (120, 120, 120)
_BACK: png.Colour = (24, 24, 28)
_SHARE: png.Colour = (240, 180, 60)
_FILL: png.Colour = (90, 170, 250)
_PHASES = {
    NAMES[phase]: "#{:02x}{:02x}{:02x}".format(*COLOURS[phase]) for phase in COLOURS if phase is not Phase.OUTSIDE
}
_PANEL = 480


@dataclass(frozen=True)
class Row:
    """A labelled slice as the curves show it: plane z (m), fractions and share of empty fillable pores, 0..1."""

    name: str
    z_m: float
    fractions: Mapping[str, float]
    unfilled_share: float
    fill_before: bool = False


@dataclass(frozen=True)
class Standing:
    """Where a run stands, for the page: words, not numbers to reckon with."""

    title: str
    virtual: bool
    step: str
    slices: str
    time_left: str
    rows: Sequence[Row] = field(default_factory=tuple)
    threshold: float | None = None
    links: Mapping[str, str] = field(default_factory=dict)


def rows_from(numbers: Sequence[tuple[str, float, dict[str, Any], bool]]) -> list[Row]:
    """Return rows from (name, z_m, the core's numbers, whether a fill came just before)."""
    rows = []
    for name, z_m, values, filled in numbers:
        fractions = {key: float(value) for key, value in dict(values.get("phase_fractions", {})).items()}
        rows.append(Row(name, z_m, fractions, float(values.get("unfilled_share", float("nan"))), filled))
    return rows


def picture(
    grey: NDArray[Any],
    labels: NDArray[np.uint8] | None,
    colours: Mapping[int, tuple[int, int, int]],
    standing: Standing,
) -> bytes:
    """Return latest.png: the newest slice, the same with its phases laid over, and the curve of empty pores.

    `grey` is one detector's picture (y, x), any integer type; `labels` uint8 phases on the same grid, None while there
    are none; `colours` the RGB colour by phase.
    """
    step = max(1, -(-max(grey.shape) // _PANEL))
    small = png.stretched(grey[::step, ::step])
    left = np.repeat(small[..., None], 3, axis=2)
    middle = left.copy() if labels is None else _overlay(small, labels[::step, ::step], colours)
    height = max(left.shape[0], 200)
    panels = [_pad(left, height), _pad(middle, height), _curve(height, 420, standing.rows, standing.threshold)]
    gap = png.blank(height, 6, _BACK)
    body = np.concatenate([panels[0], gap, panels[1], gap, panels[2]], axis=1)
    head = png.blank(26, body.shape[1], _BACK)
    x = 6
    if standing.virtual:
        x = png.write(head, x, 8, "VIRTUAL  ", (250, 90, 90))
    newest = standing.rows[-1] if standing.rows else None
    words = f"{standing.step}  {standing.slices}"
    if newest is not None:
        shares = "  ".join(f"{name} {100 * value:.0f}%" for name, value in newest.fractions.items())
        words += f"   {newest.name}: {shares}"
    png.write(head, x, 8, words, _WHITE)
    return png.encode(np.concatenate([head, body], axis=0))


def _overlay(
    small: NDArray[np.uint8], labels: NDArray[np.uint8], colours: Mapping[int, tuple[int, int, int]]
) -> NDArray[np.uint8]:
    table = np.zeros((256, 3), np.float32)
    for phase, colour in colours.items():
        table[phase] = colour
    mixed: NDArray[np.float32] = 0.5 * small[..., None].astype(np.float32) + 0.5 * table[labels]
    outside = labels == 0
    mixed[outside] = 0.5 * small[outside][:, None]
    shown: NDArray[np.uint8] = mixed.astype(np.uint8)
    return shown


def _pad(panel: NDArray[np.uint8], height: int) -> NDArray[np.uint8]:
    extra = height - panel.shape[0]
    if extra <= 0:
        return panel
    return np.concatenate([panel, png.blank(extra, panel.shape[1], _BACK)], axis=0)


def _curve(height: int, width: int, rows: Sequence[Row], threshold: float | None) -> NDArray[np.uint8]:
    panel = png.blank(height, width, _BACK)
    left, right, top, bottom = 46, width - 10, 30, height - 26
    png.write(panel, left, 8, "EMPTY FILLABLE PORES", _SHARE)
    shares = np.array([row.unfilled_share for row in rows], float)
    known = shares[np.isfinite(shares)]
    peak = max([0.1, threshold or 0.0, *(float(value) for value in known)])
    full = min(1.0, float(np.ceil(peak * 10.5)) / 10)

    def at(index: float, share: float) -> tuple[float, float]:
        return left + (right - left) * index / max(1, len(rows) - 1), bottom - (bottom - top) * share / full

    for tick in np.linspace(0, full, 3):
        _, y = at(0, float(tick))
        png.line(panel, left, y, right, y, (50, 50, 56))
        png.write(panel, 4, int(y) - 5, f"{100 * tick:.0f}%", _DIM)
    if threshold is not None:
        _, y = at(0, threshold)
        for x in range(left, right, 10):
            png.line(panel, x, y, x + 4, y, _SHARE)
    for index, row in enumerate(rows):
        if row.fill_before:
            between = max(left, at(index - 0.5, 0)[0])
            png.line(panel, between, top, between, bottom, _FILL)
            png.write(panel, int(between) + 4, top + 2, "FILL", _FILL)
    points = [at(i, float(share)) for i, share in enumerate(shares) if np.isfinite(share)]
    for (x0, y0), (x1, y1) in pairwise(points):
        png.line(panel, x0, y0, x1, y1, _SHARE, thick=2)
    for px, py in points:
        panel[max(0, int(py) - 2) : int(py) + 3, max(0, int(px) - 2) : int(px) + 3] = _WHITE
    if rows:
        png.write(panel, left, bottom + 10, rows[0].name, _DIM)
        png.write(panel, right - 44, bottom + 10, rows[-1].name, _DIM)
    return panel


def page(standing: Standing) -> str:
    """Return index.html: the newest picture, curves and a table; it loads itself again every few seconds."""
    mark = (
        "<p class=v>VIRTUAL: a simulated microscope makes these pictures and numbers.</p>" if standing.virtual else ""
    )
    links = " · ".join(
        f'<a href="{html.escape(target)}">{html.escape(name)}</a>' for name, target in standing.links.items()
    )
    curves = _svg(
        "Phase fractions", {name: [r.fractions.get(name) for r in standing.rows] for name in _PHASES}, _PHASES
    )
    curves += _svg(
        "Fillable pores that stand empty",
        {"empty": [row.unfilled_share for row in standing.rows]},
        {"empty": "#f0b43c"},
        [index for index, row in enumerate(standing.rows) if row.fill_before],
        standing.threshold,
    )
    body = "".join(
        f"<tr><td>{html.escape(row.name)}</td><td>{row.z_m * 1e9:.0f}</td>"
        + "".join(f"<td>{100 * row.fractions.get(name, float('nan')):.1f}</td>" for name in _PHASES)
        + f"<td>{100 * row.unfilled_share:.1f}</td><td>{'fill before' if row.fill_before else ''}</td></tr>"
        for row in reversed(standing.rows)
    )
    head = "".join(f"<th>{name} %</th>" for name in _PHASES)
    return f"""<!doctype html>
<html lang=en><meta charset=utf-8><meta http-equiv=refresh content=4>
<title>{html.escape(standing.title)}</title>
<style>body{{font:15px system-ui,sans-serif;background:#18181c;color:#ddd;margin:1.5em}}
a{{color:#8bf}}.v{{color:#fa5a5a}}
img{{max-width:100%}}td,th{{padding:.15em .7em;text-align:right}}
svg{{background:#202026;margin:.5em 1em .5em 0}}</style>
<h1>{html.escape(standing.title)}</h1>{mark}
<p>{html.escape(standing.step)} · {html.escape(standing.slices)} · {html.escape(standing.time_left)}</p>
<p><img src=latest.png alt="newest slice, its phases, and the curve of empty pores"></p>
<div>{curves}</div><p>{links}</p>
<table><tr><th>slice<th>z (nm){head}<th>empty %<th></tr>{body}</table></html>
"""


def _svg(
    title: str,
    series: Mapping[str, Sequence[float | None]],
    colours: Mapping[str, str],
    marks: Sequence[int] = (),
    threshold: float | None = None,
) -> str:
    values = [v for line in series.values() for v in line if v is not None and np.isfinite(v)]
    full = max([0.05, threshold or 0.0, *values]) * 1.1
    count = max((len(line) for line in series.values()), default=0)

    def at(index: float, value: float) -> str:
        return f"{50 + 430 * index / max(1, count - 1):.1f},{210 - 180 * value / full:.1f}"

    parts = [f"<text x=50 y=18 fill=#ddd font-size=14>{html.escape(title)}</text>"]
    for tick in (0.0, 0.5, 1.0):
        y = 210 - 180 * tick / 1.1
        parts.append(f'<path d="M50 {y:.0f}H480" stroke=#444 /><text x=4 y={y + 4:.0f} fill=#999 font-size=11>')
        parts.append(f"{100 * full * tick / 1.1:.0f} %</text>")
    if threshold is not None:
        y = 210 - 180 * threshold / full
        parts.append(f'<path d="M50 {y:.0f}H480" stroke=#f0b43c stroke-dasharray="5 5"/>')
    parts.extend(f'<path d="M{at(mark - 0.5, 0).replace(",", " ")}V30" stroke=#5aaafa />' for mark in marks)
    for offset, (name, line) in enumerate(series.items()):
        points = " ".join(at(i, v) for i, v in enumerate(line) if v is not None and np.isfinite(v))
        parts.append(f'<polyline points="{points}" fill=none stroke="{colours[name]}" stroke-width=2 />')
        parts.append(f'<text x={250 + 65 * offset} y=18 fill="{colours[name]}" font-size=12>{html.escape(name)}</text>')
    return f'<svg width=520 height=230 viewBox="0 0 520 230">{"".join(parts)}</svg>'
