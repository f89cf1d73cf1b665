"""A user's own label volume as specimen: phases 0 outside, 1 pore, 2 binder, 3 active material, 4 collector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from simulator import materials as m
from simulator.electrode import Electrode
from simulator.model import Axes, Labels
from simulator.textures import grains

#: Label -> material.
_MATERIALS = np.array([m.VACUUM, m.PORE, m.CBD, m.NMC, m.AL], np.uint8)


class LabelVolumeModel:
    """Reads voxels of a file, the nearest to each of ours; beyond its ends along x and z it is mirrored.

    y = 0 lies at the file's first row that isn't all outside; below its last row there is nothing.

    Raises
    ------
    ValueError : a file that can't be read, that is no volume of labels, or has codes that there aren't
    """

    def __init__(self, electrode: Electrode) -> None:
        if electrode.file is None or electrode.file_voxel_m is None:
            msg = "a specimen from a volume needs a file and its voxels' size"
            raise ValueError(msg)
        self.electrode = electrode
        self._step = electrode.file_voxel_m
        self._labels = _opened(electrode.file)
        rows = np.flatnonzero((self._labels[:: max(1, self._labels.shape[0] // 16)] > 0).any(axis=(0, 2)))
        if rows.size == 0:
            msg = f"{electrode.file} is all outside (0): nothing to cut; write labels 1 to 4"
            raise ValueError(msg)
        self._top = int(rows[0])
        ratio = round(electrode.layer_m / electrode.voxel_m * 4) / 4 or 0.25
        self.grain: NDArray[np.int8] = grains((64, 192, 192), max(3.0, round(0.45e-6 / electrode.voxel_m)), ratio)[1]

    def voxels(self, axes: Axes) -> Labels:
        """Return the materials at voxel indices (z, y, x)."""
        e = self.electrode
        x0, y0, z0 = e.origin_m
        depth, rows, columns = self._labels.shape
        layer = np.floor((z0 - e.z_m + axes[0] * e.layer_m) / self._step).astype(int)
        row = self._top + np.floor((y0 + axes[1] * e.voxel_m) / self._step).astype(int)
        column = np.floor((x0 + axes[2] * e.voxel_m) / self._step).astype(int) + columns // 2
        there = (row >= 0) & (row < rows)
        found = np.full(tuple(a.size for a in axes), m.VACUUM, np.uint8)
        across = _mirrored(column, columns)
        for place, at in enumerate(_mirrored(layer, depth)):
            plane = np.asarray(self._labels[int(at)])
            if int(plane.max(initial=0)) >= _MATERIALS.size:
                msg = f"{e.file} holds the label {plane.max()}; allowed are 0 to {_MATERIALS.size - 1}: recode it"
                raise ValueError(msg)
            found[place, there] = _MATERIALS[plane[row[there]][:, across]]
        return found


def _mirrored(at: NDArray[np.signedinteger], count: int) -> NDArray[np.signedinteger]:
    """Return indices folded back at both ends of an axis."""
    folded = np.mod(at, 2 * count)
    return np.asarray(np.where(folded < count, folded, 2 * count - 1 - folded))


def _opened(file: Path) -> NDArray[np.uint8]:
    """Open a stack without reading it: .npy, or TIFF where its pages lie in one piece; else it is read."""
    try:
        volume = np.load(file, mmap_mode="r", allow_pickle=False) if file.suffix == ".npy" else _tiff(file)
    except (OSError, ValueError, IndexError) as error:
        msg = f"{file} can't be read as a volume of labels: {error}; give a TIFF stack or .npy of 8 bit (z, y, x)"
        raise ValueError(msg) from error
    if volume.ndim != 3 or volume.dtype != np.uint8:
        msg = f"{file} is {volume.ndim}-D of {volume.dtype}; a volume of labels is 3-D (z, y, x) of 8 bit: convert it"
        raise ValueError(msg)
    return np.asanyarray(volume)


def _tiff(file: Path) -> NDArray[np.uint8]:
    import tifffile

    try:
        volume: NDArray[np.uint8] = tifffile.memmap(file, mode="r")
    except ValueError:  # compressed, or not in one piece
        volume = tifffile.imread(file)
    return volume
