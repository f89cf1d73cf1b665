"""Whatever is in a recipe's file, it is a recipe or a problem that says so, and nothing else."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from workflows.recipe import Recipe, load
from workflows.recipe_errors import RecipeProblem

GOOD = (Path(__file__).parents[2] / "workflows" / "recipes" / "first-run.yaml").read_text(encoding="utf-8")
LINES = GOOD.splitlines(keepends=True)
SCRAPS = (
    "", "\t", ": ", "- ", "{", "}]", "&a", "*a", "!!python/object:os.system x", "1e999 nm", "-5 um", "NaN", "0x7f", "'",
    "999999999999 km", '"', "\x00", "\u202e", "? ", "<<: *fill", "20 um x", "yes", "null", "2026-11-25",
)  # fmt: skip


def is_recipe_or_problem(text: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "recipe.yaml"
        place.write_text(text, encoding="utf-8", errors="surrogatepass", newline="")
        try:
            told: object = load(place)
        except RecipeProblem as problem:
            told = str(problem)
    assert isinstance(told, Recipe) or told


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.data())
def test_a_recipe_with_scraps_in_it(data: st.DataObject) -> None:
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        line, scrap = lines[at], data.draw(st.sampled_from(SCRAPS))
        cut = data.draw(st.integers(0, max(0, len(line) - 1)))
        lines[at] = data.draw(
            st.sampled_from((line[:cut] + scrap + line[cut:], line[:cut] + scrap + "\n", "", line * 2))
        )
    is_recipe_or_problem("".join(lines))


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.one_of(st.text(max_size=200), st.binary(max_size=200).map(lambda data: data.decode("latin-1"))))
def test_any_text_at_all(text: str) -> None:
    is_recipe_or_problem(text)
