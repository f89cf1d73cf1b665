"""Strokes teach a model an image, and it forgets nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.adapt import Lesson, _plate, _taught, adapt, merged_codes, merged_scores
from analysis.core import SegmentationCore
from analysis.model import WEIGHTS, Card, load, write_card
from analysis.network import DETECTORS
from analysis.phases import IGNORE, Fine, Phase, merged
from analysis.reliability import BINS, Reliability, calibration_error, reliability_curve, reliability_of
from analysis.replay import read
from analysis.score import confusion, mean_iou
from analysis.train import train
from tests.analysis.drawn import drawn, samples
from tests.benchmarks.segmentation import strokes

PIXEL_M = 60e-9


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that has learnt a little."""
    folder = tmp_path_factory.mktemp("start")
    train(samples(0, 6), steps=80, seed=0, out=folder, base=6, batch=4, crop=96, validate=samples(1, 2))
    return folder


def test_teaching_leaves_nothing_behind_on_another_device() -> None:
    """On torch's device without memory any tensor of the processor's own is an error."""
    sample = drawn(3)
    lesson = Lesson.of(sample.channels, merged(sample.fine), merged(sample.fine), PIXEL_M, 0)
    network = load(None, fused=False).network.to("meta")
    taught = _taught(network, [_plate(lesson)], lesson.shares, read(WEIGHTS), 1, 0, "meta", None)
    assert {parameter.device.type for parameter in taught.parameters()} == {"meta"}


def test_a_detector_that_lies_off_is_taught_as_it_is_labelled() -> None:
    sample = drawn(3)
    truth = merged(sample.fine)
    off = {"TLD": np.roll(sample.channels["TLD"], (5, 2), (0, 1)), "CBS": sample.channels["CBS"]}
    right, laid = (Lesson.of(channels, truth, truth, PIXEL_M, 0).channels for channels in (sample.channels, off))
    inside = (slice(8, -8), slice(8, -8))
    for name in ("CBS", "TLD"):
        assert np.array_equal(laid[name][inside], right[name][inside])


@pytest.mark.slow
def test_strokes_on_an_image_make_its_labels_better(tmp_path: Path) -> None:
    sample = drawn(77)
    # another deposit, another binder: darker platinum, brighter CBD than the model knows
    image = {name: (0.55 * grey + 0.12).astype(np.float32) for name, grey in sample.channels.items()}
    reference = merged(sample.fine)
    marked = strokes(reference, 24, 0)
    scored = np.where(marked == IGNORE, reference, np.uint8(IGNORE))
    before = SegmentationCore()
    card = adapt(image, marked, PIXEL_M, tmp_path / "taught", steps=40)
    after = SegmentationCore(tmp_path / "taught")
    gained = [mean_iou(confusion(core.segment(image, PIXEL_M).labels, scored)) for core in (before, after)]
    assert gained[1] > gained[0] + 0.05
    assert card.figures["strokes"] >= 20
    assert 0 < card.figures["right on its strokes"] <= 1
    assert "right on strokes kept back" in card.figures
    assert card.name.endswith("+strokes")
    assert after.segment(image, PIXEL_M).numbers.novelty < 0.2  # it is known from now on
    # what it knew it still knows
    kept = [
        mean_iou(sum(confusion(core.segment(s.channels, s.pixel_m).labels, merged(s.fine)) for s in samples(1, 3)))
        for core in (before, after)
    ]
    assert kept[1] > kept[0] - 0.1


def test_what_it_sees_stays_what_it_concludes_changes(start: Path, tmp_path: Path) -> None:
    sample = drawn(5)
    adapt(sample.channels, strokes(merged(sample.fine), 8, 0), PIXEL_M, tmp_path / "t", model=start, steps=3)
    old, new = (load(folder, fused=False).network.state_dict() for folder in (start, tmp_path / "t"))
    changed = {key.split(".")[0] for key in old if not torch.equal(old[key], new[key])}
    assert changed
    assert "down" not in changed
    # and it can be taught once more
    card = adapt(
        sample.channels, strokes(merged(sample.fine), 8, 1), PIXEL_M, tmp_path / "u", model=tmp_path / "t", steps=2
    )
    assert card.name.count("+strokes") == 1


