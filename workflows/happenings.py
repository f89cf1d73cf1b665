"""What happened in a run beyond its recipe, as sentences: resumed, mended, settled, taken back, marked, noted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instrument.units import show
from workflows.journal import Event, Journal

#: Kinds of events that are told, each as a sentence.
KINDS = (
    "note", "mark", "amended", "do", "damaged", "recipe", "salvaged", "ledger", "night", "mended", "counted",
    "taken back",
)  # fmt: skip


def adopted(journal: Journal) -> dict[str, Any] | None:
    """Return where an adopted block's face was found (z, m), and what is missing since its run; None without one."""
    taken_over, found = journal.find("adopt/zero"), journal.find("adopt/plane")
    if taken_over is None or found is None or not found.has_outcome:
        return None
    left, by_ruler = taken_over.args["left_m"], found.result["by"] == "ruler"
    z = float(found.result["z_m"]) - (float(taken_over.result) if by_ruler else 0.0)
    return {
        "run": taken_over.args["run"], "found_m": z, "by": "ruler" if by_ruler else "edge",
        "gap_m": None if left is None else z - left,
    }  # fmt: skip


def happenings(journal: Journal) -> list[str]:
    """Return a sentence for everything that a person should read in the morning, in order, each with its time (UTC)."""
    events = journal.events(kind=tuple(KINDS))
    told = [f"{event.wall[11:16]} {sentence}" for event in events if (sentence := _sentence(event))]
    first = [
        f"nothing in its picture told where {current} points, so it was placed unseen" for current in _lost(journal)
    ]
    if (grown := _growth(journal)) is not None:
        first.append(grown)
    first += _risen(journal) + _blurred(journal)
    if (taken_over := adopted(journal)) is not None:
        first.append(_adopted(taken_over))
    return first + told


def _lost(journal: Journal) -> list[str]:
    """Return the ion currents of which nobody knows where they point: their pictures told nothing."""
    act = journal.find("site/currents")
    measured = act.result if act is not None and act.has_outcome else []
    return [
        f"{show(one['current_a'], 'current', 3)} at {one['voltage_v'] / 1e3:g} kV"
        for one in measured
        if one["off_m"] is None
    ]


def _growth(journal: Journal) -> str | None:
    """Say how fast films grow here, as the cap's height tells, None where nobody looked."""
    act = journal.find("block/growth")
    if act is None or not act.has_outcome:
        earlier = journal.find("adopt/growth")
        if earlier is None or not earlier.has_outcome or earlier.result["growth"] == 1.0:
            return None
        growth = earlier.result["growth"]
        return f"films were dosed by what the run before found of their growth, {growth:.2f} of the model's"
    found = act.result
    if "height_m" not in found:
        return "how high the cap is could not be told: films got the dose of the model"
    high, asked = (show(found[name], "length", 3) for name in ("height_m", "planned_m"))
    said = f"the cap is {high} high where the model has {asked}"
    if found["growth"] is None:
        return f"{said}; a person let films have the model's dose"
    return (
        f"{said}: films were dosed by that. For the next cap on this instrument write `dose_factor: "
        f"{found['dose_factor']:.2f}` in protect"
    )


def _risen(journal: Journal) -> list[str]:
    """Say where cuts got more dose, as the face stayed behind."""
    return [
        f"after slice {int(act.key.split('/')[1])} cuts got {act.result['to'] / act.result['from']:.2f} times the "
        "dose: the face stayed behind"
        for act in journal.acts("slice/", kind="measure")
        if act.key.endswith("/dose") and act.has_outcome
    ]


def _blurred(journal: Journal) -> list[str]:
    """Say which slices are blurred."""
    found = [
        int(act.key.split("/")[1])
        for act in journal.acts("slice/", kind="measure")
        if act.key.endswith("/detail") and act.has_outcome and act.result["blurred"]
    ]
    if not found:
        return []
    which = f"slice {found[0]} is" if len(found) == 1 else f"slices {', '.join(map(str, found))} are"
    return [f"{which} blurred; before the next the beam was focused anew"]


def _adopted(found: Mapping[str, Any]) -> str:
    """Say which block was taken over, and what of it is missing since."""
    gap = found["gap_m"]
    where = f"the face was found {found['found_m'] * 1e6:.2f} um into the block, by its {found['by']}"
    if gap is None:
        return f"an existing block was taken over; {where}"
    return f"the block of {found['run']} was taken over; {where}: {gap * 1e9:+.0f} nm from where that run left it"


def _sentence(event: Event) -> str:
    data: Any = event.data
    match event.kind:
        case "note":
            return str(data)
        case "mark":
            return f"slice {data['slice']} was marked {data['as']}" + (f": {data['why']}" if data["why"] else "")
        case "amended":
            return f"{data['path']} was set to {data['value']}"
        case "damaged":
            return f"{data['file']} was found damaged or missing" + (
                f"; set aside as {data['kept_as']}" if data["kept_as"] else ""
            )
        case "salvaged":
            return f"the journal was damaged ({data['why']}) and was made again with {data['acts']} acts" + (
                f"; the damaged one is kept as {data['kept_as']}" if data["kept_as"] else ""
            )
        case "ledger":
            return f"{len(data['missing'])} patterns that the journal lacked were taken from the server's ledger"
        case "recipe":
            return f"recipe.yaml was {data['was']} since the run began" + (
                f"; set aside as {data['kept_as']}" if data["kept_as"] else ""
            )
        case "do":
            return f"{data['what']} was asked for"
        case "night" if data["verdict"] != "done":
            return f"{data['verdict']}: {data['why']}"
        case "mended" if data.get("failed"):
            return f"{data['key']}: {data['symptom']} could not be mended: {data['failed']}"
        case "mended":
            return f"{data['key']}: {data['why']}; {data['done']}"
        case "counted":
            return (
                f"{data['key']}: between {100 * data['at_least']:.0f} and {100 * data['at_most']:.0f} % was given when "
                f"it ended; counted as {100 * data['fraction']:.0f} % ({data['by']})"
            )
        case "taken back":
            choice = "adopted" if data["choice"] == "adopt" else "restored"
            return f"changed by hand meanwhile, {choice}: {'; '.join(data['changes'])}"
    return ""
