"""How right and how fast the segmentation core is, beside its rivals on the same images, strokes and metric.

    python -m tests.benchmarks.segmentation [--real FOLDER] [--model DIR] [--seed 1] [--images 60] [--json]

The published face (labels of its left part; the rest isn't here) and held-back simulated faces; multi-Otsu, k-means,
the best table of grey values that can exist (it sees the labels), a random forest on the features of Trainable Weka and
ilastik, and our network as it comes and after strokes. Needs the extra `rivals`. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from analysis.adapt import adapt
from analysis.core import SegmentationCore
from analysis.evaluate import at_boundary
from analysis.phases import IGNORE, Fine, Phase, merged
from analysis.reliability import BINS, calibration_error, reliability_curve, reliability_of
from analysis.score import boundary_f, confusion, iou, mean_iou
from analysis.sources import read_grey

REAL = Path(os.environ.get("KINTSUGI_REAL", Path(__file__).parents[3] / "shared/data/kintsugi-real"))
REAL_PIXEL_M = 186e-9
#: The fastest dwell in use (s): so long the microscope takes for a pixel of both detectors.
DWELL_S = 300e-9
#: Strokes are so many pixels long; so many are drawn.
STROKE_PX, STROKES = 22, 20
_SIGMAS = (1.0, 2.0, 4.0, 8.0)
_ORDER = (Phase.CBD, Phase.COLLECTOR, Phase.ACTIVE, Phase.PORE)  # from dark to bright, as published

Greys = Mapping[str, NDArray[np.float32]]
Labels = NDArray[np.uint8]


def strokes(labels: Labels, count: int, seed: int) -> Labels:
    """Draw strokes as a person would: within phases, each in turn, wandering a little; one pixel wide."""
    rng = np.random.default_rng(seed)
    drawn = np.full(labels.shape, IGNORE, np.uint8)
    phases = [phase for phase in (Phase.PORE, Phase.CBD, Phase.ACTIVE, Phase.COLLECTOR) if (labels == phase).any()]
    for number in range(count):
        phase = phases[number % len(phases)]
        inside = ndimage.binary_erosion(labels == phase)
        places = np.argwhere(inside if inside.any() else labels == phase)
        y, x = places[rng.integers(len(places))].astype(float)
        angle = rng.uniform(0, 2 * np.pi)
        for _ in range(STROKE_PX):
            drawn[round(y), round(x)] = phase
            angle += rng.normal(0, 0.4)
            for _ in range(8):
                if _is(labels, y + np.sin(angle), x + np.cos(angle), phase):
                    break
                angle += np.pi / 4
            else:
                break
            y, x = y + np.sin(angle), x + np.cos(angle)
    return drawn


def _is(labels: Labels, y: float, x: float, phase: Phase) -> bool:
    row, column = round(y), round(x)
    return 0 <= row < labels.shape[0] and 0 <= column < labels.shape[1] and labels[row, column] == phase


# -- rivals ------------------------------------------------------------------------------------------------------------


def multi_otsu(channels: Greys) -> Labels:
    from skimage.filters import threshold_multiotsu

    grey = channels["CBS"]
    return np.array(_ORDER, np.uint8)[np.digitize(grey, threshold_multiotsu(grey, 4))]


def k_means(channels: Greys) -> Labels:
    from sklearn.cluster import KMeans

    points = np.stack([image.ravel() for image in channels.values()], axis=1)
    found = KMeans(4, n_init=4, random_state=0).fit(points)
    rank = np.argsort(np.argsort(found.cluster_centers_[:, 0]))
    return np.array(_ORDER, np.uint8)[rank[found.labels_]].reshape(channels["CBS"].shape)


def best_table(channels: Greys, reference: Labels) -> Labels:
    """The best that any choice of thresholds could do: for every grey the phase that it mostly is."""
    grey = np.rint(255 * channels["CBS"].clip(0, 1)).astype(int)
    known = reference != IGNORE
    counts = np.zeros((256, len(Phase)))
    np.add.at(counts, (grey[known], reference[known]), 1)
    return counts.argmax(axis=1).astype(np.uint8)[grey]


def features(channels: Greys) -> NDArray[np.float32]:
    """Greys, and at four scales: smoothed, gradient, Laplacian, both eigenvalues of the Hessian; (features, y, x)."""
    found: list[NDArray[np.float32]] = []
    for image in channels.values():
        found.append(image)
        for sigma in _SIGMAS:
            yy = ndimage.gaussian_filter(image, sigma, order=(2, 0))
            xx = ndimage.gaussian_filter(image, sigma, order=(0, 2))
            xy = ndimage.gaussian_filter(image, sigma, order=(1, 1))
            root = np.sqrt((0.5 * (yy - xx)) ** 2 + xy**2)
            found += [
                ndimage.gaussian_filter(image, sigma),
                ndimage.gaussian_gradient_magnitude(image, sigma),
                yy + xx,
                0.5 * (yy + xx) + root,
                0.5 * (yy + xx) - root,
            ]
    return np.stack(found)


def random_forest(channels: Greys, marked: Labels) -> Labels:
    from sklearn.ensemble import RandomForestClassifier

    seen = features(channels)
    where = marked != IGNORE
    forest = RandomForestClassifier(100, n_jobs=2, random_state=0, min_samples_leaf=2)
    forest.fit(seen[:, where].T, marked[where])
    return forest.predict(seen.reshape(len(seen), -1).T).astype(np.uint8).reshape(marked.shape)


# -- scores ------------------------------------------------------------------------------------------------------------


def scored(labels: Labels, reference: Labels) -> dict[str, float]:
    """Mean IoU, IoU by phase, boundary F-score (2 px), worst error of a phase's share, points."""
    counts = confusion(labels, reference)
    known = reference != IGNORE
    shares = [
        np.bincount(image[known], minlength=len(Phase))[1:] / max(1, (reference[known] > 0).sum())
        for image in (labels, reference)
    ]
    return {
        "mean iou": round(mean_iou(counts), 4),
        **{f"iou {name}": round(value, 3) for name, value in iou(counts).items()},
        "boundary f": round(boundary_f(labels, reference), 3),
        "share off, points": round(float(100 * np.abs(shares[0] - shares[1]).max()), 2),
    }


