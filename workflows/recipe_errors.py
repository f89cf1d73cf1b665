"""What is wrong with a recipe: problems of one sentence each, with field, line, value, limit and remedy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

#: What people write for a field that has another name here.
_OTHER_NAMES = {
    "reinfiltrate": "refill",
    "tilt": "pretilt",
    "gases": "gas",
    "dwell_time": "dwell",
    "pixel_size": "pixel",
}
#: Keys that a recipe has in memory only, where `run` says what they hold: nobody is told to write them.
_FOUND = {"made"}
_LONGEST = 60


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: `what` is its sentence without the field's name; `line` counts from 1."""

    field: str
    what: str
    value: str = ""
    limit: str = ""
    remedy: str = ""
    line: int | None = None

    def at(self, line: int | None) -> Problem:
        """Return the problem with its line."""
        return replace(self, line=line)

    def named(self, field: str) -> Problem:
        """Return the problem with the name of its field."""
        return replace(self, field=field)

    def __str__(self) -> str:
        place = f"{self.field} (line {self.line})" if self.line is not None else self.field
        parts = [self.what]
        if self.limit and self.limit not in self.what and self.limit not in self.remedy:
            parts.append(f"allowed is {self.limit}")
        return f"{place}: {'; '.join([*parts, self.remedy] if self.remedy else parts)}"


class RecipeProblem(ValueError):
    """A recipe that can't be run as it stands; `problems` has all that was found, in the order of the lines."""

    def __init__(self, problems: Iterable[Problem], source: str = "") -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: problem.line or 0))
        self.source = source
        super().__init__("\n".join(f"{source}: {problem}" if source else str(problem) for problem in self.problems))


def readable(path: Iterable[int | str]) -> str:
    """Return a path into a recipe as people name it: ("steps", 3, "slice", "cut") -> "slice.cut"."""
    parts = list(path)
    if len(parts) > 2 and parts[0] == "steps" and isinstance(parts[1], int):
        parts = parts[2:]
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".") or "recipe"


def from_pydantic(
    error: ErrorDetails, root: type[BaseModel], line_of: Callable[[tuple[int | str, ...]], int | None]
) -> Problem:
    """Turn one error of a validation into a problem: what is wrong with which value, and what to write instead."""
    path = tuple(error["loc"])
    kind, given, context = error["type"], error["input"], error.get("ctx", {})
    value = _short(given)
    line = line_of(path)
    field = readable(path)
    if kind == "extra_forbidden" and str(path[-1])[:1].isdigit():
        remedy = "in a number write a decimal point, not a comma, which begins a new key here"
        return Problem(field, "is an unknown key", value=value, remedy=remedy, line=line)
    if kind == "extra_forbidden":
        return Problem(
            field, "is an unknown key", value=value, remedy=_meant(str(path[-1]), keys_at(root, path[:-1])), line=line
        )
    if kind == "missing":
        keys = ", ".join(keys_at(root, path[:-1]))
        return Problem(field, "is missing", remedy=f"write it; {readable(path[:-1])} has the keys {keys}", line=line)
    if "remedy" in context:
        problem, limit, remedy = (str(context.get(name, "")) for name in ("problem", "limit", "remedy"))
        named = problem if value in problem else f"{value} {problem}"
        return Problem(field, named, value=value, limit=limit, remedy=remedy, line=line)
    if kind in ("literal_error", "enum"):
        allowed = re.findall(r"'([^']+)'", str(context.get("expected", ""))) or [str(context.get("expected", ""))]
        return Problem(
            field, f"{value} is not one of {', '.join(allowed)}", value=value, limit=", ".join(allowed),
            remedy=_meant(str(given), allowed), line=line,
        )  # fmt: skip
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        keys = ", ".join(keys_at(root, path))
        return Problem(
            field, f"{value} is not a mapping", value=value, remedy=f"write its keys ({keys}) with values", line=line
        )
    message = error["msg"].removeprefix("Value error, ")
    what, _, remedy = message.partition("; ")
    if kind == "value_error":
        return Problem(field, what, value=value, remedy=remedy, line=line)
    return Problem(
        field, f"{value}: {what[:1].lower()}{what[1:]}", value=value, limit=_limits(context), remedy=remedy, line=line
    )


def keys_at(root: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the keys that a mapping at this path may have; empty where it isn't one of our models."""
    model: type[BaseModel] | None = root
    for part in path:
        if isinstance(part, int) or model is None:
            continue
        model = next(
            (_model(field.annotation) for name, field in model.model_fields.items() if part in (name, field.alias)),
            None,
        )
    if model is None:
        return []
    return [field.alias or name for name, field in model.model_fields.items() if name not in _FOUND]


def _model(annotation: Any) -> type[BaseModel] | None:
    """Return the model inside an annotation such as `tuple[Step, ...] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType, tuple, list, Annotated):
        return next((found for part in get_args(annotation) if (found := _model(part)) is not None), None)
    return None


def _meant(given: str, allowed: list[str]) -> str:
    lower = {name.lower(): name for name in allowed}
    plain = given.lower().replace("-", "_").replace(" ", "_")
    near = _OTHER_NAMES.get(plain)
    if near not in allowed:
        near = next(iter(get_close_matches(given.lower(), list(lower), n=1, cutoff=0.6)), None)
        near = lower[near] if near is not None else None
    if near is not None:
        return f"did you mean {near!r}?"
    return f"write one of {', '.join(allowed)}" if allowed else "leave it out"


def _limits(context: dict[str, Any]) -> str:
    words = {"gt": "more than", "ge": "at least", "lt": "less than", "le": "at most"}
    return ", ".join(f"{words[name]} {context[name]}" for name in words if name in context)


def _short(given: Any) -> str:
    text = repr(given)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
