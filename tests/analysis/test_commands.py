"""annotate, train --scribbles, follow: as a user types them, the wrong ways too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from analysis.phases import IGNORE, merged
from analysis.scribbles import read_scribbles, template
from tests.analysis.drawn import drawn
from tests.analysis.test_follow import save
from tests.benchmarks.segmentation import strokes
from workflows import cli
from workflows.journal import Journal
from workflows.store import RunFolder

RECIPES = Path(cli.__file__).parent / "recipes"
SAMPLE = drawn(5, (180, 200))


@pytest.fixture
def face(tmp_path: Path) -> list[str]:
    """Two detectors' images, as options."""
    given = []
    for name, grey in SAMPLE.channels.items():
        Image.fromarray(np.rint(255 * grey).astype(np.uint8)).save(tmp_path / f"{name}.png")
        given += ["--channel", f"{name}={tmp_path / f'{name}.png'}"]
    return [*given, "--pixel-size", "60 nm"]


def test_from_an_image_to_strokes_to_a_model_of_ones_own(
    face: list[str], small_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "strokes"
    assert cli.run_command(["annotate", *face, "--out", str(place), "--model", str(small_model), "--spots", "3"]) == 0
    said = capsys.readouterr().out
    assert " or " in said.splitlines()[0]
    assert "kintsugi train --channel CBS=" in said
    assert (read_scribbles(place / "strokes.png") == IGNORE).all()
    with Image.open(place / "where.png") as where, Image.open(place / "image.png") as image:
        assert where.width >= 600
        assert image.size == (200, 180)
    marked = strokes(merged(SAMPLE.fine), 8, 0)
    (place / "strokes.png").write_bytes(template(marked.shape, marked))
    assert cli.run_command(["annotate", *face, "--out", str(place), "--model", str(small_model)]) == 0
    assert np.array_equal(read_scribbles(place / "strokes.png"), marked)  # never painted over
    mine = tmp_path / "mine"
    taught = [
        "train",
        *face,
        "--scribbles",
        str(place / "strokes.png"),
        "--init",
        str(small_model),
        "--out",
        str(mine),
        "--quick",
    ]
    assert cli.run_command(taught) == 0
    assert "+strokes-" in capsys.readouterr().out
    assert cli.run_command(["segment", *face, "--model", str(mine), "--out", str(tmp_path / "l"), "--json"]) == 0
    assert "+strokes-" in json.loads(capsys.readouterr().out)["model_id"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--out", "M", "--channel", "CBS=a.png"], "--channel goes with --scribbles"),
        (["train", "--out", "M", "--scribbles", "s.png"], "--scribbles goes with --channel"),
        (["annotate"], "annotate needs --channel"),
        (["annotate", "--channel", "CBS"], "write it as NAME=FILE"),
        (["annotate", "--channel", "CBS=none.png"], "none.png does not exist"),
        (["follow", "nowhere"], "nowhere"),
        (["follow", "nowhere", "--device", "foo"], "--device is 'foo'; known are cpu, cuda and mps"),
        (["follow", "nowhere", "--device", "cuda:99"], "--device cuda:99 can't be used here"),
        (["segment", "a.png", "--device", "foo"], "known are cpu, cuda and mps"),
        (["segment", "--channel", "CBS=a.png", "--channel", "CBS=b.png"], "CBS is given twice, a.png and b.png"),
        (["segment", "a.png", "--pixel-size", "186"], "--pixel-size is '186', which has no unit; write '186 nm'"),
        (["segment", "a.png", "--pixel-size", "186 ym"], "ym"),
    ],
)
def test_what_is_missing_is_said(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run_command(arguments) == 2
    assert said in capsys.readouterr().err


def test_strokes_without_a_pixel_size_or_on_another_image_are_refused(
    face: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.png").write_bytes(template((10, 10)))
    scribbles = ["--scribbles", str(tmp_path / "s.png"), "--out", str(tmp_path / "M")]
    assert cli.run_command(["train", *face[:4], *scribbles]) == 2
    assert "--pixel-size" in capsys.readouterr().err
    assert cli.run_command(["train", *face, *scribbles]) == 2
    assert "180 x 200; this is 10 x 10" in capsys.readouterr().err
    gone = ["--scribbles", str(tmp_path / "gone.png"), *scribbles[2:]]
    assert cli.run_command(["train", *face, *gone]) == 2
    assert "gone.png does not exist" in capsys.readouterr().err
    assert not (tmp_path / "M").exists()


def test_a_file_that_says_its_pixel_size_is_asked_for_none(
    small_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--channel", f"CBS={save(tmp_path / 'x.ome.tif', names=('CBS',))}", "--out", str(tmp_path / "strokes")]
    assert cli.run_command(["annotate", *given, "--model", str(small_model)]) == 0
    assert "--pixel-size" not in capsys.readouterr().out


def test_labels_are_told_of_with_their_doubt(
    face: list[str], small_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["segment", *face, "--model", str(small_model), "--quick", "--out", str(tmp_path / "out")]
    assert cli.run_command(given) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "in doubt" in line]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    low, high = (100 * one for one in summary["electrode_intervals"]["pore"])
    assert len(said) == 1
    assert said[0].startswith(f"pore or CBD in doubt {100 * summary['doubt']:.1f} %")
    assert f"pore {low:.1f} to {high:.1f} %" in said[0]


def test_another_machine_labels_what_is_there(
    small_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = RunFolder.create(tmp_path / "RUN")
    run.write_recipe((RECIPES / "first-run.yaml").read_text())
    Journal.create(run.journal, run_id="r1", instrument={"virtual": True}).close()
    save(run.slices / "s0001.ome.tif")
    asked = ["follow", str(run.root), "--model", str(small_model), "--once"]
    assert cli.run_command(asked) == 0
    assert run.label_names() == ["s0001"]
    assert "s0001" in capsys.readouterr().out
    (run.slices / "s0002.ome.tif").write_bytes(b"torn")
    assert cli.run_command(asked) == 4
    assert "s0002" in capsys.readouterr().err
    assert cli.run_command([*asked, "--device", "nonsense"]) == 2
