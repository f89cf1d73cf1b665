"""The network that comes with the package: it loads, is the card's, and labels a real micrograph it never saw."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import color, data

from analysis import SegmentationCore, segment_images
from analysis.core import DOUBTFUL, UNFAMILIAR
from analysis.model import WEIGHTS
from analysis.phases import Fine
from analysis.score import confusion, mean_iou

REAL = Path(os.environ.get("KINTSUGI_REAL", Path(__file__).parents[3] / "shared/data/kintsugi-real"))
PIXEL_M = 186e-9
#: Floors of the mean intersection over union with the authors' own labels, well below what the weights reach.
FLOORS = {("CBS", "TLD"): 0.70, ("CBS",): 0.60}


def test_the_packages_own_network_loads() -> None:
    core = SegmentationCore()
    card = core.card
    assert core.model_id.startswith("kintsugi-unet-")
    assert card.classes == tuple(fine.name.lower() for fine in Fine)
    assert card.seed % 2 == 0
    assert card.figures["mean iou"] >= 0.74
    assert card.figures["mean iou filled inner"] >= 0.9
    assert card.figures["calibration error"] < 0.03
    assert (WEIGHTS / "weights.safetensors").stat().st_size < 6_000_000


@pytest.mark.parametrize("name", ["text", "brick", "grass", "gravel"])
def test_a_photograph_is_not_believed(name: str) -> None:
    photograph = np.asarray(getattr(data, name)(), np.float32) / 255
    for detectors in (("CBS", "TLD"), ("CBS",)):
        numbers = SegmentationCore().segment(dict.fromkeys(detectors, photograph), 60e-9).numbers
        assert numbers.novelty > UNFAMILIAR


@pytest.mark.parametrize("name", ["camera", "coffee", "coins"])
def test_a_photograph_with_such_structure_is_doubted(name: str) -> None:
    photograph = np.asarray(getattr(data, name)())
    grey = (color.rgb2gray(photograph) if photograph.ndim == 3 else photograph / 255).astype(np.float32)
    numbers = SegmentationCore().segment({"CBS": grey}, 40e-9).numbers
    assert numbers.novelty > DOUBTFUL
    assert numbers.confidence <= 1 - DOUBTFUL


@pytest.mark.parametrize("detectors", [*FLOORS, ("TLD",)], ids="+".join)
def test_a_real_face_is_known_and_its_negative_is_doubted(detectors: tuple[str, ...]) -> None:
    core = SegmentationCore()
    face = {name: _real(name) for name in detectors}
    right = core.segment(face, PIXEL_M).numbers
    wrong = core.segment({name: 1 - grey for name, grey in face.items()}, PIXEL_M).numbers
    assert right.novelty < 0.5 * DOUBTFUL
    assert right.confidence > 0.85
    assert wrong.novelty > DOUBTFUL
    assert wrong.confidence <= 1 - DOUBTFUL


def test_asked_both_ways_a_real_face_is_labelled_no_worse() -> None:
    core = SegmentationCore()
    face, reference = {name: _real(name) for name in ("CBS", "TLD")}, _labels()
    once, both = (
        mean_iou(confusion(core.label(face, PIXEL_M, mirrored=mirrored).labels, reference))
        for mirrored in (False, True)
    )
    assert both > once


def test_a_second_detector_of_another_place_costs_no_more_than_its_absence() -> None:
    core = SegmentationCore()
    cbs, tld, reference = _real("CBS"), _real("TLD"), _labels()
    alone = core.label({"CBS": cbs}, PIXEL_M).labels
    for other in (np.ascontiguousarray(tld[:, ::-1]), np.roll(tld, 40, 1)):
        found = core.segment({"CBS": cbs, "TLD": other}, PIXEL_M)
        assert found.numbers.elsewhere == ("TLD",)
        assert np.array_equal(found.labels, alone)
    assert mean_iou(confusion(alone, reference)) >= FLOORS[("CBS",)]
    assert core.segment({"CBS": cbs, "TLD": np.roll(tld, 2, 1)}, PIXEL_M).numbers.elsewhere == ()


def _real(name: str) -> NDArray[np.float32]:
    return np.asarray(_picture(f"{name.lower()}.png"), np.float32) / 255


def _labels() -> NDArray[np.uint8]:
    return np.asarray(_picture("label-left.png"), np.uint8)


def _picture(file: str) -> Image.Image:
    if not (REAL / file).is_file():
        pytest.skip(f"the real micrographs are not at {REAL}; set KINTSUGI_REAL to their folder")
    return Image.open(REAL / file)


@pytest.mark.parametrize("detectors", FLOORS, ids="+".join)
def test_a_real_micrograph_is_labelled_as_its_authors_did(tmp_path: Path, detectors: tuple[str, ...]) -> None:
    if not (REAL / "label-left.png").is_file():
        pytest.skip(f"the real micrographs are not at {REAL}; set KINTSUGI_REAL to their folder")
    summary = segment_images(
        {name: REAL / f"{name.lower()}.png" for name in detectors},
        tmp_path,
        pixel_m=PIXEL_M,
        reference=REAL / "label-left.png",
    )
    assert summary.agreement is not None
    assert summary.novelty < UNFAMILIAR
    assert summary.agreement.mean_iou >= FLOORS[detectors]
