"""Trains the segmentation network on any iterable of samples: greys by detector, fine classes, a pixel size.

The same seed, samples, number of threads and kind of processor give the same weights, and so they do when the training
was killed in between: the same call goes on from its last checkpoint. What comes out is a model folder:
weights.safetensors and card.json.
"""

from __future__ import annotations

import itertools
import logging
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from analysis import replay
from analysis.checkpoint import Checkpoint, State, digest, path_for, restore, state_of
from analysis.core import SegmentationCore
from analysis.evaluate import evaluate, fitted_temperature
from analysis.known import Known
from analysis.model import Card, load, save, write_card
from analysis.phases import IGNORE, Fine
from analysis.precision import precision_on
from analysis.samples import Sample, SamplesFactory

if TYPE_CHECKING:
    from torch import Tensor

    from analysis.augment import Batch, Plate
    from analysis.network import Network

log = logging.getLogger(__name__)

MODEL_NAME = "kintsugi-unet"
CROP = 192
BATCH = 8
_LARGE = 5 / 3  # every third step sees larger crops, fewer of them: whole images have middles far from any edge
LIMITS: tuple[str, ...] = (
    "trained on simulated images only; on real images it is tested, not trained",
    "oxide cathodes on aluminium: an active material brighter than its collector, platinum brighter than both",
    "graphite, silicon and LFP are not covered",
    "features narrower than two pixels of the network's pixel range are not told apart",
    "labels of unfilled pores are guesses where the pore's back looks like binder: see `doubt`",
)
_MULTIPLE = 32
_PEAK_RATE = 3e-3
_EMA = 0.995
#: Batches of crops, and their edges in pixels, that tell what training images are like.
_GISTS, _GIST_CROPS = 100, (128, 192, 256)
_KEEP_EVERY_S = 180.0

Progress = Callable[[str, int, int, float], None]
"""Called with what is being done, steps done, steps in all, and the present loss (nan while there is none)."""


def train_on(
    samples: SamplesFactory,
    quick: bool,
    out: Path,
    *,
    seed: int = 0,
    renderer_sha256: str | None = None,
    threads: int = 1,
    device: str = "cpu",
    progress: Progress | None = None,
    init: Path | None = None,
) -> Card:
    """Train a network for everyday use on samples made from seeds, and score it on seeds it never saw.

    Parameters
    ----------
    samples : makes `count` samples from a seed
    quick : within about ten minutes of two cores, else about five times as much
    out : the model folder that is written
    seed : even; the scoring samples are made from seed + 1
    renderer_sha256 : what made the images, kept in the card: other images ask for another training
    threads : threads for the network
    device : of torch, such as cpu, cuda, mps
    progress : told how far it is
    init : a model folder to start from

    Raises
    ------
    ValueError : an odd seed, samples that are none
    RuntimeError : torch has no such device here
    """
    if seed % 2:
        msg = f"training seeds are even, odd ones are kept for scoring; {seed} is odd"
        raise ValueError(msg)
    count, steps = (300, 900) if quick else (1200, 4000)
    return train(
        samples(seed, count),
        steps=steps,
        seed=seed,
        out=out,
        validate=samples(seed + 1, 120),
        progress=progress,
        init=init,
        threads=threads,
        device=device,
        data=f"simulated, seed {seed}, {count} images",
        renderer_sha256=renderer_sha256,
    )


