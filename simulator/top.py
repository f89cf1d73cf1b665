"""The voxels of the top surface: a film bridges its holes, and features are written into it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulator import materials as m
from simulator.topside import GROOVE_FILLED, Feature
from simulator.volume import Volume

_BRIDGED_M = 0.8e-6  # holes of the bare surface narrower than this are bridged by a film on it
#: The bare surface lies no lower than this, metres.
SEARCHED_M = 3e-6


def bridged(head: NDArray[np.uint8], voxel_m: float, layer_m: float) -> NDArray[np.float64]:
    """Return the row, in voxels, at which a film would bridge the bare surface, (z, x).

    Parameters
    ----------
    head : materials as built, uint8 (z, y, x), down to `SEARCHED_M` at least
    voxel_m, layer_m : voxel edge in plane, layer thickness, metres
    """
    solid = head != m.VACUUM
    first = np.where(solid.any(axis=1), np.argmax(solid, axis=1), head.shape[1])
    size = _holes(voxel_m, layer_m)
    over = ndimage.maximum_filter(ndimage.minimum_filter(first, size), size)
    soft = [0.25 * part for part in size]
    smooth = np.rint(ndimage.gaussian_filter(over.astype(np.float32), soft))
    return np.asarray(np.minimum(first, smooth), float)


def margin(voxel_m: float, layer_m: float) -> int:
    """Return how many layers to each side a layer's bridging looks at."""
    return 2 * _holes(voxel_m, layer_m)[0] + 1


def _holes(voxel_m: float, layer_m: float) -> tuple[int, int]:
    along, across = (2 * round(_BRIDGED_M / 2 / step) + 1 for step in (layer_m, voxel_m))
    return along, across


class Top:
    """The top surface over a volume, and the writing of features into its voxels.

    Parameters
    ----------
    volume : whose uppermost voxels are written; rows : where a film would bridge its bare surface, see `bridged`

    Attributes
    ----------
    height : y of the topmost solid in each voxel column, metres, (z, x)
    hollow : depth of grooves that no film has filled yet, metres, (z, x)
    rim : y of the surface that a groove was cut into, metres, (z, x)
    """

    def __init__(self, volume: Volume, rows: NDArray[np.float64]) -> None:
        self._volume = volume
        x0, y0, z0 = volume.origin
        depth, high, columns = volume.labels.shape
        self.x: NDArray[np.float64] = x0 + volume.voxel * np.arange(columns, dtype=float)
        self.z: NDArray[np.float64] = z0 + volume.layer * np.arange(depth, dtype=float)
        self.y: NDArray[np.float64] = y0 + volume.voxel * np.arange(high, dtype=float)
        for row in range(int(rows.min()), int(np.searchsorted(self.y, SEARCHED_M))):
            part = volume.labels[:, row]
            part[(part == m.VACUUM) & (row >= rows)] = m.PORE
        # double precision: a feature written in pieces must give the voxels that it gives when written at once
        self.height = np.asarray(self.y[0] + volume.voxel * (rows - 0.5), float)
        self.hollow = np.zeros_like(self.height)
        self.rim = self.height.copy()

    def joined(self, volume: Volume, after: Top, drop: int) -> Top:
        """Return the top of a volume that has this one's layers from `drop` on, and then those of `after`."""
        whole = object.__new__(Top)
        whole._volume = volume
        whole.x, whole.y, whole.z = self.x, self.y, np.concatenate([self.z[drop:], after.z])
        whole.height = np.concatenate([self.height[drop:], after.height])
        whole.hollow = np.concatenate([self.hollow[drop:], after.hollow])
        whole.rim = np.concatenate([self.rim[drop:], after.rim])
        return whole

    def write(self, feature: Feature) -> None:
        """Write a feature, or a further piece of one, into the voxels."""
        if feature.kind == "trench":
            return
        reach = feature.width + 2 * feature.soft
        rows = self._span(self.z, min(feature.z0, feature.z1) - reach, max(feature.z0, feature.z1) + reach)
        columns = self._span(self.x, min(feature.x0, feature.x1) - reach, max(feature.x0, feature.x1) + reach)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return
        x, z = self.x[None, columns], self.z[rows, None]
        here = feature.outline(x, z)
        place = (rows, columns)
        if feature.kind == "cap":
            self._raise(place, np.where(here > 0.02, feature.amount * here.astype(float), 0.0))
        else:
            self._cut(place, np.where(here > 0.5, feature.amount * feature.profile(x, z), 0.0))

    def _span(self, at: NDArray[np.floating], low: float, high: float) -> slice:
        return slice(int(np.searchsorted(at, low)), int(np.searchsorted(at, high)))

    def _raise(self, place: tuple[slice, slice], by: NDArray[np.float64]) -> None:
        """Grow by a height; a groove grows from its walls as well until it is level, and shows what filled it."""
        old, hollow = self.height[place], self.hollow[place]
        grown = np.minimum((1 + GROOVE_FILLED) * by, hollow + by)
        new, level = old - grown, self.rim[place]
        for row in range(*self._rows(float(new.min()), float(old.max()))):
            y = float(self.y[row])
            labels = self._volume.labels[place[0], row, place[1]]
            fresh = (y >= new) & (y < old) & (labels == m.VACUUM)
            labels[fresh] = np.where((y >= level) & (hollow > 0), m.RESIDUE, m.CAP)[fresh]
        self.height[place] = new
        self.hollow[place] = hollow - (grown - by)

    def _cut(self, place: tuple[slice, slice], by: NDArray[np.float64]) -> None:
        old = self.height[place]
        new = old + by
        for row in range(*self._rows(float(old.min()), float(new.max()))):
            y = float(self.y[row])
            labels = self._volume.labels[place[0], row, place[1]]
            labels[(y >= old) & (y < new)] = m.VACUUM
        self.rim[place] = np.where((self.hollow[place] > 0) | (by == 0), self.rim[place], old)
        self.height[place] = new
        self.hollow[place] += by

    def _rows(self, low: float, high: float) -> tuple[int, int]:
        return int(np.searchsorted(self.y, low)), int(np.searchsorted(self.y, high))
