"""One self-contained HTML page about a run, such as a scientist would show in a group meeting.

    build(data, Path("report.html"))

No scripts, nothing loaded from elsewhere; pictures are inside, small enough to send by mail. What a run lacks is left
out with a sentence. Everything simulated is marked VIRTUAL, in words and in the pictures themselves.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from analysis import report_elements as elements
from analysis import report_opening as opening
from analysis import report_sections as sections
from analysis.files import write_whole
from analysis.report_data import (
    COOPER_2022,
    Activity,
    Check,
    Comparison,
    Decision,
    Eds,
    Pair,
    Picture,
    RealMicrograph,
    ReportData,
    SliceRow,
    Stage,
)
from analysis.report_html import STYLE, clock, estimated, listed, percent, text
from analysis.report_opening import Frames

__all__ = [
    "COOPER_2022",
    "Activity",
    "Check",
    "Comparison",
    "Decision",
    "Eds",
    "Pair",
    "Picture",
    "RealMicrograph",
    "ReportData",
    "SliceRow",
    "Stage",
    "build",
    "render",
]

MOST_BYTES = 5_000_000
_WIDTHS = (1000, 800, 640, 512, 400, 320, 240)

Section = tuple[str, str, Callable[[ReportData, Frames], str]]

_SECTIONS: tuple[Section, ...] = (
    ("strip", "From the cap to a clean face", opening.strip),
    ("pair", "What platinum changes", opening.pairs),
    ("curve", "Pores open as the face recedes, fills close them", lambda data, _: opening.curve(data)),
    ("real", "The same weights on a real micrograph", opening.real),
    ("night", "The night", lambda data, _: opening.night(data)),
    ("fractions", "Phases", sections.fractions),
    ("height", "Height above the collector", lambda data, _: sections.profile(data)),
    ("eds", "Elements against labels", elements.eds),
    ("slices", "Where the slices are", lambda data, _: sections.positions(data)),
    ("balance", "Does it agree with the electrode that was made?", lambda data, _: sections.balance(data)),
    ("decisions", "Refills: what was decided, and on what", lambda data, _: sections.decisions(data)),
    ("health", "Health and interlocks", lambda data, _: sections.checks(data)),
    ("all", "Every slice", lambda data, _: sections.every_slice(data)),
)


def render(data: ReportData, *, width_px: int = _WIDTHS[0]) -> str:
    """Return the page.

    Parameters
    ----------
    data : what there is to show
    width_px : of the widest picture

    Raises
    ------
    ValueError : a picture that can't be read, labels of another shape than their picture
    OSError : a file that isn't there
    """
    frames = Frames(data, width_px)
    body = "".join(
        f'<section id="{name}"><h2>{number}. {text(title)}</h2>{make(data, frames)}</section>'
        for number, (name, title, make) in enumerate(_SECTIONS, 1)
    )
    mark = "VIRTUAL " if data.virtual else ""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{mark}{text(data.title)}</title><style>{STYLE}</style></head>"
        f"<body><main>{_head(data)}{body}{_foot(data)}</main></body></html>\n"
    )


def build(data: ReportData, out: Path, *, most_bytes: int = MOST_BYTES) -> int:
    """Write the page in one durable step, its pictures small enough that it stays below `most_bytes`; return its size.

    Raises ValueError when even the smallest pictures make it larger, and what `render` raises.
    """
    size = 0
    for width in _WIDTHS:
        page = render(data, width_px=width).encode("utf-8")
        size = len(page)
        if size < most_bytes:
            write_whole(out, page)
            return size
    msg = f"the report takes {size / 1e6:.1f} MB even with the smallest pictures, more than {most_bytes / 1e6:.1f} MB"
    raise ValueError(msg)


def _head(data: ReportData) -> str:
    mark = '<span class="virtual">VIRTUAL</span> ' if data.virtual else ""
    facts = [data.sample, data.instrument, " to ".join(part for part in (data.started, data.finished) if part)]
    line = " · ".join(text(fact) for fact in facts if fact)
    banner = (
        '<p class="banner"><b>VIRTUAL.</b> A simulated microscope worked on a simulated electrode. Pictures marked so, '
        "and all numbers but those about a real micrograph, are the simulator's.</p>"
        if data.virtual
        else ""
    )
    tiles = "".join(f'<div class="tile"><b>{value}</b><span>{text(name)}</span></div>' for name, value in _tiles(data))
    notes = "".join(f"<li>{text(note)}</li>" for note in data.notes)
    told = f"<ul>{notes}</ul>" if notes else ""
    return (
        f'<header><h1>{mark}{text(data.title)}</h1><p class="dim">{line}</p>{banner}'
        f'<div class="tiles">{tiles}</div>{told}</header>'
    )


def _tiles(data: ReportData) -> list[tuple[str, str]]:
    tiles: list[tuple[str, str]] = []
    if data.rows:
        depth = data.rows[-1].z_m - data.rows[0].z_m
        tiles += [("slices", str(len(data.rows))), ("depth, first to last plane", f"{depth * 1e6:.2f} µm")]
    if data.fractions is not None:
        names = {"pore": "pore", "cbd": "CBD", "active": "active material"}
        tiles += [
            (f"{words} in the coating", estimated(data.fractions.phases[name]))
            for name, words in names.items()
            if name in data.fractions.phases
        ]
    fills = sum(row.fill_before for row in data.rows[1:])
    if data.rows:
        tiles.append(("fills between slices", str(fills)))
    if data.real is not None and data.real.scores:
        name, value = next(iter(data.real.scores.items()))
        tiles.append((f"{name}, real micrograph", f"{value:.2f}"))
    if data.hydra_s:
        tiles.append(("h:mm on a real Hydra, as planned", clock(sum(data.hydra_s.values()))))
    return tiles


def _foot(data: ReportData) -> str:
    parts = ["<footer>"]
    if data.recipe:
        parts.append(f"<details><summary>The recipe</summary><pre>{text(data.recipe)}</pre></details>")
    if data.model_id:
        figures = ", ".join(f"{name} {percent(value)} %" for name, value in data.model_figures.items())
        parts.append(f"<p>Labels by {text(data.model_id)}{text(f' ({figures})' if figures else '')}.</p>")
    parts.append(f"<p>Method: {text(COOPER_2022.removesuffix('; cropped'))}.</p>")
    if data.versions:
        parts.append(f"<details><summary>Versions</summary>{listed(data.versions)}</details>")
    parts.append("</footer>")
    return "".join(parts)
