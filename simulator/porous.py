"""Porous carbon on a foil: two phases cut from smooth noise, with pores of about 90 nm (physics.md 3.2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from simulator import materials as m
from simulator.electrode import Electrode
from simulator.model import Axes, Labels
from simulator.randomness import rng
from simulator.textures import grains, look_up, noise

_TILE = (160, 224, 224)
#: Smoothness of the noise that gives pores of 90 nm on average, as twice the distance to the wall (measured).
_SMOOTH_M = 45e-9


class PorousModel:
    """Solid where periodic noise lies above the threshold that gives the electrode's share of it."""

    def __init__(self, electrode: Electrode) -> None:
        self.electrode = electrode
        in_plane, through = _SMOOTH_M / electrode.voxel_m, _SMOOTH_M / electrode.layer_m
        self._noise = noise("porous", _TILE, (through, in_plane, in_plane))
        self._offset = tuple(int(n) for n in rng(electrode.seed, "porous tile").integers(0, 10_000, 3))
        self._threshold = float(ndtri(1 - electrode.active))
        self.grain: NDArray[np.int8] = grains((64, 192, 192), 8.0, 1.0)[1]

    def voxels(self, axes: Axes) -> Labels:
        """Return the materials at voxel indices (z, y, x)."""
        e = self.electrode
        y = e.origin_m[1] + axes[1] * e.voxel_m
        z, row, column = self._offset
        found = np.asarray(look_up(self._noise, (z, row, column), axes), np.float32)
        labels = np.where(found > self._threshold, np.uint8(e.material), np.uint8(m.PORE))
        labels[:, y < 0] = m.VACUUM
        labels[:, (y >= e.coating_m) & (y < e.coating_m + e.foil_m)] = e.collector
        return labels
