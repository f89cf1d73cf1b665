"""Where each ion current points and is sharp: every aperture points elsewhere, by microns (night.md 13).

Every current that is used is focused on a spot beside the work, and looks at another one: that picture is compared with
the one that placed the site. What they are off by is made up for by the beam's shift until there is a mark, the focus
is set with the current. Where a picture tells nothing a person says whether its current may mill what no mark places.
The smallest comes first, for focusing digs; a current that would dig a pit keeps its focus: its spot is microns wide.
"""

from __future__ import annotations

from typing import Any

from instrument.frame import Frame
from instrument.geometry import PoseName
from instrument.process import TUNE_S, mill_rate
from instrument.settings import Beam, Scan
from instrument.units import show
from workflows import tracking
from workflows.alignment import look_scan
from workflows.handle import Handle
from workflows.limits import ion_currents, unmarked_currents
from workflows.steps.site import overview_point, ruler_point

#: The pictures' width, and what lies between them and the nearest trench (m).
FIELD_M, BESIDE_M = 30e-6, 10e-6
#: No focusing digs deeper than this (m).
DUG_M = 1e-6
#: Pictures that are less alike than this, once laid over each other, tell nothing.
LEAST_ALIKE = 0.2


def align_again(handle: Handle) -> None:
    """Measure currents anew once the source was lit again: it comes back sharp and pointing elsewhere (night.md 13)."""
    if (times := handle.relit()) > handle.aligned:
        align(handle, f"relit-{times}")
        handle.aligned = times


def align(handle: Handle, key: str = "site") -> None:
    """Measure the focus of each current of the recipe, and where it points beside the one that found the edge."""
    layout, recipe = handle.layout, handle.recipe
    block = recipe.block
    beside = layout.face[0] / 2 + (block.trench.width if block is not None else 0.0) + BESIDE_M + FIELD_M / 2
    view = handle.view(PoseName.MILL, Beam.ION)
    looks, digs = (
        look_scan(handle.description, Beam.ION, view.field((beside, 0.0, layout.starts + z)), FIELD_M)
        for z in (FIELD_M / 2, 1.5 * FIELD_M)
    )
    found_with = overview_point(recipe, handle.description)
    others = {ruler_point(recipe, handle.description), *ion_currents(recipe, handle.description)} - {found_with}
    handle.tell("where each current points and is sharp")
    pictures = {}
    for volts, current in (found_with, *sorted(others, key=lambda one: one[::-1])):
        name = f"{volts / 1e3:g}kV-{show(current, 'current', 3).replace(' ', '')}"
        _focus(handle, f"{key}/focus-{name}", digs, volts, current)
        setup = handle.ion_setup(PoseName.MILL, volts, current, on_mark=False)
        file = f"points-{name}" if key == "site" else f"{key}-points-{name}"
        pictures[volts, current] = handle.acts.frame(f"{key}/points-{name}", looks, setup, "looks", file)

    def compute() -> list[dict[str, Any]]:
        first = handle.load(pictures[found_with])
        u0, v0 = _shift(first)
        measured = []
        for (volts, current), ref in pictures.items():
            frame = handle.load(ref)
            down, right = tracking.moved(first.pixels[0], frame.pixels[0])
            told = tracking.alike_when_moved(first.pixels[0], frame.pixels[0], (down, right)) >= LEAST_ALIKE
            u, v = _shift(frame)  # what was known of it before is made up for in its picture
            off = (u - u0 + right * looks.pixel_m, v - v0 + down * looks.pixel_m) if told else None
            measured.append({"voltage_v": volts, "current_a": current, "off_m": off})
        return measured

    frames = [ref.sha256 for ref in pictures.values()]
    found = handle.value(f"{key}/currents", "measure", {"frames": frames}, compute)
    for one in found:  # what was known before is no longer so, and some names are of one current
        handle.aligner.pointing.drop(one["voltage_v"], one["current_a"])
    for one in found:
        if one["off_m"] is not None:
            u, v = one["off_m"]
            handle.aligner.pointing.add(one["voltage_v"], one["current_a"], (u, v))
    _see_that_all_are_known(handle, key, {point: ref.name for point, ref in pictures.items()})


def _see_that_all_are_known(handle: Handle, key: str, pictures: dict[tuple[float, float], str]) -> None:
    """Hold the run for a person where a current that no mark places points nobody knows where (night.md 11)."""
    recipe, pointing, first = handle.recipe, handle.aligner.pointing, key == "site"
    # kept, for a replay comes here before its block
    has_mark = not first and handle.value(f"{key}/marked", "measure", {}, lambda: bool(handle.aligner.marks))
    used = {*unmarked_currents(recipe, handle.description, has_mark=has_mark)}
    if not has_mark and any(step.kind == "protect" for step in recipe.steps):
        used.add(ruler_point(recipe, handle.description))
    unknown = sorted(point for point in used if pointing.of(*point) is None)
    if not unknown:
        return
    names = ", ".join(f"{show(current, 'current', 3)} at {show(volts, 'voltage', 3)}" for volts, current in unknown)
    looks = ", ".join(pictures[point] for point in unknown)
    handle.ask(
        f"{key}/pointing", {"points": unknown},
        f"where {names} points beside the current that found the site is not known, for its picture is not like that "
        f"one's: look at {looks}, focus it or align its aperture at the screen, or begin anew with another current. "
        "After `kintsugi answer DIR yes` and resume it mills unshifted",
        of_virtual=False,
    )  # fmt: skip


def _shift(frame: Frame) -> tuple[float, float]:
    """Return the ion beam's shift (m) that a picture was taken with."""
    ion = frame.meta.state.ion.settings
    return ion.shift_x_m or 0.0, ion.shift_y_m or 0.0


def _focus(handle: Handle, key: str, scan: Scan, volts: float, current: float) -> None:
    """Focus a current, once, and keep the working distance for whatever it is used for."""
    width, height = scan.width_px * scan.pixel_m, scan.height_px * scan.pixel_m
    if current * TUNE_S * mill_rate("electrode", volts) / (width * height) > DUG_M:
        return
    setup = handle.ion_setup(PoseName.MILL, volts, current, on_mark=False)

    def compute() -> dict[str, Any]:
        return {"working_distance_m": handle.aligner.ion_focus(setup, scan)}

    args = {"voltage_v": volts, "current_a": current}
    found = handle.acts.value(key, "measure", args, compute, mended=True)["working_distance_m"]
    if found is not None:
        handle.aligner.pointing.add_focus(volts, current, found)
