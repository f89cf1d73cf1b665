"""Fills volume and report from a run's folder: everything a page shows comes from journal, frames and labels."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from instrument.frame import Frame
from workflows import results
from workflows.evidence import of_two_places, unfamiliar
from workflows.happenings import happenings
from workflows.journal import Act, Journal
from workflows.kept_recipe import read_recipe, read_text
from workflows.labelled import Labels, labels_of, labels_of_all, reliability, truth_of
from workflows.pairs import fills, open_pores
from workflows.recipe import Recipe
from workflows.store import RunFolder, frame_name

if TYPE_CHECKING:
    from analysis import report_data as page

log = logging.getLogger(__name__)

#: Where published micrographs of the method may lie (Cooper et al. 2022, CC BY 4.0); they are no part of the project.
PUBLISHED = Path(
    os.environ.get("KINTSUGI_REAL", Path(__file__).resolve().parents[2] / "shared" / "data" / "kintsugi-real")
)
#: Slices that the gallery shows at the most.
_GALLERY = 6
#: What kinds of acts are called in the time line: the plan's words.
_KINDS = {"deposit": "films", "frame": "imaging", "eds": "EDS", "mill": "slicing"}


def write_volume(folder: RunFolder, journal: Journal) -> Path | None:
    """Write volume.ome.zarr: aligned greys and labels; None where there are fewer than two slices."""
    from analysis import volume

    rows = _rows(folder, journal)
    if len(rows) < 2:
        return None
    first = Frame.load(folder.frame_path("slices", rows[0]["name"]))
    steps = np.diff([row["z_m"] for row in rows])

    def planes() -> Iterator[volume.VolumePlane]:
        for row in rows:
            frame = Frame.load(folder.frame_path("slices", row["name"]))
            dy, dx = row.get("shift_px") or (0, 0)
            yield volume.VolumePlane(
                name=row["name"], z_m=row["z_m"], greys=frame.pixels, labels=labels_of(folder, row["name"]),
                shift_px=(round(dy), round(dx)), z_sigma_m=row["z_sigma_m"],
            )  # fmt: skip

    return volume.write_volume(
        folder.volume, planes(), len(rows), channels=first.meta.channels,
        pixel_m=(first.meta.pixel_y_m, first.meta.pixel_x_m), spacing_m=max(float(np.median(steps)), 1e-9),
        name=folder.root.name, virtual=first.meta.virtual,
    )  # fmt: skip


def write_report(
    folder: RunFolder, journal: Journal, *, compare: RunFolder | None = None, real: Path | None = None
) -> Path | None:
    """Write report.html; None where the run has no slice yet.

    `compare` is a run with refills off, whose curve is set beside; `real` a folder with cbs.png and tld.png, by default
    the published micrographs where they lie beside this project.
    """
    from analysis.report import build

    rows = _rows(folder, journal)
    if not rows:
        return None
    build(report_data(folder, journal, rows, compare=compare, real=real or PUBLISHED), folder.report)
    return folder.report


def report_data(
    folder: RunFolder,
    journal: Journal,
    rows: Sequence[dict[str, Any]],
    *,
    compare: RunFolder | None = None,
    real: Path | None = None,
) -> page.ReportData:
    """Return everything that the report shows of a run."""
    from analysis import report_data as page

    recipe = read_recipe(folder, journal)
    meta, plan = journal.meta("instrument") or {}, journal.meta("plan") or {}
    virtual = bool(meta.get("virtual", False))
    slicing = recipe.slicing
    refill = slicing.refill if slicing is not None else None
    pixel = slicing.image.pixel if slicing is not None else 1.0
    card = _card(folder)
    labelled = [row for row in rows if row["electrode_fractions"] is not None]
    return page.ReportData(
        title=recipe.name,
        virtual=virtual,
        instrument=f"{meta.get('model', '')}{' (virtual)' if virtual else ''}",
        sample=f"{recipe.sample.material} on a {math.degrees(recipe.sample.pretilt):.0f} deg stub",
        started=str(journal.meta("created", "")),
        finished=_finished(journal),
        recipe=read_text(folder, journal),
        stages=_stages(folder),
        pairs=_pairs(folder, journal, pixel),
        rows=[_slice_row(folder, row, previous) for previous, row in zip([None, *labelled], labelled, strict=False)],
        refill_threshold=refill.when if refill is not None else None,
        comparison=None if compare is None else _comparison(compare),
        decisions=_decisions(journal, refill.decide_on if refill is not None else 1),
        real=_real(folder, real, str(card.get("model_id", ""))),
        activities=_activities(journal),
        wall_s=sum(float(event.data["wall_s"]) for event in journal.events(kind="session")) or None,
        hydra_s=dict(plan.get("seconds", {})),
        gallery=_gallery(folder, labelled),
        **_measures(folder, journal, recipe, [row["name"] for row in labelled], pixel),
        checks=_checks(folder, journal, rows),
        model_id=card.get("model_id", ""),
        model_figures=card.get("figures", {}),
        open_pores=open_pores(folder, journal),
        reliability=reliability(folder, labelled),
        notes=_notes(journal, rows),
        versions=results.versions(),
    )


# -- parts ------------------------------------------------------------------------------------------------------------


def _rows(folder: RunFolder, journal: Journal) -> list[dict[str, Any]]:
    """Return the slices' rows with the shifts that summary.json has."""
    shifts = {row["name"]: row.get("shift_px") for row in folder.read_summary().get("slices", [])}
    return [{**row, "shift_px": shifts.get(row["name"])} for row in results.slices(folder, journal)]


