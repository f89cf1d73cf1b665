"""The recipe: what a person writes for a night, as one validated document.

`load` reads YAML and checks all that needs no instrument; `dump` writes what reads back as the same recipe. In YAML
every quantity has its unit; in Python fields are SI floats and radians. The models of the steps are in `recipe_steps`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from instrument.units import WITH_UNITS
from workflows.recipe_errors import Problem, RecipeProblem, from_pydantic, readable
from workflows.recipe_fields import Box, Name
from workflows.recipe_steps import (
    FILLABLE_M,
    SIXTEEN_BIT_SIZES,
    Adopt,
    Block,
    Clean,
    Composition,
    Cut,
    Eds,
    ElementMap,
    Fiducial,
    Finish,
    Image,
    Infiltrate,
    Ion,
    Made,
    Polish,
    Protect,
    Refill,
    Sample,
    Settings,
    Slice,
    Step,
    StepSettings,
    Trench,
    Until,
)  # fmt: skip

__all__ = [
    "SIXTEEN_BIT_SIZES", "Adopt", "Block", "Box", "Clean", "Composition", "Cut", "Eds", "ElementMap", "Fiducial",
    "Finish", "Image", "Infiltrate", "Ion", "Made", "Polish", "Problem", "Protect", "Recipe", "RecipeProblem", "Refill",
    "Sample", "Settings", "Slice", "Step", "StepSettings", "Trench", "Until", "check", "dump", "load", "without",
]  # fmt: skip


class Recipe(Settings):
    """A whole recipe: schema version, name, URL of the instrument, sample, `site` (auto: simulator only), steps."""

    kintsugi: Literal[1]
    name: Name
    instrument: Name = "simulator"
    sample: Sample
    site: Name = "auto"
    confirm: tuple[Literal["site", "block", "eds"], ...] = ()
    steps: tuple[Step, ...] = Field(min_length=1)

    @model_validator(mode="before")
    @classmethod
    def _complete(cls, data: Any) -> Any:
        """Give a refill what the infiltration before it has, and the recipe its last step."""
        if not isinstance(data, Mapping) or not isinstance(data.get("steps"), list):
            return data
        steps: list[Any] = []
        fill: dict[str, Any] = {}
        for step in data["steps"]:
            done = step
            if isinstance(step, dict):
                fill = step["infiltrate"] if isinstance(step.get("infiltrate"), dict) else fill
                inner = step.get("slice")
                if isinstance(inner, dict) and isinstance(inner.get("refill"), dict):
                    done = {**step, "slice": {**inner, "refill": _inherited(inner["refill"], fill)}}
            steps.append(done)
        if not any(step == "finish" or (isinstance(step, dict) and "finish" in step) for step in steps):
            steps.append({"finish": {}})
        return {**data, "steps": steps}

    @property
    def on_hardware(self) -> bool:
        """Whether the instrument is anything but our simulator; a server's is known only when asked."""
        return not self.instrument.startswith(("simulator", "pyro"))

    def named_steps(self) -> tuple[tuple[str, StepSettings], ...]:
        """Return the steps with a name each that is unique in the recipe: infiltrate, infiltrate-2."""
        seen: dict[str, int] = {}
        named = []
        for step in self.steps:
            seen[step.kind] = count = seen.get(step.kind, 0) + 1
            named.append((step.kind if count == 1 else f"{step.kind}-{count}", step.settings))
        return tuple(named)

    @property
    def protect(self) -> Protect | None:
        """The protect step, where there is one; of the run that made the block, where that is adopted."""
        own = next((step.protect for step in self.steps if step.protect is not None), None)
        return own or (self.made.protect if self.made is not None else None)

    @property
    def block(self) -> Block | None:
        """The block step, where there is one; of the run that made the block, where that is adopted."""
        own = next((step.block for step in self.steps if step.block is not None), None)
        return own or (self.made.block if self.made is not None else None)

    @property
    def adopt(self) -> Adopt | None:
        """The adopt step, where there is one."""
        return next((step.adopt for step in self.steps if step.adopt is not None), None)

    @property
    def made(self) -> Made | None:
        """What is known of the run that made an adopted block, where it was one of ours."""
        return self.adopt.made if self.adopt is not None else None

    @property
    def face(self) -> tuple[float, float] | None:
        """The face's width and depth along the ion beam (m), None where there is neither block nor adopt."""
        if self.block is not None:
            return self.block.face
        return self.adopt.face if self.adopt is not None else None

    @property
    def fiducial(self) -> Fiducial | None:
        """The mark that places the ion pattern; the adopt step may say anew what looks may take of a run's."""
        mark = self.block.fiducial if self.block is not None else None
        if self.adopt is None:
            return mark
        said = self.adopt.fiducial
        if mark is None:
            return said or Fiducial()
        return mark if said is None else mark.replace(budget=said.budget)

    @property
    def edge(self) -> float:
        """The plane (z, m) of the front edge as the run finds it: 0, but on the block of an earlier run."""
        return self.made.plane if self.made is not None else 0.0

    @property
    def starts(self) -> float:
        """The plane (z, m) on which the face stands before it is sliced."""
        return self.edge if self.adopt is not None or self.block is None else self.block.trim

    @property
    def place(self) -> str:
        """The name of the site that it works on."""
        return self.adopt.site if self.adopt is not None else self.site

    @property
    def slicing(self) -> Slice | None:
        """The slice step, where there is one."""
        return next((step.slice for step in self.steps if step.slice is not None), None)

    @property
    def fillable(self) -> float:
        """Width (m) below which a pore counts as one that platinum could fill."""
        refill = self.slicing.refill if self.slicing is not None else None
        return refill.fillable if refill is not None else FILLABLE_M


