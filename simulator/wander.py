"""Slow random changes as functions of the instrument's time: asked twice about the same moment, they say the same."""

from __future__ import annotations

from functools import lru_cache
from math import exp, floor

import numpy as np

from simulator.randomness import rng

_NODES_PER_TAU = 6
_REMEMBERED = 30  # nodes after which nothing of a draw is left
_BLOCK = 64


def settled(seed: int, purpose: str, time_s: float, tau_s: float) -> float:
    """Return a value of mean 0 and deviation 1 that forgets itself over `tau_s` seconds (autoregression)."""
    step = tau_s / _NODES_PER_TAU
    at = time_s / step
    low = floor(at)
    share = at - low
    return (1 - share) * _node(seed, purpose, low) + share * _node(seed, purpose, low + 1)


@lru_cache(maxsize=4096)
def _node(seed: int, purpose: str, node: int) -> float:
    keep = exp(-1 / _NODES_PER_TAU)
    draws = [float(rng(seed, purpose, node - back).standard_normal()) for back in range(_REMEMBERED)]
    return float(np.sqrt(1 - keep**2) * sum(draw * keep**back for back, draw in enumerate(draws)))


def walked(seed: int, purpose: str, time_s: float, step_s: float) -> float:
    """Return how far a random walk has come that goes one unit (deviation) every `step_s` seconds, 0 at time 0."""
    at = max(0.0, time_s) / step_s
    low = floor(at)
    here = _walk(seed, purpose, low)
    return here + (at - low) * (_walk(seed, purpose, low + 1) - here)


@lru_cache(maxsize=4096)
def _walk(seed: int, purpose: str, node: int) -> float:
    block, within = divmod(node, _BLOCK)
    whole = sum(float(_steps(seed, purpose, one).sum()) for one in range(block))
    return whole + float(_steps(seed, purpose, block)[:within].sum())


@lru_cache(maxsize=1024)
def _steps(seed: int, purpose: str, block: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return rng(seed, purpose, block).standard_normal(_BLOCK)
