"""What fields and charging do to a picture that is already taken: lines that wobble, streaks that flare."""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.randomness import rng

#: Frequency of the mains, Hz.
MAINS_HZ = 50.0
#: Share of lines on which a charge breaks down, how long its streak is (share of the line), what it adds (share of
#: white): our assumptions (physics.md 7).
FLARED_LINES, STREAK_SHARE, STREAK_ADDS = 0.02, 0.3, 0.5


def wobbled(pixels: NDArray[Any], amplitude_px: float, line_s: float) -> NDArray[Any]:
    """Return channels (channel, y, x) whose lines are moved by a field at the mains' frequency."""
    out = np.empty_like(pixels)
    columns = np.arange(pixels.shape[2], dtype=float)
    for row in range(pixels.shape[1]):
        at = columns + amplitude_px * np.sin(2 * pi * MAINS_HZ * line_s * row)
        for channel in range(pixels.shape[0]):
            out[channel, row] = np.interp(at, columns, pixels[channel, row].astype(float))
    return out


def flared(pixels: NDArray[Any], seed: int, number: int) -> NDArray[Any]:
    """Return channels (channel, y, x) with bright streaks that fade along their line."""
    draw = rng(seed, "flares", number)
    top, out = np.iinfo(pixels.dtype).max, pixels.astype(np.float32)
    _, rows, columns = pixels.shape
    for row in np.flatnonzero(draw.random(rows) < FLARED_LINES):
        start = int(draw.integers(0, columns))
        fade = np.exp(-np.arange(columns - start) / (STREAK_SHARE * columns * draw.random() + 1))
        out[:, row, start:] += STREAK_ADDS * top * fade.astype(np.float32)
    return np.asarray(np.clip(out, 0, top), pixels.dtype)
