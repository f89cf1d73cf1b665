"""The voxels of a specimen, as far as they are made."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from simulator.electrode import Electrode
from simulator.model import Labels, Model
from simulator.sidebyside import side_by_side
from simulator.specimen import model_of
from simulator.textures import Float32

#: Layers and rows that are made at a time: few enough that what is reckoned with stays near the processor.
_LAYERS, _ROWS = 4, 350


@dataclass(frozen=True)
class Volume:
    """Voxels of a specimen.

    labels : materials, uint8 (z, y, x); milling and deposition write into them
    origin : block (x, y, z) of the centre of voxel [0, 0, 0], metres
    voxel, layer : voxel edge in plane and layer thickness, metres
    electrode : what it was built from
    grain : periodic tile of the primary grains' own numbers, int8 (z, y, x)
    first_layer : index of labels' first layer in the whole electrode
    """

    labels: Labels
    origin: tuple[float, float, float]
    voxel: float
    layer: float
    electrode: Electrode
    grain: NDArray[np.int8]
    first_layer: int = 0

    def grain_at(
        self, layer: NDArray[np.signedinteger], row: NDArray[np.signedinteger], column: NDArray[np.signedinteger]
    ) -> Float32:
        """Return each voxel's channelling contrast, about -1..1, for index arrays of one shape."""
        z, y, x = self.grain.shape
        number = self.grain[(layer + self.first_layer) % z, row % y, column % x]
        contrast: Float32 = number.astype(np.float32) / np.float32(127)
        return contrast

    def binder_share(self, y_m: NDArray[np.floating]) -> Float32:
        """Return the weight share of PVDF in the carbon-binder at y (metres): binder-rich by the foil and the top.

        w_PVDF = w0 (1 + 1.5 exp(-h / 2 um) + 0.3 exp(-(T - h) / 5 um)), w_C = w0 (1 - 0.6 exp(-h / 2 um)), equal
        weights far from both (physics.md section 6).
        """
        coating, foil = self.electrode.coating_m, self.electrode.foil_m
        height = np.where(y_m <= coating + foil / 2, coating - y_m, y_m - coating - foil)
        height = np.clip(height, 0.0, coating)
        binder = 1 + 1.5 * np.exp(-height / 2e-6) + 0.3 * np.exp(-(coating - height) / 5e-6)
        carbon = 1 - 0.6 * np.exp(-height / 2e-6)
        return np.asarray(binder / (binder + carbon), np.float32)


def build(electrode: Electrode, first: int = 0, last: int | None = None, *, model: Model | None = None) -> Volume:
    """Return the electrode's voxels, the same for the same electrode.

    Parameters
    ----------
    electrode : what to build
    first, last : layers to make, all by default; a part is cut from the same whole
    model : what makes them, where it is at hand already: `model_of(electrode)`
    """
    depth, rows, columns = electrode.shape
    last = depth if last is None else last
    if not 0 <= first < last <= depth:
        msg = f"layers {first} to {last} are not within the electrode's {depth}"
        raise ValueError(msg)
    model = model or model_of(electrode)
    labels = np.empty((last - first, rows, columns), np.uint8)

    def make(layer: int, row: int) -> None:
        layers, part = (layer, min(last, layer + _LAYERS)), (row, min(rows, row + _ROWS))
        made = model.voxels((np.arange(*layers), np.arange(*part), np.arange(columns)))
        labels[layers[0] - first : layers[1] - first, slice(*part)] = made

    side_by_side(make, *zip(*product(range(first, last, _LAYERS), range(0, rows, _ROWS)), strict=True))
    x, y, z = electrode.origin_m
    origin = (x, y, z + first * electrode.layer_m)
    return Volume(labels, origin, electrode.voxel_m, electrode.layer_m, electrode, model.grain, first)
