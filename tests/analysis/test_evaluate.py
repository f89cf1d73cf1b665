"""Calibration: the error by hand, the temperature that was put in is found again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.core import SegmentationCore
from analysis.evaluate import evaluate, fitted_temperature
from analysis.phases import IGNORE, Fine
from analysis.reliability import calibration_error, reliability_curve, reliability_of
from analysis.score import boundary_f
from tests.analysis.drawn import drawn, samples


def test_calibration_error_by_hand() -> None:
    labels = np.array([[1, 1, 1, 1, 2, 2]], np.uint8)
    truth = np.array([[1, 1, 2, 2, 2, IGNORE]], np.uint8)
    sure = np.rint(255 * np.array([[0.9, 0.9, 0.9, 0.9, 0.6, 0.1]])).astype(np.uint8)
    # four pixels say 0.9 and half are right; one says 0.6 and is right; one isn't known
    rather, surely = curve = reliability_curve(reliability_of(labels, sure, truth))
    assert calibration_error(curve) == pytest.approx((4 * 0.4 + 0.4) / 5, abs=0.005)
    assert calibration_error(()) == 0.0
    assert (rather.confidence, rather.right, rather.share) == pytest.approx((0.6, 1.0, 0.2), abs=0.005)
    assert (surely.confidence, surely.right, surely.share) == pytest.approx((0.9, 0.5, 0.8), abs=0.005)
    assert reliability_curve(np.zeros((3, 15))) == ()


class Made:
    """A core whose probabilities are right on the average, then sharpened: its temperature is known."""

    def __init__(self, sharpened: float) -> None:
        self.sharpened = sharpened

    def probabilities(self, channels: object, pixel_m: float, *, temperature: float) -> np.ndarray:
        assert temperature == 1.0
        honest = np.stack([*channels.values()])  # type: ignore[attr-defined]
        sharp = honest**self.sharpened
        return np.asarray(sharp / sharp.sum(axis=0), np.float32)


@pytest.mark.parametrize("sharpened", [0.7, 1.0, 2.5])
def test_the_temperature_that_was_put_in_is_found(sharpened: float) -> None:
    draw = np.random.default_rng(0)
    honest = draw.dirichlet(np.full(7, 0.4), (120, 120)).astype(np.float32)
    shares = np.maximum(honest, 1e-6)
    fine = (shares.cumsum(axis=2) / shares.sum(axis=2, keepdims=True) < draw.random((120, 120, 1))).sum(axis=2)
    sample = replace(
        drawn(0, (120, 120)),
        channels={str(i): shares[..., i] for i in range(7)}, fine=fine.clip(0, 6).astype(np.uint8),
    )  # fmt: skip
    assert fitted_temperature(Made(sharpened), [sample]) == pytest.approx(sharpened, rel=0.1)  # type: ignore[arg-type]


def test_a_score_says_what_each_way_of_looking_gives(small_model: Path) -> None:
    core = SegmentationCore(small_model)
    this, other = drawn(1), drawn(2)
    sample = replace(this, beside={"before": other, "after": other})
    figures = evaluate(core, [sample, *samples(1, 1)]).figures
    assert {"mean iou", "mean iou inner", "mean iou both sides", "mean iou cbs alone", "calibration error"} <= set(
        figures
    )
    assert all(0.0 <= value <= 1.0 for value in figures.values())
    assert fitted_temperature(core, []) == 1.0


def test_boundaries_within_the_tolerance_count() -> None:
    truth = np.full((40, 40), Fine.ACTIVE, np.uint8)
    truth[:, 20:] = 2
    near, far = (np.roll(truth, by, axis=1) for by in (1, 8))
    for image in (near, far):
        image[:, :6] = Fine.ACTIVE
        image[:, 34:] = 2
    assert boundary_f(truth, truth) == 1.0
    assert boundary_f(near, truth) == 1.0
    assert boundary_f(far, truth) < 0.2
    assert boundary_f(np.full_like(truth, 2), truth) == 0.0
