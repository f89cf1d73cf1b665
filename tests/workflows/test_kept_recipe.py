"""A run's recipe is the one that it began with, whatever becomes of its file."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflows import cli
from workflows.amendments import all_amendments, amended
from workflows.happenings import happenings
from workflows.journal import Journal
from workflows.kept_recipe import META, keep, read_recipe, recipe_of
from workflows.recipe import RecipeProblem, dump, load
from workflows.session import Session
from workflows.store import RunFolder

FIRST = Path(__file__).parents[2] / "workflows" / "recipes" / "first-run.yaml"


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    text = dump(load(FIRST))
    made = RunFolder.create(tmp_path / "RUN")
    made.write_recipe(text)
    Journal.create(made.journal, run_id="r", url="simulator:1", **{META: keep(text)}).close()
    return made


def change(folder: RunFolder) -> str:
    """Write another number into the recipe's file by hand; return what the file then says."""
    text = folder.recipe.read_text(encoding="utf-8")
    slicing = load(folder.recipe).slicing
    assert slicing is not None
    changed = text.replace(f"images: {slicing.until.images}", f"images: {slicing.images - 1}")
    assert changed != text
    folder.recipe.write_text(changed, encoding="utf-8")
    return changed


def test_a_file_as_it_was_is_read_and_nothing_told(folder: RunFolder) -> None:
    with Journal(folder.journal) as journal:
        assert recipe_of(folder, journal, pytest.fail) == load(FIRST)
        assert journal.events(kind="recipe") == []


def test_a_file_that_was_changed_by_hand_is_set_aside_and_told(folder: RunFolder) -> None:
    before, changed, told = folder.recipe.read_bytes(), change(folder), []
    with Journal(folder.journal) as journal:
        assert read_recipe(folder, journal) == load(FIRST)  # who only looks on changes nothing
        assert folder.recipe.read_text(encoding="utf-8") == changed
        assert recipe_of(folder, journal, told.append) == load(FIRST)
        assert "was changed since the run began; set aside as recipe.yaml.changed-1" in happenings(journal)[0]
        assert recipe_of(folder, journal, pytest.fail) == load(FIRST)
    assert folder.recipe.read_bytes() == before
    assert folder.recipe.with_name("recipe.yaml.changed-1").read_text(encoding="utf-8") == changed
    assert "recipe.yaml.changed-1" in told[0]
    assert "kintsugi set" in told[0]


@pytest.mark.parametrize("found", [b"", b"\x00\xff\xfe garbage" * 40, b"steps: [", None])
def test_a_file_that_is_no_recipe_any_more_is_written_again(folder: RunFolder, found: bytes | None) -> None:
    before, told = folder.recipe.read_bytes(), []
    if found is None:
        folder.recipe.unlink()
    else:
        folder.recipe.write_bytes(found)
    assert RunFolder.is_run(folder.root)
    with Journal(RunFolder.open(folder.root).journal) as journal:
        assert recipe_of(folder, journal, told.append) == load(FIRST)
    assert folder.recipe.read_bytes() == before
    assert ("missing" if found is None else "damaged") in told[0]
    aside = folder.recipe.with_name("recipe.yaml.damaged-1")
    assert (aside.read_bytes() if aside.exists() else None) == found


def test_amendments_are_in_the_journal_and_no_change_of_the_file(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    before = folder.recipe.read_bytes()
    assert cli.run_command(["set", str(folder.root), "slice.until.images=11"]) == 0
    assert folder.recipe.read_bytes() == before
    with Journal(folder.journal) as journal:
        recipe = recipe_of(folder, journal, pytest.fail)
        ahead = amended(recipe, all_amendments(journal))
    assert recipe.slicing is not None
    assert ahead.slicing is not None
    assert recipe.slicing.until.images != ahead.slicing.until.images == 11
    assert "from the next slice on" in capsys.readouterr().out


def test_a_run_of_an_earlier_version_keeps_its_file_from_then_on(folder: RunFolder) -> None:
    folder.journal.unlink()
    Journal.create(folder.journal).close()
    change(folder)
    with Journal(folder.journal) as journal:
        first = recipe_of(folder, journal, pytest.fail)
        assert first == load(folder.recipe) != load(FIRST)
        folder.recipe.write_bytes(b"")
        told: list[str] = []
        assert recipe_of(folder, journal, told.append) == first
    assert "damaged" in told[0]


def test_a_text_that_is_damaged_in_the_journal_is_not_used(folder: RunFolder) -> None:
    kept = keep(folder.recipe.read_text(encoding="utf-8"))
    with Journal(folder.journal) as journal:
        journal.set_meta(META, {**kept, "text": kept["text"].replace("images", "imeges")})
        assert recipe_of(folder, journal, pytest.fail) == load(FIRST)
        assert journal.meta(META) == kept
        journal.set_meta(META, {**kept, "text": ""})
        folder.recipe.write_bytes(b"")
        with pytest.raises(RecipeProblem):
            recipe_of(folder, journal, pytest.fail)


def test_a_run_is_resumed_with_the_recipe_that_it_began_with(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    change(folder)
    worked: list[object] = []
    monkeypatch.setattr(Session, "work", lambda session, _until: worked.append(session.recipe) or 0)
    assert cli.run_command(["resume", str(folder.root)]) == 0
    assert worked == [load(FIRST)]
    assert "recipe.yaml.changed-1" in capsys.readouterr().err
