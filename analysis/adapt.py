"""Teaches a model a user's own image by a few strokes, as one draws them for Trainable Weka Segmentation.

Three kinds of crops take part: of the strokes, which say what is what here; of the same image where nothing is marked,
on which the model shall not forget what it said; and of images that it was trained on, so that phases of which there is
no stroke stay what they were.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from analysis.core import SegmentationCore
from analysis.evaluate import likeliest_temperature
from analysis.model import WEIGHTS, Card, load, save
from analysis.phases import IGNORE, MEMBERS, MERGE, Phase, merged
from analysis.replay import read, write
from analysis.sameplace import laid_over
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


@dataclass(frozen=True)
class Lesson:
    """An image, and what of it is known.

    Parameters
    ----------
    channels : greys 0..1 by detector name, float32 (y, x)
    taught : label codes where something is taught, 255 elsewhere, uint8 (y, x)
    kept_back : label codes of what is known as well and not taught: it tells how right a taught model is
    shares : of the five phases in the whole image, as well as they are known, (5,)
    pixel_m : the pixel's edge, metres
    """

    channels: Mapping[str, NDArray[np.float32]]
    taught: NDArray[np.uint8]
    kept_back: NDArray[np.uint8]
    shares: NDArray[np.float64]
    pixel_m: float

    @classmethod
    def of(
        cls,
        channels: Mapping[str, NDArray[np.float32]],
        known: NDArray[np.uint8],
        labels: NDArray[np.uint8],
        pixel_m: float,
        seed: int,
    ) -> Lesson:
        """Teach what is known of an image, but for one stroke in five; its `labels` tell the shares.

        Detectors are laid over each other, as the core does that will label such images.
        """
        from analysis.network import DETECTORS

        laid, _ = laid_over({name: channels[name] for name in DETECTORS if name in channels})
        kept_back = held_back(known, seed)
        nothing = np.uint8(IGNORE)
        shares = np.bincount(labels.ravel(), minlength=len(Phase)) / labels.size
        return cls(laid, np.where(kept_back, nothing, known), np.where(kept_back, known, nothing), shares, pixel_m)


@dataclass(frozen=True)
class About:
    """What a taught model's card says of its lessons: a word for its name, what they were, where that ends."""

    word: str
    data: str
    limit: str
    figures: Mapping[str, float]


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
    device: str = "cpu",
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
    device : of torch, such as cpu, cuda, mps

    Raises
    ------
    ValueError : strokes of another size or with other codes, strokes of one phase alone, no known detector
    RuntimeError : torch has no such device here
    """
    check(scribbles, next(iter(channels.values())).shape)
    said = SegmentationCore(model).segment(channels, pixel_m).labels
    count = strokes_in(scribbles)
    about = About(
        "strokes",
        f"{count} strokes on one image",
        "taught by strokes on one image: made for images like that one",
        {"strokes": float(count), "marked pixels": float((scribbles != IGNORE).sum())},
    )
    lesson = Lesson.of(channels, scribbles, said, pixel_m, seed)
    return teach(
        [lesson], about, out, model=model, seed=seed, steps=steps, threads=threads, device=device, progress=progress
    )


def teach(
    lessons: Sequence[Lesson],
    about: About,
    out: Path,
    *,
    model: Path | None = None,
    seed: int = 0,
    steps: int = STEPS,
    threads: int = 2,
    device: str = "cpu",
    progress: Progress | None = None,
) -> Card:
    """Teach a model by what is known of images, and write it into the folder `out`.

    Its temperature follows as far as the network has grown surer, or less sure, of images that it was trained on.

    `steps` of 0 leave the network as it is. For the other parameters see `adapt`; ValueError where the model keeps no
    crops of its training, or no detector is known.
    """
    import torch

    began = time.perf_counter()
    start = load(model, fused=False)
    replay = read(model or WEIGHTS)
    threads_before = torch.get_num_threads()
    torch.set_num_threads(max(1, threads))
    try:
        torch.manual_seed(seed)
        plates = [_plate(lesson) for lesson in lessons]
        shares = np.mean([lesson.shares for lesson in lessons], axis=0)
        first = _temperature(start.network, replay)
        network = _taught(start.network.to(device), plates, shares, replay, steps, seed, device, progress).to("cpu")
        temperature = start.card.temperature * _temperature(network, replay) / first
    finally:
        torch.set_num_threads(threads_before)
    figures = dict(about.figures)
    card = start.card.model_copy(
        update={
            "name": f"{start.card.name.split('+')[0]}+{about.word}",
            "data": f"{start.card.data}; then {about.data}, from {start.card.model_id}",
            "seed": seed,
            "steps": start.card.steps + steps,
            "seconds": round(time.perf_counter() - began, 1),
            "figures": figures,
            "reliability": (),
            "temperature": temperature,
            "limits": (
                *start.card.limits,
                about.limit,
                "an image stranger to the first model than that one is known too: its novelty tells less",
            ),
        }
    )
    save(out, network, start.known, card)
    write(out, replay)
    core, known = SegmentationCore(out), start.known
    results = [core.segment(lesson.channels, lesson.pixel_m) for lesson in lessons]
    figures["mean confidence"] = round(float(np.mean([result.numbers.confidence for result in results])), 4)
    right = {
        f"right on its {about.word}": [lesson.taught for lesson in lessons],
        f"right on {about.word} kept back": [lesson.kept_back for lesson in lessons],
    }
    for name, codes in right.items():
        told = [
            result.labels[code != IGNORE] == code[code != IGNORE] for result, code in zip(results, codes, strict=True)
        ]
        if any(part.size for part in told):
            figures[name] = round(float(np.concatenate(told).mean()), 4)
    for result in results:  # images like its own are known from now on
        known = known.taught(result.gist)
    return save(out, network, known, card.model_copy(update={"figures": figures}))


@dataclass(frozen=True)
class _Marked:
    """An image with strokes, as a sample to train on."""

    channels: Mapping[str, NDArray[np.float32]]
    fine: NDArray[np.uint8]
    pixel_m: float
    beside: Mapping[str, Sample] = field(default_factory=dict)


def _plate(lesson: Lesson) -> Plate:
    """Return an image with what is taught of it on the network's pixel range; crops lie about that."""
    from analysis.augment import plate_of
    from analysis.network import resampling

    taught = lesson.taught
    _, down = resampling(lesson.pixel_m)
    if down > 1:  # a thin stroke is not lost between two pixels that are kept
        taught = ndimage.minimum_filter(taught, down)
    plate = plate_of(_Marked(lesson.channels, taught, lesson.pixel_m))
    strokes = plate.fine[0].numpy()
    # every phase as often as the others, however little of it is marked
    places = [np.argwhere(strokes == code) for code in np.unique(strokes[strokes != IGNORE])]
    most = max((len(place) for place in places), default=0)
    centres = [np.resize(place, (most, 2)) for place in places]
    return replace(plate, centres=np.concatenate(centres) if centres else None)