def _finished(journal: Journal) -> str:
    states = journal.events(kind="state")
    return states[-1].wall if states and states[-1].data["to"] != "running" else ""


def _stages(folder: RunFolder) -> list[page.Stage]:
    from analysis import report_data as page

    found = []
    for letter, name, path in (
        ("b", "protective layer", "overviews/protect"),
        ("c", "block and fiducial", "overviews/block"),
        ("d", "platinum on the face", "overviews/film"),
        ("e", "half clean", "overviews/half-clean"),
        ("f", "clean", "pairs/infiltrate-after"),
    ):
        file = folder.root / f"{path}.ome.tif"
        picture = None
        if file.exists():
            channel = Frame.load(file).meta.channels[0]
            picture = page.Picture(image=file, channel=channel, stretch=letter in "bc")
        found.append(page.Stage(letter=letter, name=name, picture=picture))
    return found


def _pairs(folder: RunFolder, journal: Journal, pixel: float) -> list[page.Pair]:
    """Return the planes before and after each fill that both have labels."""
    from analysis import report_data as page

    found: list[page.Pair] = []
    for fill in fills(journal):
        row, after = fill.row, fill.after
        first, second = _side(folder, fill.before), _side(folder, after)
        if first is None or second is None:
            continue
        # the page shows the first pair, and figures of the others: their pictures are not read
        shown = (first.picture(pixel), second.picture(pixel)) if found else _registered(first, second, pixel)
        truth = truth_of(folder, after.result["uid"])
        found.append(
            page.Pair(
                name=str(row["name"]),
                before=shown[0],
                after=shown[1],
                before_fractions=first.fractions,
                after_fractions=second.fractions,
                truth_fractions=None if truth is None else _coating(truth),
                gap_m=row["lost_m"],
            )
        )
    return found


@dataclass(frozen=True)
class _Side:
    """One picture of a pair: its name, the files of its frame and labels, the fractions that its labels give."""

    name: str
    frame: Path
    labels: Path
    fractions: dict[str, float]

    def picture(self, pixel: float) -> page.Picture:
        """Return it as its files, whose pixels nobody has read."""
        from analysis import report_data as page

        return page.Picture(image=self.frame, caption=self.name, pixel_m=pixel, labels=self.labels)


