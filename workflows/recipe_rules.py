"""What a recipe must fulfil whatever the instrument: order of steps, and geometry and films that can be.

Each rule is a small function that yields (path, problem); nothing here is clipped or mended.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import radians

from instrument.process import densest_film
from instrument.settings import Beam, Description
from instrument.units import show, show_lengths
from workflows.recipe import SIXTEEN_BIT_SIZES, Fiducial, Image, Infiltrate, Protect, Recipe, Slice
from workflows.recipe_errors import Problem
from workflows.recipe_fields import Box

Found = tuple[tuple[int | str, ...], Problem]

#: Cap that must be left behind the last slice (night.md 9: "cap length >= trim + until + 5 um").
CAP_MARGIN_M = 5e-6
#: Around a mark the search for it needs this much (physics.md 1.6: search margin 3 um).
SEARCH_MARGIN_M = 3e-6
#: Pixels of a quick picture, and of one that looks for a mark: few, for each takes something off it. The field of the
#: latter over the mark's size, beside the margin on either side.
LOOK_PX, MARK_PX, MARK_FIELD = (512, 442), (256, 221), 1.3
#: A trench is this times the final recess, for gas and X-rays at 35 deg take-off (night.md 13, 17: 1 / tan 35 deg).
TRENCH_PER_RECESS = 1.4
#: Below this pre-tilt, stage rotation does not rock the ion beam (night.md 8).
LEAST_PRETILT_TO_ROCK = radians(10.0)
_TINY = 1e-12


def problems(recipe: Recipe) -> list[Found]:
    """Return everything that is wrong with a recipe and needs no instrument to be seen."""
    found = list(_order(recipe))
    if found:
        return found
    for rule in (
        _looked_at,
        _site,
        _cap,
        _trenches,
        _fiducial,
        _image,
        _films,
        _rocking,
        _densities,
        _element_maps,
        _until,
    ):
        found += rule(recipe)
    return found


def unattended_problems(recipe: Recipe, description: Description) -> tuple[Problem, ...]:
    """Return what a night without people can't do of a recipe: element maps that a person takes.

    Where the instrument doesn't say who starts them, as one that was not looked at, the recipe does.
    """
    if description.virtual and description.maps_by is None:
        return ()
    asked = [("eds", step.eds) for step in recipe.steps if step.eds is not None]
    if recipe.slicing is not None and recipe.slicing.eds is not None:
        asked.append(("slice.eds", recipe.slicing.eds))
    unsaid = "person" if "eds" in recipe.confirm else None
    return tuple(
        Problem(
            f"{name}.start", "a person takes its element maps, and nobody is there at night", "person",
            "laser-api or command",
            "start them by `elements_start=laser-api` or `elements_command=COMMAND` in the instrument's URL, leave eds "
            "out, or be there: `kintsugi run`",
        )
        for name, wanted in asked
        if (description.maps_by or wanted.start or unsaid) == "person"
    )  # fmt: skip


def planes_lost(recipe: Recipe) -> float:
    """Return the electrode (m) lost to warm-up cuts and to the ends of all cleans, at the most."""
    lost = 0.0
    for step in recipe.steps:
        if step.infiltrate is not None:
            lost += step.infiltrate.rounds * step.infiltrate.clean.over
    slicing = recipe.slicing
    if slicing is not None:
        lost += slicing.cut.warm_up * slicing.cut.thickness
        if slicing.refill is not None:
            lost += slicing.refill.at_most * slicing.refill.rounds * slicing.refill.clean.over
    return lost


def last_plane(recipe: Recipe) -> float:
    """Return z (m, from the bare front edge) of the deepest plane that the recipe may reach."""
    depth = recipe.slicing.depth if recipe.slicing is not None else 0.0
    return recipe.starts + planes_lost(recipe) + depth


def fiducial_z(recipe: Recipe) -> tuple[float, float]:
    """Return z (m) of the front and the rear edge of what carries the mark; ValueError without protect and block."""
    protect, block = recipe.protect, recipe.block
    if protect is None or block is None:
        msg = "only a recipe with protect and block has a mark of its own"
        raise ValueError(msg)
    rear = protect.front(block.trim) + protect.area[1]
    mark = block.fiducial
    if mark.place == "on-cap" or mark.cap is None:
        return rear - mark.size, rear
    return rear + mark.gap, rear + mark.gap + mark.cap[1]


# -- rules ------------------------------------------------------------------------------------------------------------


def _order(recipe: Recipe) -> Iterator[Found]:
    needs = {
        "block": ("protect",),
        "infiltrate": ("block", "adopt"),
        "slice": ("block", "adopt"),
        "eds": ("block", "adopt"),
    }
    before = {"protect": ("block", "adopt", "infiltrate", "slice"), "block": ("adopt",), "adopt": ("protect", "block")}
    seen: list[str] = []
    for index, step in enumerate(recipe.steps):
        kind, path = step.kind, ("steps", index, step.kind)
        if "finish" in seen:
            what = f"{kind} comes after finish"
            yield path, Problem("", what, kind, "finish is the last step", f"move {kind} before finish")
        elif kind in seen and kind in ("protect", "block", "adopt", "slice", "finish"):
            yield path, Problem("", f"{kind} comes a second time", kind, f"one {kind}", f"leave the second {kind} out")
        elif any(other in seen for other in before.get(kind, ())):
            other = next(other for other in before[kind] if other in seen)
            remedy = f"move {kind} before {other}" if kind == "protect" else "use either adopt or protect and block"
            yield path, Problem("", f"{kind} comes after {other}", kind, f"{kind} before {other}", remedy)
        elif kind in needs and not any(other in seen for other in needs[kind]):
            wanted = " or ".join(needs[kind])
            what = f"{kind} comes before there is a {wanted}"
            yield path, Problem("", what, kind, f"{kind} after {wanted}", f"put a {wanted} step before {kind}")
        seen.append(kind)


def _looked_at(recipe: Recipe) -> Iterator[Found]:
    if recipe.slicing is not None:
        return
    for index, step in enumerate(recipe.steps):
        if step.kind in ("adopt", "infiltrate"):
            what, limit = "no slice step says how the face is cut and looked at", f"{step.kind} with a slice step"
            remedy = "add a slice step, with `until: {images: 1}` if no more is wanted"
            yield ("steps", index, step.kind), Problem("", what, "no slice", limit, remedy)


def _site(recipe: Recipe) -> Iterator[Found]:
    if recipe.on_hardware and recipe.site == "auto" and recipe.adopt is None:
        yield ("site",), Problem(
            "", "'auto' is for the simulator: nobody has told this microscope where to work", "auto",
            "a taught site", "teach one with `kintsugi site NAME --recipe RECIPE` and write its name",
        )  # fmt: skip


def _cap(recipe: Recipe) -> Iterator[Found]:
    protect, block = recipe.protect, recipe.block
    index = _index(recipe, "protect")
    if protect is None:
        return
    if block is not None:
        path = ("steps", index, "protect", "area")
        if protect.area[0] + _TINY < block.face[0]:
            yield path, Problem(
                "", f"the cap is {_m(protect.area[0])} wide and the face under it {_m(block.face[0])}",
                show_lengths(protect.area), f"at least {_m(block.face[0])} wide", "widen the cap or narrow the face",
            )  # fmt: skip
        front = protect.front(block.trim)
        if front > block.trim + _TINY:
            yield ("steps", index, "protect", "start"), Problem(
                "", f"the cap starts {_m(front)} into the block and the trimmed face stands at {_m(block.trim)}",
                _m(front), f"at most {_m(block.trim)}", "start the cap at or before the trimmed face",
            )  # fmt: skip
        needed = last_plane(recipe) + CAP_MARGIN_M - front
        if recipe.slicing is not None and protect.area[1] + _TINY < needed:
            trimmed, lost = recipe.starts - front, planes_lost(recipe)
            yield path, Problem(
                "", f"the cap is {_m(protect.area[1])} long; trim {_m(trimmed)} + slices {_m(recipe.slicing.depth)} + "
                f"lost at cleans and warm-up {_m(lost)} + margin {_m(CAP_MARGIN_M)} need {_m(needed)}",
                show_lengths(protect.area), f"at least {_m(needed)} long", "lengthen the cap or slice less deep",
            )  # fmt: skip


def _trenches(recipe: Recipe) -> Iterator[Found]:
    block = recipe.block
    if block is None:
        return
    path = ("steps", _index(recipe, "block"), "block", "trench")
    trench = block.trench
    if block.trench_depth() + _TINY < block.face[1]:
        yield (*path, "depth"), Problem(
            "", f"the trenches are {_m(block.trench_depth())} deep and the face {_m(block.face[1])}",
            _m(block.trench_depth()), f"at least {_m(block.face[1])}", "deepen the trenches, or leave depth out",
        )  # fmt: skip
    reach = last_plane(recipe)
    if trench.length + _TINY < reach:
        yield (*path, "length"), Problem(
            "", f"the trenches are {_m(trench.length)} long and the last slice lies at {_m(reach)}",
            _m(trench.length), f"at least {_m(reach)}", "lengthen the trenches or slice less deep",
        )  # fmt: skip
    if trench.width + _TINY < TRENCH_PER_RECESS * reach:
        least = TRENCH_PER_RECESS * reach
        yield (*path, "width"), Problem(
            "", f"the trenches are {_m(trench.width)} wide: too narrow for gas and X-rays at a recess of {_m(reach)}",
            _m(trench.width), f"at least {_m(least)} (1.4 x the recess)", "widen the trenches or slice less deep",
        )  # fmt: skip
    falling = all(a > b for a, b in zip(trench.currents, trench.currents[1:], strict=False))
    if not falling or trench.currents[-1] < block.polish.current:
        shown = ", ".join(show(current, "current") for current in (*trench.currents, block.polish.current))
        yield (
            (*path, "currents"),
            Problem(
                "", f"currents must fall to the polish: {shown}", shown, "falling", "give the largest current first"
            ),
        )


def _fiducial(recipe: Recipe) -> Iterator[Found]:
    protect, block = recipe.protect, recipe.block
    if protect is None or block is None:
        return
    mark, path = block.fiducial, ("steps", _index(recipe, "block"), "block", "fiducial")
    if mark.place == "behind" and mark.cap is None:
        what = "a mark behind the cap needs a cap of its own"
        yield (*path, "cap"), Problem("", what, "none", "a cap", "write `cap: 20 um x 20 um x 2 um`")
        return
    yield from _mark_on_cap(mark, protect, path)
    front, _ = fiducial_z(recipe)
    reach = last_plane(recipe) + SEARCH_MARGIN_M
    if front + _TINY < reach:
        yield path, Problem(
            "", f"the mark begins {_m(front)} into the block; the last slice and search margin reach {_m(reach)}",
            mark.place, f"at least {_m(reach)}", "place it behind on its own cap, lengthen the cap, or slice less deep",
        )  # fmt: skip
    behind = front - block.trench.length
    beside = (block.face[0] - _marks_width(mark)) / 2
    if max(behind, beside) + _TINY < block.keep_off:
        yield path, Problem(
            "", f"the mark lies {_m(max(behind, beside, 0.0))} from a trench edge",
            _m(max(behind, beside, 0.0)), f"at least {_m(block.keep_off)} (keep_off)",
            "shorten the trenches, widen the face, give it more gap, or leave the spare out",
        )  # fmt: skip


def _mark_on_cap(mark: Fiducial, protect: Protect, path: tuple[int | str, ...]) -> Iterator[Found]:
    own = mark.place == "behind" and mark.cap is not None
    sides = mark.cap if own and mark.cap is not None else (*protect.area, protect.thickness)
    if mark.size > min(sides[0], sides[1]) + _TINY:
        yield (*path, "size"), Problem(
            "", f"the mark of {_m(mark.size)} does not fit its cap of {show_lengths(sides)}",
            _m(mark.size), f"at most {_m(min(sides[0], sides[1]))}", "make the mark smaller or its cap larger",
        )  # fmt: skip
    if mark.depth > sides[2] + _TINY:
        yield (*path, "depth"), Problem(
            "", f"the mark is {_m(mark.depth)} deep and its cap {_m(sides[2])} high: it would cut into the electrode",
            _m(mark.depth), f"at most {_m(sides[2])}", "make the mark shallower or its cap higher",
        )  # fmt: skip


def _marks_width(mark: Fiducial) -> float:
    width = mark.size if mark.cap is None else mark.cap[0]
    return 2 * width + mark.gap if mark.spare else width


def _image(recipe: Recipe) -> Iterator[Found]:
    slicing = recipe.slicing
    if slicing is None:
        return
    face, cap = _face(recipe)
    path = ("steps", _index(recipe, "slice"), "slice", "image")
    yield from _on_face(
        slicing.image.box, face, cap, (*path, "centre" if slicing.image.centre else "area"), "image area"
    )
    width, height = slicing.image.size_px
    if not (12 <= width <= 65535 and 12 <= height <= 65535):
        yield (*path, "pixel"), Problem(
            "", f"the image has {width} x {height} pixels", show(slicing.image.pixel, "length"),
            "12 to 65535 pixels on each side", "choose another pixel or area",
        )  # fmt: skip
    if slicing.image.bits == 16 and slicing.image.bits_used == 16 and slicing.image.size_px not in SIXTEEN_BIT_SIZES:
        sizes = ", ".join(f"{w} x {h}" for w, h in SIXTEEN_BIT_SIZES)
        yield (*path, "bits"), Problem(
            "", f"a frame of {width} x {height} pixels has 8 bits", "16", f"16 bits at {sizes}",
            "choose area and pixel for one of these sizes, or leave bits out",
        )  # fmt: skip


def _on_face(
    box: Box, face: tuple[float, float], cap: float, path: tuple[int | str, ...], what: str
) -> Iterator[Found]:
    x0, y0, x1, y1 = box
    size = show_lengths((round(x1 - x0, 12), round(y1 - y0, 12)))
    if max(-x0, x1) > face[0] / 2 + _TINY:
        yield path, Problem(
            "", f"the {what} reaches {_m(max(-x0, x1))} from the middle and the face {_m(face[0] / 2)}", size,
            f"at most {_m(face[0])} across, in the middle", "make it smaller, move it, or widen the face",
        )  # fmt: skip
    if y1 > face[1] + _TINY:
        yield path, Problem(
            "", f"the {what} reaches down to {_m(y1)} and the face to {_m(face[1])}", size, f"at most {_m(face[1])}",
            "make it less high, move it up, or deepen the face",
        )  # fmt: skip
    if y0 < -cap - _TINY:
        yield path, Problem(
            "", f"the {what} begins {_m(-y0)} above the electrode and the cap is {_m(cap)} high", size,
            f"at most {_m(cap)} above", "move it down",
        )  # fmt: skip


def _films(recipe: Recipe) -> Iterator[Found]:
    slicing = recipe.slicing
    face, _ = _face(recipe)
    for path, fill in _fills(recipe):
        fine, thickness = _m(fill.clean.fine_from), _m(fill.thickness)
        if fill.clean.fine_from > fill.thickness:
            yield (*path, "clean", "fine_from"), Problem(
                "", f"the fine clean begins {fine} above the plane, over the film of {thickness}",
                fine, f"at most {thickness}", "begin it inside the film",
            )  # fmt: skip
        if slicing is None:
            continue
        box = slicing.image.box
        x0, y0, x1, y1 = fill.film_box(box)
        size = show_lengths((round(x1 - x0, 12), round(y1 - y0, 12)))
        where = (*path, "film") if fill.film is not None else (*path, "beyond")
        if x0 > box[0] + _TINY or x1 < box[2] - _TINY or y1 < box[3] - _TINY:
            yield where, Problem(
                "", f"the film of {size} leaves part of the image area ({show_lengths(slicing.image.area)}) bare", size,
                f"at least {show_lengths(slicing.image.area)}", "make the film larger than the image area",
            )  # fmt: skip
        inside = min(face[0] / 2 - max(-x0, x1), face[1] - y1)
        if inside + _TINY < fill.keep:
            yield where, Problem(
                "", f"the film of {size} ends {_m(inside)} inside the face of {show_lengths(face)}: uncut film grows "
                "into a lip", size, f"at least {_m(fill.keep)} inside (keep)", "enlarge the face or shrink the film",
            )  # fmt: skip


def _rocking(recipe: Recipe) -> Iterator[Found]:
    slicing = recipe.slicing
    if slicing is not None and slicing.cut.rocking > 0 and recipe.sample.pretilt < LEAST_PRETILT_TO_ROCK:
        flat, asked = (show(angle, "angle", 3) for angle in (recipe.sample.pretilt, slicing.cut.rocking))
        yield ("steps", _index(recipe, "slice"), "slice", "cut", "rocking"), Problem(
            "", f"rocking by {asked} is not possible on a stub of {flat} pre-tilt: the stage would turn about the beam",
            asked, f"pretilt of at least {show(LEAST_PRETILT_TO_ROCK, 'angle')}", "use a 45 deg stub or rocking: 0 deg",
        )  # fmt: skip


def _densities(recipe: Recipe) -> Iterator[Found]:
    protect = recipe.protect
    if protect is not None:
        path = ("steps", _index(recipe, "protect"), "protect", "ion")
        area = protect.area[0] * protect.area[1]
        yield from _grows(path, protect.ion.voltage, protect.ion.density, protect.ion.current, area)
    for where, fill in _fills(recipe):
        if fill.beam is Beam.ION:
            area = 0.0
            if recipe.slicing is not None:
                x0, y0, x1, y1 = fill.film_box(recipe.slicing.image.box)
                area = (x1 - x0) * (y1 - y0)
            yield from _grows(where, fill.voltage, fill.density, fill.current, area)


def _grows(
    path: tuple[int | str, ...], voltage: float, density: float | None, current: float | None, area: float
) -> Iterator[Found]:
    field = "density" if density is not None else "current"
    asked = density if density is not None else (current or 0.0) / area if area > 0 else 0.0
    limit = densest_film(voltage)
    if asked >= limit:
        largest = show(limit, "density", 2) if field == "density" else show(limit * area, "current", 2)
        yield (*path, field), Problem(
            "", f"a film at {show(asked, 'density', 3)} and {show(voltage, 'voltage')} is milled faster than it grows",
            show(asked, "density", 3), f"less than {largest}", "write about 4 pA/um2",
        )  # fmt: skip


def _element_maps(recipe: Recipe) -> Iterator[Found]:
    slicing = recipe.slicing
    face, cap = _face(recipe)
    for index, step in enumerate(recipe.steps):
        inside = slicing.eds if slicing is not None and step.slice is not None else None
        found = step.eds if step.eds is not None else inside
        if found is None:
            continue
        path: tuple[int | str, ...] = (
            ("steps", index, "eds") if step.eds is not None else ("steps", index, "slice", "eds")
        )
        if slicing is not None:
            if found.area is not None:
                image: Image = slicing.image.replace(area=found.area)
                yield from _on_face(image.box, face, cap, (*path, "area"), "element map")
            if inside is not None and inside.at is not None and max(inside.at) > slicing.images:
                yield (*path, "at"), Problem(
                    "", f"image {max(inside.at)} does not come: there are {slicing.images}", str(max(inside.at)),
                    f"at most {slicing.images}", "choose an image that is taken",
                )  # fmt: skip
        if recipe.on_hardware and found.start not in ("laser-api", "command") and "eds" not in recipe.confirm:
            yield (*path, "start"), Problem(
                "", "nobody presses start for an element map at night", found.start or "none", "laser-api or command",
                "write `start: laser-api`, or `confirm: [eds]` and be there",
            )  # fmt: skip


def _until(recipe: Recipe) -> Iterator[Found]:
    slicing = recipe.slicing
    if slicing is not None and slicing.images < 1:
        spacing, depth = show(slicing.spacing, "length"), _m(slicing.until.depth or 0.0)
        yield ("steps", _index(recipe, "slice"), "slice", "until", "depth"), Problem(
            "", f"{depth} is less than one image's spacing of {spacing}", depth,
            f"at least {spacing}", "slice deeper or thinner",
        )  # fmt: skip


# -- private ----------------------------------------------------------------------------------------------------------


def _index(recipe: Recipe, kind: str) -> int:
    """Return which step is of a kind; an adopted block's protect and block stand in its adopt."""
    kinds = [step.kind for step in recipe.steps]
    return kinds.index(kind) if kind in kinds else kinds.index("adopt") if "adopt" in kinds else 0


def _face(recipe: Recipe) -> tuple[tuple[float, float], float]:
    """Return the face's size and the cap's height (m); endless where the recipe has neither block nor adopt."""
    if recipe.face is None:
        return (1.0, 1.0), 1.0
    if recipe.protect is not None:
        return recipe.face, recipe.protect.thickness
    return recipe.face, (recipe.adopt.cap or 0.0) if recipe.adopt is not None else 0.0


def _fills(recipe: Recipe) -> Iterator[tuple[tuple[int | str, ...], Infiltrate]]:
    for index, step in enumerate(recipe.steps):
        if step.infiltrate is not None:
            yield ("steps", index, "infiltrate"), step.infiltrate
        sliced: Slice | None = step.slice
        if sliced is not None and sliced.refill is not None:
            yield ("steps", index, "slice", "refill"), sliced.refill


def _m(length: float) -> str:
    return show(length, "length", 3)
