"""What a recipe asks of an instrument that this one can't give: gases, detectors, currents, fields, poses, disk."""

from __future__ import annotations

from collections.abc import Iterator
from math import degrees, log

from instrument.errors import Refused
from instrument.geometry import PoseName, pose, rocking_pose
from instrument.guard_rules import CURRENT_ROOM
from instrument.process import densest_film, mill_rate
from instrument.settings import Beam, Description
from instrument.units import show
from workflows.recipe import ElementMap, Image, Infiltrate, Ion, Protect, Recipe
from workflows.recipe_errors import Problem
from workflows.recipe_rules import MARK_FIELD, MARK_PX, SEARCH_MARGIN_M

#: A film's current is taken from the list when its density comes as near as this factor to what is asked.
DENSITY_FACTOR = 2.0
#: What may be filled of the disk: the rest is for labels, volume and report.
DISK_SHARE = 0.8
#: Density (A/m2) of a mark's cap where the protective cap's ion beam is given by its current (physics.md 3.1).
_MARK_DENSITY = 4.0


def mark_field(size_m: float, reach_m: float = SEARCH_MARGIN_M) -> float:
    """Return the width (m) of a picture that looks for a mark of a size up to `reach_m` from where it should be."""
    return size_m * MARK_FIELD + 2 * reach_m


def looked_off(charge_c: float, field_m: float, voltage_v: float = 30e3) -> float:
    """Return what ion pictures of a mark, of a field's width, take off it, metres (night.md 9)."""
    return charge_c * mill_rate("cap", voltage_v) / (field_m * field_m * MARK_PX[1] / MARK_PX[0])


def instrument_problems(recipe: Recipe, description: Description) -> list[Problem]:
    """Return every limit of the instrument that the recipe would hit, each with field, value, limit and remedy."""
    found: list[Problem] = []
    for rule in (_gases, _detectors, _element_maps, _working_points, _films, _fields, _poses):
        found += rule(recipe, description)
    return found


def disk_problem(needed: float, free: int) -> Problem | None:
    """Return a problem when a run's data (bytes) don't fit the disk's free bytes with room to spare."""
    if needed <= free * DISK_SHARE:
        return None
    return Problem(
        "slice.image", f"the run writes {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB free",
        f"{needed / 1e9:.1f} GB", f"at most {free * DISK_SHARE / 1e9:.1f} GB (80 % of what is free)",
        "choose another disk with --out, fewer images, or a larger pixel",
    )  # fmt: skip


def film_current(density: float, area_m2: float, currents: tuple[float, ...]) -> float:
    """Return the listed current (A) whose density on an area (m2) comes nearest to the asked one (A/m2)."""
    return min(currents, key=lambda current: abs(log(current / (density * area_m2))))


def current_of_film(film: Ion | Infiltrate, area_m2: float, description: Description) -> float:
    """Return the current (A) that a film of this area (m2) is laid with: as the recipe says, else by its density."""
    beam = film.beam if isinstance(film, Infiltrate) else Beam.ION
    return film.current or film_current(film.density or 0.0, area_m2, description.currents(beam, film.voltage))


def current_of_mark(ion: Ion, cap: tuple[float, float, float], description: Description) -> float:
    """Return the current (A) that the cap of a mark (m) is laid with: by density, as it is smaller than the other."""
    listed = description.currents(Beam.ION, ion.voltage)
    return film_current(ion.density or _MARK_DENSITY, cap[0] * cap[1], listed)


def idle_current(description: Description, voltage: float, species: str | None = None) -> float | None:
    """Return the least ion current (A) of a voltage (V), None where its list is not the instrument's own."""
    own = description.list_name(voltage, species) not in description.assumed_currents
    return min(description.currents(Beam.ION, voltage, species), default=None) if own else None


def nearest(currents: tuple[float, ...], wanted: float) -> float:
    """Return the listed current (A) nearest to a wanted one."""
    return min(currents, key=lambda current: abs(current - wanted))


def film_area(recipe: Recipe, film: Infiltrate | Protect) -> float:
    """Return a film's area (m2 of true surface): the cap's, or the film's on the face."""
    if isinstance(film, Protect):
        return film.area[0] * film.area[1]
    slicing = recipe.slicing
    if slicing is not None:
        x0, y0, x1, y1 = film.film_box(slicing.image.box)
        return (x1 - x0) * (y1 - y0)
    if film.film is not None:
        return film.film[0] * film.film[1]
    face = recipe.face
    return face[0] * face[1] if face is not None else 0.0


