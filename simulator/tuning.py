"""Automatic routines on small pictures: focus, stigmator, contrast and brightness."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from instrument.settings import DetectorSettings

Picture = Callable[[float], NDArray[np.generic]]

#: Working distances are tried this far around the present one, metres (physics.md 1.6: 20-40 um, 20-40 steps) by
#: electrons, in rounds that narrow by `NARROWER`.
SWEEP_M, STEPS, NARROWER, ROUNDS = 40e-6, 13, 4.0, 3
#: Stigmators are tried so far around the present setting, in so many steps.
STIGMATOR_SWEEP, STIGMATOR_STEPS = 1.0, 9
#: Greys that the darkest and the brightest 0.3 % are brought to, of 255: binder above black, platinum
#: below white.
DARKEST, BRIGHTEST, TAIL = 10.0, 243.0, 0.3
#: This much more contrast doubles the gain (physics.md 4.4); what trial pictures are taken with.
CONTRAST_STEP, TRIAL_CONTRASTS, TRIAL_BRIGHTNESS = 0.15, (0.3, 0.2), 0.7


def sharpness(picture: NDArray[np.generic]) -> float:
    """Return the mean squared gradient of a picture over its noise."""
    grey = ndimage.gaussian_filter(np.asarray(picture, np.float32), 1.0)
    rise, run = np.gradient(grey)
    return float((rise**2 + run**2).mean())


def focus(picture: Picture, start_m: float, sweep_m: float = SWEEP_M) -> tuple[float, float]:
    """Return the working distance (m) at which pictures are sharpest, and a score 0..1.

    `picture` takes one at a working distance; places are tried up to `sweep_m` from the start.
    """
    middle, half = start_m, sweep_m
    best = worst = 0.0
    for _ in range(ROUNDS):
        places = middle + np.linspace(-half, half, STEPS)
        values = np.array([sharpness(picture(float(place))) for place in places])
        top = int(np.argmax(values))
        best, worst = float(values[top]), float(values.min()) if worst == 0.0 else min(worst, float(values.min()))
        middle = float(places[top]) + _vertex(values, top) * float(places[1] - places[0])
        half /= NARROWER
    return middle, max(0.0, min(1.0, 1 - worst / best)) if best > 0 else 0.0


def stigmator(picture: Picture, start: float) -> tuple[float, float]:
    """Return the stigmator's setting at which pictures are sharpest, and a score 0..1.

    A parabola through all places: the top of a flat curve lies between them. Where none fits, nothing is changed.
    """
    places = start + np.linspace(-STIGMATOR_SWEEP, STIGMATOR_SWEEP, STIGMATOR_STEPS)
    values = np.array([sharpness(picture(float(place))) for place in places])
    curve, slope, _ = np.polyfit(places - start, values / values.max(), 2)
    if curve >= 0:
        return start, 0.0
    off = float(np.clip(-slope / (2 * curve), -STIGMATOR_SWEEP, STIGMATOR_SWEEP))
    return start + off, float(1 - values.min() / values.max())


def _vertex(values: NDArray[np.float64], top: int) -> float:
    """Return the offset of a parabola's top from the highest of three points, in steps."""
    if not 0 < top < values.size - 1:
        return 0.0
    before, here, after = (float(v) for v in values[top - 1 : top + 2])
    curve = before - 2 * here + after
    return float(np.clip(0.5 * (before - after) / curve, -0.5, 0.5)) if curve < 0 else 0.0


def contrast(name: str, take: Callable[[DetectorSettings], NDArray[np.uint16]]) -> tuple[DetectorSettings, float]:
    """Return contrast and brightness that bring a detector's greys into range, and the share of pixels in it.

    `take` takes a 16-bit picture at some settings. Two pictures at low contrast, where nothing is clipped, tell
    how dark and bright ends go with the gain; that gives the settings.
    """
    trials = [DetectorSettings(name=name, contrast=c, brightness=TRIAL_BRIGHTNESS) for c in TRIAL_CONTRASTS]
    gains = [2 ** ((contrast - 0.5) / CONTRAST_STEP) for contrast in TRIAL_CONTRASTS]
    ends = []
    for trial in trials:
        grey = ndimage.uniform_filter(take(trial).astype(np.float32) / 257, 3)
        ends.append(np.percentile(grey, (TAIL, 100 - TAIL)))
    slope = (ends[0] - ends[1]) / (gains[0] - gains[1])
    zero = ends[0] - slope * gains[0] - 510 * (TRIAL_BRIGHTNESS - 0.5)
    span = max(float(slope[1] - slope[0]), 1.0)
    gain = (BRIGHTEST - DARKEST) / span
    wanted = float(np.clip(0.5 + CONTRAST_STEP * np.log2(gain), 0, 1))
    gain = 2 ** ((wanted - 0.5) / CONTRAST_STEP)
    brightness = float(np.clip(0.5 + (DARKEST - float(slope[0]) * gain - float(zero.mean())) / 510, 0, 1))
    found = DetectorSettings(name=name, contrast=wanted, brightness=brightness)
    grey = take(found).astype(np.float32) / 257
    return found, float(np.mean((grey > 0.5) & (grey < 254.5)))
