"""What of a recipe the application files of a microscope do not do."""

from pathlib import Path
from types import SimpleNamespace

from instrument.hydra import hydra
from instrument.settings import Done, PatternJob, Setup
from workflows.applications import application_problems
from workflows.handle import Handle
from workflows.layout import Layout
from workflows.planes import Planes
from workflows.pointing import Pointing
from workflows.recipe import load
from workflows.steps import block, infiltrate, protect

FIRST = (Path(__file__).parents[2] / "workflows" / "recipes" / "first-run.yaml").read_text(encoding="utf-8")
REAL = ["Si", "Si-ccs", "Al dep", "C dep", "Pt dep", "Pt dep surface", "Pt e-dep surface"]


def test_what_no_file_does_of_a_recipe_is_told_by_its_fields() -> None:
    assert not application_problems(load(FIRST), [*REAL, "Pt-C dep"])
    assert [one.field for one in application_problems(load(FIRST), REAL)] == ["protect.application"]
    named = load(FIRST.replace("- protect: {", "- protect: {application: Cheese, ", 1))
    assert [one.value for one in application_problems(named, REAL)] == ["application file 'Cheese'"]
    lacking = {one.field for one in application_problems(load(FIRST), ["Pt-C dep"])}
    assert {"block.application", "block.trench.application", "slice.cut.application"} <= lacking


class Recorder:
    """Takes the place of acts: remembers jobs by their keys."""

    def __init__(self) -> None:
        self.jobs: dict[str, PatternJob] = {}

    def pattern(self, key: str, job: PatternJob, _setup: Setup, **_: object) -> Done:
        self.jobs[key] = job
        return Done(fraction=1.0, elapsed_s=1.0, charge_c=job.dose_c)

    def frame(self, *_: object) -> None:
        """Take no picture."""


def test_every_job_has_the_file_that_its_part_of_the_recipe_names():
    text = FIRST
    for key in ("protect: {", "trench: {", "fiducial: {", "cut: {"):
        text = text.replace(key, f"{key}application: {key.partition(':')[0]}, ", 1)
    text = text.replace("{gas: Pt, beam", "{application: film, gas: Pt, beam", 1)
    recipe = load(text)
    layout, acts = Layout.at(recipe, None), Recorder()
    aligner = SimpleNamespace(pointing=Pointing(), marks=(), shut_gas=lambda: None, layout=layout)
    handle = Handle(
        recipe, layout, hydra(), acts, aligner, None, load=None, boundary=lambda _: None, told=lambda *_: None,
        answer=None, free_bytes=None, asked=None,
    )  # fmt: skip
    slicing, fill = recipe.slicing, recipe.steps[2].infiltrate
    protect.run(handle, recipe.protect)
    block._trenches(handle, recipe.block)
    block._marks(handle, recipe.block)
    infiltrate._film(handle, "fill", fill, 4e-6, 1)
    handle.planes = infiltrate._fine(handle, "fine", slicing.cut, Planes.after(4e-6, 4e-9, 30e3), 1)
    assert {key.rstrip("-12"): job.application for key, job in acts.jobs.items()} == {
        "protect/first": "protect", "protect/ruler": "fiducial", "protect/second": "protect",
        "block/trench-left": "trench", "block/trench-right": "trench", "block/mark-1/cap": "protect",
        "block/mark-1/cross": "fiducial", "block/mark-2/cap": "protect", "block/mark-2/cross": "fiducial",
        "fill/film": "film", "fine": "cut",
    }  # fmt: skip
