"""Work on arrays in parts, side by side: numpy and scipy let go of the interpreter while they reckon."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T")

#: So many parts, and threads.
PARTS = 2


def parts(count: int) -> list[tuple[int, int]]:
    """Return the first and the last index (not included) of every part of `count` rows; some may be empty."""
    edges = [round(share * count / PARTS) for share in range(PARTS + 1)]
    return list(pairwise(edges))


def side_by_side(function: Callable[..., T], *arguments: Iterable[object]) -> list[T]:
    """Return what a function gives for each of its arguments, in order; raises what it raises."""
    with ThreadPoolExecutor(PARTS) as pool:
        return list(pool.map(function, *arguments))
