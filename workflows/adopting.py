"""What a recipe that adopts a block needs to know of the run that made it: cap, mark, ruler, and where it ended."""

from __future__ import annotations

from pathlib import Path

from instrument.errors import BadData, InstrumentError
from instrument.settings import DetectorSettings
from workflows import results
from workflows.journal import Journal
from workflows.recipe import Recipe, load
from workflows.recipe_errors import Problem, RecipeProblem
from workflows.recipe_steps import Made
from workflows.store import RunFolder


def made(run: Path) -> Made:
    """Return what a run left behind.

    Raises
    ------
    RecipeProblem : there is no run in this folder, it made no block, or it never came as far as its face
    """
    try:
        folder = RunFolder.open(run)
        recipe: Recipe = load(folder.recipe)
        with Journal(folder.journal, read_only=True) as journal:
            return _made(folder, recipe, journal)
    except (BadData, InstrumentError) as error:
        raise _problem(run, error.message, "name the folder of a run that made a block") from error


def _made(folder: RunFolder, recipe: Recipe, journal: Journal) -> Made:
    protect, block = recipe.protect, recipe.block
    face = journal.find("block/plane") or journal.find("adopt/plane")
    if protect is None or block is None or face is None or not face.has_outcome:
        raise _problem(folder.root, "it has no block with a face", "adopt one whose `block` was done")
    zero = results.ruler_zero(journal)
    rows = results.slices(folder, journal)
    looks = journal.events(kind="look")
    contrast = journal.find("contrast")
    locked = contrast.result if contrast is not None and contrast.has_outcome else []
    return Made(
        protect=protect,
        block=block,
        plane=float(rows[-1]["z_m"]) if rows else block.trim,
        ruler_zero=zero,
        worn=float(looks[-1].data["worn_m"]) if looks else 0.0,
        detectors=tuple(DetectorSettings.model_validate(one) for one in locked),
    )


def _problem(run: Path, what: str, remedy: str) -> RecipeProblem:
    return RecipeProblem([Problem("adopt.run", f"can't be adopted: {what}", str(run), "a run's folder", remedy)])
