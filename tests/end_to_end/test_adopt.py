"""The next evening: a new run takes over the block that an earlier one left, or one that somebody cut by hand."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from instrument import server
from workflows.launch import instrument_url
from workflows.layout import Layout
from workflows.recipe import RecipeProblem, load
from workflows.sites import TaughtSite

SMALL = Path(__file__).parent / "small.yaml"
SLICES = """
  - slice:
      cut: {thickness: 25 nm, current: 4 nA, rocking: 3 deg, warm_up: 1}
      image: {every: 2 cuts, pose: face-on, area: 16 um x 14 um, above: 2.5 um, pixel: 40 nm, detectors: [CBS, TLD]}
      until: {images: 3}
"""
HEAD = "kintsugi: 1\nname: Next evening\nsample: {pretilt: 45 deg}\nsteps:\n"
pytestmark = pytest.mark.slow


def kintsugi(*arguments: object, sites: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "workflows.cli", *map(str, arguments)]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=os.environ | {"KINTSUGI_SITES": str(sites)},
    )


@pytest.fixture(scope="module")
def evening(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with the run ONE, and the URL of the microscope that still holds its block."""
    folder = tmp_path_factory.mktemp("evening")
    place = server.start(instrument_url(load(SMALL)), folder / "state")
    told = json.loads(place.read_text(encoding="utf-8"))
    url = f"pyro://127.0.0.1:{told['port']}?token_file={folder / 'state' / 'token-operate'}"
    done = kintsugi(
        "run", SMALL, "--instrument", url, "--out", folder / "ONE", "--images", 3, "--without", "refill",
        "--without", "eds", "--model", "none", sites=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    yield folder, url
    os.kill(int(told["pid"]), signal.SIGTERM)


def summary(run: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return found


def planes(run: Path) -> list[float]:
    rows = summary(run)["slices"]
    assert isinstance(rows, list)
    return [float(row["z_m"]) for row in rows]


def test_the_block_of_an_earlier_run_is_gone_on_with(evening: tuple[Path, str]) -> None:
    folder, url = evening
    recipe = folder / "two.yaml"
    recipe.write_text(f"{HEAD}  - adopt: {{site: edge-A, run: {folder / 'ONE'}}}{SLICES}", encoding="utf-8")
    done = kintsugi("run", recipe, "--instrument", url, "--out", folder / "TWO", "--model", "none", sites=folder)
    assert done.returncode == 0, done.stderr
    found = summary(folder / "TWO")
    adopted = found["adopted"]
    assert isinstance(adopted, dict)
    assert adopted["by"] == "ruler"
    assert abs(adopted["gap_m"]) < 60e-9  # a quick look and the ruler's own uncertainty, each about 20 nm
    assert "was taken over" in str(found["happenings"])
    before, after = planes(folder / "ONE"), planes(folder / "TWO")
    steps = [b - a for a, b in zip([before[-1], *after], after, strict=False)]
    assert len(after) == 3
    assert all(0 < step < 160e-9 for step in steps)
    # what the new run needs of the old one is in its own recipe
    assert load(folder / "TWO" / "recipe.yaml").adopt == load(recipe).adopt


def test_a_block_that_somebody_else_cut_is_worked_on_by_its_clicked_mark(evening: tuple[Path, str]) -> None:
    folder, url = evening
    one = load(SMALL)
    layout = Layout.at(one, None)
    taken = next(run for run in ("TWO", "ONE") if (folder / run / "summary.json").exists())
    stands = planes(folder / taken)[-1]
    x, _, z = layout.marks[0].centre
    text = (
        f"{HEAD}  - adopt: {{site: edge-B, face: 20 um x 15 um, cap: 2.5 um, "
        "fiducial: {cap: 8 um x 8 um x 1.5 um, size: 5 um}}" + SLICES
    )
    recipe = folder / "three.yaml"
    recipe.write_text(text, encoding="utf-8")
    lost = kintsugi("run", recipe, "--instrument", url, "--out", folder / "LOST", "--model", "none", sites=folder)
    assert lost.returncode == 2
    assert "nobody has clicked the fiducial" in lost.stderr
    site = TaughtSite(
        name="edge-B", serial="simulator-11", taught="2026-01-01T20:00:00+00:00", marks=((x, z - stands),),
        site=layout.moved(0.0, 0.0, stands).site, edge_off_rad=0.0, apart_m=0.0,
    )  # fmt: skip
    (folder / "edge-B").mkdir()
    (folder / "edge-B" / "site.json").write_text(site.model_dump_json(), encoding="utf-8")
    done = kintsugi("run", recipe, "--instrument", url, "--out", folder / "THREE", "--model", "none", sites=folder)
    assert done.returncode == 0, done.stderr
    adopted = summary(folder / "THREE")["adopted"]
    assert isinstance(adopted, dict)
    assert adopted["by"] == "edge"
    assert abs(adopted["found_m"]) < 0.5e-6
    assert len(planes(folder / "THREE")) == 3


def test_what_is_no_block_is_said_before_anything_begins(tmp_path: Path, evening: tuple[Path, str]) -> None:
    folder, _ = evening
    with pytest.raises(RecipeProblem, match="not a run folder"):
        load(f"{HEAD}  - adopt: {{site: A, run: {tmp_path}}}{SLICES}")
    with pytest.raises(RecipeProblem, match="neither which run made the block nor its face and cap"):
        load(f"{HEAD}  - adopt: {{site: A, face: 20 um x 15 um}}{SLICES}")
    deep = SLICES.replace("images: 3", "depth: 9 um")
    with pytest.raises(RecipeProblem, match="lengthen the cap or slice less deep"):
        load(f"{HEAD}  - adopt: {{site: A, run: {folder / 'ONE'}}}{deep}")