def train(
    samples: Iterable[Sample],
    *,
    steps: int,
    seed: int,
    out: Path,
    validate: Iterable[Sample] | None = None,
    progress: Progress | None = None,
    init: Path | None = None,
    threads: int = 1,
    device: str = "cpu",
    data: str = "given samples",
    renderer_sha256: str | None = None,
    base: int = 16,
    depth: int = 4,
    batch: int = BATCH,
    crop: int = CROP,
    most: int = 4000,
    keep_every_s: float = _KEEP_EVERY_S,
) -> Card:
    """Train a network and write it, with its card, into the folder `out`.

    A checkpoint is kept beside `out` until it is done. Where there is one, the training goes on from it, on samples
    that are made again.

    Parameters
    ----------
    samples : at most `most` are taken, and kept in memory as half-precision greys (2 MB for 320 x 320 pixels)
    steps : optimiser steps, each on `batch` crops of `crop` pixels (a multiple of 32)
    seed : of the weights, the crops and their augmentation
    validate : samples to score on, never trained on
    progress : told how far it is, some hundred times
    init : a model folder to start from (fine-tuning: the learning rate is then a fifth)
    threads : threads for the network
    device : of torch, such as cpu, cuda, mps; what is written is scored on the CPU
    data, renderer_sha256 : kept in the card
    base, depth : the network's width and depth, the same as those of `init` when that is given
    keep_every_s : seconds between checkpoints; one is kept after the last step, too

    Raises
    ------
    ValueError : no samples, samples that do not fit together, steps below 1, a checkpoint of another training
    RuntimeError : torch has no such device here
    """
    import torch

    from analysis.network import DETECTORS, PIXEL_MAX_M, PIXEL_MIN_M, Network

    if steps < 1:
        msg = f"a training takes at least one step, not {steps}"
        raise ValueError(msg)
    began = time.perf_counter()
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, threads))
    try:
        tell = progress or _silent
        torch.manual_seed(seed)
        network = Network(base, depth).to(device)
        if init is not None:
            begun = load(init, fused=False)
            network.load_state_dict(begun.network.state_dict())
            data = f"{data}; begun from {begun.card.model_id} ({begun.card.data}, {begun.card.steps} steps)"
        asked = {
            "seed": seed, "steps": steps, "batch": batch, "crop": crop, "base": base, "depth": depth, "most": most,
            "threads": max(1, threads), "data": data, "renderer": renderer_sha256, **versions(device),
        }  # fmt: skip
        checkpoint = Checkpoint(path_for(out), {name: str(value) for name, value in asked.items()})
        state = checkpoint.read()
        began -= state.seconds if state is not None else 0.0
        plates = list(_plates(itertools.islice(samples, most), tell))
        if not plates:
            msg = "there are no samples to train on"
            raise ValueError(msg)
        plan = _Plan(steps, seed, batch, crop, _PEAK_RATE * (0.2 if init else 1.0), device)
        keeping = _Keeping(checkpoint, state, digest(plates), began, keep_every_s)
        network = _fitted(network, plates, plan, keeping, tell).to("cpu")
        known = knowing(network, plates, seed, min(_GISTS, 2 + steps // 10))
    finally:
        torch.set_num_threads(before)
    card = save(
        out,
        network,
        known,
        Card(
            name=MODEL_NAME,
            weights_sha256="",
            classes=tuple(fine.name.lower() for fine in Fine),
            detectors=DETECTORS,
            base=base,
            depth=depth,
            normalisation="greys 0..1 as recorded; an image whose 99.8th percentile is below 0.5 is stretched to 0.9",
            pixel_min_m=PIXEL_MIN_M,
            pixel_max_m=PIXEL_MAX_M,
            data=data,
            renderer_sha256=renderer_sha256,
            seed=seed,
            steps=steps,
            samples=len(plates),
            seconds=round(time.perf_counter() - began, 1),
            figures={},
            limits=LIMITS,
            versions=versions(device),
            temperature=1.0,
        ),
    )
    replay.write(out, replay.chosen(plates, seed))
    if validate is not None:
        held_back = list(validate)
        # the temperature is fitted on every other one, and what the card says is measured on the rest
        card = card.model_copy(update={"temperature": fitted_temperature(SegmentationCore(out), held_back[1::2])})
        write_card(out, card)
        scores = evaluate(SegmentationCore(out), held_back[::2])
        card = card.model_copy(update={"figures": scores.figures, "reliability": scores.reliability})
        write_card(out, card)
    checkpoint.remove()
    return card


def versions(device: str = "cpu") -> dict[str, str]:
    """Return what a training ran on, for its card."""
    import torch

    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "precision": precision_on(device),
        **({} if device == "cpu" else {"device": device}),
    }


def _silent(what: str, done: int, total: int, loss: float) -> None:
    pass


def _plates(samples: Iterable[Sample], tell: Progress) -> Iterator[Plate]:
    """Bring samples to the network's pixel range and half precision."""
    from analysis.augment import plate_of

    for number, sample in enumerate(samples):
        try:
            plate = plate_of(sample)
        except ValueError as error:
            msg = f"sample {number}: {error}"
            raise ValueError(msg) from error
        yield plate
        tell("images", number + 1, 0, float("nan"))


@dataclass(frozen=True)
class _Plan:
    """How a network is fitted: steps, each on `batch` crops of `crop` pixels, at learning rates up to `rate`, where."""

    steps: int
    seed: int
    batch: int
    crop: int
    rate: float
    device: str


@dataclass(frozen=True)
class _Keeping:
    """Where a training that began at `began_s` (perf_counter) goes on from, and where and how often it is kept."""

    checkpoint: Checkpoint
    state: State | None
    images: str
    began_s: float
    every_s: float

    def __post_init__(self) -> None:
        if self.state is not None and self.state.images != self.images:
            path = self.checkpoint.path
            msg = f"{path} is of a training on other images than these; give the same to go on, or remove it"
            raise ValueError(msg)


class _Fit:
    """A network on its way: itself, the running average of its weights, what changes it, what draws its crops."""

    def __init__(self, network: Network, plan: _Plan) -> None:
        import torch

        self.network = network
        self.average = {key: value.clone() for key, value in network.state_dict().items()}
        self.optimiser = torch.optim.AdamW(network.parameters(), lr=plan.rate, weight_decay=1e-3)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, max_lr=plan.rate, total_steps=plan.steps, pct_start=0.15
        )
        self.rng = np.random.default_rng([plan.seed, 0x5EED])

    def state(self, step: int, seconds: float, images: str) -> State:
        """Return all that the rest of the training depends on, after `step` steps."""
        return State(
            step, seconds, images, state_of(self.rng), self.network.state_dict(), self.average,
            self.optimiser.state_dict(), self.schedule.state_dict(),
        )  # fmt: skip

    def take(self, state: State) -> None:
        """Go on from where a training was."""
        self.network.load_state_dict(state.network)
        for key, value in state.average.items():
            self.average[key].copy_(value)
        self.optimiser.load_state_dict(dict(state.optimiser))
        self.schedule.load_state_dict(dict(state.schedule))
        restore(self.rng, state.generator)

    def follow(self, step: int) -> None:
        """Let the average follow the weights."""
        keep = min(_EMA, (1 + step) / (10 + step))
        for key, value in self.network.state_dict().items():
            if value.is_floating_point():
                self.average[key].lerp_(value, 1.0 - keep)
            else:
                self.average[key].copy_(value)


