"""What is wrong is refused by `check`, and by `run` before any beam: exit code 2, one sentence with a remedy each."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from workflows import cli

FIRST = (Path(__file__).parents[2] / "workflows" / "recipes" / "first-run.yaml").read_text(encoding="utf-8")


class Bad(NamedTuple):
    """A change of the first-run recipe, and what its complaint must say."""

    name: str
    old: str
    new: str
    says: tuple[str, ...]


BAD = (
    Bad("wrong unit", "pixel: 40 nm", "pixel: 40 nA", ("slice.image.pixel", "40 nA", "nm")),
    Bad("no unit", "trim: 4 um", "trim: 4", ("block.trim", "bare number", "4 um")),
    Bad("unknown key", "rounds: 2", "round: 2", ("infiltrate.round", "rounds")),
    Bad("old name", "refill:", "reinfiltrate:", ("slice.reinfiltrate", "refill")),
    Bad("negative thickness", "thickness: 2.5 um", "thickness: -2.5 um", ("protect.thickness", "-2.5 um")),
    Bad("too large for the ion field", "area: 40 um x 16 um", "area: 1200 um x 16 um", ("protect.area", "900 um")),
    Bad("image off the face", "area: 32 um x 24 um", "area: 42 um x 24 um", ("slice.image.area", "36 um")),
    Bad("cap too short", "area: 40 um x 16 um", "area: 40 um x 9 um", ("protect.area", "trim", "slices", "margin")),
    Bad("film denser than grows", "density: 4 pA/um2}, ruler", "density: 60 pA/um2}, ruler", ("density", "60 pA/um2")),
    Bad("gas that there isn't", "gas: Pt,", "gas: Os,", ("gas", "Os", "Pt")),
    Bad("rocking on a flat stub", "pretilt: 45 deg", "pretilt: 0 deg", ("rocking", "pre-tilt")),
    Bad(
        "mark looked away",
        "gap: 4 um, spare: yes}",
        "gap: 4 um, spare: yes, budget: 5 nm}",
        ("block.fiducial.budget", "looks", "5 nm", "deeper"),
    ),
    Bad("current that there isn't", "current: 4 nA, rocking", "current: 5 nA, rocking", ("slice.cut.current", "4 nA")),
)


def changed(bad: Bad) -> str:
    assert bad.old in FIRST, bad.name
    return FIRST.replace(bad.old, bad.new)


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_check_and_run_refuse_it(bad: Bad, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(changed(bad), encoding="utf-8")
    assert cli.run_command(["check", str(recipe)]) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    for part in bad.says:
        assert part in said
    assert cli.run_command(["run", str(recipe), "--out", str(tmp_path / "RUN")]) == 2
    assert capsys.readouterr().err == said
    assert not (tmp_path / "RUN").exists()


@pytest.mark.parametrize(
    ("order", "says"),
    [
        (("protect", "slice", "block"), "slice comes before there is a block"),
        (("infiltrate", "protect", "block"), "infiltrate comes before there is a block"),
        (("protect", "block", "finish", "slice"), "finish is the last step"),
        (("block", "protect"), "block comes before there is a protect"),
    ],
)
def test_an_order_that_cannot_be(
    order: tuple[str, ...], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head, _, tail = FIRST.partition("steps:\n")
    parts = {
        part.partition(":")[0].strip(): part for part in tail.replace("&fill\n", "\n").split("  - ") if part.strip()
    }
    parts["slice"] = parts["slice"].replace("<<: *fill, ", "gas: Pt, density: 4 pA/um2, ")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(head + "steps:\n" + "".join("  - " + parts[name] for name in order), encoding="utf-8")
    assert cli.run_command(["check", str(recipe)]) == 2
    assert says in capsys.readouterr().err


def test_more_data_than_the_disk_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(FIRST, encoding="utf-8")
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 10**9, 10**6))
    assert cli.run_command(["run", str(recipe), "--out", str(tmp_path / "RUN")]) == 2
    said = capsys.readouterr().err
    assert "GB free" in said
    assert "--out" in said
    assert not (tmp_path / "RUN").exists()


@pytest.mark.parametrize(
    "arguments", [["run", "none.yaml"], ["check"], ["run", "x.yaml", "--until", "tea"], ["measure", "x"]]
)
def test_arguments_that_make_no_sense(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run_command(arguments) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_a_folder_that_is_a_run_already_is_left_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(FIRST, encoding="utf-8")
    (tmp_path / "RUN").mkdir()
    (tmp_path / "RUN" / "thesis.txt").write_text("years of work")
    assert cli.run_command(["run", str(recipe), "--out", str(tmp_path / "RUN")]) == 2
    assert "not empty" in capsys.readouterr().err
    assert (tmp_path / "RUN" / "thesis.txt").read_text() == "years of work"


def test_films_need_a_slice_step_that_says_how_the_face_is_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    begin, end = FIRST.index("  - slice:"), FIRST.index("  - finish")
    recipe.write_text(FIRST[:begin] + FIRST[end:], encoding="utf-8")
    assert cli.run_command(["check", str(recipe)]) == 2
    assert "infiltrate" in capsys.readouterr().err


def test_an_unknown_instrument(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(FIRST, encoding="utf-8")
    code = cli.run_command(["run", str(recipe), "--instrument", "telescope://x", "--out", str(tmp_path / "RUN")])
    assert code == 2
    assert "telescope" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        (["--fault", "plasma-los@03:10"], ("plasma-los", "did you mean plasma-loss")),
        (["--fault", "plasma-loss@soon"], ("plasma-loss@soon", "plasma-loss@03:10")),
        (["--faults", "-1"], ("faults", "-1")),
        (["--instrument", "autoscript://localhost", "--faults", "1"], ("faults", "virtual", "dry-run")),
        (["--instrument", "simulator:1?presett=x"], ("presett", "preset")),
    ],
)
def test_faults_that_there_are_not_are_refused(
    asked: list[str], says: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(FIRST, encoding="utf-8")
    assert cli.run_command(["run", str(recipe), "--out", str(tmp_path / "RUN"), *asked]) == 2
    said = capsys.readouterr().err
    for part in says:
        assert part in said
    assert not (tmp_path / "RUN").exists()
