"""YAML 1.2 in and out: no duplicate keys, no tags, and the line of every value."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterable
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq, TaggedScalar
from ruamel.yaml.error import MarkedYAMLError, ReusedAnchorWarning, YAMLError
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from workflows.recipe_errors import Problem, RecipeProblem

Path = tuple[int | str, ...]
_LARGEST = 1_000_000
_DEEPEST = 20


class Document:
    """A YAML text as plain dicts, lists, strings, numbers; knows the line that each value stands in.

    Raises
    ------
    RecipeProblem
        When the text is not one YAML document with a mapping at its top.
    """

    def __init__(self, text: str, source: str = "") -> None:
        self.source = source
        if len(text) > _LARGEST:
            raise self._bad(f"has {len(text)} characters", None, "a recipe is a page of text; give the right file")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", ReusedAnchorWarning)
                self._tree = YAML(typ="rt", pure=True).load(text)
        except ReusedAnchorWarning as error:
            raise self._bad("has an anchor (&name) twice", None, "give each anchor once") from error
        except MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            what = " ".join(str(error.problem or error.context or error).split())
            remedy = "give each key once" if "duplicate key" in what else "indent with spaces, write `key: value`"
            raise self._bad(
                what.partition(" with value")[0], None if mark is None else mark.line + 1, remedy
            ) from error
        except (YAMLError, ValueError, TypeError) as error:  # TypeError: a key that is a mapping itself
            raise self._bad(str(error), None, "write plain YAML 1.2") from error
        if not isinstance(self._tree, CommentedMap):
            raise self._bad("is not a mapping", 1, "begin with `kintsugi: 1`")
        self.plain: dict[str, Any] = self._plain(self._tree, ())

    def line(self, path: Path) -> int | None:
        """Return the line (from 1) of a path, of the nearest thing around it when it is not there; None for none."""
        node, line = self._tree, None
        for part in path:
            place = _place(node, part)
            if place is not None:
                line = place
            try:
                node = node[part]
            except (KeyError, IndexError, TypeError):
                return line
        return line

    def has(self, path: Path) -> bool:
        """Tell whether something is written at this path itself, not merged into it from elsewhere."""
        node = self._tree
        for part in path:
            if not isinstance(node, CommentedMap | CommentedSeq) or part not in (node.lc.data or {}):
                return False
            node = node[part]
        return True

    def _plain(self, node: Any, path: Path) -> Any:
        if len(path) > _DEEPEST:
            raise self._bad("is nested too deeply", self.line(path), "a recipe has at most five levels")
        if isinstance(node, CommentedMap):
            return {str(key): self._plain(value, (*path, key)) for key, value in node.items()}
        if isinstance(node, CommentedSeq):
            return [self._plain(value, (*path, index)) for index, value in enumerate(node)]
        if isinstance(node, TaggedScalar):
            raise self._bad(f"{'.'.join(map(str, path))} has a tag", self.line(path), "write plain values without `!`")
        if isinstance(node, bool) or node is None:
            return node
        for kind in (str, int, float):
            if isinstance(node, kind):
                return kind(node)
        return str(node)

    def _bad(self, what: str, line: int | None, remedy: str) -> RecipeProblem:
        return RecipeProblem([Problem("recipe", what, remedy=remedy, line=line)], self.source)


def write(plain: dict[str, Any]) -> str:
    """Return plain values as YAML: short mappings on one line; quoted what other readers take for times."""
    yaml = YAML(typ="rt", pure=True)
    yaml.width = 118
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(_styled(plain), stream)
    return stream.getvalue()


def _place(node: Any, part: int | str) -> int | None:
    """Return the line (from 1) of a key or an item; of the mapping itself for what was merged into it."""
    inside = isinstance(node, CommentedMap) and part in node
    if isinstance(node, CommentedSeq) and isinstance(part, int):
        inside = part < len(node)
    if not inside:
        return None
    found = (node.lc.data or {}).get(part)
    return int(found[0] if found else node.lc.line) + 1


def _styled(value: Any) -> Any:
    if isinstance(value, dict):
        mapping = CommentedMap((key, _styled(part)) for key, part in value.items())
        if value and _flat(value.values()):
            mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, list | tuple):
        sequence = CommentedSeq(_styled(part) for part in value)
        if _flat(value):
            sequence.fa.set_flow_style()
        return sequence
    if isinstance(value, str) and value[:1].isdigit() and ":" in value:
        return DoubleQuotedScalarString(value)
    if isinstance(value, float) and not math.isfinite(value):
        msg = f"a recipe has finite numbers only, not {value}"
        raise ValueError(msg)
    return value


def _flat(values: Iterable[Any]) -> bool:
    """Tell whether values are so few and simple that they fit one line."""
    parts = list(values)
    simple = all(not isinstance(part, dict) and (not isinstance(part, list) or len(part) <= 6) for part in parts)
    return simple and sum(len(str(part)) + 14 for part in parts) <= 160
