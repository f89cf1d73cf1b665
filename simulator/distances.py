"""How far cells lie from the nearest wall, for the cells that are asked about alone."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulator.sidebyside import parts, side_by_side

Float32 = NDArray[np.float32]

#: Walls are looked for so many cells to both sides; most are a few cells away.
_FAR_CELLS = 32


def to_wall(open_: NDArray[np.bool_], at: tuple[NDArray[np.intp], ...], size: tuple[float, ...]) -> Float32:
    """Return the distance of open cells to the nearest that is not, in the unit of `size`.

    What `distance_transform_edt` does, for the open cells alone: they are few, and near to their walls. One axis after
    the other, the least square of a distance is sought among the neighbours along it, no farther than what is known.

    Parameters
    ----------
    open_ : which cells are open; at : the cells asked about, as indices; all of them open
    size : edges of a cell, by axis
    """
    if open_.all():
        return np.full(at[0].size, np.linalg.norm(np.multiply(open_.shape, size)), np.float32)
    square = _along_first(open_, size[0]).reshape(-1)
    cells = np.flatnonzero(open_)
    shape, asked = open_.shape, np.ravel_multi_index(at, open_.shape)
    for axis in range(1, open_.ndim):
        if axis == open_.ndim - 1:
            cells = asked
        spans = parts(cells.size)
        found = side_by_side(partial(_along, square, shape, axis, size[axis]), [cells[a:b] for a, b in spans])
        square[cells] = np.concatenate(found)
    away = np.sqrt(square[asked])
    return away if float(away.max(initial=0.0)) <= _FAR_CELLS * min(size) else _by_transform(open_, at, size)


def _along_first(open_: NDArray[np.bool_], edge: float) -> Float32:
    """Return the square of every cell's distance to the nearest closed one along the first axis; inf for none."""
    away = np.where(open_, np.float32(np.inf), np.float32(0))
    for order in (range(1, open_.shape[0]), range(open_.shape[0] - 2, -1, -1)):
        back = -1 if order.step > 0 else 1
        for place in order:
            np.minimum(away[place], away[place + back] + np.float32(1), out=away[place])
    away *= np.float32(edge)
    return np.square(away, out=away)


def _along(square: Float32, shape: tuple[int, ...], axis: int, edge: float, cells: NDArray[np.intp]) -> Float32:
    """Return the squares for some cells (flat), with walls along one more axis, those that are not too far."""
    count, stride = shape[axis], int(np.prod(shape[axis + 1 :], dtype=int))
    best = square[cells]
    place = (cells // stride) % count
    left = np.arange(cells.size)
    for step in range(1, min(count, _FAR_CELLS + 1)):
        apart = np.square(np.float32(step) * np.float32(edge))
        left = left[best[left] > apart]
        if left.size == 0:
            break
        here, own = cells[left], place[left]
        nearest = best[left]
        for other in (np.minimum(own + step, count - 1), np.maximum(own - step, 0)):
            np.minimum(nearest, square[here + (other - own) * stride] + apart, out=nearest)
        best[left] = nearest
    return best


def _by_transform(open_: NDArray[np.bool_], at: tuple[NDArray[np.intp], ...], size: tuple[float, ...]) -> Float32:
    """Return the same by the transform of all cells, which takes its time wherever their walls are."""
    nearest: NDArray[Any] = ndimage.distance_transform_edt(
        open_, sampling=size, return_distances=False, return_indices=True
    )
    square = np.zeros(at[0].size, np.float32)
    for place, own, edge in zip(nearest, at, size, strict=True):
        square += ((place[at] - own) * np.float32(edge)) ** 2
    return np.sqrt(square)
