"""Training crops that differ as real sessions differ: geometry, contrast, noise, curtains, charging, missing detectors.

Ranges are the greys of published kintsugi images and what networks were seen to fail on: gain and offset, gamma, noise
correlated between pixels, curtains at both rocking angles, a detector shifted by up to 3 pixels or missing, defocus.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from analysis.network import CLASSES, DETECTORS
from analysis.phases import IGNORE

_ROCKING_RAD = math.radians(3.0)
_CHANNELS = len(DETECTORS)
_BLUR_RADIUS = 4


@dataclass(frozen=True)
class Plate:
    """One training image on the network's pixel range: greys float16 (2, y, x), present (2,), fine uint8 (y, x)."""

    greys: Tensor
    present: NDArray[np.float32]
    fine: Tensor
    pixel_m: float


@dataclass(frozen=True)
class Batch:
    """Greys (n, 2, y, x), present (n, 2), fine (n, y, x) int64 with IGNORE, pixel_m (n,)."""

    greys: Tensor
    present: Tensor
    fine: Tensor
    pixel_m: Tensor


def draw(plates: Sequence[Plate], count: int, crop: int, rng: np.random.Generator) -> Batch:
    """Return `count` augmented crops of `crop` pixels; the generator alone decides which."""
    greys = torch.empty(count, _CHANNELS, crop, crop)
    fine = torch.empty(count, crop, crop, dtype=torch.int64)
    present = np.empty((count, _CHANNELS), np.float32)
    pixel = np.empty(count, np.float32)
    for index in range(count):
        plate = plates[int(rng.integers(len(plates)))]
        scale = math.exp(rng.uniform(math.log(0.75), math.log(1.35)))
        greys[index], fine[index] = _cut(plate, crop, scale, rng)
        present[index] = plate.present
        if present[index].sum() == _CHANNELS and rng.random() < 0.15:
            present[index, int(rng.integers(_CHANNELS))] = 0.0
        pixel[index] = plate.pixel_m * scale
    greys = _recoloured(greys, fine, rng)
    greys = greys * _uneven(count, crop, rng)
    greys = _blurred(greys, rng)
    greys = greys + _noise(count, crop, rng)
    greys = _coarsened(greys, rng)
    greys = _contrast(greys, rng)
    return Batch(greys, torch.from_numpy(present), fine, torch.from_numpy(pixel))


