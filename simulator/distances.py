"""How far cells lie from the nearest wall, for the cells that are asked about alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def to_wall(
    open_: NDArray[np.bool_],
    at: tuple[NDArray[np.intp], ...],
    size: tuple[float, ...],
    kind: type[np.floating[Any]] = np.float64,
) -> NDArray[np.floating[Any]]:
    """Return the distance of open cells to the nearest that is not, in the unit of `size`.

    What `distance_transform_edt` does, without its arrays of indices and distances in double precision.

    Parameters
    ----------
    open_ : which cells are open; at : the cells asked about, as indices; all of them open
    size : edges of a cell, by axis; kind : of the sum and the answer
    """
    nearest = ndimage.distance_transform_edt(open_, sampling=size, return_distances=False, return_indices=True)
    square = np.zeros(at[0].size, kind)
    for place, own, edge in zip(nearest, at, size, strict=True):
        square += ((place[at] - own) * kind(edge)) ** 2
    return np.sqrt(square)
