"""What makes the voxels of a specimen, whatever it is made of."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from simulator.textures import Indices

Labels = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Axes = tuple[Indices, Indices, Indices]


class Model(Protocol):
    """Makes any voxels of an electrode, the same for the same electrode, however they are asked for."""

    grain: NDArray[np.int8]

    def voxels(self, axes: Axes) -> Labels:
        """Return the materials at voxel indices (z, y, x)."""
        ...
