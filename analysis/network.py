"""The segmentation network: a small U-Net that sees detector images and a pixel size, and tells seven fine classes.

The stem folds 2 x 2 pixels into channels (PixelUnshuffle), so that four levels of convolutions cost a quarter; the head
unfolds them again. No instance normalisation (its statistics would depend on the tile), no attention. The slices before
and after this one may be shown as well: the one before while a run goes on, both once it is over. It sees 19 planes: an
image of each detector and slice, a constant one for each that says whether it is there, and one that says the pixel
size. Training drops images, so one detector's of one slice is enough. Constant planes and images that are not there are
never laid out (`Network._first`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from analysis.overlay import length_text
from analysis.phases import Fine
from analysis.precision import precision_on

DETECTORS: tuple[str, ...] = ("CBS", "TLD", "ETD")
ALONE: tuple[str, ...] = ("CBS", "TLD")
"""Detectors of which one is enough; others only help."""
SLICES: tuple[str, ...] = ("this", "before", "after")
CLASSES = len(Fine)
IMAGES = len(DETECTORS) * len(SLICES)
"""What a network sees at most: the detectors of this slice, of the one before, of the one after."""
EVERY = range(IMAGES)
_PLANES = 2 * IMAGES + 1
_FOLD = 4
"""Pixels that the stem folds into one: planes have this many channels each there."""
_MULTIPLE = 32
_TILE_PX = 6_000_000
_TILE_EDGE = 2048
#: Of an image whose pixels are binned for the network: its probabilities are laid out on its own pixels again.
_FINE_PX, _FINE_EDGE = 16_000_000, 4096
_HALO = 96
_STRIP = 64
#: A detector whose greys differ by less and by noise alone, or of whose pixels more are white, shows nothing.
_LEAST_SPREAD, _MOST_WHITE = 0.02, 0.9
PIXEL_MIN_M = 25e-9
PIXEL_MAX_M = 115e-9
_PIXEL_REFERENCE_M = 60e-9
#: Pixels finer or coarser than any that a FIB-SEM takes: a unit was mistaken.
_FINEST_M, _COARSEST_M = 0.5e-9, 2e-6
Channels = Mapping[str, NDArray[np.float32]]
"""Greys 0..1 by detector's name, float32 (y, x)."""
_ALIASES: Mapping[str, str] = {"CBS": "CBS", "BSE": "CBS", "ABS": "CBS", "TLD": "TLD", "T1": "TLD", "ETD": "ETD"}


