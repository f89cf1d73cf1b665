"""A bounded share of the slow tests, drawn by a seed, where the whole would take too long."""

from __future__ import annotations

import os
import random

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out slow tests beyond KINTSUGI_SLOW_SHARE (0..1) of them; KINTSUGI_SLOW_SEED says which."""
    share = float(os.environ.get("KINTSUGI_SLOW_SHARE", "1"))
    slow = [item for item in items if item.get_closest_marker("slow")]
    draw = random.Random(os.environ.get("KINTSUGI_SLOW_SEED", "0"))
    left_out = set(draw.sample(slow, round((1 - share) * len(slow))))
    if left_out:
        config.hook.pytest_deselected(items=list(left_out))
        items[:] = [item for item in items if item not in left_out]
