"""Pictures that are no cut electrodes, to tell a network what it doesn't know: noise, shapes, electrodes gone wrong.

Drawn from a seed, as crops are: greys (n, 9, y, x). Two kinds: made from nothing, and made from training crops by what
no session does to them: negatives, blocks shuffled, phases with greys of another order, spectra without their phase.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from analysis.augment import Batch
from analysis.network import DETECTORS, IMAGES
from analysis.phases import IGNORE, Fine

Grey = NDArray[np.float64]


def strange(batch: Batch, rng: np.random.Generator) -> Batch:
    """Return a batch like another, the same images shown, in which nothing is an electrode as it should be."""
    count, _, height, width = batch.greys.shape
    each = len(DETECTORS)
    greys = torch.zeros_like(batch.greys)
    for index in range(count):
        fine = batch.fine[index].numpy()
        nothing = rng.random() < 0.5
        if nothing:
            one = _FROM_NOTHING[int(rng.integers(len(_FROM_NOTHING)))]((height, width), rng)
        else:
            wrong = _WRONG[int(rng.integers(len(_WRONG)))]
        for first in range(0, IMAGES, each):  # the slices beside are as strange, and nearly the same
            real = batch.greys[index, first : first + each].numpy().astype(float)
            pictures = np.stack([_noisy(one, rng) for _ in DETECTORS]) if nothing else wrong(real, fine, rng)
            greys[index, first : first + each] = torch.from_numpy(pictures.clip(0, 1).astype(np.float32))
    mask = batch.present.view(count, IMAGES, 1, 1)
    return Batch(greys * mask, batch.present, torch.full_like(batch.fine, IGNORE), batch.pixel_m)


def _noisy(picture: Grey, rng: np.random.Generator) -> Grey:
    gain, offset = rng.uniform(0.5, 1.1), rng.uniform(-0.1, 0.2)
    noisy: Grey = gain * picture + offset + rng.exponential(0.03) * rng.standard_normal(picture.shape)
    return noisy


# -- from nothing ------------------------------------------------------------------------------------------------------


def _unit(picture: Grey) -> Grey:
    low, high = picture.min(), picture.max()
    result: Grey = (picture - low) / max(1e-9, high - low)
    return result


def _soft(shape: tuple[int, int], rng: np.random.Generator) -> Grey:
    sigma = np.exp(rng.uniform(np.log(0.3), np.log(12.0), 2))
    return _unit(ndimage.gaussian_filter(rng.standard_normal(shape), sigma if rng.random() < 0.5 else sigma[0]))


def _steps(shape: tuple[int, int], rng: np.random.Generator) -> Grey:
    levels = int(rng.integers(2, 6))
    return np.asarray(rng.random(levels)[np.floor(_soft(shape, rng) * (levels - 1e-6)).astype(int)])


def _slope(shape: tuple[int, int], rng: np.random.Generator) -> Grey:
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    a, b, c = rng.normal(0, 1, 3) * (rng.random() < 0.85)
    return _unit(a * y + b * x + c * (x * x + y * y)) if a or b or c else np.full(shape, rng.random())


def _stripes(shape: tuple[int, int], rng: np.random.Generator) -> Grey:
    y, x = np.mgrid[: shape[0], : shape[1]]
    total = np.zeros(shape)
    for _ in range(int(rng.integers(1, 4))):
        angle, period = rng.uniform(0, np.pi), np.exp(rng.uniform(np.log(4), np.log(60)))
        total += np.sin(2 * np.pi * (np.cos(angle) * y + np.sin(angle) * x) / period + rng.uniform(0, 6.3))
    return _unit(np.sign(total) if rng.random() < 0.4 else total)


def _shapes(shape: tuple[int, int], rng: np.random.Generator) -> Grey:
    """Draw boxes, disks and lines of any grey on a plain or sloping ground, as writing, parts and coins are."""
    picture = 0.3 * _slope(shape, rng) + 0.5 * rng.random()
    y, x = np.mgrid[: shape[0], : shape[1]]
    size = np.exp(rng.uniform(np.log(2.0), np.log(30.0)))
    two = rng.random(2)
    for _ in range(int(rng.integers(5, 80))):
        cy, cx = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        grey = two[int(rng.integers(2))] if rng.random() < 0.6 else rng.random()
        kind, h, w = rng.integers(3), size * rng.uniform(0.3, 2), size * rng.uniform(0.3, 2)
        turn = rng.uniform(0, np.pi)
        u, v = np.cos(turn) * (x - cx) + np.sin(turn) * (y - cy), np.cos(turn) * (y - cy) - np.sin(turn) * (x - cx)
        if kind == 0:
            picture[(np.abs(u) < w) & (np.abs(v) < h)] = grey
        elif kind == 1:
            picture[(u / w) ** 2 + (v / h) ** 2 < 1] = grey
        else:
            picture[(np.abs(u) < 4 * size) & (np.abs(v) < max(1.0, 0.1 * size))] = grey
    soft: Grey = ndimage.gaussian_filter(picture, rng.uniform(0, 1.5))
    return soft


_FROM_NOTHING = (_soft, _steps, _slope, _stripes, _shapes, _shapes)


# -- electrodes gone wrong ---------------------------------------------------------------------------------------------


def _negative(real: Grey, fine: NDArray[np.int64], rng: np.random.Generator) -> Grey:
    return 1.0 - real


def _shuffled(real: Grey, fine: NDArray[np.int64], rng: np.random.Generator) -> Grey:
    """Put blocks of the picture into another order."""
    edge = int(rng.choice([4, 8, 16]))
    channels, height, width = real.shape
    blocks = real.reshape(channels, height // edge, edge, width // edge, edge).transpose(1, 3, 0, 2, 4)
    flat = blocks.reshape(-1, channels, edge, edge)
    mixed = flat[rng.permutation(len(flat))].reshape(blocks.shape)
    return mixed.transpose(2, 0, 3, 1, 4).reshape(real.shape)


def _recoloured(real: Grey, fine: NDArray[np.int64], rng: np.random.Generator) -> Grey:
    """Give phases greys in an order that they never have: bright binder, dark platinum."""
    greys = np.append(rng.random(len(Fine)), 0.5)
    greys[Fine.CBD] = rng.uniform(max(0.35, greys[Fine.ACTIVE]), 1.0)
    flat = ndimage.gaussian_filter(greys[np.minimum(fine, len(Fine))], 0.8)
    return np.stack([_noisy(flat, rng) for _ in DETECTORS])


def _scrambled(real: Grey, fine: NDArray[np.int64], rng: np.random.Generator) -> Grey:
    """Keep a picture's spectrum, and none of its structure."""
    turned = np.angle(np.fft.fft2(rng.standard_normal(real.shape[1:])))
    found = np.real(np.fft.ifft2(np.abs(np.fft.fft2(real)) * np.exp(1j * turned)))
    return np.stack([_unit(one) for one in found])


def _edges(real: Grey, fine: NDArray[np.int64], rng: np.random.Generator) -> Grey:
    return np.stack([_unit(ndimage.gaussian_gradient_magnitude(one, rng.uniform(0.7, 2.5))) for one in real])


_WRONG = (_negative, _shuffled, _recoloured, _recoloured, _scrambled, _edges)
