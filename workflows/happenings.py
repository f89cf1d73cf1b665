"""What happened in a run beyond its recipe, as sentences: resumed, mended, settled, taken back, marked, noted."""

from __future__ import annotations

from typing import Any

from workflows.journal import Event, Journal

#: Kinds of events that are told, each as a sentence.
KINDS = ("note", "mark", "amended", "do", "damaged", "night", "mended", "counted", "taken back")


def happenings(journal: Journal) -> list[str]:
    """Return a sentence for everything that a person should read in the morning, in order, each with its time (UTC)."""
    events = [event for event in journal.events() if event.kind in KINDS]
    return [f"{event.wall[11:16]} {sentence}" for event in events if (sentence := _sentence(event))]


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
