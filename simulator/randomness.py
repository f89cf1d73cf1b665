"""Keyed randomness: a generator is made from what it is for, never carried from call to call.

A frame repeated after a crash draws the same noise, and one draw more in one place changes nothing in another.
"""

from __future__ import annotations

import hashlib

import numpy as np

Key = str | int | float | bool


def rng(seed: int, purpose: str, *key: Key) -> np.random.Generator:
    """Return the generator of this seed, purpose and key, the same on every machine and in every process.

    Parameters
    ----------
    seed : the seed of the whole virtual microscope
    purpose : what is drawn, such as "frame noise"
    key : what tells this draw from others of its purpose, such as an action's id
    """
    text = "\x1f".join([str(int(seed)), purpose, *(f"{type(part).__name__}:{part!r}" for part in key)])
    digest = hashlib.sha256(text.encode()).digest()
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(np.frombuffer(digest, np.uint32).tolist())))
