"""How wide the passages from the face into a pore are: the largest ball that can be carried there, cell by cell.

Sweeps along the axes, each a vectorised pass, instead of a search in order of width: exact where a passage turns
seldom, and never too wide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.sidebyside import parts, side_by_side

Float32 = NDArray[np.float32]
_Arrays = list[NDArray[Any]]
_Plane = tuple[slice | int, ...]
#: Goes on to a plane of some arrays, changed and fixed, from the one before; the axis is that of the whole grid.
_Step = Callable[[_Arrays, _Arrays, _Plane, _Plane, int], None]

_ROUNDS = 2
_LEAST = 0.8  # of a step that a ball's reach shrinks by: between city-block and straight distances
_SWEEPS = ((0, (False,)), (1, (False, True)), (2, (False, True)), (0, (True,)))  # axis, backward or not


def passages(seeds: Float32, own: Float32) -> Float32:
    """Return for each cell the width of the widest way from the seeds: the least `own` on it, at its most.

    Parameters
    ----------
    seeds : width with which a cell can be entered from outside, 0 where it can't, (z, y, x)
    own : width of the cell itself, 0 in solids
    """
    reached = np.minimum(seeds, own)

    def step(changed: _Arrays, fixed: _Arrays, at: _Plane, there: _Plane, _axis: int) -> None:
        (mine,), (way,) = changed, fixed
        np.maximum(mine[at], np.minimum(mine[there], way[at]), out=mine[at])

    _swept([reached], [own], step)
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

    def step(changed: _Arrays, fixed: _Arrays, at: _Plane, there: _Plane, axis: int) -> None:
        (mine, far), (closed,) = changed, fixed
        left = far[there] - np.float32(_LEAST * size[axis])
        better = (left >= np.float32(-0.6 * size[axis])) & (mine[there] > mine[at]) & ~closed[at]
        np.copyto(mine[at], mine[there], where=better)
        np.copyto(far[at], left, where=better)

    _swept([best, reach], [width <= 0], step)
    return best


def _swept(changed: _Arrays, fixed: _Arrays, step: _Step) -> None:
    """Sweep along every axis, both ways; lines along an axis don't meet, so parts of the others go side by side."""
    for axis, ways in _SWEEPS * _ROUNDS:
        across = 1 if axis == 0 else 0
        own = [(slice(None),) * across + (slice(*ends),) for ends in parts(changed[0].shape[across])]
        mine, still = ([[one[part] for one in each] for part in own] for each in (changed, fixed))
        side_by_side(partial(_along, step, axis, ways), mine, still)


def _along(step: _Step, axis: int, ways: tuple[bool, ...], changed: _Arrays, fixed: _Arrays) -> None:
    """Sweep some arrays along an axis; along the last one they are turned first, for its planes lie scattered."""
    turned = axis == 2
    mine, still = (
        [np.ascontiguousarray(np.moveaxis(one, 2, 0)) for one in each] if turned else each for each in (changed, fixed)
    )
    along = 0 if turned else axis
    for backward in ways:
        for here, before in _pairs(mine[0].shape[along], backward):
            step(mine, still, _plane(along, here), _plane(along, before), axis)
    if turned:
        for one, own in zip(changed, mine, strict=True):
            one[...] = np.moveaxis(own, 0, 2)


def _pairs(count: int, backward: bool) -> Iterator[tuple[int, int]]:
    """Yield (cell, the one before it) along an axis."""
    if backward:
        yield from ((place, place + 1) for place in range(count - 2, -1, -1))
    else:
        yield from ((place, place - 1) for place in range(1, count))


def _plane(axis: int, place: int) -> _Plane:
    return (slice(None),) * axis + (place,)