def _cut(plate: Plate, crop: int, scale: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Cut a crop, turned, mirrored and scaled; the second detector shifted by up to 3 pixels against the first."""
    height, width = plate.fine.shape
    angle = rng.uniform(-0.1, 0.1)
    flip = -1.0 if rng.random() < 0.5 else 1.0
    reach = 0.5 * crop * scale
    y0 = rng.uniform(min(reach, 0.5 * height), max(height - reach, 0.5 * height))
    x0 = rng.uniform(min(reach, 0.5 * width), max(width - reach, 0.5 * width))
    steps = (torch.arange(crop, dtype=torch.float32) - 0.5 * (crop - 1)) * scale
    v, u = torch.meshgrid(steps, steps, indexing="ij")
    y = y0 + math.cos(angle) * v + math.sin(angle) * u
    x = x0 + flip * (math.cos(angle) * u - math.sin(angle) * v)
    off = rng.uniform(-3.0, 3.0, 2) * (rng.random() < 0.4)
    cut = [
        functional.grid_sample(
            plate.greys[None, channel : channel + 1].float(),
            _grid(y + dy, x + dx, height, width),
            mode="bilinear",
            padding_mode="border",
            align_corners=True,
        )[0, 0]
        for channel, (dy, dx) in enumerate(((0.0, 0.0), (float(off[0]), float(off[1]))))
    ]
    row, column = y.round().long(), x.round().long()
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    fine = plate.fine[row.clamp(0, height - 1), column.clamp(0, width - 1)].long()
    return torch.stack(cut), torch.where(inside, fine, torch.full_like(fine, IGNORE))


def _grid(y: Tensor, x: Tensor, height: int, width: int) -> Tensor:
    return torch.stack([2.0 * x / max(1, width - 1) - 1.0, 2.0 * y / max(1, height - 1) - 1.0], dim=-1)[None]


def _recoloured(greys: Tensor, fine: Tensor, rng: np.random.Generator) -> Tensor:
    """Move every class's grey a little, as another material, deposit or session would; both detectors mostly alike."""
    count = len(greys)
    common = rng.normal(0.0, 0.02, (count, 1, CLASSES + 1))
    own = rng.normal(0.0, 0.012, (count, _CHANNELS, CLASSES + 1))
    table = torch.from_numpy((common + own).astype(np.float32))
    table[:, :, CLASSES] = 0.0
    index = fine.clamp(max=CLASSES).flatten(1)[:, None, :].expand(-1, _CHANNELS, -1)
    return greys + torch.gather(table, 2, index).view_as(greys)


def _uneven(count: int, crop: int, rng: np.random.Generator) -> Tensor:
    """Return factors (n, 1 or 2, y, x): slow shading, charging streaks along the scan, two families of curtains."""
    slow = torch.from_numpy(rng.normal(0.0, 0.025, (count, _CHANNELS, 3, 3)).astype(np.float32))
    field = functional.interpolate(slow, size=(crop, crop), mode="bicubic", align_corners=True)
    streaks = _smooth(rng.normal(0.0, 1.0, (count, crop)), 2.0) * rng.exponential(0.01, (count, 1))
    field = field + torch.from_numpy(streaks.astype(np.float32))[:, None, :, None]
    rows = np.arange(crop)
    for sign in (-1.0, 1.0):
        width = math.exp(rng.uniform(math.log(0.8), math.log(6.0)))
        profile = _smooth(rng.normal(0.0, 1.0, (count, 2 * crop)), width)
        strength = rng.exponential(0.02, (count, 1)) * (rng.random((count, 1)) < 0.6)
        begin = rng.uniform(-crop, crop, (count, 1))
        envelope = 1.0 / (1.0 + np.exp(-(rows[None] - begin) / (0.05 * crop)))
        angle = math.tan(sign * _ROCKING_RAD * rng.uniform(0.0, 1.2))
        column = np.rint(np.arange(crop)[None, :] + angle * rows[:, None] + 0.5 * crop).astype(np.int64)
        curtain = (profile * strength)[:, column] * envelope[:, :, None]
        field = field + torch.from_numpy(curtain.astype(np.float32))[:, None]
    return (1.0 + field).clamp(0.5, 1.5)


def _smooth(noise: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    """Smooth rows of white noise to a correlation of `width` samples, to unit spread."""
    from scipy.ndimage import gaussian_filter1d

    soft: NDArray[np.float64] = gaussian_filter1d(noise, width, axis=1, mode="wrap")
    soft /= soft.std() + 1e-9
    return soft


def _blurred(greys: Tensor, rng: np.random.Generator) -> Tensor:
    """Defocus every image by up to 1.4 pixels (sigma), most of them hardly."""
    count, channels = greys.shape[:2]
    sigma = np.repeat(rng.uniform(0.0, 1.3, count) * (rng.random(count) < 0.4) + 0.15, channels)
    return _gauss(greys, sigma)


def _gauss(images: Tensor, sigma: NDArray[np.float64]) -> Tensor:
    offsets = np.arange(-_BLUR_RADIUS, _BLUR_RADIUS + 1)
    kernel = np.exp(-0.5 * (offsets[None] / sigma[:, None]) ** 2)
    kernel /= kernel.sum(axis=1, keepdims=True)
    weights = torch.from_numpy(kernel.astype(np.float32))
    flat = images.flatten(0, 1)[None]
    flat = functional.pad(flat, (_BLUR_RADIUS,) * 4, mode="replicate")
    flat = functional.conv2d(flat, weights[:, None, :, None], groups=flat.shape[1])
    flat = functional.conv2d(flat, weights[:, None, None, :], groups=flat.shape[1])
    return flat[0].view_as(images)


def _noise(count: int, crop: int, rng: np.random.Generator) -> Tensor:
    """Return detector noise, partly correlated between pixels; the second detector several times the first."""
    low, high = np.array([0.002, 0.003]), np.array([0.020, 0.045])
    sigma = np.exp(rng.uniform(np.log(low), np.log(high), (count, _CHANNELS)))
    white = torch.from_numpy(rng.standard_normal((count, _CHANNELS, crop, crop), dtype=np.float32))
    width = rng.uniform(0.1, 1.1, count * _CHANNELS)
    soft = _gauss(white, width)
    soft = soft / soft.std(dim=(2, 3), keepdim=True)
    return soft * torch.from_numpy(sigma.astype(np.float32))[:, :, None, None]


def _coarsened(greys: Tensor, rng: np.random.Generator) -> Tensor:
    """Give some images half their resolution, as an image that was enlarged to reach the network's pixel range has."""
    coarse = functional.interpolate(functional.avg_pool2d(greys, 2), scale_factor=2.0, mode="bilinear")
    which = torch.from_numpy(rng.random(len(greys)) < 0.3)
    return torch.where(which[:, None, None, None], coarse[:, :, : greys.shape[2], : greys.shape[3]], greys)


def _contrast(greys: Tensor, rng: np.random.Generator) -> Tensor:
    """Change gain, offset and gamma as another contrast and brightness would, and clip at black and white."""
    count = len(greys)

    def values(low: float, high: float, own: float) -> Tensor:
        common = rng.uniform(math.log(low), math.log(high), (count, 1))
        logs = common + rng.normal(0.0, own, (count, _CHANNELS))
        return torch.from_numpy(np.exp(logs).astype(np.float32))[:, :, None, None]

    gain, gamma = values(0.87, 1.15, 0.03), values(0.85, 1.2, 0.03)
    offset = rng.uniform(-0.03, 0.04, (count, 1)) + rng.normal(0.0, 0.01, (count, _CHANNELS))
    bright = greys * gain + torch.from_numpy(offset.astype(np.float32))[:, :, None, None]
    return bright.clamp(1e-4, 1.0) ** gamma
