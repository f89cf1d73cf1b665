"""The layers around the face: made as the face comes to them, forgotten behind it, so that a block may be long.

A layer is a function of the electrode and of what stands on its top: it does not matter when it is made. Platinum is
let in no farther than `REACH_M` ahead of the face, so layers that are made later never miss any.
"""

from __future__ import annotations

import math
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulator import materials as m
from simulator.electrode import Electrode
from simulator.specimen import model_of
from simulator.top import SEARCHED_M, Top, bridged, margin
from simulator.topside import Feature
from simulator.volume import Volume, build

Float32 = NDArray[np.float32]

#: So far ahead of the face layers are there at least, and so far behind it at most, metres.
REACH_M, BEHIND_M = 8e-6, 2.5e-6
#: The slab moves on by at least this, metres.
STRIDE_M = 1.5e-6
_TEXTURE_M = 0.35e-6  # where the particles of the bare surface are looked for
_TEXTURE_SOFT_M = 0.15e-6


class Slab:
    """Makes the layers of one electrode.

    Attributes
    ----------
    texture : how the bare surface's particles and binder stand out, about -1..1, (z, x) of the whole electrode
    """

    def __init__(self, electrode: Electrode) -> None:
        self.electrode = electrode
        self._model = model_of(electrode)
        self.texture: Float32 = self._texture()
        self._ahead: tuple[tuple[int, int], Future[Volume]] | None = None
        self._held: tuple[int, NDArray[np.uint8]] = (0, np.empty((0, 0, 0), np.uint8))

    @property
    def length(self) -> int:
        """How many layers are there at once."""
        wanted = math.ceil((REACH_M + BEHIND_M + STRIDE_M) / self.electrode.layer_m)
        return min(self.electrode.shape[0], wanted)

    def first_for(self, plane_m: float) -> int:
        """Return the first layer to have when the face stands at a plane, metres."""
        layer = math.floor((plane_m - BEHIND_M - self.electrode.z_m) / self.electrode.layer_m)
        return max(0, min(layer, self.electrode.shape[0] - self.length))

    def next_first(self, volume: Volume, plane_m: float, deepest_m: float) -> int:
        """Return the first layer to have so that none is missing ahead of the deepest point of a face, metres.

        By whole strides, but at the end of the block: a deep flank would have it moved by a layer with every slice.
        """
        first, wanted = volume.first_layer, deepest_m + REACH_M - self.electrode.z_m
        while (first + self.length) * self.electrode.layer_m < wanted and first + self.length < self.electrode.shape[0]:
            first += self._stride
        most = max(0, self.first_for(plane_m) - volume.first_layer)
        if volume.first_layer + most < self.electrode.shape[0] - self.length:
            most -= most % self._stride
        return min(first, volume.first_layer + most)

    @property
    def _stride(self) -> int:
        return max(1, round(STRIDE_M / self.electrode.layer_m))

    def make(self, first: int, last: int, features: tuple[Feature, ...]) -> tuple[Volume, Top]:
        """Return layers `first` to `last` with what stands on them."""
        electrode = self.electrode
        volume = self._built(first, last)
        reach = margin(electrode.voxel_m, electrode.layer_m)
        low, high = max(0, first - reach), min(electrode.shape[0], last + reach)
        rows = min(electrode.shape[1], math.ceil((SEARCHED_M + electrode.above_m) / electrode.voxel_m))
        start, held = self._held
        known = start <= low < first == start + len(held)
        before = held[low - start :] if known else self._head(low, first, rows)
        head = np.concatenate([before, volume.labels[:, :rows], self._head(last, high, rows)], axis=0)
        self._held = (low, head[: last - low])  # as built: what follows looks back at it
        over = bridged(head, electrode.voxel_m, electrode.layer_m)
        top = Top(volume, over[first - low : first - low + (last - first)])
        for feature in features:
            top.write(feature)
        return volume, top

    def moved(self, volume: Volume, top: Top, first: int, features: tuple[Feature, ...]) -> tuple[Volume, Top]:
        """Return the slab from another first layer on, farther in; what is there already is kept as it is.

        The volume given is used up.
        """
        last = volume.first_layer + volume.labels.shape[0]
        if first >= last:  # a cut of many microns at once: nothing of it is left
            return self.make(first, first + self.length, features)
        drop = first - volume.first_layer
        fresh, fresh_top = self.make(last, first + self.length, features)
        labels, keep = volume.labels, max(0, volume.labels.shape[0] - drop)
        for start in range(0, keep, drop):  # in place and piece by piece: no second slab is ever held
            piece = slice(start, min(keep, start + drop))
            labels[piece] = labels[piece.start + drop : piece.stop + drop]
        labels[keep:] = fresh.labels
        x, y, _ = self.electrode.origin_m
        origin = (x, y, self.electrode.origin_m[2] + first * self.electrode.layer_m)
        whole = Volume(labels, origin, volume.voxel, volume.layer, volume.electrode, volume.grain, first)
        self._make_ahead(first + self.length)
        return whole, top.joined(whole, fresh_top, drop)

    def _built(self, first: int, last: int) -> Volume:
        """Return layers as built: those made ahead, where they are the ones asked for."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None:
            span, made = ahead
            volume = made.result()  # one build at a time, for the sake of memory
            if span == (first, last):
                return volume
        return build(self.electrode, first, last, model=self._model)

    def _make_ahead(self, first: int) -> None:
        """Have the layers built that the next move asks for, while the beam still cuts those before."""
        last = min(first + self._stride, self.electrode.shape[0])
        if last > first:
            pool = ThreadPoolExecutor(1, "layers")
            self._ahead = ((first, last), pool.submit(build, self.electrode, first, last, model=self._model))
            pool.shutdown(wait=False)  # its thread ends with this build

    def _head(self, first: int, last: int, rows: int) -> NDArray[np.uint8]:
        """Return the uppermost rows of layers, as built."""
        columns = self.electrode.shape[2]
        if last <= first:
            return np.empty((0, rows, columns), np.uint8)
        return self._model.voxels((np.arange(first, last), np.arange(rows), np.arange(columns)))

    def _texture(self) -> Float32:
        electrode = self.electrode
        depth, rows, columns = electrode.shape
        row = int(np.clip(round((electrode.above_m + _TEXTURE_M) / electrode.voxel_m), 0, rows - 1))
        solid = np.empty((depth, columns), np.float32)
        for start in range(0, depth, 64):
            stop = min(depth, start + 64)
            there = self._model.voxels((np.arange(start, stop), np.array([row]), np.arange(columns)))[:, 0]
            solid[start:stop] = (there == m.NMC) | (there == m.GRAPHITE)
        soft = ndimage.gaussian_filter(
            solid, (_TEXTURE_SOFT_M / electrode.layer_m, _TEXTURE_SOFT_M / electrode.voxel_m)
        )
        return np.asarray(np.clip((soft - soft.mean()) * 1.5, -1, 1), np.float32)
