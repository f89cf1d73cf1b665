"""What speaks against labels stands in every picture of them."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from analysis import segment_images
from analysis.annotate import WHERE, annotate
from analysis.model import load, save
from analysis.overlay import WARNING, overlay_png
from tests.analysis.drawn import drawn

SAMPLE = drawn(3, (100, 130))


def pixels(source: Path | bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(source) if isinstance(source, bytes) else source).convert("RGB"))


def red_rows(source: Path | bytes) -> int:
    """How many rows have writing in the colour of warnings."""
    return int((pixels(source) == WARNING).all(axis=2).any(axis=1).sum())


def model_of(small_model: Path, out: Path, offset: float) -> Path:
    """A model to which every image is as new: sigmoid(offset)."""
    model = load(small_model, fused=False)
    save(out, model.network, replace(model.known, weights=0 * model.known.weights, offset=offset), model.card)
    return out


def test_warnings_are_lines_of_their_own() -> None:
    labels = np.ones((100, 130), np.uint8)
    plain, two = (
        overlay_png(SAMPLE.channels["CBS"], labels, 50e-9, {}, "a title", warnings) for warnings in ((), ("one", "two"))
    )
    assert red_rows(plain) == 0
    assert red_rows(two) > 10
    above = pixels(plain)
    assert np.array_equal(pixels(two)[: len(above) - 20], above[:-20])
    assert len(pixels(two)) > len(above)


@pytest.mark.parametrize(("offset", "strange"), [(-5.0, False), (5.0, True)])
def test_pictures_of_a_strange_image_say_so(small_model: Path, tmp_path: Path, offset: float, strange: bool) -> None:
    model = model_of(small_model, tmp_path / "model", offset)
    files = {}
    for name, grey in SAMPLE.channels.items():
        files[name] = tmp_path / f"{name}.png"
        Image.fromarray(np.rint(255 * grey).astype(np.uint8)).save(files[name])
    segment_images(files, tmp_path / "out", pixel_m=60e-9, model=model)
    assert (red_rows(tmp_path / "out" / "overlay.png") > 0) is strange
    prepared = annotate(SAMPLE.channels, 60e-9, tmp_path / "strokes", model=model, count=0)
    assert prepared.spots == []
    assert [("don't trust" in one) for one in prepared.warnings] == [True] * strange
    assert (red_rows(tmp_path / "strokes" / WHERE) > 0) is strange