class _Block(nn.Module):
    """Two 3 x 3 convolutions, each with batch normalisation and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm1: nn.Module = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.conv1(x))

    def rest(self, x: Tensor) -> Tensor:
        """Return what follows from the first convolution."""
        x = functional.relu(self.norm1(x), inplace=True)
        return functional.relu(self.norm2(self.conv2(x)), inplace=True)

    def fuse(self) -> None:
        """Fold the normalisations into the convolutions; for inference only."""
        if isinstance(self.norm1, nn.BatchNorm2d) and isinstance(self.norm2, nn.BatchNorm2d):
            self.conv1 = fuse_conv_bn_eval(self.conv1, self.norm1)
            self.conv2 = fuse_conv_bn_eval(self.conv2, self.norm2)
            self.norm1 = nn.Identity()
            self.norm2 = nn.Identity()


class Network(nn.Module):
    """Images (n, k, y, x) to class scores (n, 7, y, x); y and x are multiples of 32.

    All that reads takes the same four: `greys` 0..1, `present` (n, k) 1 where an image is there and 0 where not,
    `pixel_m` (n,) metres, and `slots`, which of the IMAGES these k are; all of them unless it is said.
    """

    def __init__(self, base: int = 16, depth: int = 4) -> None:
        super().__init__()
        widths = [base * 2**level for level in range(depth + 1)]
        self.stem = nn.PixelUnshuffle(2)
        self.down = nn.ModuleList()
        inputs = _FOLD * _PLANES
        for width in widths:
            self.down.append(_Block(inputs, width))
            inputs = width
        self.reduce = nn.ModuleList()
        self.up = nn.ModuleList()
        for wide, width in zip(reversed(widths[1:]), reversed(widths[:-1]), strict=True):
            self.reduce.append(nn.Conv2d(wide, width, 1))
            self.up.append(_Block(2 * width, width))
        self.head = nn.Conv2d(base, _FOLD * CLASSES, 1)
        self.unfold = nn.PixelShuffle(2)

    def forward(self, greys: Tensor, present: Tensor, pixel_m: Tensor, slots: Sequence[int] = EVERY) -> Tensor:
        """Return the scores (logits) of the seven classes, same height and width as the images."""
        return self.with_gist(greys, present, pixel_m, slots)[0]

    def with_gist(
        self, greys: Tensor, present: Tensor, pixel_m: Tensor, slots: Sequence[int] = EVERY
    ) -> tuple[Tensor, Tensor]:
        """Return the scores, and what the deepest level holds in the mean over the image, (n, widest level)."""
        levels = self.read(greys, present, pixel_m, slots)
        return self.told(levels), levels[-1].float().mean(dim=(2, 3))

    def read(self, greys: Tensor, present: Tensor, pixel_m: Tensor, slots: Sequence[int] = EVERY) -> list[Tensor]:
        """Return what each level holds of the images, the deepest last."""
        first, *deeper = self.down
        levels = [cast("_Block", first).rest(self._first(greys, present, pixel_m, slots))]
        for block in deeper:
            levels.append(block(functional.max_pool2d(levels[-1], 2)))
        return levels

    def _first(self, greys: Tensor, present: Tensor, pixel_m: Tensor, slots: Sequence[int]) -> Tensor:
        """Return the first convolution of all 19 planes.

        What the constant planes add is the same everywhere but at the edges, where the convolution reaches beyond the
        image: a 3 x 3 image of them has every case once.
        """
        conv = cast("_Block", self.down[0]).conv1
        channels = torch.arange(_FOLD * IMAGES, device=greys.device).view(IMAGES, _FOLD)[list(slots)].flatten()
        there = present[:, :, None, None].to(greys.dtype)
        images = self.stem(greys * there).contiguous(memory_format=torch.channels_last)
        found = functional.conv2d(images, conv.weight[:, channels], padding=1)
        said = torch.zeros(len(greys), IMAGES, device=greys.device)
        said[:, list(slots)] = present
        size = torch.log2(pixel_m / _PIXEL_REFERENCE_M).unsqueeze(1)
        constant = torch.cat([said, size], dim=1).repeat_interleave(_FOLD, dim=1)[:, :, None, None].expand(-1, -1, 3, 3)
        cases = functional.conv2d(constant, conv.weight[:, _FOLD * IMAGES :], conv.bias, padding=1).to(found.dtype)
        parts = (slice(0, 1), slice(1, -1), slice(-1, None))
        for rows, columns in itertools.product(parts, parts):
            found[:, :, rows, columns] += cases[:, :, rows, columns]
        return found

    def told(self, levels: list[Tensor]) -> Tensor:
        """Return the scores that follow from what the levels hold."""
        *kept, x = levels
        for reduce, block in zip(self.reduce, self.up, strict=True):
            x = functional.interpolate(reduce(x), scale_factor=2.0, mode="nearest")
            x = block(torch.cat([kept.pop(), x], dim=1))
        scores: Tensor = self.unfold(self.head(x))
        return scores

    def fuse(self) -> Network:
        """Fold all batch normalisations into their convolutions, for inference; returns the network itself."""
        self.eval()
        for module in self.modules():
            if isinstance(module, _Block):
                module.fuse()
        return self


def channels_last(network: Network) -> None:
    """Lay a network's weights out with the channels last, which convolutions on a CPU are fastest with."""
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class Prediction:
    """Probabilities 0..1 of the fine classes, float32 (7, y, x), of the part of an image that begins at (top, left).

    `gist` is what the network's deepest level holds in the mean over the part, float32 (widest level,).
    """

    top: int
    left: int
    probabilities: NDArray[np.float32]
    gist: NDArray[np.float32]


def detector_of(name: str) -> str | None:
    """Return which of DETECTORS a channel's name (CBS-A, BSE, TLD-SE...) means, None for one unknown."""
    for part in name.upper().replace("-", " ").replace("_", " ").replace(".", " ").split():
        if part in _ALIASES:
            return _ALIASES[part]
    return None


def by_detector(channels: Mapping[str, NDArray[np.float32]]) -> dict[str, NDArray[np.float32]]:
    """Return the images (y, x) of the detectors that the network knows.

    ValueError when none of those is among them of which one is enough, or shapes differ.
    """
    known: dict[str, NDArray[np.float32]] = {}
    for name, image in channels.items():
        detector = detector_of(name)
        if detector is not None and detector not in known:
            known[detector] = image
    if not any(name in ALONE for name in known):
        msg = f"no channel of {', '.join(channels) or 'none'} is one the network can label by: {' or '.join(ALONE)}"
        raise ValueError(msg)
    shapes = {image.shape for image in known.values()}
    if len(shapes) > 1 or any(image.ndim != 2 for image in known.values()):
        sizes = ", ".join(f"{name} {' x '.join(map(str, image.shape))}" for name, image in channels.items())
        msg = f"the channels of a slice have one height and width; these have {sizes}"
        raise ValueError(msg)
    return known


