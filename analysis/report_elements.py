"""The part of a report about element maps: pictures, verdicts on each element, binder against carbon."""

from __future__ import annotations

import math
from collections.abc import Sequence

from analysis.eds import Gradient
from analysis.pictures import ELEMENT_COLOURS, elements, finished
from analysis.plots import Line, chart
from analysis.register import ElementMap
from analysis.report_data import Eds, ReportData
from analysis.report_html import WORDS, missing, table, text
from analysis.report_opening import Frames, framed


def eds(data: ReportData, frames: Frames) -> str:
    """Return element maps against labels."""
    if data.eds is None:
        return missing("No element map was taken.")
    result = data.eds.result
    pictures = ""
    if data.eds.element_map is not None:
        pictures = _element_pictures(data.eds, data.eds.element_map, frames)
    rows = []
    for pair in result.pairs:
        tone = {"agrees": "good", "disagrees": "bad"}.get(pair.verdict, "")
        digits = 1 if (pair.enrichment_sigma or 0.0) >= 0.05 else 2
        ratio = "–" if pair.enrichment is None else f"{pair.enrichment:.{digits}f}"
        if pair.enrichment is not None and pair.enrichment_sigma is not None:
            ratio += f" ± {pair.enrichment_sigma:.{digits}f}"
        rows.append(
            [
                text(pair.element),
                text(WORDS[pair.phase]),
                f"{pair.inside.mean:.3f} ± {pair.inside.sigma:.3f}",
                f"{pair.elsewhere.mean:.3f} ± {pair.elsewhere.sigma:.3f}",
                ratio,
                "–" if pair.patch_px is None else str(pair.patch_px),
                f'<b class="{tone}">{text(pair.verdict)}</b>',
            ]
        )
    head = ["element", "expected in", "counts/px there", "elsewhere", "ratio", "pixels that tell it by 3 σ", "verdict"]
    where = result.placement
    if where.found:
        moved = math.hypot(*where.moved_m)
        said = f"The map was found {moved * 1e6:.2f} µm from where the stage had it"
        if where.affine:
            (yy, yx), (xy, xx) = where.matrix
            said += (
                f", scaled by {_signed(yy - 1)} % along y and {_signed(xx - 1)} % along x, "
                f"sheared by {_signed(yx + xy)} %"
            )
        said += "."
    else:
        said = ""
    remarks = " ".join([said, *result.remarks]).strip()
    gradient = (
        _gradient(result.gradient)
        if result.gradient is not None
        else missing("There is no F over C: it takes both elements, CBD and a collector.")
    )
    return f'{pictures}{table(head, rows, words=(1, 6))}<p class="remark">{text(remarks)}</p>{gradient}'


def _signed(share: float) -> str:
    return f"{round(100 * share, 1) + 0.0:+.1f}"


def _element_pictures(eds: Eds, element_map: ElementMap, frames: Frames) -> str:
    def figure(names: Sequence[str], said: str) -> str:
        colours = {name: ELEMENT_COLOURS.get(name, (255, 255, 255)) for name in names}
        drawn = elements(element_map, colours, round(frames.width_px * 0.75))
        done = finished(
            drawn, source_width_px=element_map.shape[1], pixel_m=element_map.pixel_m, virtual=frames.virtual
        )
        return framed(done, said, "element map")

    words = {"C": "C red", "Ni": "Ni green", "Pt": "Pt blue", "Al": "Al grey"}
    shown = [name for name in words if name in element_map.counts]
    place = f" at {eds.slice}" if eds.slice else ""
    figures = (
        figure(shown, f"{', '.join(words[name] for name in shown)}{place}; smoothed by 0.25 µm for the eye")
        if shown
        else ""
    )
    if "F" in element_map.counts:
        figures += figure(["F"], "F, on its own scale")
    return f'<div class="row">{figures}</div>'


def _gradient(found: Gradient) -> str:
    known = [level for level in found.levels if level.ratio is not None and level.sigma is not None]
    plot = chart(
        [
            Line(
                "",
                [(level.low_m + level.high_m) * 5e5 for level in known],
                [level.ratio or 0.0 for level in known],
                "var(--cbd)",
                joined=False,
                errors=[level.sigma or 0.0 for level in known],
            )
        ],
        x_label="height above the collector, µm",
        y_label="F counts / C counts in CBD",
        title="Fluorine over carbon in the CBD against height, with counting errors",
        height=260,
    )
    near, beyond = found.near, found.beyond
    edge = f"{found.near_m * 1e6:g} µm"
    if found.factor is not None and found.factor_sigma is not None and near.ratio and beyond.ratio:
        sure = abs(found.factor - 1.0) > 3 * found.factor_sigma
        said = (
            f"F/C in the CBD is {near.ratio:.2f} ± {near.sigma or 0:.2f} below {edge} and {beyond.ratio:.2f} ± "
            f"{beyond.sigma or 0:.2f} above: a factor of {found.factor:.1f} ± {found.factor_sigma:.1f}, "
            + ("so binder and carbon are not mixed evenly." if sure else "no gradient beyond three errors.")
        )
    else:
        said = f"There are too few counts in the CBD to compare F/C below and above {edge}."
    return f'<h3>Binder against carbon</h3><div class="row two"><div>{plot}</div><div><p>{text(said)}</p></div></div>'
