"""A small model for the tests of everything but quality, trained once a session on a few drawn electrodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from analysis.train import train
from tests.analysis.drawn import samples


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    train(samples(0, 4), steps=4, seed=0, out=folder, base=4, batch=2, crop=64)
    return folder
