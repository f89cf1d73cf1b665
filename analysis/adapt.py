"""Teaches a model a user's own image by a few strokes, as one draws them for Trainable Weka Segmentation.

Three kinds of crops take part: of the strokes, which say what is what here; of the same image where nothing is marked,
on which the model shall not forget what it said; and of images that it was trained on, so that phases of which there is
no stroke stay what they were.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from analysis.core import SegmentationCore
from analysis.model import WEIGHTS, Card, load, save
from analysis.phases import IGNORE, MEMBERS, Phase, merged
from analysis.replay import read, write
from analysis.scribbles import check, held_back, strokes_in

if TYPE_CHECKING:
    from torch import Tensor

    from analysis.augment import Plate
    from analysis.network import Network
    from analysis.samples import Sample

STEPS = 160
_CROP = 160
_MARKED, _REPLAYED = 4, 2
_RATE = 6e-4
#: How much what the model said before counts where nothing is marked, against the strokes.
_MEMORY = 0.3

Progress = Callable[[int, int], None]
"""Called with steps done and steps in all."""


def adapt(
    channels: Mapping[str, NDArray[np.float32]],
    scribbles: NDArray[np.uint8],
    pixel_m: float,
    out: Path,
    *,
    model: Path | None = None,
    seed: int = 0,
    steps: int = STEPS,
    threads: int = 2,
    progress: Progress | None = None,
) -> Card:
    """Teach a model by strokes on one image, and write the new one into the folder `out`.

    Parameters
    ----------
    channels : greys 0..1 by detector name, float32 (y, x)
    scribbles : label codes 0..4 where a stroke was drawn, 255 elsewhere, uint8 (y, x)
    pixel_m : the pixel's edge, metres
    model : folder of the model to start from; None is the package's own
    steps : optimiser steps
    threads : threads for the network

    Raises
    ------
    ValueError : strokes of another size or with other codes, strokes of one phase alone, no known detector
    """
    import torch

    check(scribbles, next(iter(channels.values())).shape)
    began = time.perf_counter()
    start = load(model, fused=False)
    replay = read(model or WEIGHTS)
    said = SegmentationCore(model).segment(channels, pixel_m).labels
    shares = np.bincount(said.ravel(), minlength=len(Phase)) / said.size
    kept_back = held_back(scribbles, seed)
    taught = np.where(kept_back, np.uint8(IGNORE), scribbles)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(max(1, threads))
    try:
        torch.manual_seed(seed)
        plate = _plate(channels, taught, pixel_m)
        network = _taught(start.network, plate, shares, replay, steps, seed, progress)
    finally:
        torch.set_num_threads(threads_before)
    figures = {"strokes": float(strokes_in(scribbles)), "marked pixels": float((scribbles != IGNORE).sum())}
    card = start.card.model_copy(
        update={
            "name": f"{start.card.name.split('+')[0]}+strokes",
            "data": f"{start.card.data}; then {strokes_in(scribbles)} strokes on one image, from {start.card.model_id}",
            "seed": seed,
            "steps": start.card.steps + steps,
            "seconds": round(time.perf_counter() - began, 1),
            "figures": figures,
            "limits": (
                *start.card.limits,
                "taught by strokes on one image: made for images like that one",
                "an image stranger to the first model than that one is known too: its novelty tells less",
            ),
        }
    )
    save(out, network, start.known, card)
    write(out, replay)
    result = SegmentationCore(out).segment(channels, pixel_m)
    figures["mean confidence"] = round(result.numbers.confidence, 4)
    for name, where in (("its strokes", taught != IGNORE), ("strokes kept back", kept_back)):
        if where.any():
            figures[f"right on {name}"] = round(float((result.labels[where] == scribbles[where]).mean()), 4)
    # an image like its own is known from now on
    return save(out, network, start.known.taught(result.gist), card.model_copy(update={"figures": figures}))


@dataclass(frozen=True)
class _Marked:
    """An image with strokes, as a sample to train on."""

    channels: Mapping[str, NDArray[np.float32]]
    fine: NDArray[np.uint8]
    pixel_m: float
    beside: Mapping[str, Sample] = field(default_factory=dict)


def _plate(channels: Mapping[str, NDArray[np.float32]], taught: NDArray[np.uint8], pixel_m: float) -> Plate:
    """Return an image with its strokes on the network's pixel range; crops lie about the strokes."""
    from analysis.augment import plate_of
    from analysis.network import resampling

    _, down = resampling(pixel_m)
    if down > 1:  # a thin stroke is not lost between two pixels that are kept
        taught = ndimage.minimum_filter(taught, down)
    plate = plate_of(_Marked(channels, taught, pixel_m))
    strokes = plate.fine[0].numpy()
    # every phase as often as the others, however little of it is marked
    places = [np.argwhere(strokes == code) for code in np.unique(strokes[strokes != IGNORE])]
    most = max(len(place) for place in places)
    return replace(plate, centres=np.concatenate([np.resize(place, (most, 2)) for place in places]))


