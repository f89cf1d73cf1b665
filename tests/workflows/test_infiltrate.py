"""A fill whose film isn't on the face is held for a person, before anything is cleaned."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from instrument.frame import FrameRef
from instrument.hydra import hydra
from instrument.settings import Done, PatternJob
from workflows.acts import Held
from workflows.handle import Handle
from workflows.layout import Layout
from workflows.planes import Planes
from workflows.pointing import Pointing
from workflows.recipe import load
from workflows.steps import infiltrate

RECIPE = load(Path(__file__).parents[2] / "workflows" / "recipes" / "first-run.yaml")
FILM = "infiltrate-film"


class Cleaned(Exception):
    """The first cut of a clean was asked for."""


class Acts:
    """Takes the place of acts: films are laid, pictures taken, and a clean ends the test."""

    def pattern(self, key: str, job: PatternJob, *_: object, **__: object) -> Done:
        if job.purpose == "mill":
            raise Cleaned(key)
        return Done(fraction=1.0, elapsed_s=1.0, charge_c=job.dose_c)

    def frame(self, key: str, _scan: object, _setup: object, folder: str, name: str) -> FrameRef:
        return FrameRef(
            name=f"{folder}/{name}.ome.tif", sha256=key, size_bytes=1, channels=("CBS",), shape=(1, 1, 1), uid=key,
            started_s=0.0, seconds=1.0,
        )  # fmt: skip

    def value(self, _key: str, _kind: str, _args: object, compute: Callable[[], Any]) -> Any:
        return compute()


class Labels:
    """Evidence that says of the film's picture what it is told."""

    def __init__(self, numbers: dict[str, Any] | None) -> None:
        self._numbers = numbers
        self.submitted: list[str] = []

    def submit(self, name: str, _ref: FrameRef, _before: object = None) -> None:
        self.submitted.append(name)

    def numbers(self, name: str, *, wait: bool = True) -> dict[str, Any] | None:
        return self._numbers if wait and name in self.submitted and name == FILM else None


def fill(labels: Labels, answer: str | None = None) -> None:
    """Fill before slicing as far as the clean."""
    layout = Layout.at(RECIPE, None)
    aligner = SimpleNamespace(pointing=Pointing(), marks=(), shut_gas=lambda: None, layout=layout)
    handle = Handle(
        RECIPE, layout, hydra(), Acts(), aligner, labels, load=None, boundary=lambda _: None, told=lambda *_: None,
        answer=lambda _: answer, free_bytes=None, asked=None,
    )  # fmt: skip
    handle.planes = Planes.after(4e-6, 4e-9, 30e3)
    settings = RECIPE.steps[2].infiltrate
    assert settings is not None
    infiltrate.run(handle, "infiltrate", settings)


def labelled(film: float, novelty: float = 0.1) -> dict[str, Any]:
    return {"film_fraction": film, "labels_sha256": "abc", "model_id": "a model", "novelty": novelty}


@pytest.mark.parametrize("film", [0.0, 0.29])
def test_a_face_without_its_film_is_held_before_it_is_cleaned(film: float) -> None:
    with pytest.raises(Held, match=r"the film isn't on the face.*at least 30 % expected.*overviews/film.*answer DIR"):
        fill(Labels(labelled(film)))
    with pytest.raises(Held, match="the answer was no"):
        fill(Labels(labelled(film)), answer="no")
    with pytest.raises(Cleaned):
        fill(Labels(labelled(film)), answer="yes")


@pytest.mark.parametrize("numbers", [labelled(0.31), labelled(1.0), labelled(0.0, novelty=0.7), None])
def test_a_film_that_is_there_or_of_which_nothing_is_known_is_cleaned(numbers: dict[str, Any] | None) -> None:
    labels = Labels(numbers)
    with pytest.raises(Cleaned, match="infiltrate/round-1/coarse"):
        fill(labels)
    assert FILM in labels.submitted
