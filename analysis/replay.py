"""Crops of training images that a model keeps, so that teaching it something new lets it forget nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from analysis.files import write_whole
from analysis.phases import IGNORE, Fine

if TYPE_CHECKING:
    from analysis.augment import Plate

FILE = "replay.safetensors"
_CROPS, _EDGE = 24, 160
#: Only the first so many training images are looked through.
_FROM = 240


def chosen(plates: Sequence[Plate], seed: int) -> list[Plate]:
    """Return crops in which all classes are: each time the one that has most of the class that is rarest so far."""
    import torch

    from analysis.augment import Plate
    from analysis.network import DETECTORS, IMAGES

    rng = np.random.default_rng([seed, 0x12E9])
    crops: list[Plate] = []
    counts = []
    for plate in plates[:_FROM]:
        height, width = plate.fine.shape[1:]
        y, x = (int(rng.integers(max(1, size - _EDGE + 1))) for size in (height, width))
        at = (slice(None), slice(y, y + _EDGE), slice(x, x + _EDGE))
        alone = [i < len(DETECTORS) for i in range(IMAGES)]  # without the slices beside it: a third of the size
        greys = plate.greys[at] * torch.tensor(alone)[:, None, None]
        crops.append(Plate(greys, plate.present * np.array(alone, np.float32), plate.fine[at].clone(), plate.pixel_m))
        counts.append(np.bincount(crops[-1].fine[0].flatten().numpy(), minlength=256)[: len(Fine)])
    shares = np.array(counts, float) / (_EDGE * _EDGE)
    have = np.full(len(Fine), 1e-3)
    kept: list[Plate] = []
    for _ in range(min(_CROPS, len(crops))):
        best = int(np.argmax((np.minimum(shares, 0.4) / have).sum(axis=1)))
        kept.append(crops[best])
        have += shares[best]
        shares[best] = -1.0
    return kept


def write(folder: Path, plates: Sequence[Plate]) -> None:
    """Write crops into a model folder: 8-bit greys, classes, pixel sizes (m)."""
    from safetensors.numpy import save

    arrays = {"pixel_m": np.array([plate.pixel_m for plate in plates])}
    for number, plate in enumerate(plates):
        there = plate.present > 0
        arrays[f"greys{number}"] = np.rint(255 * plate.greys[there].float().numpy().clip(0, 1)).astype(np.uint8)
        arrays[f"present{number}"] = plate.present
        arrays[f"fine{number}"] = plate.fine[0].numpy()
    write_whole(folder / FILE, save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))


def read(folder: Path) -> list[Plate]:
    """Read what `write` wrote; ValueError where a model keeps none."""
    import torch
    from safetensors.numpy import load_file

    from analysis.augment import Plate
    from analysis.network import SLICES

    path = folder / FILE
    if not path.is_file():
        msg = f"{folder} keeps no crops of its training ({FILE}); a model that is to be taught needs them"
        raise ValueError(msg)
    held = load_file(path)
    plates: list[Plate] = []
    for number, pixel_m in enumerate(held["pixel_m"]):
        present, classes = held[f"present{number}"], held[f"fine{number}"]
        greys = np.zeros((present.size, *classes.shape), np.float16)
        greys[present > 0] = held[f"greys{number}"].astype(np.float16) / 255
        fine = np.full((len(SLICES), *classes.shape), IGNORE, np.uint8)
        fine[0] = classes
        plates.append(Plate(torch.from_numpy(greys), present, torch.from_numpy(fine), float(pixel_m)))
    return plates