def showing(channels: Channels) -> tuple[dict[str, NDArray[np.float32]], tuple[str, ...]]:
    """Return the images of the known detectors that show anything, and the names of the detectors that don't.

    A detector that is off or driven to white shows nothing; believed, its black would be taken for pores. There are no
    images when no detector is left of which one is enough. ValueError as `by_detector`.
    """
    known = by_detector(channels)
    seen = {name: image for name, image in known.items() if _shows(image)}
    blank = tuple(name for name in known if name not in seen)
    return (seen if any(name in ALONE for name in seen) else {}), blank


def _shows(image: NDArray[np.float32]) -> bool:
    sample = _sampled(image)
    if (sample >= 1.0).mean() > _MOST_WHITE:
        return False
    return _spread(sample) >= _LEAST_SPREAD or _is_structure(image)


def _is_structure(image: NDArray[np.float32]) -> bool:
    """Tell whether what little an image shows is more than noise, as 10 bits in a 16-bit file may: it is no finer."""
    rows, columns = (slice(max(0, (size - 512) // 2), (size + 512) // 2) for size in image.shape)
    middle = image[rows, columns]
    height, width = (size // 4 * 4 for size in middle.shape)
    if min(height, width) < _MULTIPLE:
        return False
    coarse = middle[:height, :width].reshape(height // 4, 4, width // 4, 4).mean(axis=(1, 3))
    return _spread(coarse) > 0.5 * _spread(middle) > 0.0


def _spread(greys: NDArray[np.float32]) -> float:
    low, high = np.percentile(greys, (0.2, 99.8))
    return float(high - low)


def _sampled(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return about 512 x 512 pixels of an image, enough for its percentiles."""
    return image[:: max(1, image.shape[0] // 512), :: max(1, image.shape[1] // 512)]


def resampling(pixel_m: float) -> tuple[int, int]:
    """Return (up, down), the whole numbers by which an image is enlarged or binned to reach the network's pixel range.

    ValueError for a pixel that is not above zero, or none that a FIB-SEM takes.
    """
    if not (math.isfinite(pixel_m) and pixel_m > 0):
        msg = f"a pixel size is a length above zero, not {pixel_m}"
        raise ValueError(msg)
    if not _FINEST_M * (1 - 1e-6) <= pixel_m <= _COARSEST_M * (1 + 1e-6):
        msg = (
            f"pixels of {length_text(pixel_m)} are no FIB-SEM's, which are between {length_text(_FINEST_M)} and "
            f"{length_text(_COARSEST_M)}; look at the pixel size and its unit: was nm meant?"
        )
        raise ValueError(msg)
    up = max(1, math.ceil(pixel_m / PIXEL_MAX_M - 1e-6))
    down = max(1, math.ceil(PIXEL_MIN_M / pixel_m - 1e-6))
    return up, down


def normalised(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return greys for the network, float32 (y, x): an image that leaves most of its range empty is stretched.

    Contrast is locked over a run and grey means phase, so an ordinary image is passed as it is; an image that uses
    less than half of its range (12 bits in a 16-bit file) would else be nearly black to the network.
    """
    top = float(np.percentile(_sampled(image), 99.8))
    if 0.0 < top < 0.5:
        return image * np.float32(0.9 / top)
    return image


def resampled(greys: Tensor, up: int, down: int) -> Tensor:
    """Enlarge (bilinear) or bin (mean) images (n, c, y, x) by whole numbers; edges that fill no bin are mirrored."""
    if up > 1:
        return functional.interpolate(greys, scale_factor=float(up), mode="bilinear", align_corners=False)
    if down > 1:
        greys = functional.pad(greys, (0, -greys.shape[3] % down, 0, -greys.shape[2] % down), mode="replicate")
        return functional.avg_pool2d(greys, down)
    return greys


def predict(
    network: Network,
    channels: Channels,
    pixel_m: float,
    *,
    before: Channels | None = None,
    after: Channels | None = None,
    temperature: float = 1.0,
    mirrored: bool = False,
) -> Iterator[Prediction]:
    """Yield the class probabilities of an image of any size, part by part; it is read in tiles when it is large.

    Parameters
    ----------
    network : a fused network in evaluation mode
    channels : greys 0..1 by detector name, float32 (y, x), one or more of DETECTORS
    pixel_m : the pixel's edge, metres; images outside the network's range are enlarged or binned on the way, and the
        probabilities given back on the image's own pixels
    before, after : the slices beside this one, moved onto its pixels
    temperature : the scores are divided by it, so that probabilities are as often right as they say
    mirrored : take the mean of the scores of the image and of its mirror image: labels a little better, in twice the
        time

    Raises
    ------
    ValueError : no known detector, shapes that differ, an impossible pixel size
    """
    known: dict[int, NDArray[np.float32]] = {}
    height, width = next(iter(by_detector(channels).values())).shape
    for place, beside in enumerate((channels, before, after)):
        for name, image in (by_detector(beside) if beside is not None else {}).items():
            if image.shape != (height, width):
                other = " x ".join(map(str, image.shape))
                msg = f"the slice {SLICES[place]} has {other} pixels, this one {height} x {width}"
                raise ValueError(msg)
            known[place * len(DETECTORS) + DETECTORS.index(name)] = normalised(image)
    up, down = resampling(pixel_m)
    if height * width * up * up / (down * down) <= _TILE_PX and height * width <= _FINE_PX:
        yield from _part(network, known, pixel_m, (0, height), (0, width), temperature, mirrored)
        return
    edge = min(_TILE_EDGE, max(_MULTIPLE, _FINE_EDGE // down // _MULTIPLE * _MULTIPLE)) * down // up
    halo = _HALO * down // up
    for top in range(0, height, edge):
        for left in range(0, width, edge):
            rows = (max(0, top - halo), min(height, top + edge + halo))
            columns = (max(0, left - halo), min(width, left + edge + halo))
            x = left - columns[0]
            for part in _part(network, known, pixel_m, rows, columns, temperature, mirrored):
                first, last = max(0, top - part.top), min(part.probabilities.shape[1], top + edge - part.top)
                if first < last:
                    kept = part.probabilities[:, first:last, x : x + edge]
                    yield Prediction(part.top + first, left, kept, part.gist)


def _part(
    network: Network,
    known: Mapping[int, NDArray[np.float32]],
    pixel_m: float,
    rows: tuple[int, int],
    columns: tuple[int, int],
    temperature: float,
    mirrored: bool,
) -> Iterator[Prediction]:
    """Yield the probabilities of a part in strips; `known` are the images by their place among the network's.

    Strips are small enough for a processor's cache, which makes what follows the network twice as fast.
    """
    height, width = rows[1] - rows[0], columns[1] - columns[0]
    work = torch.empty(1, len(known), height, width)
    for image, kept in zip(known.values(), work[0], strict=True):
        kept.copy_(torch.from_numpy(image[slice(*rows), slice(*columns)]))
    up, down = resampling(pixel_m)
    device = next(network.parameters()).device
    dtype: torch.dtype = getattr(torch, precision_on(device.type))
    with torch.inference_mode():
        work = resampled(work, up, down).to(device, dtype)
        size = work.shape[2:]
        scores, gist = _scored(network, work, tuple(known), pixel_m * down / up)
        if mirrored:
            scores = 0.5 * (scores + _scored(network, work.flip(3), tuple(known), pixel_m * down / up)[0].flip(3))
        del work
        mean = gist[0].cpu().numpy()
        scores = scores.to("cpu")
        strip = size[0] if down > 1 else _STRIP * up  # what is enlarged again is smooth across strips
        for first in range(0, size[0], strip):
            # laid out class by class first, which softmax takes half the time with
            told = scores[:, :, first : first + strip].to(torch.float32, memory_format=torch.contiguous_format)
            probabilities = torch.softmax(told / temperature, dim=1)
            if up > 1:
                probabilities = functional.avg_pool2d(probabilities, up)
            elif down > 1:
                enlarged = functional.interpolate(probabilities, scale_factor=float(down), mode="bilinear")
                probabilities = enlarged[:, :, :height, :width]
            yield Prediction(rows[0] + first // up, columns[0], probabilities[0].contiguous().numpy(), mean)


def _scored(network: Network, work: Tensor, slots: Sequence[int], pixel_m: float) -> tuple[Tensor, Tensor]:
    """Return the scores (1, 7, y, x) and the gist of images (1, k, y, x) of any size; `slots` as for the network."""
    height, width = work.shape[2:]
    size_m = torch.tensor([pixel_m], device=work.device)
    there = torch.ones(1, len(slots), device=work.device)
    padded = functional.pad(work, (0, -width % _MULTIPLE, 0, -height % _MULTIPLE), mode="replicate")
    with torch.autocast("cpu", torch.bfloat16, enabled=work.dtype is torch.bfloat16):
        scores, gist = network.with_gist(padded, there, size_m, slots)
    return scores[:, :, :height, :width], gist
