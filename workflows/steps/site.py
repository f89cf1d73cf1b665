"""Find the place on the sample: pictures by both beams, and where the sample's front edge really is."""

from __future__ import annotations

from typing import Any

from instrument.geometry import PoseName
from instrument.settings import Beam, Description
from workflows import tracking
from workflows.handle import Handle
from workflows.limits import nearest
from workflows.recipe import Recipe

#: Working points of overview pictures: the ion beam's current is the listed one nearest to this, A.
OVERVIEW_ION_A, OVERVIEW_ELECTRON_A = 0.3e-9, 1.6e-9
OVERVIEW_ION_V, OVERVIEW_ELECTRON_V = 30e3, 5e3
#: The ruler's lines are milled with the listed current nearest to this: a spot well below their width, A.
RULER_CURRENT_A = 1e-9
#: Overviews are this much wider than what is cut.
WIDER = 1.6
LEAST_CONTRAST = 0.5


def run(handle: Handle) -> None:
    """Take overviews, find the edge, and place all that follows by it."""
    handle.tell("overviews")
    ion = overview(handle, "site/ion", "site-ion", Beam.ION)
    electron = overview(handle, "site/electron", "site-electron", Beam.ELECTRON)
    view = handle.view(PoseName.MILL, Beam.ION)
    centre = view.field((0.0, 0.0, handle.layout.trim))[1]
    expected = view.field((0.0, 0.0, handle.recipe.edge))[1]

    def find() -> dict[str, Any]:
        frame = handle.load(ion)
        v, contrast = tracking.find_edge(frame.pixels[0], frame.meta.pixel_y_m, material_below=False)
        return {"z_m": expected - (centre + v), "contrast": contrast}

    edge = handle.value("site/edge", "measure", {"frame": ion.sha256}, find)
    if edge["contrast"] >= LEAST_CONTRAST:
        handle.stand_on(handle.layout.moved(0.0, 0.0, edge["z_m"]))
    handle.confirm("site", (ion, electron))


def site_voltage(recipe: Recipe) -> float:
    """Return the ion beam's voltage (V) that a site is looked at with."""
    return recipe.block.voltage if recipe.block is not None else OVERVIEW_ION_V


def usual_points(recipe: Recipe, description: Description) -> tuple[tuple[float, float], ...]:
    """Return voltages (V) and currents (A) of the ion beam that every run uses."""
    return overview_point(recipe, description), ruler_point(recipe, description)


def overview_point(recipe: Recipe, description: Description) -> tuple[float, float]:
    """Return voltage (V) and current (A) of the ion beam's overviews."""
    return _point(recipe, description, OVERVIEW_ION_A)


def ruler_point(recipe: Recipe, description: Description) -> tuple[float, float]:
    """Return voltage (V) and current (A) that the ruler is milled with."""
    return _point(recipe, description, RULER_CURRENT_A)


def _point(recipe: Recipe, description: Description, wanted: float) -> tuple[float, float]:
    voltage = site_voltage(recipe)
    return voltage, nearest(description.currents(Beam.ION, voltage), wanted)


def overview(handle: Handle, key: str, name: str, beam: Beam) -> Any:
    """Take an overview by one beam in the milling pose; returns its FrameRef."""
    recipe: Recipe = handle.recipe
    slicing = recipe.slicing
    wide = WIDER * max(handle.layout.face[0], handle.layout.cap[2] - handle.layout.cap[0])
    if beam is Beam.ION:
        voltage, current = overview_point(recipe, handle.description)
        return handle.overview(key, name, beam, PoseName.MILL, wide, voltage=voltage, current=current)
    volts = slicing.image.voltage if slicing is not None else OVERVIEW_ELECTRON_V
    amperes = slicing.image.current if slicing is not None else OVERVIEW_ELECTRON_A
    return handle.overview(key, name, beam, PoseName.MILL, wide, voltage=volts, current=amperes)
