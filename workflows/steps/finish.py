"""The end: last pictures by both beams in the taught pose, devices out, beams off, ready for the next evening."""

from __future__ import annotations

from instrument.settings import Beam
from workflows.handle import Handle
from workflows.recipe import Finish
from workflows.steps.site import overview


def run(handle: Handle, settings: Finish) -> None:
    """Take last overviews and leave the instrument safe."""
    pictures(handle, "finish")
    handle.tell("leaving the instrument safe")
    handle.aligner.leave(settings.source)


def pictures(handle: Handle, name: str) -> None:
    """Take last overviews by both beams; `name` is theirs, and may be had once in a run."""
    handle.tell("last pictures")
    overview(handle, f"{name}/ion", f"{name}-ion", Beam.ION)
    overview(handle, f"{name}/electron", f"{name}-electron", Beam.ELECTRON)
