"""The shipped network and the renderer belong together: it was trained on today's images and labels unseen ones."""

from __future__ import annotations

import pytest

from analysis import SegmentationCore
from analysis.sameplace import agreeing
from analysis.train import evaluate
from simulator import dataset


def test_the_weights_were_trained_on_this_renderers_images() -> None:
    assert SegmentationCore().card.renderer_sha256 == dataset.renderer_sha256(), (
        "the files that make the simulated images have changed since the training: run `kintsugi train`"
    )


@pytest.mark.slow
def test_held_back_electrodes_are_labelled() -> None:
    figures = evaluate(SegmentationCore(), dataset.samples(9001, 10)).figures
    assert figures["mean iou"] >= 0.70
    assert min(value for name, value in figures.items() if name.startswith("iou")) >= 0.45


@pytest.mark.slow
def test_detectors_of_held_back_electrodes_show_one_place() -> None:
    for sample in dataset.samples(9001, 20):
        assert agreeing(sample.channels)[1] == ()
