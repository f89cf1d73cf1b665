"""A run's folder as a run has it when it has just begun."""

from __future__ import annotations

from pathlib import Path

from workflows.journal import Journal
from workflows.store import RunFolder


def fresh_folder(tmp_path: Path, recipe: str = "kintsugi: 1\n") -> RunFolder:
    """A folder with a recipe and an empty journal."""
    made = RunFolder.create(tmp_path / "RUN")
    made.write_recipe(recipe)
    Journal.create(made.journal).close()
    return made
