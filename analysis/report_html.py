"""Small pieces of HTML for a report: tables, sections, numbers with their errors, and how the page looks."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence

from analysis.phases import COLOURS, NAMES, Phase
from analysis.sampling import Estimate

CURVE = {"pore": "var(--pore)", "cbd": "var(--cbd)", "active": "var(--active)", "collector": "var(--collector)"}
WORDS = {"pore": "pore", "cbd": "CBD", "active": "active material", "collector": "collector", "outside": "outside"}

STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1d21;--dim:#5d646e;--line:#d9dde3;--soft:#f4f5f7;--accent:#0b62a8;
--pore:#b98500;--cbd:#c8287a;--active:#2f7fc9;--collector:#2f9b6b;--fill:#0b8a8f;--bad:#b00020;--good:#1d7a3a}
@media (prefers-color-scheme:dark){:root{--bg:#16181c;--fg:#e6e8eb;--dim:#a0a7b1;--line:#363b43;--soft:#1f2228;
--accent:#79b8f0;--pore:#ffc828;--cbd:#f06aa8;--active:#6db2f2;--collector:#66c999;--fill:#4fc3c7;--bad:#ff6b7d;--good:#6fcf8a}}
@media print{:root{color-scheme:light;--bg:#fff;--fg:#000;--dim:#444;--line:#bbb;--soft:#f4f4f4;--accent:#000;
--pore:#b98500;--cbd:#c8287a;--active:#2f7fc9;--collector:#2f9b6b;--fill:#0b8a8f;--bad:#b00020;--good:#1d7a3a}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--fg);font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1120px;margin:0 auto;padding:1rem clamp(.8rem,3vw,2rem) 4rem}
h1{font-size:clamp(1.5rem,4vw,2.1rem);line-height:1.2;margin:.6rem 0 .2rem}
h2{font-size:1.25rem;margin:2.4rem 0 .5rem;padding-top:.8rem;border-top:1px solid var(--line)}
h3{font-size:1rem;margin:1.4rem 0 .4rem}
p{margin:.5rem 0;max-width:75ch}
.dim,figcaption,.remark{color:var(--dim);font-size:.9rem}
.say{font-size:1.12rem;max-width:70ch}
.virtual{display:inline-block;background:#b00020;color:#fff;font-weight:700;letter-spacing:.08em;
padding:.1rem .5rem;border-radius:3px;font-size:.85em}
.banner{border-left:4px solid #b00020;background:var(--soft);padding:.5rem .8rem;margin:.8rem 0}
.tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:.6rem;margin:1rem 0}
.tile{background:var(--soft);border-radius:6px;padding:.6rem .8rem}
.tile b{display:block;font-size:1.3rem;line-height:1.25;white-space:nowrap}.tile span{color:var(--dim);font-size:.85rem}
.row{display:grid;gap:.8rem;grid-template-columns:repeat(auto-fit,minmax(min(100%,var(--least,320px)),1fr));
align-items:start;margin:.8rem 0}
.strip{--least:150px}.two{--least:400px}
figure{margin:0}figure img{width:100%;height:auto;display:block;border-radius:3px}
figcaption{margin-top:.3rem;line-height:1.35}
svg.plot{width:100%;max-width:640px;height:auto;display:block}
svg .grid{stroke:var(--line);fill:none}svg .axis{stroke:var(--dim);fill:none}
svg .tick{fill:var(--dim);font-size:13px}svg .label{fill:var(--fg);font-size:14px}
svg path.fill{stroke:var(--fill);stroke-width:1.5;fill:none}svg text.fill{fill:var(--fill);font-size:12px}
svg .level{stroke:var(--dim);stroke-dasharray:3 3;fill:none}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.92rem;margin:.6rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .7rem;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th{font-weight:600;color:var(--dim);vertical-align:bottom;white-space:normal}
th:first-child,td:first-child,td.t,th.t{text-align:left}td.t{white-space:normal}
.legend{display:flex;flex-wrap:wrap;gap:.3rem 1rem;font-size:.9rem;margin:.4rem 0}
.legend i{display:inline-block;width:.9em;height:.9em;margin-right:.35em;vertical-align:-.08em;
border:1px solid var(--dim)}
.good{color:var(--good)}.bad{color:var(--bad)}
details{margin:.6rem 0}summary{cursor:pointer;color:var(--accent)}
pre{background:var(--soft);padding:.8rem;overflow-x:auto;font-size:.82rem;line-height:1.4;border-radius:4px}
footer{margin-top:2.5rem;border-top:1px solid var(--line);color:var(--dim);font-size:.88rem}
@media (max-width:640px){.tiles{grid-template-columns:repeat(2,1fr)}td,th{padding:.25rem .35rem}}
@media print{main{max-width:none;padding:0}body{font-size:10.5pt}figure,svg,table,.tiles{break-inside:avoid}
h2,h3{break-after:avoid}details:not([open]){display:none}.banner,.virtual,figure img{print-color-adjust:exact}}
"""


def text(value: object) -> str:
    """Return a value as escaped text; numbers stay on one line with their unit."""
    escaped = html.escape(str(value))
    for unit in ("%", "µm", "nm", "±"):
        escaped = escaped.replace(f" {unit}", f"\N{NO-BREAK SPACE}{unit}")
    return escaped.replace("± ", "±\N{NO-BREAK SPACE}")


def percent(share: float | None, digits: int = 1) -> str:
    """Return a share as per cent without the sign, a dash where there is none."""
    if share is None or not math.isfinite(share):
        return "–"
    return f"{100 * share:.{digits}f}"


def estimated(value: Estimate, digits: int = 1) -> str:
    """Return an estimate as "18.3 ± 1.2 %"."""
    if not value.sigma:
        return f"{percent(value.value, digits)} %"
    return f"{percent(value.value, digits)} ± {percent(value.sigma, digits)} %"


def clock(seconds: float) -> str:
    """Return a time as h:mm."""
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02d}"


def nanometres(length_m: float | None) -> str:
    """Return a length in nm without the unit, a dash where there is none."""
    return "–" if length_m is None or not math.isfinite(length_m) else f"{length_m * 1e9:.0f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: Sequence[int] = ()) -> str:
    """Return a table; cells are HTML already; `words` are the columns that are set left and may break."""
    kind = [' class="t"' if number in words else "" for number in range(len(head))]
    top = "".join(f"<th{mark}>{cell}</th>" for cell, mark in zip(head, kind, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{mark}>{cell}</td>" for cell, mark in zip(row, kind, strict=True)) + "</tr>"
        for row in rows
    )
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


def legend(phases: Sequence[Phase] = (Phase.PORE, Phase.CBD, Phase.ACTIVE, Phase.COLLECTOR)) -> str:
    """Return the colours of the phases."""
    parts = "".join(
        f'<span><i style="background:rgb{COLOURS[phase]}"></i>{WORDS[NAMES[phase]]}</span>' for phase in phases
    )
    return f'<div class="legend">{parts}</div>'


def missing(what: str) -> str:
    """Return the sentence that stands where a part would."""
    return f'<p class="remark">{text(what)}</p>'


def listed(values: Mapping[str, str]) -> str:
    """Return names and values as a small table; both are escaped."""
    return table(("", ""), [(text(name), text(value)) for name, value in values.items()], words=(0, 1)).replace(
        '<thead><tr><th class="t"></th><th class="t"></th></tr></thead>', ""
    )
