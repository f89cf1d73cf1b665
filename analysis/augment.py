"""Training crops that differ as real sessions differ: geometry, contrast, noise, curtains, charging, missing detectors.

Ranges are the greys of published kintsugi images and what networks were seen to fail on: gain and offset, gamma, noise
correlated between pixels, curtains at both rocking angles, a detector shifted by up to 3 pixels or missing, defocus.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from analysis.network import CLASSES, DETECTORS, IMAGES, SLICES, by_detector, normalised, resampled, resampling
from analysis.phases import IGNORE

if TYPE_CHECKING:
    from analysis.samples import Sample

_ROCKING_RAD = math.radians(3.0)
_CHANNELS = len(DETECTORS)
_BLUR_RADIUS = 4


@dataclass(frozen=True)
class Plate:
    """One training image and the slices beside it, on the network's pixel range.

    greys : float16 (9, y, x), the detectors of this slice, the one before, the one after; present : (9,), 0 or 1
    fine : uint8 (3, y, x), the classes of each slice
    centres : (n, 2), row and column, about which crops are cut; None: anywhere
    """

    greys: Tensor
    present: NDArray[np.float32]
    fine: Tensor
    pixel_m: float
    centres: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Batch:
    """Greys (n, 9, y, x), present (n, 9), fine (n, y, x) int64 with IGNORE, pixel_m (n,)."""

    greys: Tensor
    present: Tensor
    fine: Tensor
    pixel_m: Tensor

    def to(self, device: str) -> Batch:
        """Return it on a device of torch."""
        return Batch(*(part.to(device) for part in (self.greys, self.present, self.fine, self.pixel_m)))


def plate_of(sample: Sample) -> Plate:
    """Bring a sample to the network's pixel range and half precision; ValueError when truth and images differ."""
    up, down = resampling(sample.pixel_m)
    shape = sample.fine.shape
    fine = torch.full((len(SLICES), *shape), IGNORE, dtype=torch.uint8)
    greys = torch.zeros(1, IMAGES, *shape)
    present = np.zeros(IMAGES, np.float32)
    for place, name in enumerate(SLICES):
        one = sample if place == 0 else sample.beside.get(name)
        if one is None:
            continue
        for detector, image in by_detector(one.channels).items():
            if one.fine.shape != shape or image.shape != shape:
                msg = f"truth {one.fine.shape} and images {image.shape} differ"
                raise ValueError(msg)
            slot = place * _CHANNELS + DETECTORS.index(detector)
            greys[0, slot] = torch.from_numpy(np.ascontiguousarray(normalised(image)))
            present[slot] = 1.0
        fine[place] = torch.from_numpy(np.ascontiguousarray(one.fine))
    if up > 1:
        fine = fine.repeat_interleave(up, 1).repeat_interleave(up, 2)
    elif down > 1:
        fine = fine[:, down // 2 :: down, down // 2 :: down]
    work = resampled(greys, up, down)[0, :, : fine.shape[1], : fine.shape[2]]
    return Plate(work.half(), present, fine, sample.pixel_m * down / up)


def draw(plates: Sequence[Plate], count: int, crop: int, rng: np.random.Generator, *, recolour: bool = True) -> Batch:
    """Return `count` augmented crops of `crop` pixels; the generator alone decides which.

    `recolour` moves each class's grey a little; where few pixels are marked that would tell which.
    """
    greys = torch.zeros(count, len(SLICES), _CHANNELS, crop, crop)
    fine = torch.full((count, len(SLICES), crop, crop), IGNORE, dtype=torch.int64)
    present = np.zeros((count, len(SLICES), _CHANNELS), np.float32)
    pixel = np.empty(count, np.float32)
    for index in range(count):
        plate = plates[int(rng.integers(len(plates)))]
        scale = math.exp(rng.uniform(math.log(0.75), math.log(1.35)))
        present[index] = _shown(plate.present.reshape(len(SLICES), _CHANNELS), rng)
        greys[index], fine[index] = _cut(plate, crop, scale, present[index].any(axis=1), rng)
        pixel[index] = plate.pixel_m * scale
    owner, place = np.nonzero(present.any(axis=2))
    greys[owner, place] = _acquired(greys[owner, place], fine[owner, place], owner, rng, recolour=recolour)
    return Batch(
        greys.flatten(1, 2), torch.from_numpy(present.reshape(count, IMAGES)), fine[:, 0], torch.from_numpy(pixel)
    )


def _shown(there: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return what of a plate's images (3, 3) is shown: detectors may be missing, and so may the slices beside."""
    shown = there.copy()
    missing = rng.random(_CHANNELS) < (0.08, 0.12, 0.35)
    if (shown[0] * ~missing).any():
        shown *= ~missing
    beside = rng.random()
    shown[1:] *= np.array([[beside > 0.4], [beside > 0.7]])
    return shown


def _acquired(
    images: Tensor, fine: Tensor, owner: NDArray[np.int64], rng: np.random.Generator, *, recolour: bool
) -> Tensor:
    """Return images (m, 3, y, x) as a session might have taken them; those of one `owner` (m,) are of one session.

    Colour, focus, noise and contrast are a session's own, milling and charging a slice's.
    """
    count, crop = int(owner.max()) + 1, images.shape[-1]
    if recolour:
        images = _recoloured(images, fine, count, owner, rng)
    images = images * _uneven(len(images), crop, rng)
    images = _blurred(images, count, owner, rng)
    images = images + _noise(count, owner, crop, rng)
    images = _coarsened(images, count, owner, rng)
    return _contrast(images, count, owner, rng)


def _cut(
    plate: Plate, crop: int, scale: float, shown: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Cut a crop, turned, mirrored and scaled; detectors lie up to 3 pixels off each other, slices up to 2."""
    height, width = plate.fine.shape[1:]
    angle = rng.uniform(-0.1, 0.1)
    flip = -1.0 if rng.random() < 0.5 else 1.0
    reach = 0.5 * crop * scale
    y0 = rng.uniform(min(reach, 0.5 * height), max(height - reach, 0.5 * height))
    x0 = rng.uniform(min(reach, 0.5 * width), max(width - reach, 0.5 * width))
    if plate.centres is not None:
        row, column = plate.centres[int(rng.integers(len(plate.centres)))]
        off = rng.uniform(-0.5, 0.5, 2) * reach
        y0 = float(np.clip(row + off[0], min(reach, 0.5 * height), max(height - reach, 0.5 * height)))
        x0 = float(np.clip(column + off[1], min(reach, 0.5 * width), max(width - reach, 0.5 * width)))
    steps = (torch.arange(crop, dtype=torch.float32) - 0.5 * (crop - 1)) * scale
    v, u = torch.meshgrid(steps, steps, indexing="ij")
    y = y0 + math.cos(angle) * v + math.sin(angle) * u
    x = x0 + flip * (math.cos(angle) * u - math.sin(angle) * v)
    apart = rng.uniform(-3.0, 3.0, (_CHANNELS, 2)) * (rng.random() < 0.4)
    apart[0] = 0.0
    drifted = rng.uniform(-2.0, 2.0, (len(SLICES), 2)) * (rng.random() < 0.5)
    drifted[0] = 0.0
    greys = torch.zeros(len(SLICES), _CHANNELS, crop, crop)
    fine = torch.full((len(SLICES), crop, crop), IGNORE, dtype=torch.int64)
    for place in np.flatnonzero(shown):
        here_y, here_x = y + float(drifted[place, 0]), x + float(drifted[place, 1])
        for channel, (dy, dx) in enumerate(apart.tolist()):
            source = place * _CHANNELS + channel
            greys[place, channel] = functional.grid_sample(
                plate.greys[None, source : source + 1].float(),
                _grid(here_y + dy, here_x + dx, height, width),
                mode="bilinear",
                padding_mode="border",
                align_corners=True,
            )[0, 0]
        row, column = here_y.round().long(), here_x.round().long()
        inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        classes = plate.fine[place][row.clamp(0, height - 1), column.clamp(0, width - 1)].long()
        fine[place] = torch.where(inside, classes, fine[place])
    return greys, fine


def _grid(y: Tensor, x: Tensor, height: int, width: int) -> Tensor:
    return torch.stack([2.0 * x / max(1, width - 1) - 1.0, 2.0 * y / max(1, height - 1) - 1.0], dim=-1)[None]


def _recoloured(images: Tensor, fine: Tensor, count: int, owner: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
    """Move every class's grey a little, as another material, deposit or session would; both detectors mostly alike."""
    common = rng.normal(0.0, 0.02, (count, 1, CLASSES + 1))
    own = rng.normal(0.0, 0.012, (count, _CHANNELS, CLASSES + 1))
    table = torch.from_numpy((common + own)[owner].astype(np.float32))
    table[:, :, CLASSES] = 0.0
    index = fine.clamp(max=CLASSES).flatten(1)[:, None, :].expand(-1, _CHANNELS, -1)
    return images + torch.gather(table, 2, index).view_as(images)


def _uneven(count: int, crop: int, rng: np.random.Generator) -> Tensor:
    """Return factors (n, 1 or 3, y, x): slow shading, charging streaks along the scan, two families of curtains."""
    slow = torch.from_numpy(rng.normal(0.0, 0.025, (count, _CHANNELS, 3, 3)).astype(np.float32))
    field = functional.interpolate(slow, size=(crop, crop), mode="bicubic", align_corners=True)
    streaks = _smooth(rng.normal(0.0, 1.0, (count, crop)), 2.0) * rng.exponential(0.01, (count, 1))
    field = field + torch.from_numpy(streaks.astype(np.float32))[:, None, :, None]
    rows = np.arange(crop)
    for sign in (-1.0, 1.0):
        width = math.exp(rng.uniform(math.log(0.8), math.log(6.0)))
        profile = _smooth(rng.normal(0.0, 1.0, (count, 2 * crop)), width)
        strength = rng.exponential(0.02, (count, 1)) * (rng.random((count, 1)) < 0.6)
        strength = strength * np.where(rng.random((count, 1)) < 0.12, 4.0, 1.0)
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


def _blurred(images: Tensor, count: int, owner: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
    """Defocus every image by up to 1.4 pixels (sigma), most of them hardly."""
    sigma = rng.uniform(0.0, 1.3, count) * (rng.random(count) < 0.4) + 0.15
    return _gauss(images, np.repeat(sigma[owner], _CHANNELS))


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


def _noise(count: int, owner: NDArray[np.int64], crop: int, rng: np.random.Generator) -> Tensor:
    """Return detector noise, partly correlated between pixels; the other detectors several times the first."""
    low, high = np.array([0.002, 0.003, 0.003]), np.array([0.020, 0.045, 0.040])
    sigma = np.exp(rng.uniform(np.log(low), np.log(high), (count, _CHANNELS)))
    sigma = (sigma * np.where(rng.random((count, 1)) < 0.12, 3.0, 1.0))[owner]
    width = rng.uniform(0.1, 1.1, (count, _CHANNELS))[owner].ravel()
    white = torch.from_numpy(rng.standard_normal((len(owner), _CHANNELS, crop, crop), dtype=np.float32))
    soft = _gauss(white, width)
    soft = soft / soft.std(dim=(2, 3), keepdim=True)
    return soft * torch.from_numpy(sigma.astype(np.float32))[:, :, None, None]


def _coarsened(images: Tensor, count: int, owner: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
    """Give some images half their resolution, as an image that was enlarged to reach the network's pixel range has."""
    coarse = functional.interpolate(functional.avg_pool2d(images, 2), scale_factor=2.0, mode="bilinear")
    which = torch.from_numpy((rng.random(count) < 0.3)[owner])
    return torch.where(which[:, None, None, None], coarse[:, :, : images.shape[2], : images.shape[3]], images)


def _contrast(images: Tensor, count: int, owner: NDArray[np.int64], rng: np.random.Generator) -> Tensor:
    """Change gain, offset and gamma as another contrast and brightness would, and clip at black and white."""

    def values(low: float, high: float, own: float) -> Tensor:
        common = rng.uniform(math.log(low), math.log(high), (count, 1))
        logs = common + rng.normal(0.0, own, (count, _CHANNELS))
        return torch.from_numpy(np.exp(logs)[owner].astype(np.float32))[:, :, None, None]

    gain, gamma = values(0.85, 1.15, 0.03), values(0.8, 1.25, 0.03)
    offset = rng.uniform(-0.05, 0.05, (count, 1)) + rng.normal(0.0, 0.01, (count, _CHANNELS))
    drift = rng.normal(0.0, 0.005, (len(images), 1))  # from slice to slice
    bright = images * gain + torch.from_numpy((offset[owner] + drift).astype(np.float32))[:, :, None, None]
    return bright.clamp(1e-4, 1.0) ** gamma
