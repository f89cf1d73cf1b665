"""Take over a block that is there already, cut by hand or by an earlier run: find its marks, measure its face."""

from __future__ import annotations

from typing import Any

from instrument.geometry import PoseName
from instrument.settings import Beam
from workflows import tracking
from workflows.acts import Held
from workflows.alignment import FIRST_SEARCH_M, look_scan
from workflows.handle import Handle
from workflows.planes import Planes
from workflows.recipe import Adopt, Slice
from workflows.steps.site import LEAST_CONTRAST, overview

#: The picture that shows the face's upper edge beside the mark is so much of the face wide.
_OF_FACE = 0.6


def run(handle: Handle, settings: Adopt) -> None:
    """Look at the block, place the ion beam on its mark, and measure where its face stands."""
    layout, slicing, made = handle.layout, handle.recipe.slicing, settings.made
    if slicing is None:
        msg = "adopt: no slice step says how the face is looked at"
        raise Held(msg, step="adopt")
    handle.aligner.marks = layout.marks
    known = {"run": settings.run, "left_m": None if made is None else made.plane}
    handle.aligner.ruler_zero = handle.value(
        "adopt/zero", "measure", known, lambda: 0.0 if made is None else made.ruler_zero
    )
    if made is not None:
        grown = handle.value("adopt/growth", "measure", {"run": settings.run}, lambda: {"growth": made.growth})
        handle.growth = grown["growth"]
    names = [one.name for one in made.detectors] if made is not None else []
    if made is not None and names == list(slicing.image.detectors):
        handle.detectors = made.detectors
    handle.tell("the block as it is")
    ion = overview(handle, "adopt/ion", "adopt-ion", Beam.ION)
    stands = _edge(handle, slicing)
    handle.tell("its face")
    ref = handle.picture("adopt/face", "overviews", "adopt-face", slicing.image, stands)
    found = handle.measure("adopt/plane", ref, stands, FIRST_SEARCH_M)
    at = found.z_m if found.by == "ruler" else stands
    handle.planes = Planes.after(at, slicing.cut.current, slicing.cut.voltage)
    handle.confirm("block", (ion, ref))


def _edge(handle: Handle, slicing: Slice) -> float:
    """Return where (z, m) the face's upper edge is seen by the ion beam that cuts, placed on the mark."""
    layout, cut = handle.layout, slicing.cut
    view, expected = handle.view(PoseName.MILL, Beam.ION), layout.starts
    centre = view.field((0.0, 0.0, expected))
    setup = handle.ion_setup(PoseName.MILL, cut.voltage, cut.current, on_mark=True)
    scan = look_scan(handle.description, Beam.ION, centre, _OF_FACE * layout.face[0])
    ref = handle.acts.frame("adopt/edge", scan, setup, "overviews", "adopt-edge")
    per_z = view.field((0.0, 0.0, expected + 1.0))[1] - centre[1]

    def find() -> dict[str, Any]:
        frame = handle.load(ref)
        down, contrast = tracking.find_edge(frame.pixels[0], frame.meta.pixel_y_m, material_below=False)
        return {"z_m": expected + down / per_z, "contrast": contrast}

    edge = handle.value("adopt/edge-plane", "measure", {"frame": ref.sha256}, find)
    if edge["contrast"] < LEAST_CONTRAST:
        msg = f"adopt: the face's edge can't be told in {ref.name}; look at it, and teach the site again"
        raise Held(msg, step="adopt", contrast=edge["contrast"])
    return float(edge["z_m"])