def _side(folder: RunFolder, act: Act) -> _Side | None:
    name = frame_name(act.result["name"])
    frame, labels, numbers = folder.root / act.result["name"], folder.label_path(name), folder.numbers(name)
    if numbers is None or not labels.exists() or not frame.exists():
        return None
    return _Side(name, frame, labels, dict(numbers["electrode_fractions"]))


def _registered(one: _Side, other: _Side, pixel: float) -> tuple[page.Picture, page.Picture]:
    """Return both pictures cut to what they share: the second one lies over the first by its active material."""
    from analysis.align import shift_between
    from analysis.phases import Phase

    sides = (_read(one, pixel), _read(other, pixel))
    labels = [np.asarray(side.labels) for side in sides]
    if labels[0].shape != labels[1].shape:
        return sides
    masks = [(plane == Phase.ACTIVE).astype(np.float32) for plane in labels]
    dy, dx = (round(part) for part in shift_between(masks[0], masks[1], upsample=1))
    height, width = labels[0].shape
    if max(abs(dy), abs(dx)) * 4 > min(height, width):
        return sides
    first = (slice(max(0, -dy), height - max(0, dy)), slice(max(0, -dx), width - max(0, dx)))
    second = (slice(max(0, dy), height - max(0, -dy)), slice(max(0, dx), width - max(0, -dx)))
    return _cut(sides[0], first), _cut(sides[1], second)


def _read(side: _Side, pixel: float) -> page.Picture:
    """Return a side with its greys and labels read."""
    import tifffile

    frame = Frame.load(side.frame)
    shown = "CBS" if "CBS" in frame.meta.channels else frame.meta.channels[0]
    labels = np.asarray(tifffile.imread(side.labels), np.uint8)
    return replace(side.picture(pixel), image=np.asarray(frame.channel(shown)), labels=labels)


def _cut(picture: page.Picture, part: tuple[slice, slice]) -> page.Picture:
    return replace(picture, image=np.asarray(picture.image)[part], labels=np.asarray(picture.labels)[part])


def _coating(labels: Labels) -> dict[str, float]:
    from analysis.core import fractions
    from analysis.phases import Phase

    return fractions(labels, (Phase.PORE, Phase.CBD, Phase.ACTIVE))


def _slice_row(folder: RunFolder, row: dict[str, Any], previous: dict[str, Any] | None) -> page.SliceRow:
    from analysis import report_data as page

    truth = truth_of(folder, row["uid"])
    return page.SliceRow(
        name=row["name"],
        z_m=row["z_m"],
        fractions=row["electrode_fractions"],
        unfilled_share=math.nan if row["unfilled_share"] is None else row["unfilled_share"],
        z_sigma_m=row["z_sigma_m"],
        thickness_m=None if previous is None else row["z_m"] - previous["z_m"],
        fill_before=row["fill_before"],
        fill_age_m=row["fill_age_m"],
        film_fraction=row["film_fraction"],
        confidence=row["confidence"],
        doubt=row["doubt"],
        intervals={name: (low, high) for name, (low, high) in (row["electrode_intervals"] or {}).items()},
        truth_fractions=None if truth is None else _coating(truth),
        note="; ".join([*row["health"], *_strange(row), *_mark(row)]),
    )


def _comparison(other: RunFolder) -> page.Comparison:
    from analysis import report_data as page

    with Journal(other.journal, read_only=True) as journal:
        rows = [row for row in results.slices(other, journal) if row["unfilled_share"] is not None]
    return page.Comparison(
        label="the same electrode, refills off",
        z_m=[row["z_m"] for row in rows],
        unfilled_share=[row["unfilled_share"] for row in rows],
    )


def _decisions(journal: Journal, late: int) -> list[page.Decision]:
    from analysis import report_data as page

    return [
        page.Decision(
            slice=f"s{int(row['after_slice']):04d}",
            evidence=f"s{int(row['after_slice']) - late:04d}" if row["value"] is not None else None,
            value=row["value"],
            threshold=row["threshold"],
            outcome="fill" if row["fill"] else "go on",
            reason=row["outcome"],
        )
        for row in results.decisions(journal)
    ]


