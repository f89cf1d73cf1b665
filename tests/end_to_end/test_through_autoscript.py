"""The same recipe in process and through AutoScript: the same planes and labels come of both."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from analysis.score import confusion, mean_iou
from simulator.autoscript import client_path
from tests.end_to_end.test_first_run import DEADLINE_S, SMALL, end_server
from workflows.launch import instrument_url, state_folder
from workflows.recipe import load
from workflows.store import RunFolder

pytestmark = [pytest.mark.timeout(900), pytest.mark.slow]
#: Through AutoScript planes agree to this (m), labels to this mean IoU.
SAME_M, SAME_IOU = 5e-9, 0.95
FIRST = Path(__file__).parents[2] / "workflows" / "recipes" / "first-run.yaml"


def run(recipe: Path, images: int, out: Path, url: str, environment: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "workflows.cli", "run", str(recipe), "--instrument", url, "--out", str(out)]
    command += ["--images", str(images)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=2 * DEADLINE_S, env={**os.environ, **environment}
    )
    folder = RunFolder.open(out)
    end_server(state_folder(folder, url) / folder.server.name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "VIRTUAL" in done.stdout
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    return summary


@pytest.mark.parametrize(("file", "images", "fills"), [(SMALL, 3, 1), (FIRST, 20, 2)])
def test_the_same_planes_and_labels_come_through_autoscript(
    file: Path, images: int, fills: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINTSUGI_INSTRUMENTS", str(tmp_path / "instruments"))
    recipe = load(file)
    url = instrument_url(recipe, recipe.instrument + "&steady=yes")
    ours = run(file, images, tmp_path / "ours", url, {})
    theirs = run(
        file, images, tmp_path / "theirs", "autoscript://localhost",
        {
            "PYTHONPATH": os.pathsep.join((str(client_path()), os.environ.get("PYTHONPATH", ""))),
            "KINTSUGI_AUTOSCRIPT_SIMULATOR": url, "KINTSUGI_AUTOSCRIPT_CLOCK": "stepped",
            "KINTSUGI_AUTOSCRIPT_STATE": str(tmp_path / "state"),
        },
    )  # fmt: skip
    assert ours["slices_acquired"] == theirs["slices_acquired"] == images
    assert ours["infiltrations"] == theirs["infiltrations"] >= fills
    agreement = []
    for number, (one, other) in enumerate(zip(ours["slices"], theirs["slices"], strict=True), 1):
        assert other["z_m"] == pytest.approx(one["z_m"], abs=SAME_M), number
        labels = [tifffile.imread(tmp_path / run / "labels" / f"s{number:04d}.tif") for run in ("ours", "theirs")]
        agreement.append(mean_iou(confusion(*labels)))
    assert np.mean(agreement) > SAME_IOU
