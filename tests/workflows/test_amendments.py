"""What lies ahead is changed, and asked for, by events that a run takes up at a slice's end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.workflows.folders import fresh_folder
from workflows.amendments import DWELL, LEAST_DWELL_S, Asked, amended, asked, change, for_the_guard, parsed
from workflows.cli import run_command
from workflows.journal import Journal
from workflows.recipe import Recipe, dump, load
from workflows.recipe_errors import RecipeProblem

FIRST = Path(__file__).parents[2] / "workflows" / "recipes" / "first-run.yaml"


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load(FIRST)


def test_values_are_read_as_in_a_recipe(recipe: Recipe) -> None:
    changed = amended(recipe, [("slice.until.images", "30"), ("slice.refill.when", "unfilled pores > 35 %")])
    assert changed.slicing is not None
    assert changed.slicing.images == 30
    assert changed.slicing.refill is not None
    assert changed.slicing.refill.when == pytest.approx(0.35)
    deeper = amended(recipe, [("slice.until.depth", "2 um")]).slicing
    assert deeper is not None
    assert (deeper.until.depth, deeper.until.images) == (2e-6, None)
    assert changed.steps[0] == recipe.steps[0]
    assert amended(recipe, []) is recipe


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("slice.cut.thickness", "50 nm", "can't be changed"),
        ("protect.thickness", "1 um", "can't be changed"),
        ("slice.until.images", "0", "images"),
        ("slice.refill.when", "2 nm", "when"),
    ],
)
def test_what_can_not_be_is_said(recipe: Recipe, path: str, value: str, said: str) -> None:
    with pytest.raises(RecipeProblem, match=said):
        amended(recipe, [(path, value)])


def test_a_dwell_may_be_shorter_as_far_as_labels_go_and_as_long_as_the_recipes_own_again(recipe: Recipe) -> None:
    assert recipe.slicing is not None
    own = recipe.slicing.image.dwell
    shorter = (DWELL, f"{0.5 * (own + LEAST_DWELL_S) * 1e6} us")
    assert amended(recipe, [change(recipe, [], *shorter)]).slicing.image.dwell < own  # type: ignore[union-attr]
    assert change(recipe, [shorter], DWELL, f"{own * 1e6} us")  # taken back
    for value in (f"{2 * own * 1e6} us", f"{0.5 * LEAST_DWELL_S * 1e9} ns"):
        with pytest.raises(RecipeProblem, match="noise than labels were learnt with"):
            change(recipe, [shorter], DWELL, value)
    assert for_the_guard([("slice.until.images", "30"), shorter]) == [("slice.until.images", "30")]


@pytest.mark.parametrize("text", ["slice.until.images", "=5", "slice.until.images="])
def test_what_is_no_change(text: str) -> None:
    with pytest.raises(RecipeProblem, match="no change"):
        parsed(text)


def test_events_are_taken_up_once(tmp_path: Path) -> None:
    with Journal.create(tmp_path / "journal.sqlite") as journal:
        assert asked(journal, 0) == Asked()
        journal.note("amended", {"path": "slice.until.images", "value": "9"})
        journal.note("do", {"what": "eds"})
        journal.note("look", {})
        first = asked(journal, 0)
        assert first.amended == (("slice.until.images", "9"),)
        assert first.do == ("eds",)
        assert asked(journal, first.upto) == Asked(upto=first.upto)
        journal.note("do", {"what": "infiltrate"})
        assert asked(journal, first.upto).do == ("infiltrate",)


def test_the_command_line(tmp_path: Path, recipe: Recipe, capsys: pytest.CaptureFixture[str]) -> None:
    folder = fresh_folder(tmp_path, dump(recipe))
    assert run_command(["set", str(folder.root), "slice.until.images=25"]) == 0
    assert run_command(["set", str(folder.root), "block.face=1 um"]) == 2
    assert run_command(["set", str(folder.root), "nonsense"]) == 2
    assert run_command(["set", str(folder.root), "slice.image.dwell=1 s"]) == 2
    assert run_command(["do", str(folder.root), "eds"]) == 0
    assert run_command(["do", str(folder.root), "dance"]) == 2
    assert "infiltrate, eds, image" in capsys.readouterr().err
    with Journal(folder.journal, read_only=True) as journal:
        found = asked(journal, 0)
    assert found.amended == (("slice.until.images", "25"),)
    assert found.do == ("eds",)


@pytest.mark.parametrize("command", [["do", "image"], ["do", "skip"], ["set", "slice.until.images=9"]])
@pytest.mark.parametrize(
    ("steps", "state", "says"),
    [
        (("slice",), "done", "is done"),
        (("slice", "finish"), "running", "has all its slices"),
    ],
)
def test_nothing_is_promised_for_slices_that_do_not_come(
    command: list[str],
    steps: tuple[str, ...],
    state: str,
    says: str,
    tmp_path: Path,
    recipe: Recipe,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = fresh_folder(tmp_path, dump(recipe))
    with Journal(folder.journal) as journal:
        for step in steps:
            journal.note("step", step)
        journal.note("state", {"to": state})
    assert run_command([command[0], str(folder.root), *command[1:]]) == 2
    said = capsys.readouterr().err.replace("\n", " ")
    assert says in said
    assert "adopt" in said
    with Journal(folder.journal, read_only=True) as journal:
        assert asked(journal, 0) == Asked()