def ion_currents(recipe: Recipe, description: Description) -> list[tuple[float, float]]:
    """Return the (voltage, current) (V, A) at which the recipe's ion beam mills or lays its cap, each once."""
    block, slicing = recipe.block, recipe.slicing
    found = _before_the_mark(recipe, description)
    if block is not None and _made_here(recipe, "block"):
        found.append((block.voltage, block.polish.current))
    found += _of_films(recipe, description)
    if slicing is not None:
        found.append((slicing.cut.voltage, slicing.cut.current))
        coarse = [fill.clean.coarse for _, fill in fills(recipe) if fill.clean.coarse is not None]
        found += [(slicing.cut.voltage, current) for current in coarse]
    return list(dict.fromkeys(found))


def unmarked_currents(recipe: Recipe, description: Description, *, has_mark: bool) -> list[tuple[float, float]]:
    """Return those of `ion_currents` that no mark places: of films on the face, and before there is a mark."""
    before = [] if has_mark else _before_the_mark(recipe, description)
    return list(dict.fromkeys(before + _of_films(recipe, description)))


def fills(recipe: Recipe) -> Iterator[tuple[str, Infiltrate]]:
    """Yield the recipe's films on the face with the name of their field."""
    for step in recipe.steps:
        if step.infiltrate is not None:
            yield "infiltrate", step.infiltrate
        if step.slice is not None and step.slice.refill is not None:
            yield "slice.refill", step.slice.refill


def _before_the_mark(recipe: Recipe, description: Description) -> list[tuple[float, float]]:
    """Return the ion beam's (voltage, current) (V, A) of what is made before there is a mark."""
    block, protect = recipe.block, recipe.protect
    found: list[tuple[float, float]] = []
    if protect is not None and _made_here(recipe, "protect"):
        found.append((protect.ion.voltage, current_of_film(protect.ion, film_area(recipe, protect), description)))
    if block is not None and _made_here(recipe, "block"):
        found += [(block.voltage, current) for current in (*block.trench.currents, block.fiducial.current)]
        mark = block.fiducial.cap
        if mark is not None and block.fiducial.place == "behind" and protect is not None:
            found.append((protect.ion.voltage, current_of_mark(protect.ion, mark, description)))
    return found


def _of_films(recipe: Recipe, description: Description) -> list[tuple[float, float]]:
    """Return the ion beam's (voltage, current) (V, A) of films on the face."""
    return [
        (fill.voltage, current_of_film(fill, film_area(recipe, fill), description))
        for _, fill in fills(recipe)
        if fill.beam is Beam.ION
    ]


def _made_here(recipe: Recipe, kind: str) -> bool:
    return any(step.kind == kind for step in recipe.steps)


# -- rules ------------------------------------------------------------------------------------------------------------


def _gases(recipe: Recipe, description: Description) -> Iterator[Problem]:
    asked = [(name, fill.gas) for name, fill in fills(recipe)]
    if recipe.protect is not None:
        asked.insert(0, ("protect", recipe.protect.gas))
    for name, gases in asked:
        for gas in gases:
            if gas not in description.gases:
                known = ", ".join(description.gases) or "none"
                yield Problem(
                    f"{name}.gas", f"this instrument has no gas {gas!r}", gas, f"one of {known}", "use one that it has"
                )


def _detectors(recipe: Recipe, description: Description) -> Iterator[Problem]:
    slicing = recipe.slicing
    for detector in slicing.image.detectors if slicing is not None else ():
        if detector not in description.detectors:
            known = ", ".join(description.detectors)
            what = f"this instrument has no detector {detector!r}"
            yield Problem("slice.image.detectors", what, detector, f"one of {known}", "use one that it has")