def _real(folder: RunFolder, place: Path | None, model_id: str) -> page.RealMicrograph | None:
    """Label a real micrograph with the run's own weights, for whoever doubts the simulated ones; None without."""
    if not model_id or place is None or not (place / "cbs.png").exists():
        return None
    from analysis import report_data as page
    from analysis.segment import segment_images

    channels = {
        name: place / file for name, file in (("CBS", "cbs.png"), ("TLD", "tld.png")) if (place / file).exists()
    }
    reference = place / "label-left.png"
    out = folder.root / "real"
    summary = segment_images(
        channels, out, pixel_m=186e-9, reference=reference if reference.exists() else None
    )  # fmt: skip
    if summary.model_id != model_id:
        log.warning(
            "the run was labelled by %s, not by %s: no real micrograph in the report", model_id, summary.model_id
        )
        return None
    scores: dict[str, float] = {}
    if summary.agreement is not None:
        scores = {"mean IoU": summary.agreement.mean_iou}
        scores |= {f"IoU {name}": value for name, value in summary.agreement.iou.items()}
    picture = page.Picture(
        image=place / "cbs.png", caption="NMC electrode, CBS", pixel_m=186e-9, labels=out / "labels" / "s0001.tif",
        virtual=False,
    )  # fmt: skip
    return page.RealMicrograph(picture=picture, scores=scores)


def _activities(journal: Journal) -> list[page.Activity]:
    from analysis import report_data as page

    found = []
    for act in journal.acts():
        if not act.has_outcome or act.intended_at is None or act.kind not in ("mill", "deposit", "frame", "eds"):
            continue
        seconds = float(act.result.get("elapsed_s", act.result.get("seconds", 0.0)))
        kind = _KINDS[act.kind]
        if act.key.startswith(("protect/", "block/")) and kind != "imaging":
            kind = "block"
        elif act.kind == "mill" and "/round-" in act.key:
            kind = "cleaning"
        begun = act.done_at if act.done_at is not None else act.intended_at  # the clock as the act was set up
        found.append(page.Activity(kind=kind, start_s=begun, seconds=seconds, name=act.key))
    begin = min((one.start_s for one in found), default=0.0)
    return [
        page.Activity(kind=one.kind, start_s=one.start_s - begin, seconds=one.seconds, name=one.name) for one in found
    ]