def load(source: Path | str) -> Recipe:
    """Read a recipe from a file or from YAML text (a string with a line break); check all that needs no instrument.

    Raises
    ------
    RecipeProblem
        With every problem found: field, line, value, limit, remedy.
    """
    from workflows.recipe_yaml import Document

    text, name = _text(source)
    document = Document(text, name)
    try:
        recipe = Recipe.model_validate(document.plain, context=WITH_UNITS)
    except ValidationError as error:
        found = error.errors(include_url=False)
        own = [one for one in found if "refill" not in one["loc"] or document.has(tuple(one["loc"]))]
        raise RecipeProblem((from_pydantic(one, Recipe, document.line) for one in own or found), name) from error
    recipe = _adopting(recipe)
    problems = [problem.at(document.line(path)) for path, problem in _rules(recipe)]
    if problems:
        raise RecipeProblem(problems, name)
    return recipe


def check(recipe: Recipe) -> None:
    """Check a recipe made or changed in code; RecipeProblem, without lines, with all that is wrong."""
    problems = [problem for _, problem in _rules(recipe)]
    if problems:
        raise RecipeProblem(problems)


def dump(recipe: Recipe) -> str:
    """Return a recipe as YAML with its units and defaults filled in; `load` gives an equal recipe back."""
    from workflows.recipe_yaml import write

    return write(recipe.model_dump(mode="json", context=WITH_UNITS, exclude_none=True, by_alias=True))


def without(recipe: Recipe, what: str) -> Recipe:
    """Return a recipe without its refills or its element maps (`what`: refill or eds), or without a whole step.

    Raises
    ------
    RecipeProblem
        When there is nothing of this name to leave out, or when what is left can't be run.
    """
    steps = []
    for step in recipe.steps:
        if step.kind == what and what != "finish":
            continue
        if step.slice is not None and what in ("refill", "eds"):
            steps.append(step.replace(slice=step.slice.replace(**{what: None})))
        else:
            steps.append(step)
    kinds = [*dict.fromkeys(["refill", "eds", *(step.kind for step in recipe.steps)])]
    if what not in kinds or what == "finish":
        allowed = ", ".join(kind for kind in kinds if kind != "finish")
        raise RecipeProblem(
            [Problem("--without", f"{what!r} can't be left out", what, allowed, f"write one of {allowed}")]
        )
    changed = recipe.replace(steps=tuple(steps))
    check(changed)
    return changed


def at_most(recipe: Recipe, images: int) -> Recipe:
    """Return a recipe that takes at most so many images; element maps of images that don't come are left out.

    Raises
    ------
    RecipeProblem
        When it takes none, or when what is left can't be run.
    """
    if recipe.slicing is None or images < 1:
        allowed = "from 1, of a recipe that slices"
        raise RecipeProblem([Problem("--images", "can't be taken", str(images), allowed, "change it")])
    if recipe.slicing.images <= images:
        return recipe
    slicing = recipe.slicing
    eds = slicing.eds
    if eds is not None and eds.at is not None:
        at = tuple(image for image in eds.at if image <= images)
        eds = eds.replace(at=at) if at else None
    shorter = slicing.replace(until=slicing.until.replace(images=images, depth=None), eds=eds)
    steps = tuple(step if step.slice is None else step.replace(slice=shorter) for step in recipe.steps)
    changed = recipe.replace(steps=steps)
    check(changed)
    return changed


# -- private ----------------------------------------------------------------------------------------------------------


def _text(source: Path | str) -> tuple[str, str]:
    if isinstance(source, str) and "\n" in source:
        return source, ""
    path = Path(source)
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except UnicodeDecodeError as error:
        raise RecipeProblem(
            [Problem("recipe", "is not text in UTF-8", remedy="save it as UTF-8")], str(path)
        ) from error
    except OSError as error:
        what = f"can't be read: {error.strerror}"
        raise RecipeProblem([Problem("recipe", what, remedy="give the path of a recipe file")], str(path)) from error


def _adopting(recipe: Recipe) -> Recipe:
    """Return a recipe that knows what it needs of the run whose block it adopts."""
    adopt = recipe.adopt
    if adopt is None or adopt.run is None or adopt.made is not None:
        return recipe
    from workflows.adopting import made

    known = adopt.replace(made=made(Path(adopt.run)))
    return recipe.replace(
        steps=tuple(step if step.adopt is None else step.replace(adopt=known) for step in recipe.steps)
    )


def _rules(recipe: Recipe) -> list[tuple[tuple[int | str, ...], Problem]]:
    from workflows.recipe_rules import problems

    return [(path, problem.named(readable(path))) for path, problem in problems(recipe)]


def _inherited(refill: dict[str, Any], fill: dict[str, Any]) -> dict[str, Any]:
    own = {"thickness", "rounds"}
    if refill.get("density") is not None or refill.get("current") is not None:
        own |= {"density", "current"}
    return {**{key: value for key, value in fill.items() if key not in own and key not in refill}, **refill}
