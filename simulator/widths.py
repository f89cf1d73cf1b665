"""How wide the passages from the face into a pore are: the largest ball that can be carried there, cell by cell.

Sweeps along the axes, each a vectorised pass, instead of a search in order of width: exact where a passage turns
seldom, and never too wide.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

_ROUNDS = 2
_LEAST = 0.8  # of a step that a ball's reach shrinks by: between city-block and straight distances


def passages(seeds: Float32, own: Float32) -> Float32:
    """Return for each cell the width of the widest way from the seeds: the least `own` on it, at its most.

    Parameters
    ----------
    seeds : width with which a cell can be entered from outside, 0 where it can't, (z, y, x)
    own : width of the cell itself, 0 in solids
    """
    reached = np.minimum(seeds, own)
    for _ in range(_ROUNDS):
        for axis, backward in ((0, False), (1, False), (1, True), (2, False), (2, True), (0, True)):
            for here, before in _pairs(own.shape[axis], backward):
                at, there = _plane(axis, here), _plane(axis, before)
                np.maximum(reached[at], np.minimum(reached[there], own[at]), out=reached[at])
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
    for _ in range(_ROUNDS):
        for axis, backward in ((0, False), (1, False), (1, True), (2, False), (2, True), (0, True)):
            step = np.float32(_LEAST * size[axis])
            slack = np.float32(-0.6 * size[axis])
            for here, before in _pairs(width.shape[axis], backward):
                at, there = _plane(axis, here), _plane(axis, before)
                left = reach[there] - step
                better = (left >= slack) & (best[there] > best[at]) & ~solid[at]
                np.copyto(best[at], best[there], where=better)
                np.copyto(reach[at], left, where=better)
    return best


def _pairs(count: int, backward: bool) -> Iterator[tuple[int, int]]:
    """Yield (cell, the one before it) along an axis."""
    if backward:
        yield from ((place, place + 1) for place in range(count - 2, -1, -1))
    else:
        yield from ((place, place - 1) for place in range(1, count))


def _plane(axis: int, place: int) -> tuple[slice | int, ...]:
    return (slice(None),) * axis + (place,)
