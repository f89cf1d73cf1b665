"""What a run came to, as summary.json: counts, fractions, times, versions, and a row for every slice.

Read from journal and run folder alone, so it can be made again at any time.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from statistics import fmean, median
from typing import Any

from workflows.evidence import of_two_places
from workflows.happenings import adopted, happenings
from workflows.journal import Act, Journal
from workflows.store import RunFolder

PHASES = ("pore", "cbd", "active", "collector")
_PACKAGES = ("numpy", "torch", "pydantic", "Pyro5", "tifffile")


def summarise(folder: RunFolder, journal: Journal) -> dict[str, Any]:
    """Return the summary of a run as plain values; times in seconds, lengths in metres, shares 0..1."""
    rows = slices(folder, journal)
    for row, shift in zip(rows, shifts(folder, rows), strict=True):
        row["shift_px"] = shift
    labelled = [row for row in rows if row["phase_fractions"] is not None]
    acts = journal.acts()
    times = [event.data for event in journal.events(kind="slice")]
    walls = [float(event.data["wall_s"]) for event in journal.events(kind="session")]
    states = journal.events(kind="state")
    clock = [act.done_at for act in acts if act.done_at is not None]
    return {
        "state": str(states[-1].data["to"]) if states else "new",
        "slices_acquired": len(rows),
        "slices_labelled": len(labelled),
        "slices_damaged": sorted(
            {event.data["file"] for event in journal.events(kind="damaged") if event.data["file"].startswith("slices/")}
        ),
        "adopted": adopted(journal),
        "infiltrations": len(fills(acts)),
        "refills": len([one for one in fills(acts) if one.startswith("refill")]),
        "element_maps": len(_done(acts, "eds")),
        "phase_fractions": {
            name: fmean(row["phase_fractions"][name] for row in labelled) if labelled else None for name in PHASES
        },
        "beam_time_s": _beam_time(acts),
        "instrument_time_s": max(clock) - min(clock) if clock else 0.0,
        "wall_time_s": sum(walls),
        "sessions": len(walls),
        "software_overhead_s_per_slice": (
            median(float(one["wall_s"]) - float(one["calls_s"]) for one in times) if times else None
        ),
        "interlock_refusals": len(journal.events(kind="refused")),
        "decisions": decisions(journal),
        "fills": fill_rows(journal),
        "slices": rows,
        "unsettled": [act.key for act in acts if not act.has_outcome],
        "happenings": happenings(journal),
        "versions": versions(),
    }


def slices(folder: RunFolder, journal: Journal) -> list[dict[str, Any]]:
    """Return a row for every imaged slice: where it lies, what its labels say, what came before it."""
    rows: list[dict[str, Any]] = []
    after_fill: float | None = None
    zero = ruler_zero(journal)
    refilled = {int(row["after_slice"]) for row in fill_rows(journal)}
    marked = {int(event.data["slice"]): event.data for event in journal.events(kind="mark")}
    for act in journal.acts("slice/", kind="frame"):
        if not act.has_outcome or not act.key.endswith("/image"):
            continue
        k = int(act.key.split("/")[1])
        if not folder.frame_path("slices", f"s{k:04d}").exists():
            continue  # set aside: what was damaged is told apart
        measured = journal.find(f"slice/{k:04d}/plane")
        plane = measured.result if measured is not None and measured.has_outcome else {}
        by = plane.get("by", "line")
        z = float(plane.get("z_m", "nan")) - (zero if by == "ruler" else 0.0)
        live = folder.numbers(f"s{k:04d}") or {}
        numbers = folder.final_numbers(f"s{k:04d}") or live
        fill_before = (k - 1) in refilled
        if fill_before or after_fill is None:
            after_fill = z
        health = journal.find(f"slice/{k:04d}/health")
        found = [one["what"] for one in (health.result if health is not None and health.has_outcome else [])]
        seen = journal.find(f"slice/{k:04d}/detail")
        if seen is not None and seen.has_outcome and seen.result["blurred"]:
            found.append("the picture is blurred; the next was focused anew")
        rows.append({
            "name": f"s{k:04d}",
            "uid": act.result["uid"],
            "z_m": z,
            "z_sigma_m": plane.get("sigma_m"),
            "z_by": by,
            "phase_fractions": numbers.get("phase_fractions"),
            "electrode_fractions": numbers.get("electrode_fractions"),
            "electrode_intervals": numbers.get("electrode_intervals"),
            "unfilled_share": live.get("unfilled_share"),  # what was decided by
            "film_fraction": live.get("film_fraction"),
            "confidence": numbers.get("confidence"),
            "doubt": numbers.get("doubt"),
            "novelty": live.get("novelty"),
            "elsewhere": of_two_places(live),
            "labelled_with": list(numbers.get("beside", ())),
            "fill_before": fill_before,
            "fill_age_m": z - after_fill,
            "health": found,
            "marked": marked[k]["as"] if k in marked else None,
            "marked_why": marked[k]["why"] if k in marked else "",
            "time_s": act.done_at,
        })  # fmt: skip
    return rows


def shifts(folder: RunFolder, rows: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Return by how many pixels (y, x) each slice's picture is moved to lie over the first one."""
    from analysis.align import shifts as find
    from instrument.frame import Frame

    pictures = (Frame.load(folder.frame_path("slices", row["name"])).pixels[0][::2, ::2] for row in rows)
    return [(-round(2 * dy), -round(2 * dx)) for dy, dx in find(pictures)]