def _temperature(network: Network, replay: Sequence[Plate]) -> float:
    """Return the temperature at which a network's probabilities are right about images that it was trained on.

    What was taught is no measure of that: people mark what they are sure of. Nor is it one of other images: crops for a
    training are chosen. But how it changes is.
    """
    import torch

    scores, truth = [], []
    with torch.inference_mode():
        for plate in replay:
            height, width = (size // 32 * 32 for size in plate.fine.shape[1:])
            greys = plate.greys[None, :, :height, :width].float()
            present, pixel_m = torch.from_numpy(plate.present)[None], torch.tensor([plate.pixel_m])
            fine = plate.fine[0, :height, :width].numpy()
            told = torch.log_softmax(network(greys, present, pixel_m)[0], dim=0).numpy()
            scores.append(told[:, fine != IGNORE])
            truth.append(merged(fine[fine != IGNORE]))
    return likeliest_temperature(np.concatenate(scores, axis=1), np.concatenate(truth))


def _taught(
    network: Network,
    plates: Sequence[Plate],
    shares: NDArray[np.float64],
    replay: list[Plate],
    steps: int,
    seed: int,
    device: str,
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
    if steps == 0:
        return network
    before = copy.deepcopy(network)
    taught = [*network.reduce.parameters(), *network.up.parameters(), *network.head.parameters()]
    weights = _weights(np.concatenate([plate.fine[0].numpy().ravel() for plate in plates]), shares).to(device)
    optimiser = torch.optim.AdamW(taught, lr=_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=_RATE, total_steps=steps, pct_start=0.1)
    for step in range(steps):
        own = draw(plates, _MARKED, _CROP, rng, recolour=False).to(device)
        old = draw(replay, _REPLAYED, _CROP, rng).to(device)
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
        ) / (own.fine != IGNORE).sum().clamp(min=1)
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

    table = torch.full((IGNORE + 1,), IGNORE, device=fine.device)
    table[: len(MERGE)] = torch.tensor(MERGE, device=fine.device)
    return table[fine]
