"""Fills report and volume from a run's folder."""

from __future__ import annotations

from pathlib import Path

from workflows.journal import Journal
from workflows.store import RunFolder


def write_volume(folder: RunFolder, journal: Journal) -> Path | None:
    """Write volume.ome.zarr: aligned greys and labels; None where there are no slices."""
    return None


def write_report(
    folder: RunFolder, journal: Journal, *, compare: RunFolder | None = None, real: Path | None = None
) -> Path | None:
    """Write report.html."""
    return None