def _element_maps(recipe: Recipe, description: Description) -> Iterator[Problem]:
    slicing = recipe.slicing
    maps: list[tuple[str, ElementMap]] = []
    if slicing is not None and slicing.eds is not None:
        maps.append(("slice.eds", slicing.eds))
    maps += [("eds", step.eds) for step in recipe.steps if step.eds is not None]
    if maps and not description.elements:
        remedy = "leave eds out, or name its X-ray program's folder in the URL (autoscript://HOST?elements=FOLDER)"
        yield Problem(maps[0][0], "this instrument has no element mapping", "eds", "no eds", remedy)
        return
    starts = description.maps_by
    for name, wanted in maps:
        if starts is not None and wanted.start in ("laser-api", "command") and wanted.start != starts:
            option = "elements_start=laser-api" if wanted.start == "laser-api" else "elements_command=COMMAND"
            remedy = f"add `&{option}` to the instrument's URL, or write `start: {starts}`"
            yield Problem(f"{name}.start", f"element maps are started by {starts} here", wanted.start, starts, remedy)


def _working_points(recipe: Recipe, description: Description) -> Iterator[Problem]:
    block, slicing = recipe.block, recipe.slicing
    points: list[tuple[str, Beam, float, float]] = []
    if block is not None:
        rough = block.trench.currents
        points += [("block.trench.currents", Beam.ION, block.voltage, current) for current in rough]
        points.append(("block.polish.current", Beam.ION, block.voltage, block.polish.current))
        points.append(("block.fiducial.current", Beam.ION, block.voltage, block.fiducial.current))
    if slicing is not None:
        points.append(("slice.cut.current", Beam.ION, slicing.cut.voltage, slicing.cut.current))
        points.append(("slice.image.current", Beam.ELECTRON, slicing.image.voltage, slicing.image.current))
        if slicing.eds is not None:
            current = slicing.eds.current or slicing.image.current
            points.append(("slice.eds.current", Beam.ELECTRON, slicing.eds.voltage, current))
        for name, fill in fills(recipe):
            if fill.clean.coarse is not None:
                points.append((f"{name}.clean.coarse", Beam.ION, slicing.cut.voltage, fill.clean.coarse))
            if fill.current is not None:
                points.append((f"{name}.current", fill.beam, fill.voltage, fill.current))
    for name, beam, voltage, current in points:
        yield from _point(name, beam, voltage, current, description)


def _point(name: str, beam: Beam, voltage: float, current: float, description: Description) -> Iterator[Problem]:
    listed = description.currents(beam, voltage)
    if not listed or not _voltage_listed(beam, voltage, description):
        yield _no_voltage(name.rpartition(".")[0] + ".voltage", beam, voltage, description)
        return
    if not description.may_have(beam, voltage, current, CURRENT_ROOM):
        nearest = min(listed, key=lambda one: abs(log(one / current)))
        shown, at = show(current, "current", 4), show(voltage, "voltage", 3)
        known = ", ".join(show(one, "current", 3) for one in listed)
        yield Problem(
            name, f"the {beam} beam has no {shown} at {at}", shown, f"one of {known}",
            f"write '{show(nearest, 'current', 3)}'",
        )  # fmt: skip


def _films(recipe: Recipe, description: Description) -> Iterator[Problem]:
    films: list[tuple[str, Beam, float, float | None, float]] = []
    protect = recipe.protect
    if protect is not None:
        films.append(("protect.ion", Beam.ION, protect.ion.voltage, protect.ion.density, film_area(recipe, protect)))
    films += [(name, fill.beam, fill.voltage, fill.density, film_area(recipe, fill)) for name, fill in fills(recipe)]
    for name, beam, voltage, density, area in films:
        listed = description.currents(beam, voltage)
        if not listed or not _voltage_listed(beam, voltage, description):
            yield _no_voltage(f"{name}.voltage", beam, voltage, description)
        elif density is not None and area > 0:
            current = film_current(density, area, listed)
            reached = current / area
            if beam is Beam.ION and reached >= densest_film(voltage):
                limit = show(densest_film(voltage), "density", 3)
                what = f"the smallest current ({show(current, 'current', 3)}) gives {show(reached, 'density', 3)} here"
                yield Problem(
                    f"{name}.density", what, show(reached, "density", 3), f"less than {limit}", "enlarge the film"
                )
            elif not 1 / DENSITY_FACTOR <= reached / density <= DENSITY_FACTOR:
                what = (
                    f"the nearest current, {show(current, 'current', 3)}, gives {show(reached, 'density', 3)} "
                    f"instead of {show(density, 'density', 3)}"
                )
                yield Problem(
                    f"{name}.density", what, show(density, "density", 3), f"within a factor of {DENSITY_FACTOR:g}",
                    f"write '{show(reached, 'density', 2)}' or choose another voltage",
                )  # fmt: skip


