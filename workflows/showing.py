"""Keeps latest.png and index.html of a run up to date: the newest slice, its phases, the curve of empty pores."""

from __future__ import annotations

import logging

from analysis.phases import COLOURS
from instrument import durable
from instrument.errors import BadData
from instrument.frame import Frame
from workflows import latest
from workflows.journal import Journal
from workflows.live import duration
from workflows.results import slices
from workflows.store import RunFolder

log = logging.getLogger(__name__)

LINKS = {"report": "report.html", "summary": "summary.json", "log": "run.log"}


def show(
    folder: RunFolder,
    journal: Journal,
    *,
    title: str,
    virtual: bool,
    step: str,
    planned: int,
    seconds_left: float | None,
    threshold: float | None,
) -> None:
    """Replace latest.png and index.html; a picture that can't be made is logged and the run goes on."""
    rows = slices(folder, journal)
    labelled = [row for row in rows if row["phase_fractions"] is not None]
    if not rows:
        return
    standing = latest.Standing(
        title=title,
        virtual=virtual,
        step=step,
        slices=f"slice {len(rows)} of {planned}",
        time_left=f"{duration(seconds_left)} left on the instrument",
        rows=latest.rows_from([(row["name"], row["z_m"], row, row["fill_before"]) for row in labelled]),
        threshold=threshold,
        links={name: path for name, path in LINKS.items() if (folder.root / path).exists()},
    )
    newest = labelled[-1] if labelled else rows[-1]
    try:
        import tifffile

        frame = Frame.load(folder.frame_path("slices", newest["name"]))
        labels = tifffile.imread(folder.labels / f"{newest['name']}.tif") if labelled else None
        colours = {int(phase): colour for phase, colour in COLOURS.items()}
        durable.atomic_write_bytes(folder.latest, latest.picture(frame.pixels[0], labels, colours, standing))
        durable.atomic_write_bytes(folder.index, latest.page(standing).encode("utf-8"))
    except (BadData, OSError, ValueError) as error:
        log.warning("latest.png was not made: %s", error)
