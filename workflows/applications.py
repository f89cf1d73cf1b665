"""Which of a recipe's films and millings a microscope has no application file for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from instrument.autoscript.applications import suitable
from instrument.errors import Refused
from instrument.settings import Beam
from workflows.limits import fills
from workflows.recipe import Recipe
from workflows.recipe_errors import Problem

#: Shapes as `PatternJob` names them.
CUT, BOX, GROOVE = "cleaning-cross-section", "rectangle", "line"


def application_problems(recipe: Recipe, listed: Sequence[str]) -> list[Problem]:
    """Return a problem for every film and milling that none of the listed application files does."""
    found: list[Problem] = []
    for name, shape, beam, gases, application in _written(recipe):
        try:
            suitable(shape, listed, beam=beam, gases=gases, application=application)
        except Refused as error:
            value, limit = str(error.evidence["value"]), f"one of {error.evidence['limit'] or 'none'}"
            what = f"{value} is not on this microscope"
            found.append(Problem(f"{name}.application", what, value, limit, error.remedy))
    return found


def _written(recipe: Recipe) -> Iterator[tuple[str, str, Beam, tuple[str, ...], str | None]]:
    """Yield what the recipe writes: field, shape, beam, gases of a film, the file that it names."""
    made_here = {step.kind for step in recipe.steps}
    block, protect, slicing = recipe.block, recipe.protect, recipe.slicing
    if protect is not None and "protect" in made_here:
        yield "protect", BOX, Beam.ION, tuple(protect.gas), protect.application
    if block is not None and "block" in made_here:
        yield "block", CUT, Beam.ION, (), block.application
        yield "block.trench", BOX, Beam.ION, (), block.trench.application
        yield "block.fiducial", GROOVE, Beam.ION, (), block.fiducial.application
    for name, fill in fills(recipe):
        yield name, BOX, fill.beam, tuple(fill.gas), fill.application
        if fill.clean.coarse is not None:
            yield f"{name}.clean", CUT, Beam.ION, (), fill.clean.application
    if slicing is not None:
        yield "slice.cut", CUT, Beam.ION, (), slicing.cut.application
