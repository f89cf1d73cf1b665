"""What a recipe that adopts a block needs to know of the run that made it: cap, mark, ruler, and where it ended."""

from __future__ import annotations

from math import isfinite
from pathlib import Path

from pydantic import ValidationError

from instrument.errors import InstrumentError
from instrument.settings import DetectorSettings
from workflows import results
from workflows.happenings import adopted
from workflows.journal import Journal, JournalDamaged, WrongSchema
from workflows.kept_recipe import read_recipe
from workflows.recipe import Recipe
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
        with Journal(folder.journal, read_only=True) as journal:
            return _made(folder, read_recipe(folder, journal), journal)
    except InstrumentError as error:
        raise _problem(run, error.message, "name the folder of a run that made a block") from error
    except WrongSchema as error:
        raise _problem(run, str(error), "install the kintsugi that made it") from error
    except (JournalDamaged, ValidationError) as error:
        remedy = "restore a copy of the run, or teach its block by clicks: `face`, `cap` and a site with marks"
        raise _problem(run, str(error).splitlines()[0], remedy) from error


def _made(folder: RunFolder, recipe: Recipe, journal: Journal) -> Made:
    protect, block = recipe.protect, recipe.block
    face = journal.find("block/plane") or journal.find("adopt/plane")
    if protect is None or block is None or face is None or not face.has_outcome:
        raise _problem(folder.root, "it has no block with a face", "adopt one whose `block` was done")
    if _within_a_fill(journal):
        remedy = f"`kintsugi resume {folder.root}`, then `kintsugi stop {folder.root} --after fill`"
        raise _problem(folder.root, "it ended within a fill, with platinum still on the face", remedy)
    before = recipe.made  # a block may have been adopted by the run that is adopted now
    contrast = journal.find("contrast")
    locked = before.detectors if before is not None else ()
    if contrast is not None and contrast.has_outcome:
        locked = tuple(DetectorSettings.model_validate(one) for one in contrast.result)
    return Made(
        protect=protect,
        block=block,
        plane=_left(folder, recipe, journal),
        ruler_zero=results.ruler_zero(journal),
        worn=worn(recipe, journal),
        detectors=locked,
        growth=_growth(recipe, journal),
        dose=_dose(recipe, journal),
    )


def _growth(recipe: Recipe, journal: Journal) -> float:
    """Return how fast films grew over the model: in this run, or in the one whose block it adopts; 1: nobody knows."""
    act = journal.find("block/growth")
    if act is not None and act.has_outcome and act.result["growth"] is not None:
        return float(act.result["growth"])
    return recipe.made.growth if recipe.made is not None else 1.0


def _dose(recipe: Recipe, journal: Journal) -> float | None:
    """Return what cuts were found to need where the face stayed behind: in this run, or in the one it adopts from."""
    risen = [act for act in journal.acts("slice/", kind="measure") if act.key.endswith("/dose") and act.has_outcome]
    if risen:
        return float(risen[-1].result["to"])
    return recipe.made.dose if recipe.made is not None else None


def worn(recipe: Recipe, journal: Journal) -> float:
    """Return how much looks have taken off the mark (m): of this run, or of the one whose block it adopts."""
    looks = journal.events(kind="look")
    if looks:
        return float(looks[-1].data["worn_m"])
    return recipe.made.worn if recipe.made is not None else 0.0


def _within_a_fill(journal: Journal) -> bool:
    """Tell whether a run ended between a film and the end of its clean: platinum lies on the face."""
    films = [act.key.split("/")[0] for act in journal.acts(kind="deposit") if act.key.endswith("/film")]
    ends = [journal.find(f"{fill}/{told}") for fill in films[-1:] for told in ("plane", "ended")]  # old journals: plane
    return bool(films) and not any(end is not None and end.has_outcome for end in ends)


def _left(folder: RunFolder, recipe: Recipe, journal: Journal) -> float:
    """Return the plane (z, m) the face was left on: the deepest that was measured, as it only ever recedes.

    What was cut after that, by a run that ended before its next picture, is reckoned.
    """
    rows = [row for row in results.slices(folder, journal) if isfinite(row["z_m"])]
    planes = [recipe.starts, *(float(row["z_m"]) for row in rows)]
    planes += [fill["plane_after_m"] for fill in results.fill_rows(journal) if fill["plane_after_m"] is not None]
    if (taken_over := adopted(journal)) is not None:
        planes.append(taken_over["found_m"])
    imaged = int(rows[-1]["name"][1:]) if rows else 0
    places = [act.key.split("/")[1] for act in journal.acts("slice/", kind="mill") if act.has_outcome]
    since = sum(1 for place in places if (int(place) > imaged if place.isdecimal() else imaged == 0))  # else a warm-up
    return max(planes) + (since * recipe.slicing.cut.thickness if recipe.slicing is not None else 0.0)


def _problem(run: Path, what: str, remedy: str) -> RecipeProblem:
    return RecipeProblem([Problem("adopt.run", f"can't be adopted: {what}", str(run), remedy=remedy)])