def _fitted(network: Network, plates: list[Plate], plan: _Plan, keeping: _Keeping, tell: Progress) -> Network:
    """Fit a network to crops of the plates; returns the running average of its weights."""
    import torch

    from analysis.augment import draw
    from analysis.network import channels_last

    weights = _class_weights(plates).to(plan.device)
    network.train()
    channels_last(network)
    half = precision_on(plan.device) == "bfloat16"
    fit = _Fit(network, plan)
    begin = 0
    if keeping.state is not None:
        fit.take(keeping.state)
        begin = keeping.state.step
        tell("steps", begin, plan.steps, float("nan"))
    kept_at = time.perf_counter()
    for step in range(begin, plan.steps):
        edge = plan.crop if step % 3 else round(_LARGE * plan.crop / _MULTIPLE) * _MULTIPLE
        count = max(2, round(plan.batch * (plan.crop / edge) ** 2))
        drawn: Batch = draw(plates, count, edge, fit.rng).to(plan.device)
        fit.optimiser.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            scores = network(drawn.greys, drawn.present, drawn.pixel_m)
        loss = loss_of(scores.float(), drawn.fine, weights)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        fit.optimiser.step()
        fit.schedule.step()
        fit.follow(step)
        last = step == plan.steps - 1
        if step % max(1, plan.steps // 200) == 0 or last:
            tell("steps", step + 1, plan.steps, float(loss.detach()))
        now = time.perf_counter()
        if last or now - kept_at >= keeping.every_s:
            try:
                keeping.checkpoint.write(fit.state(step + 1, now - keeping.began_s, keeping.images))
            except OSError as error:  # a full disk costs the checkpoint, not the training
                log.warning("no checkpoint is kept: %s", error)
            kept_at = now
    network.load_state_dict(fit.average)
    network.eval()
    _unweighted(network, weights)
    return network


def _unweighted(network: Network, weights: Tensor) -> None:
    """Undo the class weights in the scores' offsets.

    A network trained with weighted cross-entropy answers with probabilities times weights; without this, rare and thin
    phases would be overstated.
    """
    bias = network.head.bias
    if bias is not None:
        bias.data -= weights.log().repeat_interleave(bias.numel() // len(Fine))


def knowing(network: Network, plates: Sequence[Plate], seed: int, batches: int = _GISTS) -> Known:
    """Return what tells augmented crops of its training images from pictures that are no electrodes, for a network."""
    import torch

    from analysis.augment import draw
    from analysis.strangers import strange

    rng = np.random.default_rng([seed, 0x6157])
    found: tuple[list[NDArray[np.float32]], list[NDArray[np.float32]]] = ([], [])
    with torch.inference_mode():
        for _ in range(batches):
            drawn = draw(plates, BATCH, int(rng.choice(_GIST_CROPS)), rng)
            for kept, batch in zip(found, (drawn, strange(drawn, rng)), strict=True):
                kept.append(network.with_gist(batch.greys, batch.present, batch.pixel_m)[1].numpy())
    return Known.of(*(np.concatenate(part) for part in found))


def _class_weights(plates: list[Plate]) -> Tensor:
    """Return one weight a class, 1 over the fourth root of its frequency (1 % or more), mean 1 over the pixels.

    More would teach to overstate rare phases: shares of phases are what labels are made for.
    """
    import torch

    counts = np.zeros(len(Fine))
    for plate in plates:
        counts += np.bincount(plate.fine[0].flatten().numpy(), minlength=IGNORE + 1)[: len(Fine)]
    share = counts / max(1.0, counts.sum())
    weights = share.clip(0.01) ** -0.25
    weights /= max(1e-9, float((weights * share).sum()))
    return torch.from_numpy(weights.astype(np.float32))


def loss_of(scores: Tensor, fine: Tensor, weights: Tensor) -> Tensor:
    """Return cross-entropy with class weights plus soft Dice over the classes that are there.

    Parameters
    ----------
    scores : (n, 7, y, x)
    fine : (n, y, x) int64, IGNORE where nothing is known
    weights : (7,)
    """
    import torch
    from torch.nn import functional

    entropy = functional.cross_entropy(scores, fine, weights, ignore_index=IGNORE, label_smoothing=0.02)
    known = (fine != IGNORE).unsqueeze(1).float()
    probabilities = torch.softmax(scores, dim=1) * known
    truth = functional.one_hot(fine.clamp(max=len(Fine)), len(Fine) + 1)[..., :-1].permute(0, 3, 1, 2).float()
    overlap = (probabilities * truth).sum(dim=(0, 2, 3))
    total = probabilities.sum(dim=(0, 2, 3)) + truth.sum(dim=(0, 2, 3))
    there = truth.sum(dim=(0, 2, 3)) > 0
    dice = 1.0 - (2.0 * overlap + 1.0) / (total + 1.0)
    return entropy + (dice * there).sum() / there.sum().clamp(min=1)
