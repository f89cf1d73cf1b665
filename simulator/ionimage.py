"""Pictures by the ion beam looking down on the block: caps, marks, trenches, the front edge and what lies before it."""

from __future__ import annotations

from math import cos
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from instrument.settings import DetectorSettings, Scan
from simulator.beams import Sight
from simulator.block import Block
from simulator.levels import levels
from simulator.milling import spot_sigma
from simulator.randomness import Key, rng
from simulator.textures import noise
from simulator.topside import relief

Float32 = NDArray[np.float32]

#: Secondary signal of bare electrode, cap, groove floor and depth, of a full scale of 1 (our own choice of greys).
BARE, CAP, VACUUM = 0.42, 0.62, 0.06
#: A cut this deep has lost 1/e of its signal; steep edges are brighter (physics.md 4.3).
DARK_M, EDGE_GAIN = 0.9e-6, 0.25
#: Electrons that are counted per ion.
COUNTED = 0.35
_TEXTURE, _TILE_M, _BLOB_PX = 0.35, 150e-9, 4.0


def top_picture(
    block: Block, sight: Sight, scan: Scan, detector: DetectorSettings, *, current_a: float, voltage_v: float,
    defocus_m: float, seed: int, key: tuple[Key, ...], shaded: bool = False,
) -> NDArray[np.uint8] | NDArray[np.uint16]:  # fmt: skip
    """Return a picture (y, x) of the top surface. `shaded`: a device hangs in the beam's way (night.md 25)."""
    u = scan.centre_x_m + (np.arange(scan.width_px) - (scan.width_px - 1) / 2) * scan.pixel_m
    lines = (np.arange(scan.height_px) - (scan.height_px - 1) / 2) * scan.pixel_m * cos(scan.tilt_correction_rad)
    v = scan.centre_y_m + lines
    x, z = _meets(sight, 0.0, u, v)
    cap, cut, share = relief(block.features, x, z)
    if float(cap.max()) > 0.2e-6:  # what stands higher is met earlier by a slanted beam
        slant = np.asarray(sight.flight / sight.flight[1], np.float32)
        x, z = x - slant[0] * cap, z - slant[2] * cap
        cap, cut, share = relief(block.features, x, z)
    signal = BARE * (1 + np.float32(_TEXTURE) * texture(block, x, z))
    signal += share * (CAP - signal)
    height = cap - np.minimum(cut, 3e-6)
    pixel = scan.pixel_m
    signal *= np.exp(-cut / np.float32(DARK_M))
    steep = np.hypot(*np.gradient(ndimage.gaussian_filter(height, 1.0), pixel))
    signal *= 1 + np.float32(EDGE_GAIN) * np.minimum(steep, 2.0)
    before = z < _front(block, x)
    signal = np.where(before, np.float32(VACUUM), np.maximum(signal, VACUUM)).astype(np.float32)
    if shaded:
        signal *= 0.3
    sigma = spot_sigma(current_a, voltage_v, defocus_m) / pixel
    if sigma > 0.2:
        signal = ndimage.gaussian_filter(signal, sigma)
    return _counted(signal, scan, detector, current_a, rng(seed, "ion picture", *key))


def _meets(
    sight: Sight, y: float, u: NDArray[np.floating[Any]], v: NDArray[np.floating[Any]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return block x and z of every pixel on the plane y, (y, x)."""
    plane = sight.on_plane(1, y)
    (a, b), (c, d) = plane.matrix
    x = a * u[None, :] + b * v[:, None] + plane.offset[0]
    z = c * u[None, :] + d * v[:, None] + plane.offset[1]
    return x.astype(np.float32), z.astype(np.float32)


def _front(block: Block, x: Float32) -> Float32:
    """Return z of the front edge at each pixel; beside the maps it is as it was at their ends before any cut."""
    front = block.front()
    place = np.clip((x - block.x[0]) / block.pixel, 0, block.x.size - 1.001)
    low = place.astype(np.intp)
    share = (place - low).astype(np.float32)
    inner = front[low] * (1 - share) + front[low + 1] * share
    beside = (x < block.x[0] - block.pixel) | (x > block.x[-1] + block.pixel)
    return np.asarray(np.where(beside, np.float32(0.7e-6), inner), np.float32)


def texture(block: Block, x: Float32, z: Float32) -> Float32:
    """Return the bare surface's unevenness, about -1..1: particles and binder, beyond the volume something alike."""
    pattern = block.slab.texture
    depth, columns = pattern.shape
    column = np.rint((x - block.top.x[0]) / block.volume.voxel).astype(np.intp)
    row = np.rint((z - block.slab.electrode.origin_m[2]) / block.volume.layer).astype(np.intp)
    known = (row >= 0) & (row < depth) & (column >= 0) & (column < columns)
    tile = noise("top", (1, 512, 512), (0.01, _BLOB_PX, _BLOB_PX))[0]
    beyond = tile[np.floor(z / _TILE_M).astype(np.intp) % 512, np.floor(x / _TILE_M).astype(np.intp) % 512]
    found = pattern[np.clip(row, 0, depth - 1), np.clip(column, 0, columns - 1)]
    return np.asarray(np.where(known, found, np.clip(1.2 * beyond, -1, 0.7)), np.float32)


def _counted(
    signal: Float32, scan: Scan, detector: DetectorSettings, current_a: float, draw: np.random.Generator
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    dwell = scan.dwell_s * scan.line_integrations * scan.frame_integrations
    electrons = max(1.0, current_a * dwell / 1.602176634e-19 * COUNTED)
    mean = np.maximum(signal, 0) * np.float32(electrons)
    if float(mean.mean()) > 60:
        counts = mean + np.sqrt(mean + 1) * draw.standard_normal(mean.shape, dtype=np.float32)
    else:
        counts = draw.poisson(mean).astype(np.float32)
    contrast, brightness = levels(detector)
    gain = 2 ** ((contrast - 0.5) / 0.15)
    grey = counts / np.float32(electrons) * np.float32(255 * gain) + np.float32(510 * (brightness - 0.5))
    grey += np.float32(0.7) * draw.standard_normal(grey.shape, dtype=np.float32)
    if scan.bits == 16:
        return np.clip(np.rint(grey * 257), 0, 65535).astype(np.uint16)
    return np.clip(np.rint(grey), 0, 255).astype(np.uint8)
