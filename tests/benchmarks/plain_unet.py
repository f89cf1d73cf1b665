"""A rival: a plain U-Net of the shape that nnU-Net would plan, trained on the same images with the same augmentation.

Instance normalisation, leaky ReLU, 32 features doubled at every level up to 320, full resolution, cross-entropy with
Dice, SGD with Nesterov momentum and polynomial decay (Isensee et al., Nature Methods 2021, "nnU-Net").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from analysis.augment import Plate, draw, plate_of
from analysis.network import CLASSES, IMAGES
from analysis.phases import Fine, merged
from analysis.samples import Sample
from analysis.train import loss_of

FEATURES = (32, 64, 128, 256, 320)


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    layers: list[nn.Module] = []
    for number in range(2):
        layers += [
            nn.Conv2d(inputs if number == 0 else outputs, outputs, 3, stride if number == 0 else 1, 1),
            nn.InstanceNorm2d(outputs, affine=True),
            nn.LeakyReLU(0.01, inplace=True),
        ]
    return nn.Sequential(*layers)


class PlainUNet(nn.Module):
    """Planes (n, 19, y, x) to class scores (n, 7, y, x); y and x are multiples of 16."""

    def __init__(self) -> None:
        super().__init__()
        widths = (2 * IMAGES + 1, *FEATURES)
        self.down = nn.ModuleList(_block(a, b, 1 if level == 0 else 2) for level, (a, b) in enumerate(pairwise(widths)))
        pairs = list(zip(FEATURES[::-1], FEATURES[-2::-1], strict=False))
        self.rise = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in pairs)
        self.up = nn.ModuleList(_block(2 * b, b) for _, b in pairs)
        self.head = nn.Conv2d(FEATURES[0], CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for block in self.down:
            x = block(x)
            kept.append(x)
        kept.pop()
        for rise, block in zip(self.rise, self.up, strict=True):
            x = block(torch.cat([kept.pop(), rise(x)], dim=1))
        scores: Tensor = self.head(x)
        return scores


def _planes(greys: Tensor, present: Tensor, pixel_m: Tensor) -> Tensor:
    """Lay out what our own network sees: images, which of them are there, and the pixel size, (n, 19, y, x)."""
    count, _, height, width = greys.shape
    there = present.view(count, -1, 1, 1)
    size = torch.log2(pixel_m / 60e-9).view(count, 1, 1, 1)
    return torch.cat([greys * there, there.expand(-1, -1, height, width), size.expand(-1, -1, height, width)], dim=1)


def trained(plates: Sequence[Plate], steps: int, seed: int, told: Callable[[int, float], None]) -> PlainUNet:
    """Train on crops of the plates, as many and as large as our own network sees."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = PlainUNet().to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.99, nesterov=True, weight_decay=3e-5)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: (1 - step / steps) ** 0.9)
    for step in range(steps):
        batch = draw(plates, 8, 192, rng)
        seen = _planes(batch.greys, batch.present, batch.pixel_m).contiguous(memory_format=torch.channels_last)
        loss = loss_of(network(seen), batch.fine, torch.ones(CLASSES))
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 12.0)
        optimiser.step()
        schedule.step()
        told(step + 1, float(loss.detach()))
    return network.eval()


def labelled(network: PlainUNet, sample: Sample) -> NDArray[np.uint8]:
    """Return phases of a sample, uint8 (y, x)."""
    plate = plate_of(sample)
    with torch.inference_mode():
        seen = _planes(plate.greys[None].float(), torch.from_numpy(plate.present)[None], torch.tensor([plate.pixel_m]))
        height, width = seen.shape[2:]
        seen = functional.pad(seen, (0, -width % 16, 0, -height % 16), mode="replicate")
        shares = torch.softmax(network(seen), dim=1)[0, :, :height, :width]
    fine = shares.argmax(dim=0).numpy().astype(np.uint8)
    step = round(sample.fine.shape[0] / fine.shape[0]), round(fine.shape[0] / sample.fine.shape[0])
    if step[1] > 1:  # it was enlarged
        fine = fine[:: step[1], :: step[1]]
    elif step[0] > 1:
        fine = fine.repeat(step[0], 0).repeat(step[0], 1)
    whole = np.full(sample.fine.shape, Fine.ACTIVE, np.uint8)
    high, wide = min(whole.shape[0], fine.shape[0]), min(whole.shape[1], fine.shape[1])
    whole[:high, :wide] = fine[:high, :wide]
    return merged(whole)
