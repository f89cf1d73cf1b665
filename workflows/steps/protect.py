"""The protective Pt-C layer on the top surface, with the ruler buried in its middle."""

from __future__ import annotations

from instrument.geometry import PoseName
from instrument.process import mill_dose
from instrument.settings import Beam
from workflows.handle import Handle
from workflows.layout import RULER_WIDTH_M
from workflows.limits import current_of_film, film_area
from workflows.recipe import Protect
from workflows.steps.currents import align_again
from workflows.steps.site import overview, ruler_point


def run(handle: Handle, settings: Protect) -> None:
    """Deposit half of the cap, mill the ruler's two lines into it, deposit the other half over them."""
    layout, ion, gases = handle.layout, settings.ion, dict(settings.gas)
    area = film_area(handle.recipe, settings)
    current = current_of_film(ion, area, handle.description)
    view = handle.view(PoseName.MILL, Beam.ION)
    ruler = layout.ruler
    parts = ("cap",) if ruler is None else ("first", "second")
    for part in parts:
        align_again(handle)
        handle.tell(f"{part} half of the cap" if ruler is not None else "cap")
        thickness = settings.thickness / len(parts)
        handle.film(
            f"protect/{part}", layout.on_top(view, layout.cap, thickness), thickness, pose=PoseName.MILL,
            beam=Beam.ION, gases=gases, voltage=ion.voltage, current=current, area="cap",
            dose_factor=settings.dose_factor, application=settings.application,
        )  # fmt: skip
        if ruler is not None and part == "first":
            _ruler(handle)
        handle.boundary("part of the cap")
    overview(handle, "protect/picture", "protect", Beam.ELECTRON)


def _ruler(handle: Handle) -> None:
    layout, ruler, recipe = handle.layout, handle.layout.ruler, handle.recipe
    if ruler is None:
        return
    align_again(handle)
    voltage, current = ruler_point(recipe, handle.description)
    block = recipe.block
    view, depth = handle.view(PoseName.MILL, Beam.ION), ruler.bottom - ruler.top
    lines = [
        layout.line(
            view,
            (sign * ruler.half_at(ruler.start), ruler.top, ruler.start),
            (sign * ruler.half_at(ruler.end), ruler.top, ruler.end),
            RULER_WIDTH_M,
            depth,
        )
        for sign in (-1.0, 1.0)
    ]
    volume = 2 * (ruler.end - ruler.start) * 2**0.5 * RULER_WIDTH_M * depth
    handle.tell("ruler")
    handle.mill(
        "protect/ruler", lines, mill_dose(volume, "cap", voltage), area="ruler", voltage=voltage, current=current,
        on_mark=False, application=None if block is None else block.fiducial.application,
    )  # fmt: skip