def ruler_zero(journal: Journal) -> float:
    """Return what the ruler read on the trimmed plane, minus that plane (m); 0 where it wasn't read."""
    taken_over = journal.find("adopt/zero")
    if taken_over is not None and taken_over.has_outcome:
        return float(taken_over.result)
    act = journal.find("block/plane")
    if act is None or not act.has_outcome or act.result["by"] != "ruler":
        return 0.0
    return float(act.result["z_m"]) - float(act.args["expected_m"])


def decisions(journal: Journal) -> list[dict[str, Any]]:
    """Return what was decided about refills after each image."""
    return [
        {
            "after_slice": act.args["image"],
            **{key: act.result[key] for key in ("fill", "outcome", "value", "threshold")},
        }
        for act in journal.acts("slice/", kind="decide")
        if act.has_outcome and act.key.endswith("/decide")
    ]


def fill_rows(journal: Journal) -> list[dict[str, Any]]:
    """Return every fill with the plane before and after it (m) and the slice that it followed (0: before slicing)."""
    rows = []
    acts = journal.acts()
    zero = ruler_zero(journal)
    imaged = 0
    followed: dict[str, int] = {}
    for act in acts:  # whoever asked for a fill, it followed the image taken last
        if act.key.startswith("slice/") and act.key.endswith("/image"):
            imaged = int(act.key.split("/")[1])
        followed.setdefault(act.key.split("/")[0], imaged)
    for key in fills(acts):
        after = followed[key]
        plane = journal.find(f"{key}/plane")
        old = float(plane.args["expected_m"]) if plane is not None else None
        new = None
        if plane is not None and plane.has_outcome:
            new = float(plane.result["z_m"]) - (zero if plane.result["by"] == "ruler" else 0.0)
        charge = sum(float(act.result["charge_c"]) for act in acts if act.key.startswith(f"{key}/") and _charged(act))
        rows.append({
            "name": key,
            "after_slice": after,
            "plane_before_m": old,
            "plane_after_m": new,
            "lost_m": None if old is None or new is None else new - old,
            "charge_c": charge,
        })  # fmt: skip
    return rows


def fills(acts: list[Act]) -> list[str]:
    """Return the keys of the fills that laid at least one film, in order."""
    found = [
        act.key.split("/")[0] for act in acts if act.key.endswith("/film") and act.kind == "deposit" and act.has_outcome
    ]
    return list(dict.fromkeys(found))


def versions() -> dict[str, str]:
    """Return the versions of everything that had a part in the numbers."""
    found = {"python": platform.python_version()}
    for name in ("kintsugi", *_PACKAGES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def _done(acts: list[Act], kind: str) -> list[Act]:
    return [act for act in acts if act.kind == kind and act.has_outcome]


def _charged(act: Act) -> bool:
    return act.has_outcome and isinstance(act.result, Mapping) and "charge_c" in act.result


def _beam_time(acts: list[Act]) -> float:
    total = 0.0
    for act in acts:
        if act.has_outcome and isinstance(act.result, Mapping):
            total += float(act.result.get("elapsed_s", 0.0)) + float(
                act.result.get("seconds", 0.0) if "uid" in act.result else 0.0
            )
    return total
