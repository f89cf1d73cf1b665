"""Scores a model on images it was not trained on, and fits the temperature by which its probabilities are honest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, optimize

from analysis.phases import IGNORE, Fine, merged, merged_shares
from analysis.reliability import BINS, Reliability, calibration_error, reliability_curve, reliability_of
from analysis.score import confusion, iou, mean_iou

if TYPE_CHECKING:
    from analysis.core import SegmentationCore
    from analysis.network import Channels
    from analysis.samples import Sample

_PIXELS = 20_000
_COLDEST, _HOTTEST = 0.3, 4.0


@dataclass(frozen=True)
class Scores:
    """What `evaluate` found: figures 0..1 by name, and how right labels are by how sure they are."""

    figures: dict[str, float]
    reliability: tuple[Reliability, ...]


def evaluate(core: SegmentationCore, samples: Iterable[Sample]) -> Scores:
    """Score a model: mean and per-phase intersection over union, over all pixels of all samples, 0..1.

    All is scored as a live run sees it, with the slice before where there is one. Apart from that: `inner`, without the
    pixels beside a boundary, whose truth is a matter of the half pixel; each detector alone (`cbs alone`); with the
    slices on both sides (`both sides`); and those faces that are as the method wants them, more of their pores filled
    than open and hardly any film left (`filled`): the backs of open pores can look just like what they are made of.
    `calibration error` is the expected calibration error.
    """
    from analysis.network import ALONE

    counts: dict[str, NDArray[np.int64]] = {}
    reliability = np.zeros((3, BINS))

    def count(kind: str, labels: NDArray[np.uint8], reference: NDArray[np.uint8]) -> None:
        counts[kind] = counts.get(kind, np.zeros((5, 5), np.int64)) + confusion(labels, reference)

    for sample in samples:
        reference = merged(sample.fine)
        sides: dict[str, Channels] = {name: one.channels for name, one in sample.beside.items()}
        live = core.segment(sample.channels, sample.pixel_m, before=sides.get("before"))
        reliability += reliability_of(live.labels, live.confidence, reference)
        inner = np.where(at_boundary(reference), np.uint8(IGNORE), reference)
        count("", live.labels, reference)
        count("inner", live.labels, inner)
        if _is_filled(sample.fine):
            count("filled", live.labels, reference)
            count("filled inner", live.labels, inner)
        if "before" in sides and "after" in sides:
            seen = core.segment(sample.channels, sample.pixel_m, before=sides["before"], after=sides["after"])
            count("both sides", seen.labels, reference)
            count("live, of those", live.labels, reference)
            count("by itself, of those", core.segment(sample.channels, sample.pixel_m).labels, reference)
        if len(sample.channels) > 1:
            for name, image in sample.channels.items():
                if name in ALONE:
                    count(f"{name.lower()} alone", core.segment({name: image}, sample.pixel_m).labels, reference)
    figures: dict[str, float] = {}
    for kind, found in counts.items():
        figures[f"mean iou {kind}".strip()] = round(mean_iou(found), 4)
        if kind in ("", "filled"):
            figures |= {f"iou {name} {kind}".strip(): round(value, 4) for name, value in iou(found).items()}
    curve = reliability_curve(reliability)
    figures["calibration error"] = round(calibration_error(curve), 4)
    return Scores(figures, curve)


def fitted_temperature(core: SegmentationCore, samples: Iterable[Sample]) -> float:
    """Return the temperature at which the true phases of samples are likeliest, 1 where there are no samples."""
    rng = np.random.default_rng(0)
    scores, truth = [], []
    for sample in samples:
        probabilities = core.probabilities(sample.channels, sample.pixel_m, temperature=1.0)
        reference = merged(sample.fine).ravel()
        known = np.flatnonzero(reference != IGNORE)
        chosen = rng.choice(known, min(_PIXELS, known.size), replace=False)
        scores.append(np.log(probabilities.reshape(len(Fine), -1)[:, chosen] + 1e-9))
        truth.append(reference[chosen])
    if not scores:
        return 1.0
    return likeliest_temperature(np.concatenate(scores, axis=1), np.concatenate(truth))


def likeliest_temperature(scores: NDArray[np.float32], phases: NDArray[np.uint8]) -> float:
    """Return the temperature at which phases, (n,), are likeliest by scores of the fine classes, (7, n)."""

    def surprise(log_temperature: float) -> float:
        cooled = scores / np.exp(log_temperature)
        hot = np.exp(cooled - cooled.max(axis=0))
        shares = merged_shares(hot / hot.sum(axis=0))
        return float(-np.log(shares[phases, np.arange(phases.size)] + 1e-9).mean())

    found = optimize.minimize_scalar(surprise, bounds=(np.log(_COLDEST), np.log(_HOTTEST)), method="bounded")
    return round(float(np.exp(found.x)), 3)


def at_boundary(reference: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return which pixels have a neighbour of another phase."""
    edge: NDArray[np.bool_] = ndimage.maximum_filter(reference, 3) != ndimage.minimum_filter(reference, 3)
    return edge


def _is_filled(fine: NDArray[np.uint8]) -> bool:
    count = np.bincount(fine.ravel(), minlength=IGNORE + 1)
    filled, still_open, film = (int(count[code]) for code in (Fine.PT_PORE, Fine.OPEN_PORE, Fine.FILM))
    return filled > still_open and film < 0.05 * fine.size