@pytest.mark.slow
def test_a_taught_model_is_as_sure_as_it_is_right(tmp_path: Path) -> None:
    first = tmp_path / "first"
    shutil.copytree(WEIGHTS, first)
    card = Card.model_validate_json((WEIGHTS / "card.json").read_bytes())
    write_card(first, card.model_copy(update={"reliability": (Reliability(confidence=1.0, right=1.0, share=1.0),)}))
    sample = drawn(5)
    marked = strokes(merged(sample.fine), 8, 0)
    same = adapt(sample.channels, marked, PIXEL_M, tmp_path / "same", model=first, steps=0)
    assert same.temperature == pytest.approx(card.temperature)
    taught = adapt(sample.channels, marked, PIXEL_M, tmp_path / "taught", model=first, steps=20)
    assert taught.temperature != card.temperature
    assert taught.reliability == ()  # what the first model's card said is not so of this one
    off = []
    for model in (first, tmp_path / "taught"):
        core, counts = SegmentationCore(model), np.zeros((3, BINS))
        for plate in read(WEIGHTS):
            seen = {name: plate.greys[n].float().numpy() for n, name in enumerate(DETECTORS) if plate.present[n]}
            found = core.label(seen, plate.pixel_m)
            counts += reliability_of(found.labels, found.confidence, merged(plate.fine[0].numpy()))
        off.append(calibration_error(reliability_curve(counts)))
    assert off[1] < off[0] + 0.01


def test_the_same_strokes_and_seed_give_the_same_model(start: Path, tmp_path: Path) -> None:
    sample = drawn(5)
    marked = strokes(merged(sample.fine), 8, 0)
    cards = [adapt(sample.channels, marked, PIXEL_M, tmp_path / n, model=start, steps=3) for n in ("a", "b")]
    assert cards[0].weights_sha256 == cards[1].weights_sha256


def test_strokes_on_one_phase_or_another_size_are_refused_before_any_work(start: Path, tmp_path: Path) -> None:
    sample = drawn(5)
    one = np.full(sample.fine.shape, IGNORE, np.uint8)
    one[50, :20] = Phase.CBD
    with pytest.raises(ValueError, match="at least two phases"):
        adapt(sample.channels, one, PIXEL_M, tmp_path / "t", model=start)
    with pytest.raises(ValueError, match="of the image's size"):
        adapt(sample.channels, one[:-1], PIXEL_M, tmp_path / "t", model=start)
    assert not (tmp_path / "t").exists()


def test_a_model_without_crops_of_its_training_cannot_be_taught(start: Path, tmp_path: Path) -> None:
    for name in ("weights.safetensors", "card.json"):
        (tmp_path / name).write_bytes((start / name).read_bytes())
    sample = drawn(5)
    with pytest.raises(ValueError, match="keeps no crops of its training"):
        adapt(sample.channels, strokes(merged(sample.fine), 8, 0), PIXEL_M, tmp_path / "t", model=tmp_path)


def test_phases_are_merged_alike_in_scores_and_codes() -> None:
    scores = torch.randn(2, len(Fine), 3, 4)
    fine = torch.softmax(scores, dim=1)
    phases = torch.softmax(merged_scores(scores), dim=1)
    pore = fine[:, Fine.PT_PORE] + fine[:, Fine.OPEN_PORE]
    assert torch.allclose(phases[:, Phase.PORE], pore, atol=1e-5)
    codes = torch.tensor([[[*map(int, Fine), IGNORE]]])
    assert merged_codes(codes).flatten().tolist() == [*merged(np.arange(7, dtype=np.uint8)).tolist(), IGNORE]
