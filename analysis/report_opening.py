"""What a report opens with: the strip, the pair, the curve of empty pores, a real micrograph, the night's time line.

These five show the idea before any table does. Each says what it lacks when a run has no such thing.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace

from PIL.Image import Image

from analysis.measure import changes
from analysis.pairs import OpenPores
from analysis.pictures import Loaded, changed, data_uri, finished, load, overlay, plain
from analysis.plots import Line, Span, bars, chart, midpoints
from analysis.pores import refills
from analysis.report_data import Activity, Pair, Picture, ReportData, SliceRow
from analysis.report_html import WORDS, clock, legend, missing, percent, table, text

KINDS: dict[str, tuple[str, str]] = {
    "block": ("block, trenches, marks", "#7f8c9a"),
    "slicing": ("slice cuts", "#2f7fc9"),
    "imaging": ("imaging", "#66b2a0"),
    "films": ("platinum films", "#d6a100"),
    "cleaning": ("green cleans", "#c8287a"),
    "gas": ("gas: heating, purging, pressure", "#e8d28a"),
    "EDS": ("element maps", "#8a63c9"),
    "moves": ("moves and devices", "#b9c0c9"),
    "alignment": ("finding marks, focus", "#9fb4c7"),
    "waiting": ("settling and waiting", "#d8dce2"),
    "other": ("other", "#999999"),
}
"""What the kinds of activities are called, and their colours; another kind is shown as other."""

_COATING = ("pore", "cbd", "active")


class Frames:
    """Makes figures of pictures for one page: sized, marked, in data URIs."""

    def __init__(self, data: ReportData, width_px: int) -> None:
        self.virtual = data.virtual
        self.width_px = width_px

    def load(self, picture: Picture) -> Loaded:
        """Read a picture."""
        return load(
            picture.image,
            pixel_m=picture.pixel_m,
            channel=picture.channel,
            labels=picture.labels,
            stretch=picture.stretch,
        )

    def figure(
        self,
        picture: Picture,
        *,
        kind: str = "plain",
        caption: str | None = None,
        mark: str = "",
        share: float = 1.0,
        against: Loaded | None = None,
    ) -> str:
        """Return a <figure>: the plain picture, its overlay, or what changed against another labelling.

        `share` is the part of the page's picture width that it gets.
        """
        loaded = self.load(picture)
        width = max(240, round(self.width_px * share))
        if kind == "overlay":
            drawn = overlay(loaded, width)
        elif kind == "changed" and against is not None and against.labels is not None:
            drawn = changed(loaded, against.labels, width)
        else:
            drawn = plain(loaded, width)
        virtual = self.virtual if picture.virtual is None else picture.virtual
        done = finished(
            drawn, source_width_px=loaded.image.shape[1], pixel_m=loaded.pixel_m, virtual=virtual, mark=mark
        )
        said = picture.caption if caption is None else caption
        return framed(done, said, kind)


def framed(picture: Image, caption: str, kind: str) -> str:
    """Return a <figure> with its caption; `kind` is what stands for it where there is no caption."""
    size = f'width="{picture.width}" height="{picture.height}"'
    return (
        f'<figure><img src="{data_uri(picture)}" {size} alt="{text(caption or kind)}">'
        f"<figcaption>{text(caption)}</figcaption></figure>"
    )


def strip(data: ReportData, frames: Frames) -> str:
    """Return stages b to f of the preparation."""
    taken = [(stage, stage.picture) for stage in data.stages if stage.picture is not None]
    if not taken:
        return missing("No pictures of the preparation were kept.")
    figures = []
    for stage, picture in taken:
        said = "; ".join(part for part in (stage.name, picture.caption) if part) + "."
        figures.append(frames.figure(picture, caption=said, mark=stage.letter, share=0.55))
    absent = [f"{stage.letter} ({stage.name})" for stage in data.stages if stage.picture is None]
    note = missing(f"Not taken: {', '.join(absent)}.") if absent else ""
    return f'<div class="row strip">{"".join(figures)}</div>{note}'


def pair_sentence(pair: Pair) -> str:
    """Return what platinum changed on one plane, in the figures of that plane."""
    said = f"Without platinum CBD {pair.before_fractions['cbd']:.2f}, with it {pair.after_fractions['cbd']:.2f}"
    if pair.truth_fractions is not None:
        said += f", truth {pair.truth_fractions['cbd']:.2f}"
    return f"{said} of the coating."


def open_pores_sentence(found: OpenPores) -> str:
    """Return how many open pores labels missed before their fills, and what they took them for."""
    said = f"Of the pores that platinum filled, {percent(found.missed)} % of the area was labelled otherwise before it"
    taken = ", ".join(
        f"{WORDS.get(name, name)} {percent(share)} %" for name, share in found.taken_for.items() if share >= 5e-4
    )
    return f"{said} ({taken})." if taken else f"{said}."


def pairs(data: ReportData, frames: Frames) -> str:
    """Return the first pair in full and the figures of all."""
    if not data.pairs:
        return missing("No plane was imaged both before and after a fill, so the gain by platinum can't be shown.")
    first = data.pairs[0]
    parts = [f'<p class="say">{text(pair_sentence(first))}</p>']
    if data.open_pores is not None and data.open_pores.pixels:
        parts.append(f"<p>{text(open_pores_sentence(data.open_pores))}</p>")
    before, after = frames.load(first.before), frames.load(first.after)
    row = [
        frames.figure(
            first.before, caption=f"Before the fill: {first.before.caption or 'pores stand open'}", share=0.75
        ),
        frames.figure(
            first.after, caption=f"After it: {first.after.caption or 'the same plane, pores full'}", share=0.75
        ),
    ]
    if before.labels is not None:
        row.append(frames.figure(first.before, kind="overlay", caption="Labels without platinum", share=0.75))
    if after.labels is not None:
        row.append(frames.figure(first.after, kind="overlay", caption="Labels with platinum", share=0.75))
    parts.append(f'<div class="row two">{"".join(row)}</div>')
    if before.labels is not None and after.labels is not None:
        parts.append(legend())
        if before.labels.shape == after.labels.shape:
            found = changes(before.labels, after.labels)
            most = [_renamed(name, share) for name, share in list(found.shares.items())[:4]]
            said = f"{percent(found.changed)} % of the pixels changed phase" + (
                f": {', '.join(most)}." if most else "."
            )
            caption = "Pixels whose phase changed, in the colour of the phase that they have with platinum"
            figure = frames.figure(first.after, kind="changed", caption=caption, against=before, share=0.75)
            parts.append(
                f'<div class="row two"><div>{figure}</div><div><p>{text(said)}</p>{_pair_table(data)}</div></div>'
            )
        else:
            parts += [missing("The two pictures differ in size, so pixels can't be compared."), _pair_table(data)]
    else:
        parts.append(_pair_table(data))
    return "".join(parts)


def _renamed(name: str, share: float) -> str:
    a, b = name.split(" -> ")
    return f"{WORDS[a]} → {WORDS[b]} {percent(share)} %"


def _pair_table(data: ReportData) -> str:
    truth = any(pair.truth_fractions is not None for pair in data.pairs)
    head = ["plane", "share of coating", *(f"{WORDS[name]}, %" for name in _COATING), "planes apart, nm"]
    rows = []
    for pair in data.pairs:
        gap = "–" if pair.gap_m is None else f"{pair.gap_m * 1e9:.0f}"
        kinds: list[tuple[str, Mapping[str, float] | None]] = [
            ("without Pt", pair.before_fractions),
            ("with Pt", pair.after_fractions),
        ]
        if truth:
            kinds.append(("truth", pair.truth_fractions))
        for number, (kind, values) in enumerate(kinds):
            shown = [percent((values or {}).get(name)) for name in _COATING]
            rows.append([text(pair.name) if not number else "", kind, *shown, gap if not number else ""])
    return table(head, rows, words=(0, 1))


def curve(data: ReportData) -> str:
    """Return the share of empty fillable pores against depth, fills marked, another run dashed beside it."""
    rows = [row for row in data.rows if math.isfinite(row.unfilled_share)]
    if len(rows) < 2:
        return missing("Fewer than two labelled slices: there is no curve of empty pores.")
    lines = [
        Line(
            "this run" if data.comparison else "",
            [row.z_m * 1e6 for row in rows],
            [100 * row.unfilled_share for row in rows],
            "var(--pore)",
        )
    ]
    if data.comparison is not None:
        other = data.comparison
        lines.append(
            Line(
                other.label,
                [z * 1e6 for z in other.z_m],
                [100 * share for share in other.unfilled_share],
                "var(--dim)",
                dashed=True,
                points=False,
            )
        )
    level = None if data.refill_threshold is None else (100 * data.refill_threshold, "a fill is asked for above")
    marks = midpoints([row.z_m * 1e6 for row in rows], [row.fill_before for row in rows])
    plot = chart(
        lines,
        x_label="depth into the block, µm",
        y_label="empty, % of fillable pore area",
        title="Share of the fillable pores that stand empty, against depth",
        fills=marks,
        level=level,
        height=320,
    )
    sentences = _fills(rows, data.refill_threshold) or ["No fill came between slices."]
    if data.comparison is None:
        sentences.append("There is no run with refills off to compare with.")
    body = "".join(f"<p>{text(sentence)}</p>" for sentence in sentences)
    note = (
        '<p class="remark">A pore is fillable when it is narrower everywhere than the limit of the recipe, and empty '
        "when platinum lines no more than half of its outline. Wide pores keep a dark core and never count.</p>"
    )
    return f'<div class="row two"><div>{plot}</div><div>{body}{note}</div></div>'


def _fills(rows: Sequence[SliceRow], threshold: float | None) -> list[str]:
    """Return one sentence a fill: what it did, and how soon pores stood open again."""
    z, share = [row.z_m for row in rows], [row.unfilled_share for row in rows]
    said = []
    for found in refills(z, share, [row.fill_before for row in rows]):
        sentence = (
            f"The fill before {rows[found.slice].name} brought the share of empty pores from "
            f"{percent(found.before, 0)} % to {percent(found.after, 0)} %"
        )
        if threshold is not None:
            later = range(found.slice, len(rows))
            again = next((k for k in later if share[k] > threshold), None)
            if again is None:
                sentence += f"; it stayed below {percent(threshold, 0)} % to the end"
            elif again == found.slice:
                sentence += f", not below {percent(threshold, 0)} %"
            else:
                cut = (z[again] - z[found.slice]) * 1e6
                sentence += f"; {cut:.1f} µm further into the block it was above {percent(threshold, 0)} % again"
        elif found.opening_per_m is not None and found.opening_sigma_per_m is not None:
            sentence += (
                f"; after it pores opened again by {100e-6 * found.opening_per_m:.0f} ± "
                f"{100e-6 * found.opening_sigma_per_m:.0f} points per µm"
            )
        said.append(sentence + ".")
    return said


def real(data: ReportData, frames: Frames) -> str:
    """Return a real micrograph labelled by the same weights, with its score."""
    if data.real is None:
        return missing("No real micrograph was labelled with these weights.")
    shown = data.real
    picture = replace(shown.picture, virtual=bool(shown.picture.virtual))
    mark = "" if picture.virtual else "REAL"
    figures = frames.figure(picture, share=0.75, mark=mark) + frames.figure(
        picture, kind="overlay", caption="Labelled by the same weights as this run's slices", share=0.75, mark=mark
    )
    scores = ", ".join(f"{name} {value:.2f}" for name, value in shown.scores.items())
    said = f"Agreement with {shown.reference}: {scores}." if scores else "It has no score: nothing to compare with."
    others = ", ".join(f"{name} {value:.2f}" for name, value in shown.others.items())
    more = f" For comparison: {others}." if others else ""
    model = f" Weights: {data.model_id}." if data.model_id else ""
    return (
        f'<div class="row two">{figures}</div>{legend()}<p class="say">{text(said)}</p>'
        f'<p class="remark">{text((more + model).strip())} Micrograph: {text(shown.citation)}.</p>'
    )


def _kind(activity: Activity) -> str:
    return activity.kind if activity.kind in KINDS else "other"


def night(data: ReportData) -> str:
    """Return the time line in instrument time, hours by kind, and what the recipe takes on a real Hydra."""
    if not data.activities and not data.hydra_s:
        return missing("No time line was kept.")
    rows: list[tuple[str, list[Span]]] = []
    sums: dict[str, float] = defaultdict(float)
    if data.activities:
        start = min(item.start_s for item in data.activities)
        spans = []
        for item in sorted(data.activities, key=lambda item: item.start_s):
            sums[_kind(item)] += item.seconds
            label = f"{item.name or KINDS[_kind(item)][0]}, {clock(item.seconds)}"
            spans.append(Span((item.start_s - start) / 3600, item.seconds / 3600, KINDS[_kind(item)][1], label))
        rows.append((f"this run, {'simulated ' if data.virtual else ''}instrument time, in order", spans))
    planned: dict[str, float] = defaultdict(float)
    for kind, seconds in data.hydra_s.items():
        planned[kind if kind in KINDS else "other"] += seconds
    if planned:
        at, spans = 0.0, []
        for kind, seconds in planned.items():
            spans.append(Span(at / 3600, seconds / 3600, KINDS[kind][1], f"{KINDS[kind][0]}, {clock(seconds)}"))
            at += seconds
        rows.append(("the same recipe on a real Hydra, as planned, by kind", spans))
    used = [kind for kind in KINDS if sums.get(kind) or planned.get(kind)]
    plot = bars(
        rows, x_label="hours", title="Time line of the run", legend=[(KINDS[kind][0], KINDS[kind][1]) for kind in used]
    )
    said = []
    if sums:
        end = max(item.start_s + item.seconds for item in data.activities)
        said.append(f"The run took {clock(end - start)} h of {'simulated ' if data.virtual else ''}instrument time")
        if data.wall_s is not None:
            said[-1] += (
                f" and {clock(data.wall_s) + ' h' if data.wall_s >= 3600 else f'{data.wall_s:.0f} s'} on the wall"
            )
        said[-1] += "."
    if planned:
        said.append(f"On a real Hydra this recipe takes {clock(sum(planned.values()))} h, by the plan's rates.")
    cells = [
        [
            KINDS[kind][0],
            clock(sums[kind]) if sums.get(kind) else "–",
            clock(planned[kind]) if planned.get(kind) else "–",
        ]
        for kind in used
    ]
    times = table(["", "this run, h:mm", "real Hydra, h:mm"], cells)
    sentence = f'<p class="say">{text(" ".join(said))}</p>'
    return f'{sentence}<div class="row two"><div>{plot}</div><div>{times}</div></div>'