def disturbed(channels: Greys, rng: np.random.Generator) -> dict[str, dict[str, NDArray[np.float32]]]:
    """The same image as a worse night would give it."""

    def each(change: Callable[[NDArray[np.float32]], NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        return {name: change(image).clip(0, 1).astype(np.float32) for name, image in channels.items()}

    height, width = channels["CBS"].shape
    rows = np.arange(height)[:, None]
    curtain = np.ones((height, width))
    for sign in (-1, 1):
        profile = ndimage.gaussian_filter1d(rng.normal(size=3 * width), 2.0)
        column = np.rint(np.arange(width)[None] + width + sign * np.tan(np.radians(3)) * rows).astype(int)
        curtain += 0.06 * (profile / profile.std())[column]
    shifted = dict(channels)
    if "TLD" in channels:
        shifted["TLD"] = np.roll(channels["TLD"], (2, 2), (0, 1))
    noise = {name: rng.normal(0, 0.05, image.shape) for name, image in channels.items()}
    found = {
        "gain 0.85": each(lambda g: 0.85 * g),
        "gain 1.15": each(lambda g: 1.15 * g),
        "gamma 0.8": each(lambda g: g**0.8),
        "gamma 1.25": each(lambda g: g**1.25),
        "offset -0.06": each(lambda g: g - 0.06),
        "offset +0.06": each(lambda g: g + 0.06),
        "defocus 1 px": each(lambda g: ndimage.gaussian_filter(g, 1.0)),
        "TLD shifted 2 px": shifted,
        "TLD shifted 4 px": {name: np.roll(image, 4 * (name == "TLD"), 1) for name, image in channels.items()},
        "strong curtains": each(lambda g: g * curtain),
        "noise +0.05": {name: (image + noise[name]).clip(0, 1).astype(np.float32) for name, image in channels.items()},
        "TLD missing": {"CBS": channels["CBS"]},
    }
    if "TLD" in channels:
        found["CBS missing"] = {"TLD": channels["TLD"]}
    return found


def _published(folder: Path) -> tuple[dict[str, NDArray[np.float32]], Labels]:
    """Return the published face and the labels of its left part."""
    from PIL import Image

    channels = {name: read_grey(folder / f"{name.lower()}.png") for name in ("CBS", "TLD")}
    return channels, np.asarray(Image.open(folder / "label-left.png"), np.uint8)


def on_real(core: SegmentationCore, model: Path | None, folder: Path) -> dict[str, Any]:
    """The published face, as `kintsugi segment` labels it: nothing of it was trained on, but where strokes are named.

    `ours, at once` is without the mirror image, as a live run labels.
    """
    channels, reference = _published(folder)
    found: dict[str, Any] = {
        "multi-Otsu": scored(multi_otsu(channels), reference),
        "k-means": scored(k_means(channels), reference),
        "best table of greys": scored(best_table(channels, reference), reference),
    }
    ours = core.segment(channels, REAL_PIXEL_M, mirrored=True)
    found["ours, at once"] = scored(core.segment(channels, REAL_PIXEL_M).labels, reference)
    found["ours"] = scored(ours.labels, reference) | {"novelty": round(ours.numbers.novelty, 2)}
    found["ours"]["calibration error"] = round(
        calibration_error(reliability_curve(reliability_of(ours.labels, ours.confidence, reference))), 4
    )
    rows = {"random forest, strokes": [], "ours, strokes": []}
    for seed in range(3):
        # drawn in the left half of what is labelled, scored on the right half
        middle = int(np.flatnonzero((reference != IGNORE).any(axis=0)).mean())
        left, right = reference.copy(), reference.copy()
        left[:, middle:] = IGNORE
        right[:, :middle] = IGNORE
        marked = strokes(left, STROKES, seed)
        rows["random forest, strokes"].append(scored(random_forest(channels, marked), right))
        with tempfile.TemporaryDirectory() as out:
            card = adapt(channels, marked, REAL_PIXEL_M, Path(out), model=model, seed=seed)
            labels = SegmentationCore(Path(out)).segment(channels, REAL_PIXEL_M, mirrored=True).labels
        rows["ours, strokes"].append(scored(labels, right) | {"seconds": card.seconds})
        rows.setdefault("ours, the same half", []).append(scored(ours.labels, right))
    found |= {
        name: {key: round(float(np.mean([row[key] for row in scores])), 4) for key in scores[0]}
        for name, scores in rows.items()
    }
    rng = np.random.default_rng(5)
    base = found["ours"]["mean iou"]
    found["loss"] = {
        name: round(base - mean_iou(confusion(core.segment(images, REAL_PIXEL_M, mirrored=True).labels, reference)), 3)
        for name, images in disturbed(channels, rng).items()
    }
    return found


def on_simulated(core: SegmentationCore, seed: int, images: int) -> dict[str, Any]:
    """Held-back electrodes: an odd seed, of which nothing was trained on."""
    from simulator.dataset import samples

    counts: dict[str, NDArray[np.int64]] = {}
    reliability = np.zeros((3, BINS))
    narrow = np.zeros((2, 2), int)
    rng = np.random.default_rng(5)

    def count(kind: str, labels: Labels, reference: Labels) -> None:
        counts[kind] = counts.get(kind, np.zeros((5, 5), np.int64)) + confusion(labels, reference)

    for sample in samples(seed, images):
        reference = merged(sample.fine)
        channels = {name: image for name, image in sample.channels.items() if name in ("CBS", "TLD")}
        result = core.segment(channels, sample.pixel_m)
        reliability += reliability_of(result.labels, result.confidence, reference)
        count("ours", result.labels, reference)
        count("ours inside of phases", result.labels, np.where(at_boundary(reference), np.uint8(IGNORE), reference))
        pore = reference == Phase.PORE
        thin = pore & ~ndimage.binary_opening(pore, iterations=max(1, round(0.2e-6 / sample.pixel_m)))
        for row, code in enumerate((Fine.PT_PORE, Fine.OPEN_PORE)):
            there = thin & (sample.fine == code)
            narrow[row] += (int((result.fine[there] == code).sum()), int(there.sum()))
        if len(np.unique(reference)) > 3:
            count("multi-Otsu", multi_otsu(channels), reference)
            count("best table of greys", best_table(channels, reference), reference)
            count("random forest, strokes", random_forest(channels, strokes(reference, STROKES, 0)), reference)
            count("ours, the same images", result.labels, reference)
        for name, worse in disturbed(channels, rng).items():
            count(f"ours, {name}", core.segment(worse, sample.pixel_m).labels, reference)
    base = mean_iou(counts["ours"])
    return {
        "mean iou": {
            name: round(mean_iou(c), 4)
            for name, c in counts.items()
            if "," not in name or "same" in name or "forest" in name
        },
        "iou": {name: round(value, 3) for name, value in iou(counts["ours"]).items()},
        "calibration error": round(calibration_error(reliability_curve(reliability)), 4),
        "narrow pores found": {
            name: round(narrow[row][0] / max(1, narrow[row][1]), 3) for row, name in enumerate(("filled", "open"))
        },
        "loss": {
            name.removeprefix("ours, "): round(base - mean_iou(c), 3)
            for name, c in counts.items()
            if name.startswith("ours, ") and "same" not in name
        },
    }


@dataclass(frozen=True)
class _Face:
    """An image as one that is trained on, though nothing is known of it."""

    channels: Greys
    fine: Labels
    pixel_m: float
    beside: Mapping[str, _Face] = field(default_factory=dict)


def plain_unet(steps: int, seed: int, images: int, folder: Path) -> dict[str, float]:
    """A U-Net of nnU-Net's shape at the training data of ours, 1200 images: on held-back ones, and the published face.

    Ours had three trainings of some 5000 steps.
    """
    from analysis.augment import plate_of
    from simulator.dataset import samples
    from tests.benchmarks.plain_unet import labelled, trained

    def told(step: int, loss: float) -> None:
        if step % 50 == 0:
            print(f"plain U-Net, step {step} of {steps}, loss {loss:.3f}", file=sys.stderr, flush=True)

    began = time.perf_counter()
    network = trained([plate_of(sample) for sample in samples(0, 1200)], steps, 0, told)
    counts = np.zeros((5, 5), np.int64)
    for sample in samples(seed, images):
        counts += confusion(labelled(network, sample), merged(sample.fine))
    found = {"mean iou": round(mean_iou(counts), 4)}
    if (folder / "label-left.png").is_file():
        channels, reference = _published(folder)
        face = _Face(channels, np.full(reference.shape, IGNORE, np.uint8), REAL_PIXEL_M)
        found["mean iou, published face"] = scored(labelled(network, face), reference)["mean iou"]
    return found | {"minutes": round((time.perf_counter() - began) / 60, 1)}


def speed(model: Path | None, pixels: tuple[int, int], with_forest: bool = True) -> dict[str, Any]:
    """From a slice durable to its labels durable, by the follower's own process, on two threads.

    Against the time in which the microscope takes such an image; and what memory the process took at most, all it loads
    included. As a run has it, on the threads that a run's follower takes, too: alone, with the slice before, with both.
    The picture is a simulated face, mirrored until it is large enough.
    """
    from simulator import dataset

    face = next(iter(dataset.samples(9, 1)))
    planes = np.stack([face.channels[name] for name in ("CBS", "TLD")])
    grown = [(0, 0), *((0, max(0, want - have)) for want, have in zip(pixels, planes.shape[1:], strict=True))]
    image = np.rint(255 * np.pad(planes, grown, mode="symmetric")[:, : pixels[0], : pixels[1]]).astype(np.uint8)
    million = pixels[0] * pixels[1] / 1e6
    with tempfile.TemporaryDirectory() as folder:
        # whole strides of the registration, which a mirrored picture could else lead astray
        paths = [_slice_file(Path(folder), image, face.pixel_m, drift) for drift in (0, 12, 24)]
        orders = {"alone": (0,), "with the slice before": (0, 1), "with both sides": (0, 1, 2)}
        ours, memory, precision = _followed(model, Path(folder), [paths[:1]], ("--threads", "2"))
        run, run_memory, _ = _followed(model, Path(folder), [[paths[i] for i in one] for one in orders.values()], ())
    found: dict[str, Any] = {
        "s": round(ours[0], 2),
        "mpix/s": round(million / ours[0], 2),
        "times faster than the microscope's fastest dwell": round(DWELL_S * 1e6 * million / ours[0], 2),
        "memory, GB": memory,
        "precision": precision,
        "in a run, mpix/s": {name: round(million / taken, 2) for name, taken in zip(orders, run, strict=True)},
        "in a run, memory, GB": run_memory,
    }
    if with_forest:
        small = {
            name: plane[:512, :512].astype(np.float32) / 255 for name, plane in zip(("CBS", "TLD"), image, strict=True)
        }
        marked = np.full((512, 512), IGNORE, np.uint8)
        marked[::40, ::8] = np.random.default_rng(0).integers(1, 5, (13, 64))
        began = time.perf_counter()
        random_forest(small, marked)
        found["times faster than the random forest"] = round(
            (million / ours[0]) / (0.262144 / (time.perf_counter() - began)), 1
        )
    return found


def _slice_file(folder: Path, image: NDArray[np.uint8], pixel_m: float, drift_px: int) -> Path:
    """Write a slice of two channels that has drifted by so many pixels."""
    import tifffile

    path = folder / f"drifted-{drift_px}.ome.tif"
    size = {"PhysicalSizeX": pixel_m * 1e6, "PhysicalSizeY": pixel_m * 1e6}
    metadata = {"axes": "CYX", "Channel": {"Name": ["CBS", "TLD"]}} | size
    tifffile.imwrite(path, np.roll(image, drift_px, axis=2), photometric="minisblack", metadata=metadata)
    return path


def _followed(
    model: Path | None, folder: Path, orders: list[list[Path]], options: tuple[str, ...]
) -> tuple[list[float], float, str]:
    """Have slices, each with those before and after it, labelled by the follower's process, each a few times.

    Returns the median time of each (s), the process's most memory (GB), and what precision it has computed in.
    """
    follower = subprocess.Popen(
        [sys.executable, "-m", "analysis.follow", *options, "--out-labels", str(folder),
         *(() if model is None else ("--model", str(model)))],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    assert follower.stdin is not None
    assert follower.stdout is not None
    follower.stdout.readline()
    medians, precision = [], ""
    for paths in orders:
        order = {key: str(path) for key, path in zip(("path", "before", "after"), paths, strict=False)}
        taken = []
        for _ in range(4):
            began = time.perf_counter()
            follower.stdin.write(json.dumps({"name": "s0001"} | order) + "\n")
            follower.stdin.flush()
            answered = json.loads(follower.stdout.readline())
            assert answered["error"] is None, answered["error"]
            taken.append(time.perf_counter() - began)
        assert len(answered["numbers"]["beside"]) == len(paths) - 1
        medians.append(float(np.median(taken[1:])))
        precision = answered["numbers"]["precision"]
    status = Path(f"/proc/{follower.pid}/status").read_text("ascii")
    follower.stdin.close()
    follower.wait(60)
    return medians, round(int(status.split("VmHWM:")[1].split()[0]) / 1e6, 2), precision


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--real", type=Path, default=REAL)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--seed", type=int, default=1, help="odd: of simulated faces that nothing was trained on")
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--unet", type=int, default=0, metavar="STEPS", help="train a plain U-Net as well (hours)")
    parser.add_argument("--json", action="store_true", help="the last line alone")
    asked = parser.parse_args()
    core = SegmentationCore(asked.model)
    found: dict[str, Any] = {
        "model": core.model_id,
        "speed": speed(asked.model, (1536, 2048)) | {"at 6144 x 4096": speed(asked.model, (4096, 6144), False)},
    }
    if (asked.real / "label-left.png").is_file():
        found["real"] = on_real(core, asked.model, asked.real)
    if asked.images:
        found["simulated"] = on_simulated(core, asked.seed, asked.images)
    if asked.unet:
        found["plain U-Net"] = plain_unet(asked.unet, asked.seed, asked.images, asked.real)
    if not asked.json:
        for part in ("speed", "real", "simulated", "plain U-Net"):
            print(part)
            for name, values in found.get(part, {}).items():
                shown = values if not isinstance(values, dict) else "  ".join(f"{k} {v}" for k, v in values.items())
                print(f"  {name:26} {shown}")
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
