"""What a person changes or asks for while a run goes on: amendments of what lies ahead, and things to be done now.

Both are events of the journal. A run takes them up at the end of the slice in hand, by an act that says which, so that
a replay takes them up at the same place. What is cut already can't change, so geometry is not amended.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from pydantic import ValidationError

from instrument.settings import Model
from instrument.units import WITH_UNITS, show
from workflows.journal import Journal
from workflows.recipe import Recipe, check
from workflows.recipe_errors import Problem, RecipeProblem, from_pydantic

#: What can be amended: all that decides about slices and fills to come.
AMENDABLE = (
    "slice.until.images", "slice.until.depth", "slice.until.or", "slice.refill.when", "slice.refill.for",
    "slice.refill.not_within", "slice.refill.at_least_every", "slice.refill.at_most", "slice.refill.thickness",
    "slice.refill.no_evidence", "slice.eds.every", "slice.image.dwell",
)  # fmt: skip
DWELL = "slice.image.dwell"
#: Grey is a phase at any dwell, noise is not: labels were learnt on pictures of this dwell or a longer one, s.
LEAST_DWELL_S = 1e-6
#: skip: the fill that labels ask for next is left out.
Wish = Literal["infiltrate", "eds", "image", "skip"]
WISHES: tuple[Wish, ...] = ("infiltrate", "eds", "image", "skip")


class Asked(Model):
    """What is taken up at the end of a slice: events up to number `upto`, changes of the recipe, things to do."""

    upto: int = 0
    amended: tuple[tuple[str, str], ...] = ()
    do: tuple[Wish, ...] = ()


def amended(recipe: Recipe, changes: Iterable[tuple[str, str]]) -> Recipe:
    """Return a recipe with values changed, each written as in a recipe ("slice.until.depth", "30 um").

    Raises
    ------
    RecipeProblem
        Where a path can't be amended, or the recipe that comes of it can't be run.
    """
    wanted = list(changes)
    if not wanted:
        return recipe
    plain = recipe.model_dump(mode="json", context=WITH_UNITS, exclude_none=True, by_alias=True)
    for path, value in wanted:
        if path not in AMENDABLE:
            allowed = ", ".join(AMENDABLE)
            raise RecipeProblem(
                [Problem(path, "can't be changed in a run", value, allowed, "begin another run for it")]
            )
        _set(plain, path, value)
    try:
        changed = Recipe.model_validate(plain, context=WITH_UNITS)
    except ValidationError as error:
        raise RecipeProblem([from_pydantic(one, Recipe, lambda _path: None) for one in error.errors()]) from error
    check(changed)
    return changed


def change(recipe: Recipe, before: Iterable[tuple[str, str]], path: str, value: str) -> tuple[str, str]:
    """Return one more change of a run's recipe after those `before`, when it can be made.

    Raises
    ------
    RecipeProblem
        As `amended` does; and for a dwell at which noise is not what labels were learnt with, or longer than the
        recipe's own: the guard allows no more electrons than that.
    """
    found = amended(recipe, [*before, (path, value)]).slicing
    if path == DWELL and found is not None and recipe.slicing is not None:
        most = recipe.slicing.image.dwell
        least = min(LEAST_DWELL_S, most)
        if not least <= found.image.dwell <= most:
            allowed = f"{show(least, 'time', 3)} to {show(most, 'time', 3)}"
            what = (
                "can't be so: a shorter one has more noise than labels were learnt with, and the guard has its dose of "
                "electrons for the recipe's own"
            )
            raise RecipeProblem([Problem(path, what, value, allowed, "write one between these")])
    return path, value


def for_the_guard(changes: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return the changes that a guard's limits follow: not a shorter dwell, which may be taken back."""
    return [(path, value) for path, value in changes if path != DWELL]


def asked(journal: Journal, since: int) -> Asked:
    """Return what people have asked for after event number `since`."""
    events = journal.events(since, kind=("amended", "do"))
    return Asked(
        upto=max((event.seq for event in events), default=since),
        amended=tuple((event.data["path"], event.data["value"]) for event in events if event.kind == "amended"),
        do=tuple(event.data["what"] for event in events if event.kind == "do"),
    )


def all_amendments(journal: Journal) -> list[tuple[str, str]]:
    """Return every amendment of a run, taken up or not, in order."""
    return [(event.data["path"], event.data["value"]) for event in journal.events(kind="amended")]


def parsed(text: str) -> tuple[str, str]:
    """Return path and value of "slice.until.images=30"; RecipeProblem where it is not written so."""
    path, equals, value = text.partition("=")
    if not equals or not path.strip() or not value.strip():
        raise RecipeProblem([Problem("set", f"{text!r} is no change", remedy="write slice.until.images=30")])
    return path.strip(), value.strip()


# -- private ----------------------------------------------------------------------------------------------------------


def _set(plain: dict[str, Any], path: str, value: str) -> None:
    _, *inner, last = path.split(".")
    step = next((step for step in plain["steps"] if "slice" in step), None)
    if step is None:
        raise RecipeProblem([Problem(path, "can't be changed: the recipe has no slice step", value)])
    place: Any = step["slice"]
    for name in inner:
        if not isinstance(place.get(name), dict):
            raise RecipeProblem([Problem(path, f"can't be changed: the recipe has no {name}", value)])
        place = place[name]
    if path.startswith("slice.until.") and last in ("images", "depth"):
        place.pop("depth" if last == "images" else "images", None)
    place[last] = _number(value)


def _number(value: str) -> str | int:
    return int(value) if value.isdecimal() else value
