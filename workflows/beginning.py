"""Where, and with what, a night may begin: its folder, the model of its labels, the URL that it calls.

What is wrong with these is refused by whoever asks for the night, not found out when nobody is there.
"""

from __future__ import annotations

from pathlib import Path

from instrument.errors import Refused
from workflows import heartbeat
from workflows.follower import ELSEWHERE, NO_MODEL, PACKAGE
from workflows.journal import Journal, JournalDamaged, WrongSchema
from workflows.kept_recipe import read_recipe
from workflows.recipe import Recipe, at_most
from workflows.recipe_errors import RecipeProblem
from workflows.status import status_of
from workflows.store import RunFolder, free_bytes


def goes_on(root: Path, recipe: Recipe) -> bool:
    """Return whether a night of a recipe in this folder goes on with a run that lies there; else a new one begins.

    Raises
    ------
    Refused : something else lies there, or a run that can't go on: it is done, in hand, damaged, or another recipe's
    """
    if not RunFolder.is_run(root):
        RunFolder.see_free(root)
        return False
    try:
        why = _can_not_go_on(RunFolder.open(root), recipe)
    except (JournalDamaged, WrongSchema, RecipeProblem) as error:
        why = f"is a run that can't be read ({error}); name another folder"
    if why is not None:
        msg = f"--out {root} {why}"
        raise Refused(msg, rule="run-goes-on", field="--out", value=str(root), remedy="name another folder")
    return True


def begun_on(root: Path) -> str:
    """Return the URL of the instrument that a run was begun on."""
    with Journal(RunFolder.open(root).journal, read_only=True) as journal:
        return str(journal.meta("url"))


def room_bytes(root: Path) -> int:
    """Return what a whole run may take of its disk (bytes): what is free, and what it has written already."""
    return free_bytes(root) + (RunFolder(root).written_bytes() if RunFolder.is_run(root) else 0)


def known_model(model: str) -> str:
    """Return what `--model` means wherever a run's process works: one of the words, or a folder's whole path.

    Raises
    ------
    Refused : it is a folder without a model that can be used
    """
    if model in (PACKAGE, NO_MODEL, ELSEWHERE):
        return model
    from analysis.model import whole

    folder = Path(model).absolute()
    try:
        if not model:
            msg = "it is empty"
            raise ValueError(msg)
        whole(folder)
    except (OSError, ValueError) as error:
        words = f"{PACKAGE}, {NO_MODEL}, {ELSEWHERE}"
        msg = f"--model {model!r} can't be used: {error}; it is {words}, or the folder of a model"
        raise Refused(
            msg, rule="model-known", field="--model", value=model, limit=words, remedy="name the folder of a model"
        ) from error
    return str(folder)


def known_watcher(url: str) -> str:
    """Return the URL of a watcher; Refused where it is none that can be called, and empty where there is none."""
    if url and not heartbeat.is_url(url):
        msg = f"--watcher {url!r} can't be called: it begins with http:// or https:// and names a host"
        raise Refused(
            msg, rule="watcher-url", field="--watcher", value=url, limit="http, https", remedy="write the whole address"
        )
    return url


# -- private ----------------------------------------------------------------------------------------------------------


def _can_not_go_on(folder: RunFolder, recipe: Recipe) -> str | None:
    """Return why a night of this recipe can't go on with a run, None where it can."""
    status = status_of(folder)
    if status["state"] == "done":
        return "is a run that is done already; name another folder, or adopt its block in a recipe (`adopt`)"
    if folder.attended:
        return f"is being worked on; `kintsugi status {folder.root}` shows it"
    with Journal(folder.journal, read_only=True) as journal:
        kept = read_recipe(folder, journal)
    as_kept = recipe
    if kept.slicing is not None and recipe.slicing is not None:
        as_kept = at_most(recipe, kept.slicing.images)  # it may have been shortened when it began
    if kept != as_kept:
        return (
            f"is a run of another recipe ({kept.name}); `kintsugi night {folder.root}` goes on with that, or name "
            "another folder"
        )
    return None
