"""The end: last pictures by both beams in the taught pose, devices out, beams off, ready for the next evening."""

from __future__ import annotations

from instrument.settings import Beam
from workflows.handle import Handle
from workflows.recipe import Finish
from workflows.steps.site import overview


def run(handle: Handle, settings: Finish) -> None:
    """Take last overviews and leave the instrument safe."""
    handle.tell("last pictures")
    overview(handle, "finish/ion", "finish-ion", Beam.ION)
    overview(handle, "finish/electron", "finish-electron", Beam.ELECTRON)
    handle.tell("leaving the instrument safe")
    handle.aligner.leave(settings.source)
