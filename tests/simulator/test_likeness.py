"""The figure beside the real micrographs: it is drawn, its figures are finite, and wrong input is told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("PIL", reason="pillow draws the figure")

from PIL import Image

from simulator import likeness

REAL = Path(__file__).parents[3] / "shared" / "data" / "kintsugi-real"


def test_a_virtual_face_is_like_the_real_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if not (REAL / "cbs.png").is_file():
        pytest.skip(f"the real micrographs are not at {REAL}")
    out = tmp_path / "figure.png"
    assert likeness.main(["--real", str(REAL), "--out", str(out)]) == 0
    told = {
        line[:42].strip(): [float(number) for number in line[42:].split()]
        for line in capsys.readouterr().out.splitlines()
        if line.startswith(("CBS", "TLD"))
    }
    assert len(told) == 14
    for detector in ("CBS", "TLD"):
        real, ours = told[f"{detector} mean grey"]
        assert ours == pytest.approx(real, abs=8)
        assert told[f"{detector} histograms overlap, %"][1] > 70
        real, ours = told[f"{detector} fine over coarse power, 1e-4"]
        assert 0.33 < ours / real < 3
        real, ours = told[f"{detector} noise in active material"]
        assert 0.4 < ours / real < 2.5
    with Image.open(out) as figure:
        assert np.asarray(figure).std() > 20


def test_what_is_missing_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert likeness.main(["--real", str(tmp_path), "--out", str(tmp_path / "figure.png")]) == 2
    assert "cbs.png is missing" in capsys.readouterr().err
