"""Training: the same seed gives the same weights, it learns, and it says what it can't use."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from analysis.augment import draw
from analysis.checkpoint import path_for
from analysis.core import SegmentationCore
from analysis.model import Card
from analysis.network import Network
from analysis.phases import IGNORE, Fine
from analysis.score import confusion, iou, mean_iou
from analysis.train import _plates, _silent, loss_of, train, train_on
from tests.analysis.drawn import Drawn, drawn, samples


def small(out: Path, seed: int = 0, steps: int = 3, init: Path | None = None) -> Card:
    return train(samples(0, 3), steps=steps, seed=seed, out=out, base=4, batch=2, crop=64, init=init)


def test_the_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    cards = [small(tmp_path / name, seed) for name, seed in (("a", 0), ("b", 0), ("c", 2))]
    assert cards[0].weights_sha256 == cards[1].weights_sha256 != cards[2].weights_sha256
    assert SegmentationCore(tmp_path / "a").model_id.startswith("kintsugi-unet-")


def test_a_step_leaves_nothing_behind_on_another_device() -> None:
    """On torch's device without memory any tensor of the processor's own is an error."""
    plates = list(_plates(samples(0, 2), _silent))
    network, batch = Network(4, 2).to("meta").train(), draw(plates, 2, 64, np.random.default_rng(0)).to("meta")
    loss = loss_of(network(batch.greys, batch.present, batch.pixel_m), batch.fine, torch.ones(7, device="meta"))
    loss.backward()
    assert loss.device.type == "meta"


def test_it_learns(tmp_path: Path) -> None:
    losses: list[float] = []

    def told(what: str, done: int, total: int, loss: float) -> None:
        if what == "steps":
            losses.append(loss)

    card = train(
        samples(0, 6), steps=60, seed=0, out=tmp_path, base=8, batch=4, crop=96, progress=told, validate=samples(1, 2)
    )
    assert np.mean(losses[-5:]) < 0.9 * np.mean(losses[:5])
    assert 0.0 < card.figures["mean iou"] <= 1.0
    assert {"mean iou cbs alone", "mean iou tld alone", "iou cbd"} <= set(card.figures)


def test_it_goes_on_from_a_model(tmp_path: Path) -> None:
    first = small(tmp_path / "a")
    second = small(tmp_path / "b", init=tmp_path / "a")
    assert first.weights_sha256 != second.weights_sha256


def test_what_cannot_be_trained_on_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no samples"):
        train([], steps=1, seed=0, out=tmp_path)
    with pytest.raises(ValueError, match="at least one step"):
        train(samples(0, 1), steps=0, seed=0, out=tmp_path)
    with pytest.raises(ValueError, match="odd ones are kept for scoring"):
        train_on(samples, True, tmp_path, seed=1)
    wrong = replace(drawn(0), fine=np.zeros((9, 9), np.uint8))
    with pytest.raises(ValueError, match="sample 0: truth"):
        train([wrong], steps=1, seed=0, out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("pixel_m", [20e-9, 60e-9, 186e-9])
def test_crops_are_repeatable_and_in_range(pixel_m: float) -> None:
    plates = list(_plates([replace(drawn(0, (90, 130)), pixel_m=pixel_m)], _silent))
    first, second = (draw(plates, 4, 96, np.random.default_rng(8)) for _ in range(2))
    assert torch.equal(first.greys, second.greys)
    assert torch.equal(first.fine, second.fine)
    assert float(first.greys.min()) >= 0.0
    assert float(first.greys.max()) <= 1.0
    assert set(first.fine.unique().tolist()) <= {*map(int, Fine), IGNORE}
    assert (first.present.sum(dim=1) >= 1).all()


def test_truth_and_image_stay_together_through_augmentation() -> None:
    sample = drawn(0)
    bright = replace(sample, channels={"CBS": (sample.fine == Fine.PT_PORE).astype(np.float32)})
    batch = draw(list(_plates([bright], _silent)), 6, 96, np.random.default_rng(1))
    known = batch.fine != IGNORE
    is_platinum = (batch.fine == Fine.PT_PORE)[known]
    greys = batch.greys[:, 0][known]
    assert float(greys[is_platinum].mean()) > float(greys[~is_platinum].mean()) + 0.3


def test_the_loss_is_small_when_right_and_leaves_the_unknown_out() -> None:
    fine = torch.tensor([[[0, 1], [2, IGNORE]]])
    right = torch.full((1, 7, 2, 2), -10.0)
    for y, x in ((0, 0), (0, 1), (1, 0)):
        right[0, int(fine[0, y, x]), y, x] = 10.0
    weights = torch.ones(7)
    base = loss_of(right, fine, weights)
    other = right.clone()
    other[0, 4, 1, 1] = 50.0
    assert float(loss_of(other, fine, weights)) == pytest.approx(float(base), abs=1e-4)
    assert float(base) < 0.5 < float(loss_of(-right, fine, weights))


def test_scores_by_hand() -> None:
    reference = np.array([[1, 1, 2, 3, 255]], np.uint8)
    labels = np.array([[1, 2, 2, 3, 0]], np.uint8)
    counts = confusion(labels, reference)
    assert iou(counts) == {"pore": 0.5, "cbd": 0.5, "active": 1.0}
    assert mean_iou(counts) == pytest.approx(2 / 3)
    assert mean_iou(np.zeros((5, 5), np.int64)) == 0.0
    with pytest.raises(ValueError, match="differ in shape"):
        confusion(labels, reference[:, 1:])


class Killed(Exception):
    """What ends a training in these tests."""


def ended_at(step: int, out: Path, **options: int) -> None:
    """Train as `small` does, 7 steps with a checkpoint after each, and end it before that of `step` is kept."""

    def told(what: str, done: int, total: int, loss: float) -> None:
        if what == "steps" and done == step and loss == loss:
            raise Killed

    begun = {"seed": 0, "steps": 7} | options
    train(samples(0, 3), out=out, base=4, batch=2, crop=64, keep_every_s=0.0, progress=told, **begun)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Card:
    """A training of 7 steps that nothing came between."""
    return small(tmp_path_factory.mktemp("whole") / "model", steps=7)


def test_a_training_that_was_ended_goes_on_as_if_it_had_not_been(whole: Card, tmp_path: Path) -> None:
    out = tmp_path / "model"
    for step in (3, 6):  # twice
        with pytest.raises(Killed):
            ended_at(step, out)
        assert not out.exists()
        kept = torch.load(path_for(out), weights_only=True)["state"]["step"]
        assert kept == step - 1
    steps: list[int] = []
    card = train(
        samples(0, 3), steps=7, seed=0, out=out, base=4, batch=2, crop=64,
        progress=lambda what, done, total, loss: steps.append(done) if what == "steps" else None,
    )  # fmt: skip
    assert steps == [5, 6, 7]
    assert card.weights_sha256 == whole.weights_sha256
    assert not path_for(out).exists()


def test_a_killed_process_leaves_what_another_goes_on_from(whole: Card, tmp_path: Path) -> None:
    script = f"""
