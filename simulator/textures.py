"""Periodic noise and grain tiles, in voxels, from which the specimen's irregularities are looked up.

A tile is made once per shape and reused everywhere with other offsets: a lookup costs a few nanoseconds per voxel.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import fft
from scipy.spatial import cKDTree

from simulator.randomness import rng

Float32 = NDArray[np.float32]
Indices = NDArray[np.intp]


@lru_cache(maxsize=16)
def noise(purpose: str, shape: tuple[int, int, int], sigma: tuple[float, float, float]) -> Float32:
    """Return periodic Gaussian noise (z, y, x) of mean 0 and deviation 1, smoothed by `sigma` voxels."""
    white = rng(0, "noise tile", purpose, *shape).standard_normal(shape, dtype=np.float32)
    spectrum = fft.rfftn(white)
    for axis, (size, width) in enumerate(zip(shape, sigma, strict=True)):
        frequency = fft.rfftfreq(size) if axis == 2 else fft.fftfreq(size)
        shape_of = [1, 1, 1]
        shape_of[axis] = frequency.size
        spectrum *= np.exp(-2 * (np.pi * width * frequency) ** 2).astype(np.float32).reshape(shape_of)
    tile: Float32 = fft.irfftn(spectrum, shape).astype(np.float32)
    tile -= tile.mean()
    tile /= tile.std()
    tile.setflags(write=False)
    return tile


@lru_cache(maxsize=8)
def grains(shape: tuple[int, int, int], size: float, stretch: float) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Return a periodic Voronoi tile (z, y, x).

    First the difference of the distances to the two nearest grain centres, in voxels in plane: about the distance
    between the two sides of a boundary that is opened to there. Second each grain's own number, -127..127.

    Parameters
    ----------
    shape : of the tile
    size : mean grain diameter, voxels in plane
    stretch : layer thickness over voxel edge
    """
    draw = rng(0, "grain tile", *shape, size, stretch)
    count = max(8, int(np.prod(shape) * stretch / size**3))
    scale = np.array([stretch, 1.0, 1.0])
    box = np.array(shape, float) * scale
    centres = draw.random((count, 3)) * box
    numbers = draw.integers(-127, 128, count).astype(np.int8)
    tree = cKDTree(centres, boxsize=box)
    steps = (np.arange(n) * s for n, s in zip(shape, scale, strict=True))
    places = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1)
    distance, owner = tree.query(places.reshape(-1, 3), k=2, workers=2)
    gap = (distance[:, 1] - distance[:, 0]).reshape(shape).astype(np.float32)
    grain = numbers[owner[:, 0]].reshape(shape)
    gap.setflags(write=False)
    grain.setflags(write=False)
    return gap, grain


def look_up(
    tile: NDArray[np.generic], offset: tuple[int, int, int], at: tuple[Indices, Indices, Indices]
) -> NDArray[np.generic]:
    """Return the tile at voxel indices (z, y, x), wrapped around, as an array of their outer shape."""
    out = tile
    for axis in range(3):
        out = out.take((at[axis] + offset[axis]) % tile.shape[axis], axis=axis)
    return out


def look_up_smooth(
    tile: Float32, offset: tuple[int, int, int], at: tuple[Indices, Indices, Indices], step: tuple[int, int, int]
) -> Float32:
    """Return a tile that has one node per `step` voxels at voxel indices (z, y, x), linearly interpolated."""
    out = tile
    for axis in range(3):
        index = at[axis] + offset[axis]
        node = index // step[axis]
        share = ((index - node * step[axis]) / step[axis]).astype(np.float32)
        shape = [1, 1, 1]
        shape[axis] = share.size
        weight = share.reshape(shape)
        size = tile.shape[axis]
        low = out.take(node % size, axis=axis)
        high = out.take((node + 1) % size, axis=axis)
        high -= low
        high *= weight
        low += high
        out = low
    return out
