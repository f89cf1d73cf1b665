"""Novelty: what training showed is known, what it never showed is new."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analysis.augment import draw
from analysis.known import Known
from analysis.phases import IGNORE
from analysis.strangers import strange
from analysis.train import _plates, _silent
from tests.analysis.drawn import samples


def gists(count: int, at: float, seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    return (at + draw.normal(size=(count, 40))).astype(np.float32)


def test_the_known_is_told_from_the_strange() -> None:
    known = Known.of(gists(300, 1.0, 0), gists(200, 1.6, 1))
    new = [[known.novelty(one) for one in gists(300, at, 7)] for at in (1.0, 1.6, 3.0)]
    assert np.mean(np.array(new[0]) < 0.5) > 0.9
    assert np.mean(np.array(new[1]) > 0.5) > 0.9
    assert min(new[2]) > 0.9
    assert all(0.0 <= one <= 1.0 for part in new for one in part)


def test_it_survives_the_disk_and_can_be_taught() -> None:
    known = Known.of(gists(300, 1.0, 0), gists(200, 1.6, 1))
    again = Known.from_arrays(known.arrays())
    new = gists(1, 1.7, 3)[0]
    assert again.novelty(new) == pytest.approx(known.novelty(new), abs=1e-4)
    assert known.novelty(new) > 0.5
    assert known.taught(new).novelty(new) == pytest.approx(0.119, abs=0.01)
    familiar = gists(300, 0.6, 3)[0]
    assert known.taught(familiar).offset == known.offset


def test_gists_that_never_differ_make_no_nonsense() -> None:
    known = Known.of(np.ones((8, 5), np.float32), np.ones((8, 5), np.float32))
    assert known.novelty(np.full(5, 2.0, np.float32)) == pytest.approx(0.5)


def test_strangers_are_repeatable_and_look_like_pictures() -> None:
    plates = list(_plates(samples(0, 3), _silent))
    batch = draw(plates, 8, 96, np.random.default_rng(1))
    first, second = (strange(batch, np.random.default_rng(2)) for _ in range(2))
    assert torch.equal(first.greys, second.greys)
    assert float(first.greys.min()) >= 0.0
    assert float(first.greys.max()) <= 1.0
    assert (first.fine == IGNORE).all()
    assert (first.greys.flatten(2).std(dim=2) > 0).any(dim=1).float().mean() > 0.7
    assert not torch.equal(first.greys, batch.greys)