import os, signal
from pathlib import Path
from tests.analysis import test_train

class Dies(BaseException):
    def __init__(self):
        os.kill(os.getpid(), {int(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)})

test_train.Killed = Dies
test_train.ended_at(4, Path({str(tmp_path / "model")!r}))
"""
    root = Path(__file__).parents[2]
    ended = subprocess.run([sys.executable, "-c", script], cwd=root, timeout=120, capture_output=True, check=False)
    assert ended.returncode not in (0, 1), ended.stderr.decode()
    assert path_for(tmp_path / "model").exists()
    assert small(tmp_path / "model", steps=7).weights_sha256 == whole.weights_sha256


def test_after_its_last_step_only_the_scoring_is_done_again(whole: Card, tmp_path: Path) -> None:
    def cut_off() -> Iterator[Drawn]:
        yield from samples(1, 2)
        raise Killed

    with pytest.raises(Killed):
        train(samples(0, 3), steps=7, seed=0, out=tmp_path / "m", base=4, batch=2, crop=64, validate=cut_off())
    steps: list[int] = []
    card = train(
        samples(0, 3), steps=7, seed=0, out=tmp_path / "m", base=4, batch=2, crop=64, validate=samples(1, 2),
        progress=lambda what, done, total, loss: steps.append(done) if what == "steps" else None,
    )  # fmt: skip
    assert steps == [7]
    assert card.weights_sha256 == whole.weights_sha256
    assert "mean iou" in card.figures


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "model"
    with pytest.raises(Killed):
        ended_at(3, out)
    with pytest.raises(ValueError, match=r"seed was 0, now 2; steps was 7, now 9.*remove .*model\.checkpoint"):
        ended_at(3, out, seed=2, steps=9)
    with pytest.raises(ValueError, match="on other images"):
        train(samples(2, 3), steps=7, seed=0, out=out, base=4, batch=2, crop=64)
    path_for(out).write_bytes(path_for(out).read_bytes()[:-100])
    with pytest.raises(ValueError, match="no checkpoint of this version"):
        ended_at(3, out)
    assert not out.exists()