def _fields(recipe: Recipe, description: Description) -> Iterator[Problem]:
    protect, block, slicing = recipe.protect, recipe.block, recipe.slicing
    ion: list[tuple[str, float]] = []
    if protect is not None:
        ion.append(("protect.area", max(protect.area)))
    if block is not None:
        ion.append(("block.face", block.face[0]))
        ion.append(("block.trench", max(block.trench.width, block.trench.length)))
        ion.append(("block.trim", block.trim))
    if slicing is not None:
        for name, fill in fills(recipe):
            x0, y0, x1, y1 = fill.film_box(slicing.image.box)
            ion.append((f"{name}.film", max(x1 - x0, y1 - y0)))
    for name, size in ion:
        if size > description.ion_field_max_m:
            yield _too_large(name, "pattern", "ion", size, description.ion_field_max_m)
    if slicing is not None and max(slicing.image.area) > description.electron_field_max_m:
        yield _too_large(
            "slice.image.area", "image", "electron", max(slicing.image.area), description.electron_field_max_m
        )
    if slicing is not None and slicing.image.bits == 16:
        yield from _bits(slicing.image, description)


def _bits(image: Image, description: Description) -> Iterator[Problem]:
    if image.size_px not in description.sixteen_bit_sizes:
        sizes = ", ".join(f"{w} x {h}" for w, h in description.sixteen_bit_sizes)
        what = "this instrument saves {} x {} pixels with 8 bits".format(*image.size_px)
        yield Problem(
            "slice.image.bits", what, "16", f"16 bits at {sizes}", "choose one of these sizes, or leave bits out"
        )


def _poses(recipe: Recipe, description: Description) -> Iterator[Problem]:
    slicing, pretilt, column = recipe.slicing, recipe.sample.pretilt, description.column_angle_rad
    wanted = {("sample.pretilt", PoseName.MILL)} if recipe.block is not None or slicing is not None else set()
    wanted |= {("infiltrate.pose", PoseName.DEPOSIT) for _, fill in fills(recipe) if fill.pose == "ion-normal"}
    wanted |= {("infiltrate.pose", PoseName.FACE_ON) for _, fill in fills(recipe) if fill.pose == "imaging"}
    if slicing is not None and slicing.image.pose == "face-on":
        wanted.add(("slice.image.pose", PoseName.FACE_ON))
    if slicing is not None and slicing.eds is not None and slicing.eds.pose == "face-on":
        wanted.add(("slice.eds.pose", PoseName.FACE_ON))
    low, high = description.stage.t
    tilts = [(field, str(name), pose(name, pretilt, column=column).t) for field, name in sorted(wanted)]
    if slicing is not None and slicing.cut.rocking > 0:
        try:
            tilts.append(("slice.cut.rocking", "rocking", rocking_pose(pretilt, slicing.cut.rocking, column=column).t))
        except Refused as refused:
            yield Problem("slice.cut.rocking", refused.message)
    for field, name, tilt in tilts:
        if not low <= tilt <= high:
            shown = f"{degrees(tilt):.1f} deg"
            yield Problem(
                field, f"the {name} pose needs a stage tilt of {shown} on a stub of {show(pretilt, 'angle', 3)}", shown,
                f"{degrees(low):.0f} to {degrees(high):.0f} deg", "use a stub of another pre-tilt or another pose",
            )  # fmt: skip


def _voltage_listed(beam: Beam, voltage: float, description: Description) -> bool:
    listed = description.ion_voltages_v if beam is Beam.ION else description.electron_voltages_v
    return any(abs(voltage - one) <= 1.0 for one in listed)


def _no_voltage(name: str, beam: Beam, voltage: float, description: Description) -> Problem:
    listed = description.ion_voltages_v if beam is Beam.ION else description.electron_voltages_v
    known, shown = ", ".join(show(one, "voltage", 3) for one in listed), show(voltage, "voltage", 4)
    return Problem(name, f"the {beam} beam has no {shown}", shown, f"one of {known}", "use one of these voltages")


def _too_large(name: str, what: str, beam: str, size: float, limit: float) -> Problem:
    shown, most = show(size, "length", 3), show(limit, "length", 3)
    sentence = f"a {what} of {shown} does not fit the {beam} field"
    return Problem(name, sentence, shown, f"at most {most}", "make it smaller")
