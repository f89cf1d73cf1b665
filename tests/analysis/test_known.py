"""Novelty: what training showed is near, what it never showed is far."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.known import Known


def gists(count: int, seed: int = 0) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return (3.0 + draw.normal(size=(count, 6)) @ draw.normal(size=(6, 40))).astype(np.float32)


def test_what_is_like_the_training_images_is_known_and_what_is_not_is_new() -> None:
    seen = gists(900)
    known = Known.of(seen[:600])
    again = [known.novelty(one) for one in seen[600:]]
    assert np.mean(np.array(again) <= 1.0) > 0.97
    draw = np.random.default_rng(1)
    assert known.novelty(seen[0] + 8 * (seen[1] - seen[2])) > 1.5
    assert known.novelty(seen.mean(axis=0)) < 0.2
    far = seen.mean(axis=0) + 20 * draw.normal(size=40).astype(np.float32)
    assert known.novelty(far) > 2.0


def test_it_survives_the_disk_and_can_be_widened() -> None:
    known = Known.of(gists(300))
    again = Known.from_arrays(known.arrays())
    new = gists(1)[0] * 40
    assert again.novelty(new) == pytest.approx(known.novelty(new), rel=1e-5)
    wide = known.widened(known.novelty(new))
    assert wide.novelty(new) == pytest.approx(1.0, rel=1e-5)
    assert known.widened(0.3).scale == known.scale


def test_training_images_that_are_all_alike_make_no_nonsense() -> None:
    known = Known.of(np.ones((8, 5), np.float32))
    assert np.isfinite(known.novelty(np.full(5, 2.0, np.float32)))
