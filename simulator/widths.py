"""How wide the passages from the face into a pore are: the largest ball that can be carried there, cell by cell.

Sweeps along the axes, each a vectorised pass, instead of a search in order of width: exact where a passage turns
seldom, and never too wide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
_Part = tuple[slice, ...]

_ROUNDS = 2
_LEAST = 0.8  # of a step that a ball's reach shrinks by: between city-block and straight distances
_SWEEPS = ((0, False), (1, False), (1, True), (2, False), (2, True), (0, True))  # axis, backward
_TOGETHER = 2  # parts of the other axes that are swept at a time: their lines don't meet


def passages(seeds: Float32, own: Float32) -> Float32:
    """Return for each cell the width of the widest way from the seeds: the least `own` on it, at its most.

    Parameters
    ----------
    seeds : width with which a cell can be entered from outside, 0 where it can't, (z, y, x)
    own : width of the cell itself, 0 in solids
    """
    reached = np.minimum(seeds, own)

    def sweep(part: _Part, axis: int, backward: bool) -> None:
        mine, way = reached[part], own[part]
        for here, before in _pairs(own.shape[axis], backward):
            at, there = _plane(axis, here), _plane(axis, before)
            np.maximum(mine[at], np.minimum(mine[there], way[at]), out=mine[at])

    _swept(own.shape, sweep)
    return reached


def spread(width: Float32, size: tuple[float, float, float]) -> Float32:
    """Return for each open cell the width of the widest ball that covers it.

    Next to wall or floor of a wide pore `width` is small, as no ball is centred there; what counts is the pore's own.

    Parameters
    ----------
    width : of the ball centred on each cell, 0 in solids, (z, y, x)
    size : cell edges, the unit of `width`
    """
    best = width.copy()
    reach = 0.5 * width
    solid = width <= 0

    def sweep(part: _Part, axis: int, backward: bool) -> None:
        step, slack = np.float32(_LEAST * size[axis]), np.float32(-0.6 * size[axis])
        mine, far, closed = best[part], reach[part], solid[part]
        for here, before in _pairs(width.shape[axis], backward):
            at, there = _plane(axis, here), _plane(axis, before)
            left = far[there] - step
            better = (left >= slack) & (mine[there] > mine[at]) & ~closed[at]
            np.copyto(mine[at], mine[there], where=better)
            np.copyto(far[at], left, where=better)

    _swept(width.shape, sweep)
    return best


def _swept(shape: tuple[int, ...], sweep: Callable[[_Part, int, bool], None]) -> None:
    """Sweep along every axis, both ways; lines along an axis are independent, so halves are swept side by side."""
    with ThreadPoolExecutor(_TOGETHER) as pool:
        for axis, backward in _SWEEPS * _ROUNDS:
            across = 1 if axis == 0 else 0
            edges = np.linspace(0, shape[across], _TOGETHER + 1).astype(int)
            parts = [(slice(None),) * across + (slice(int(a), int(b)),) for a, b in pairwise(edges)]
            list(pool.map(lambda part, axis=axis, backward=backward: sweep(part, axis, backward), parts))


def _pairs(count: int, backward: bool) -> Iterator[tuple[int, int]]:
    """Yield (cell, the one before it) along an axis."""
    if backward:
        yield from ((place, place + 1) for place in range(count - 2, -1, -1))
    else:
        yield from ((place, place - 1) for place in range(1, count))


def _plane(axis: int, place: int) -> tuple[slice | int, ...]:
    return (slice(None),) * axis + (place,)
