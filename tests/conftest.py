"""Instruments of the tests' own; a bounded share of the slow tests, drawn by a seed, where all would take too long."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def instruments_of_these_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep locks and folders of instruments, and the queue of nights, apart from the user's own."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("KINTSUGI_INSTRUMENTS", str(tmp_path_factory.mktemp("instruments")))
        environment.setenv("KINTSUGI_NIGHTS", str(tmp_path_factory.mktemp("nights") / "nights.sqlite"))
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out slow tests beyond KINTSUGI_SLOW_SHARE (0..1) of them; KINTSUGI_SLOW_SEED says which."""
    share = float(os.environ.get("KINTSUGI_SLOW_SHARE", "1"))
    slow = [item for item in items if item.get_closest_marker("slow")]
    draw = random.Random(os.environ.get("KINTSUGI_SLOW_SEED", "0"))
    left_out = set(draw.sample(slow, round((1 - share) * len(slow))))
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
