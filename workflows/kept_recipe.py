"""A run's recipe is kept twice, in its folder and in its journal: a file that was changed or damaged is not used.

What lies ahead of a run is changed by `kintsugi set`, which the journal has; a file that somebody has written in, or
that is no recipe any more, is set aside and written again.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable

from workflows.journal import Journal, set_aside
from workflows.recipe import Recipe, load
from workflows.recipe_errors import RecipeProblem
from workflows.store import RunFolder

log = logging.getLogger(__name__)

#: Where the journal keeps the text of the recipe with its SHA-256.
META = "recipe_text"


def keep(text: str) -> dict[str, str]:
    """Return what a run's journal keeps of its recipe, under `META`."""
    return {"text": text, "sha256": _sha256(text.encode("utf-8"))}


def recipe_of(folder: RunFolder, journal: Journal, tell: Callable[[str], None]) -> Recipe:
    """Return the recipe that a run began with; a file that is another one is set aside, written again, and told.

    The file of a run whose journal keeps no recipe (of an earlier version) is taken as it is, and kept from then on.

    Raises
    ------
    RecipeProblem : the file of such a run can't be read
    """
    text = _kept(journal)
    if text is None:
        recipe = load(folder.recipe)
        journal.set_meta(META, keep(_of_file(folder)))
        return recipe
    found = folder.recipe.read_bytes() if folder.recipe.exists() else None
    if found != text.encode("utf-8"):
        said = _written_again(folder, journal, text, found)
        log.error(said)
        tell(said)
    return load(folder.recipe)


def read_recipe(folder: RunFolder, journal: Journal) -> Recipe:
    """Return the recipe that a run began with, of a folder that is only looked at."""
    text = _kept(journal)
    return load(folder.recipe) if text is None else load(text)


def read_text(folder: RunFolder, journal: Journal) -> str:
    """Return the text of the recipe that a run began with, of a folder that is only looked at."""
    return _kept(journal) or _of_file(folder)


# -- private ----------------------------------------------------------------------------------------------------------


def _kept(journal: Journal) -> str | None:
    """Return the recipe's text by the journal, None where it keeps none that is sound."""
    kept = journal.meta(META)
    if kept is None:
        return None
    if kept != keep(str(kept["text"])):
        log.error("the recipe that the journal keeps is damaged itself")
        return None
    return str(kept["text"])


def _written_again(folder: RunFolder, journal: Journal, text: str, found: bytes | None) -> str:
    """Set the file aside and write it again; return what to say of it."""
    how = "missing" if found is None else "changed" if _is_recipe(folder) else "damaged"
    kept = None if found is None else set_aside(folder.recipe, how)
    folder.write_recipe(text)
    journal.note("recipe", {"was": how, "kept_as": kept and kept.name})
    aside = "" if kept is None else f"it is set aside as {kept.name}, "
    return (
        f"{folder.recipe.name} was {how} since the run began; {aside}the recipe is written again from the journal and "
        f"holds as it was (`kintsugi set {folder.root} PATH=VALUE` changes what lies ahead)"
    )


def _is_recipe(folder: RunFolder) -> bool:
    try:
        load(folder.recipe)
    except RecipeProblem:
        return False
    return True


def _of_file(folder: RunFolder) -> str:
    return folder.recipe.read_bytes().decode("utf-8")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