def _gallery(folder: RunFolder, rows: Sequence[dict[str, Any]]) -> list[page.Picture]:
    from analysis import report_data as page

    step = max(1, -(-len(rows) // _GALLERY))
    return [
        page.Picture(
            image=folder.frame_path("slices", row["name"]), caption=f"{row['name']}, {row['z_m'] * 1e6:.2f} um",
            labels=folder.label_path(row["name"]),
        )
        for row in rows[::step]
    ]  # fmt: skip


def _measures(
    folder: RunFolder, journal: Journal, recipe: Recipe, names: Sequence[str], pixel: float
) -> dict[str, Any]:
    """Return fractions, profile, spacing, particle size, EDS and balance, as far as the slices `names` have labels."""
    from analysis.heights import height_profile
    from analysis.measure import particle_diameter, phase_fractions, spacing

    first = next(labels_of_all(folder, names), None)
    if first is None:
        return {}
    rows = results.slices(folder, journal)
    found: dict[str, Any] = {
        "profile": height_profile(labels_of_all(folder, names), pixel),
        "particle_m": particle_diameter(first, pixel),
        "spacing": spacing([row["z_m"] for row in rows], [row["z_sigma_m"] for row in rows], [r["name"] for r in rows]),
        "eds": _eds(folder, journal, pixel),
    }
    try:
        found["fractions"] = phase_fractions(labels_of_all(folder, names), pixel)
    except ValueError as error:
        log.warning("no fractions: %s", error)
        return found
    made = recipe.sample.composition
    if made is not None and made.active is not None and made.carbon is not None and made.binder is not None:
        from analysis.composition import Recipe as Made
        from analysis.composition import balance

        found["balance"] = balance(
            found["fractions"].phases,
            Made(
                active=made.active, carbon=made.carbon, binder=made.binder, loading=made.loading, coating=made.coating
            ),
        )  # fmt: skip
    return found


def _eds(folder: RunFolder, journal: Journal, pixel: float) -> page.Eds | None:
    """Hold the last element map that has labels against them."""
    from analysis import report_data as page
    from analysis.eds import compare
    from analysis.register import ElementMap

    maps = [act for act in journal.acts(kind="eds") if act.has_outcome]
    for act in reversed(maps):
        path, name = folder.root / act.result["name"], frame_name(act.result["name"])
        labels = labels_of(folder, name)
        if labels is None or not path.exists():
            continue
        frame = Frame.load(path)
        counts = {element: frame.pixels[index] for index, element in enumerate(frame.meta.channels)}
        element_map = ElementMap(counts=counts, pixel_m=frame.meta.pixel_x_m)
        return page.Eds(result=compare(element_map, labels, pixel), element_map=element_map, slice=name)
    return None


def _checks(folder: RunFolder, journal: Journal, rows: Sequence[dict[str, Any]]) -> list[page.Check]:
    from analysis import report_data as page

    refused = len(journal.events(kind="refused"))
    looks = journal.events(kind="look")
    worn = float(looks[-1].data["worn_m"]) if looks else 0.0
    findings = sum(len(row["health"]) for row in rows)
    ruler = sum(1 for row in rows if row["z_by"] == "ruler")
    unregistered = len(journal.events(kind="unregistered"))
    return [
        page.Check(name="interlock refusals", value=str(refused), limit="0", kept=refused == 0),
        page.Check(name="fiducial worn by looks", value=f"{worn * 1e9:.1f} nm in {len(looks)} looks"),
        page.Check(name="planes measured on the ruler", value=f"{ruler} of {len(rows)}", kept=ruler == len(rows)),
        page.Check(name="pictures placed without ruler or cap", value=str(unregistered)),
        page.Check(name="findings on frames", value=str(findings), kept=findings == 0),
        page.Check(name="acts without outcome", value=str(len(journal.unsettled())), limit="0"),
    ]


def _strange(row: dict[str, Any]) -> list[str]:
    """Return a word on a slice whose labels are no evidence."""
    if not unfamiliar(row):
        return []
    other = of_two_places(row)
    return [f"{' and '.join(other)} of another place" if other else f"unfamiliar to the network ({row['novelty']:.1f})"]


def _mark(row: dict[str, Any]) -> list[str]:
    """Return what a person has said of a slice."""
    if row["marked"] is None:
        return []
    return [f"marked {row['marked']}" + (f": {row['marked_why']}" if row["marked_why"] else "")]


def _notes(journal: Journal, rows: Sequence[dict[str, Any]]) -> list[str]:
    notes = happenings(journal)
    dark = [row["name"] for row in rows if row["phase_fractions"] is None]
    if dark:
        notes.append(f"without labels: {', '.join(dark)}")
    strange = [row["name"] for row in rows if _strange(row)]
    if strange:
        notes.append(f"unlike anything the network knows or of two places, labels no evidence: {', '.join(strange)}")
    lost = sum(row["lost_m"] or 0.0 for row in results.fill_rows(journal))
    if lost > 0:
        notes.append(f"{lost * 1e9:.0f} nm of electrode were lost to cleans; z of the slices says where")
    return notes


def _card(folder: RunFolder) -> dict[str, Any]:
    """Return who labelled a run's slices, and how well by its card; nothing of a run without labels."""
    from analysis.model import WEIGHTS, Card

    path, names = WEIGHTS / "card.json", folder.label_names()
    if not path.exists() or not names:
        return {}
    card = Card.model_validate(json.loads(path.read_text(encoding="utf-8")))
    used = (folder.numbers(names[0]) or {}).get("model_id")
    return {"model_id": used, "figures": card.figures if used == card.model_id else {}}