def _taught(
    network: Network,
    plate: Plate,
    shares: NDArray[np.float64],
    replay: list[Plate],
    steps: int,
    seed: int,
    progress: Progress | None,
) -> Network:
    """Return the network after `steps` on strokes, memory and replay.

    What it sees stays as it was learnt, so that it still knows what is new to it; what it concludes is taught.
    `shares` are those of the phases in the whole image, as well as they are known.
    """
    import torch
    from torch.nn import functional

    from analysis.augment import draw
    from analysis.network import channels_last

    rng = np.random.default_rng([seed, 0x57A0])
    network.eval()  # normalisation as it was trained: a few strokes are no statistics
    channels_last(network)
    before = copy.deepcopy(network)
    taught = [*network.reduce.parameters(), *network.up.parameters(), *network.head.parameters()]
    weights = _weights(plate.fine[0].numpy(), shares)
    optimiser = torch.optim.AdamW(taught, lr=_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=_RATE, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        own, old = draw([plate], _MARKED, _CROP, rng, recolour=False), draw(replay, _REPLAYED, _CROP, rng)
        with torch.no_grad():
            levels = network.read(
                torch.cat([own.greys, old.greys]),
                torch.cat([own.present, old.present]),
                torch.cat([own.pixel_m, old.pixel_m]),
            )
            said = torch.softmax(merged_scores(before.told([level[:_MARKED] for level in levels])), dim=1)
        scores = merged_scores(network.told(levels))
        here, there = scores[:_MARKED], scores[_MARKED:]
        strokes = functional.cross_entropy(
            here, own.fine, weights, ignore_index=IGNORE, label_smoothing=0.02, reduction="sum"
        ) / max(1, int((own.fine != IGNORE).sum()))
        drift = -(said * torch.log_softmax(here, dim=1)).sum(dim=1)
        memory = (drift * (own.fine == IGNORE)).mean()
        kept = functional.cross_entropy(there, merged_codes(old.fine), ignore_index=IGNORE)
        loss = strokes + _MEMORY * memory + kept
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(taught, 2.0)
        optimiser.step()
        schedule.step()
        if progress is not None:
            progress(step + 1, steps)
    return network


def _weights(strokes: NDArray[np.uint8], shares: NDArray[np.float64]) -> Tensor:
    """Return one weight a phase, by which marked pixels count as the phases' shares of the image, mean 1 over them.

    People mark every phase about alike; taken as it is, that would teach that rare phases are common.
    """
    import torch

    counts = np.bincount(strokes[strokes != IGNORE], minlength=len(Phase))[: len(Phase)]
    marked = counts / max(1, counts.sum())
    weights = np.where(counts > 0, shares.clip(0.01) / marked.clip(1e-6), 0.0)
    weights /= max(1e-9, float((weights * marked).sum()))
    return torch.from_numpy(weights.astype(np.float32))


def merged_scores(scores: Tensor) -> Tensor:
    """Return the scores of the five phases, (n, 5, y, x), of those of the seven classes."""
    import torch

    return torch.stack([torch.logsumexp(scores[:, list(MEMBERS[phase])], dim=1) for phase in Phase], dim=1)


def merged_codes(fine: Tensor) -> Tensor:
    """Return phases of fine classes (n, y, x); IGNORE stays."""
    import torch

    return torch.from_numpy(merged(fine.numpy().astype(np.uint8))).long()
