"""What follows a report's opening: fractions, heights, positions, balance, decisions, health, every slice."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from analysis.heights import levels
from analysis.measure import Fractions, Spacing, spacing, tortuosity_note
from analysis.plots import Line, chart, midpoints, reliability
from analysis.reliability import Reliability, calibration_error
from analysis.report_data import ReportData, SliceRow
from analysis.report_html import CURVE, WORDS, estimated, legend, missing, nanometres, percent, table, text
from analysis.report_opening import Frames
from analysis.sampling import Estimate, partial_slope

_COATING = ("pore", "cbd", "active")
_CONFIDENT = 2.0


def fractions(data: ReportData, frames: Frames) -> str:
    """Return phase fractions: of all slices with errors, against depth, against fill age."""
    parts = []
    if data.fractions is not None:
        parts.append(_fraction_table(data.fractions, data.rows))
    if len(data.rows) > 1:
        minor = _against_depth(data.rows, ("pore", "cbd"), "Pore and CBD against depth")
        major = _against_depth(data.rows, ("active",), "Active material against depth")
        parts.append(f'<div class="row two">{minor}{major}</div>')
        parts.append(_against_age(data.rows))
    if data.reliability:
        parts.append(_how_right(data.reliability))
    if data.gallery:
        figures = "".join(
            frames.figure(picture, kind="overlay" if picture.labels is not None else "plain", share=0.6)
            for picture in data.gallery
        )
        parts.append(f'{legend()}<div class="row">{figures}</div>')
    return "".join(parts) or missing("No slice has labels.")


def _how_right(curve: Sequence[Reliability]) -> str:
    """Return how right labels are by how sure they are, with the mean difference of the two."""
    off = calibration_error(curve)
    points = [(point.confidence, point.right, point.share) for point in curve]
    said = (
        f"<p>Confidence and what was right differ by {percent(off)} % on average of the pixels, against the truth of "
        "these slices.</p>"
    )
    figure = f"<div>{reliability(points, title='How right labels are')}</div>"
    return f'<h3>Is the confidence right?</h3><div class="row two">{figure}<div>{said}</div></div>'


def _fraction_table(found: Fractions, slices: Sequence[SliceRow]) -> str:
    truths = [row.truth_fractions for row in slices if row.truth_fractions is not None]
    head = ["phase", "share of the coating", "95 % interval, %", "independent samples"]
    if truths:
        head.append("truth of these slices, %")
    rows = []
    for name, value in found.phases.items():
        cells = [
            text(WORDS[name]),
            estimated(value),
            f"{percent(value.low)} – {percent(value.high)}",
            "–" if value.samples is None else f"{value.samples:.0f}",
        ]
        if truths:
            cells.append(percent(sum(truth.get(name, math.nan) for truth in truths) / len(truths)))
        rows.append(cells)
    pore = found.phases.get("pore")
    need = pore.area_for(0.01, found.area_m2) if pore is not None else None
    said = (
        f"{found.planes} slices of {found.area_m2 * 1e12:.0f} µm². Errors are those of sampling (one place of one "
        "electrode), from the two-point covariance of the slices; wrong labels and the calibration of the pixel (1 to "
        "3 %) come on top."
    )
    if need is not None:
        said += f" For ± 1 % of porosity a face of {need * 1e12:,.0f} µm² would be needed."
    return table(head, rows) + f'<p class="remark">{text(said)}</p>'


def _against_depth(rows: Sequence[SliceRow], names: Sequence[str], title: str) -> str:
    at = [row.z_m * 1e6 for row in rows]
    lines = [
        Line(WORDS[name], at, [100 * row.fractions.get(name, math.nan) for row in rows], CURVE[name]) for name in names
    ]
    if any(row.truth_fractions is not None for row in rows):
        lines += [
            Line(
                f"{WORDS[name]}, truth",
                at,
                [100 * (row.truth_fractions or {}).get(name, math.nan) for row in rows],
                CURVE[name],
                dashed=True,
                points=False,
            )
            for name in names
        ]
    values = [y for line in lines for y in line.y if math.isfinite(y)]
    range_ = None if not values or min(values) < 40 else (math.floor(min(values) - 3), math.ceil(max(values) + 3))
    return "<div>" + (
        chart(
            lines,
            x_label="depth into the block, µm",
            y_label="share of the coating, %",
            title=title,
            y_range=range_,
            fills=midpoints(at, [row.fill_before for row in rows]),
        )
        + "</div>"
    )


def _against_age(rows: Sequence[SliceRow]) -> str:
    """Return fractions against the depth cut since the last fill, and whether they drift with it."""
    known = [row for row in rows if row.fill_age_m is not None]
    if len({row.fill_age_m for row in known}) < 3 or len(known) < 8:
        return ""
    age = [(row.fill_age_m or 0.0) * 1e6 for row in known]
    depth = [row.z_m * 1e6 for row in known]
    lines, said = [], []
    for name in ("pore", "cbd"):
        share = [100 * row.fractions.get(name, math.nan) for row in known]
        lines.append(Line(WORDS[name], age, share, CURVE[name], joined=False))
        drift = partial_slope(share, age, depth)
        if drift is not None and drift[1] > 0:
            sure = abs(drift[0]) > _CONFIDENT * drift[1]
            said.append(
                f"{WORDS[name]} {'drifts by' if sure else 'shows no drift beyond two errors:'} "
                f"{drift[0]:+.1f} ± {drift[1]:.1f} points per µm cut since the last fill, at equal depth"
                + (": a bias of old fills, not of the electrode." if sure else ".")
            )
    if not said:
        said = ["Only one stretch between fills: depth and age of the fill can't be told apart."]
    plot = chart(
        lines,
        x_label="cut since the last fill, µm",
        y_label="share of the coating, %",
        title="Fractions against the age of the fill",
        height=250,
    )
    words = "".join(f"<p>{text(item[0].upper() + item[1:])}</p>" for item in said)
    return (
        '<h3>Does the age of a fill bias the fractions?</h3><div class="row two">'
        f"<div>{plot}</div><div>{words}</div></div>"
    )


def profile(data: ReportData) -> str:
    """Return fractions against height above the collector."""
    found = data.profile
    if found is None:
        return missing("The slices don't show enough of the collector to count heights from it.")
    lines = []
    for name in ("pore", "cbd"):
        at = levels(found, name)
        lines.append(
            Line(
                WORDS[name],
                [height * 1e6 for height, _ in at],
                [100 * value.value for _, value in at],
                CURVE[name],
                low=[100 * value.low for _, value in at],
                high=[100 * value.high for _, value in at],
            )
        )
    plot = chart(
        lines,
        x_label="height above the collector, µm",
        y_label="share of the coating, %",
        title="Pore and CBD against height above the collector, bands 95 %",
    )

    def cells(kind: str, values: dict[str, Estimate]) -> list[str]:
        return [kind, *(estimated(values[name]) if name in values else "–" for name in _COATING)]

    near = f"{found.near_m * 1e6:g} µm"
    numbers = table(
        ["", *(WORDS[name] for name in _COATING)],
        [cells(f"below {near}", found.near), cells(f"above {near}", found.beyond)],
    )
    said = [
        f"The collector's line was found in {found.planes} of {found.planes + found.without_collector} slices; it is "
        f"{found.roughness_m * 1e9:.0f} nm rough (rms). Bands are 95 % intervals of sampling."
    ]
    if found.coating_m is not None and found.coating_sd_m is not None:
        said.append(
            f"Coating: {found.coating_m * 1e6:.1f} µm thick, ± {found.coating_sd_m * 1e6:.1f} µm from place to place."
        )
    remark = f'<p class="remark">{text(" ".join(said))}</p>'
    return f'<div class="row two"><div>{plot}</div><div>{numbers}{remark}</div></div>'


def positions(data: ReportData) -> str:
    """Return thickness and position of the slices, and the sentence about tortuosity."""
    if not data.rows:
        return missing("No slice has labels.")
    found = data.spacing or _spacing(data.rows)
    parts = []
    if found.thickness_m is not None:
        numbers = [
            ["slices", str(found.slices)],
            ["depth, first to last plane", f"{found.depth_m * 1e6:.2f} µm"],
            ["step, mean (median)", f"{nanometres(found.thickness_m)} ({nanometres(found.median_m)}) nm"],
            ["step, least to most", f"{nanometres(found.least_m)} to {nanometres(found.most_m)} nm"],
            ["step, scatter", f"{nanometres(found.sd_m)} nm"],
        ]
        if found.z_sigma_m is not None:
            numbers.append(["error of a plane's position", f"{found.z_sigma_m * 1e9:.1f} nm"])
            numbers.append(["scatter without that error", f"{nanometres(found.true_sd_m)} nm"])
        depths = [row.z_m for row in data.rows]
        steps = [(b - a) * 1e9 for a, b in pairwise(depths)]
        sigma = [row.z_sigma_m for row in data.rows]
        errors = [math.hypot(a, b) * 1e9 if a is not None and b is not None else math.nan for a, b in pairwise(sigma)]
        at = [depth * 1e6 for depth in depths[1:]]
        plot = chart(
            [Line("", at, steps, "var(--active)", joined=False, errors=errors)],
            x_label="depth into the block, µm",
            y_label="step, nm",
            y_range=_around(steps, errors),
            title="Measured distance between neighbouring planes",
            fills=midpoints([depth * 1e6 for depth in depths], [row.fill_before for row in data.rows]),
            height=250,
        )
        parts.append(f'<div class="row two"><div>{plot}</div><div>{table(["", ""], numbers)}</div></div>')
    gaps = "; ".join(found.gaps)
    parts.append(f"<p>{text(f'Gaps: {gaps}.' if gaps else 'No gaps between slices.')}</p>")
    parts.append(f"<p>{text(tortuosity_note(found.depth_m, data.particle_m))}</p>")
    return "".join(parts)


def _around(values: Sequence[float], errors: Sequence[float]) -> tuple[float, float]:
    """Return a range that holds all values with their errors."""
    ends = [
        v + sign * (e if math.isfinite(e) else 0.0) for v, e in zip(values, errors, strict=True) for sign in (-1, 1)
    ]
    pad = 0.15 * (max(ends) - min(ends)) or 1.0
    return min(ends) - pad, max(ends) + pad


def _spacing(rows: Sequence[SliceRow]) -> Spacing:
    return spacing([row.z_m for row in rows], [row.z_sigma_m for row in rows], [row.name for row in rows])


def balance(data: ReportData) -> str:
    """Return measured fractions against the weights the electrode was made of."""
    found = data.balance
    if found is None:
        return missing("The recipe says nothing of the electrode's composition, so nothing can be compared with it.")
    sigma = "" if found.nanoporosity_sigma is None else f" ± {found.nanoporosity_sigma:.2f}"
    rows = [
        ["CBD measured, nanopores included", f"{percent(found.cbd_measured)} %"],
        ["solid carbon and binder, by weight", f"{percent(found.cbd_solid)} %"],
        [
            "nanoporosity that reconciles them",
            "–" if found.nanoporosity is None else f"{found.nanoporosity:.2f}{sigma}",
        ],
        ["porosity, pores that were seen", f"{percent(found.porosity)} %"],
        [f"with the CBD's nanopores (assumed {found.assumed:g})", f"{percent(found.porosity_total)} %"],
    ]
    if found.porosity_expected is not None:
        rows.append(["porosity by loading and thickness", f"{percent(found.porosity_expected)} %"])
    return f"<p>{text(found.sentence)}</p>{table(['', ''], rows)}"


def decisions(data: ReportData) -> str:
    """Return what was decided about refills, and on what evidence."""
    if not data.decisions:
        return missing("No refill was decided on in this run.")
    rows = [
        [
            text(item.slice),
            text(item.evidence or "–"),
            percent(item.value),
            percent(item.threshold),
            text(item.outcome),
            text(item.reason),
        ]
        for item in data.decisions
    ]
    head = ["after", "labels of", "empty, %", "threshold, %", "outcome", "why"]
    usual = Counter(item.outcome for item in data.decisions).most_common(1)[0][0]
    telling = [row for row, item in zip(rows, data.decisions, strict=True) if item.outcome != usual]
    if not telling or len(rows) <= 6:
        return table(head, rows, words=(0, 1, 4, 5))
    every = table(head, rows, words=(0, 1, 4, 5))
    said = f"{len(rows)} decisions; {len(rows) - len(telling)} times the outcome was “{usual}”."
    return (
        f"<p>{text(said)}</p>{table(head, telling, words=(0, 1, 4, 5))}"
        f"<details><summary>All {len(rows)} decisions</summary>{every}</details>"
    )


def checks(data: ReportData) -> str:
    """Return health and interlocks."""
    if not data.checks:
        return missing("No health figures were kept.")
    words = {True: '<b class="good">kept</b>', False: '<b class="bad">not kept</b>', None: ""}
    rows = [[text(item.name), text(item.value), text(item.limit), words[item.kept]] for item in data.checks]
    return table(["", "value", "limit", ""], rows, words=(0, 1, 2, 3))


def _share(row: SliceRow, name: str) -> str:
    """Return a phase's share, and between what it lies if all doubtful pixels are the one or the other, per cent."""
    told = percent(row.fractions.get(name))
    if name not in row.intervals:
        return told
    low, high = row.intervals[name]
    return f"{told} ({100 * low:.0f}–{100 * high:.0f})"


def every_slice(data: ReportData) -> str:
    """Return the table of all slices."""
    if not data.rows:
        return missing("No slice has labels.")
    head = ["slice", "z, nm", "± nm", "step, nm", *(f"{WORDS[name]} %" for name in _COATING)]
    head += ["empty %", "film %", "doubt %", "confidence", "fill age, nm", ""]
    rows = []
    for row in data.rows:
        note = "; ".join(part for part in ("fill before" if row.fill_before else "", row.note) if part)
        rows.append(
            [
                text(row.name),
                nanometres(row.z_m),
                nanometres(row.z_sigma_m),
                nanometres(row.thickness_m),
                *(_share(row, name) for name in _COATING),
                percent(row.unfilled_share),
                percent(row.film_fraction),
                percent(row.doubt),
                "–" if row.confidence is None else f"{row.confidence:.2f}",
                nanometres(row.fill_age_m),
                text(note),
            ]
        )
    return f"<details><summary>All {len(rows)} slices</summary>{table(head, rows, words=(12,))}</details>"
