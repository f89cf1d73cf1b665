"""The network that comes with the package: it loads, is the card's, and labels a real micrograph it never saw."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from skimage import data

from analysis import SegmentationCore, segment_images
from analysis.core import UNFAMILIAR
from analysis.model import WEIGHTS
from analysis.phases import Fine

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
