"""The block: front trim, side trenches at falling currents, the fiducial on a cap of its own, the polished face."""

from __future__ import annotations

from instrument.geometry import PoseName
from instrument.process import mill_dose
from instrument.settings import Beam, Line
from workflows.alignment import FIRST_SEARCH_M
from workflows.handle import Handle
from workflows.layout import BEFORE_EDGE_M, Mark, front_cuts
from workflows.limits import current_of_mark
from workflows.planes import Planes
from workflows.recipe import Block, Slice
from workflows.steps import growth
from workflows.steps.currents import align_again
from workflows.steps.site import overview


def run(handle: Handle, settings: Block) -> None:
    """Cut the block free, mark it, polish its face and measure where the face stands."""
    *trims, polish = front_cuts(settings)
    for number, cut in enumerate(trims, start=1):
        align_again(handle)
        handle.tell(f"trimming the front, {cut.current * 1e9:g} nA")
        handle.cut(
            f"block/trim-{number}", cut.start, cut.end, voltage=settings.voltage, current=cut.current, area="trim",
            removed=cut.removed, application=settings.application,
        )  # fmt: skip
        handle.boundary("trimming cut")
    _trenches(handle, settings)
    _marks(handle, settings)
    planes = Planes.after(polish.start, polish.current, settings.voltage)
    planes, start, end = planes.cut(polish.end - polish.start)
    handle.tell("polishing the face")
    handle.cut(
        "block/polish", start, end, voltage=settings.voltage, current=polish.current, area="polish",
        removed=polish.removed, application=settings.application,
    )  # fmt: skip
    handle.boundary("polishing cut")
    handle.planes = planes
    overview(handle, "block/picture", "block", Beam.ION)
    slicing = handle.recipe.slicing
    if slicing is not None:
        _measure(handle, slicing)


def _measure(handle: Handle, slicing: Slice) -> None:
    """Take the face's picture; the ruler's zero is set so that this plane is the trimmed one."""
    trim, image, protect = handle.layout.trim, slicing.image, handle.recipe.protect
    handle.tell("the face")
    ref = handle.picture("block/face", "overviews", "face", image, trim)
    found = handle.measure("block/plane", ref, trim, FIRST_SEARCH_M)
    handle.aligner.ruler_zero = found.z_m - trim if found.by == "ruler" else 0.0
    if protect is not None:
        growth.measure(handle, protect, slicing, trim)
    handle.confirm("block", (ref,))


def _trenches(handle: Handle, settings: Block) -> None:
    """Mill left and right at each current, the coarse ones kept off the block."""
    layout, trench, depth = handle.layout, settings.trench, settings.trench_depth()
    half, view = layout.face[0] / 2, handle.view(PoseName.MILL, Beam.ION)
    for index, current in enumerate(trench.currents):
        inner = settings.kept_off(index)
        outer = trench.width if index == 0 else settings.kept_off(index - 1)
        if outer <= inner:
            continue
        for side, sign in (("left", -1.0), ("right", 1.0)):
            align_again(handle)
            handle.tell(f"{side} trench, {current * 1e9:g} nA")
            near, far = sorted((sign * (half + inner), sign * (half + outer)))
            box = layout.on_top(view, (near, -BEFORE_EDGE_M, far, trench.length), depth)
            dose = mill_dose((outer - inner) * (trench.length + BEFORE_EDGE_M) * depth, "electrode", settings.voltage)
            handle.mill(
                f"block/trench-{side}-{index + 1}", [box], dose, area="trench", voltage=settings.voltage,
                current=current, on_mark=False, application=trench.application,
            )  # fmt: skip
            handle.boundary("trench")


def _marks(handle: Handle, settings: Block) -> None:
    """Lay the marks' caps and mill their X; from here on the ion beam is placed on them."""
    wanted, protect = settings.fiducial, handle.recipe.protect
    for number, mark in enumerate(handle.layout.marks, start=1):
        align_again(handle)
        handle.tell(f"fiducial {number}")
        if wanted.place == "behind" and wanted.cap is not None and protect is not None:
            x, _, z = mark.centre
            width, length, height = wanted.cap
            view = handle.view(PoseName.MILL, Beam.ION)
            box = handle.layout.on_top(view, (x - width / 2, z - length / 2, x + width / 2, z + length / 2), height)
            ion = protect.ion
            current = current_of_mark(ion, wanted.cap, handle.description)
            handle.film(
                f"block/mark-{number}/cap", box, height, pose=PoseName.MILL, beam=Beam.ION, gases=dict(protect.gas),
                voltage=ion.voltage, current=current, area="cap", dose_factor=protect.dose_factor,
                application=protect.application,
            )  # fmt: skip
        lines = _cross(handle, mark, wanted.depth)
        volume = 2 * mark.size * 2**0.5 * mark.line_width * wanted.depth
        handle.mill(
            f"block/mark-{number}/cross", lines, mill_dose(volume, "cap", settings.voltage), area="mark",
            voltage=settings.voltage, current=wanted.current, on_mark=False, application=wanted.application,
        )  # fmt: skip
        handle.boundary("fiducial")
    handle.aligner.marks = handle.layout.marks


def _cross(handle: Handle, mark: Mark, depth: float) -> list[Line]:
    """Return the two grooves of an X."""
    x, y, z = mark.centre
    half, view = mark.size / 2, handle.view(PoseName.MILL, Beam.ION)
    return [
        handle.layout.line(view, (x - half, y, z - sign * half), (x + half, y, z + sign * half), mark.line_width, depth)
        for sign in (-1.0, 1.0)
    ]
