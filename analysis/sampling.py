"""How far a fraction measured on one place stands for the electrode: sampling error from the picture itself.

Pixels are not independent: a particle fills thousands of them. The variance of a fraction is the sum of the two-point
covariance over all pairs of pixels, taken up to the distance at which it has died away (the idea of the integral range;
for micrographs of electrodes see Dahari, Docherty, Kench, Cooper, Advanced Science 2025, "Prediction of microstructural
representativity from a single image"). It knows nothing of wrong labels: that error is another one, and is added apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

Floats = NDArray[np.float64]

_NORMAL_95 = 1.959964
_TOGETHER = 0.95
_REACH = {1: 1 / 3, 2: 1 / 2}
"""Covariance is followed to this part of the shortest edge at most, by number of axes: about half of all pairs."""


class Estimate(BaseModel):
    """A fraction 0..1 with its sampling error.

    Parameters
    ----------
    value : the fraction
    sigma : standard error, None where the picture can't tell (a phase that is absent, a place too small)
    low, high : 95 % interval (Wilson's, on the number of independent samples); value itself where sigma is None
    samples : number of independent samples that the place is worth, None where sigma is
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    value: float = Field(ge=0, le=1)
    sigma: float | None = Field(default=None, ge=0)
    low: float = Field(ge=0, le=1)
    high: float = Field(ge=0, le=1)
    samples: float | None = Field(default=None, gt=0)

    def area_for(self, sigma: float, area_m2: float) -> float | None:
        """Return the area (m2) that would bring the standard error down to `sigma`, when `area_m2` gave this one."""
        if self.sigma is None or sigma <= 0:
            return None
        return area_m2 * (self.sigma / sigma) ** 2


def estimate(value: float, variance: float | None) -> Estimate:
    """Return an Estimate of a fraction with a sampling variance; None where it isn't known."""
    value = min(1.0, max(0.0, value))
    spread = value * (1.0 - value)
    if variance is None or variance <= 0.0 or spread <= 0.0:
        return Estimate(value=value, low=value, high=value)
    return from_samples(value, max(1.0, spread / variance), math.sqrt(variance))


def from_samples(value: float, samples: float, sigma: float | None = None) -> Estimate:
    """Return an Estimate of a fraction that rests on `samples` independent samples (Wilson's interval)."""
    z2 = _NORMAL_95**2
    middle = (value + z2 / (2 * samples)) / (1 + z2 / samples)
    half = _NORMAL_95 / (1 + z2 / samples) * math.sqrt(value * (1 - value) / samples + z2 / (4 * samples**2))
    error = math.sqrt(value * (1 - value) / samples) if sigma is None else sigma
    low, high = max(0.0, min(value, middle - half)), min(1.0, max(value, middle + half))
    return Estimate(value=value, sigma=error, low=low, high=high, samples=samples)


def ratio_variance(part: Floats, whole: Floats, edge_m: float) -> float | None:
    """Return the sampling variance of sum(part) / sum(whole) over a field of correlated cells.

    Parameters
    ----------
    part, whole : how much of a phase, and how much that was counted at all, in each cell: (x,) or (y, x)
    edge_m : a cell's edge, metres; only the ratio to the field's size matters

    Returns None where nothing was counted or the field has fewer than 8 cells along an axis.
    """
    if part.shape != whole.shape or part.ndim not in _REACH:
        msg = f"part and whole are one shape, (x,) or (y, x); these are {part.shape} and {whole.shape}"
        raise ValueError(msg)
    total = float(whole.sum())
    if total <= 0.0 or min(part.shape) < 8:
        return None
    residual = part - (part.sum() / total) * whole
    covariance, pairs = _autocorrelated(residual), _autocorrelated(whole)
    distance = _distances(part.shape, edge_m)
    reach = _died_away(covariance, pairs, distance, edge_m, _REACH[part.ndim] * min(part.shape) * edge_m)
    near = distance < reach
    sum_near = float(covariance[near].sum()) / total**2
    # the fraction's own error lowers every covariance by the variance sought; so much of all pairs was summed
    share = float(pairs[near].sum()) / total**2
    least = float(covariance.flat[0]) / total**2
    return max(sum_near / max(0.2, 1.0 - share), least) or None


def _autocorrelated(field: Floats) -> Floats:
    """Return sums over all pairs of cells at each displacement, the displacement zero first."""
    from scipy import fft

    shape = [int(fft.next_fast_len(2 * n - 1, real=True)) for n in field.shape]
    power = np.abs(fft.rfftn(field, shape)) ** 2
    result: Floats = fft.irfftn(power, shape)
    return result


def _distances(shape: tuple[int, ...], edge_m: float) -> Floats:
    from scipy import fft

    axes = [np.fft.fftfreq(m, 1.0 / m) * edge_m for m in (int(fft.next_fast_len(2 * n - 1, real=True)) for n in shape)]
    squares: Floats = sum((grid**2 for grid in np.meshgrid(*axes, indexing="ij")), np.zeros(()))
    return np.sqrt(squares)


def _died_away(covariance: Floats, pairs: Floats, distance: Floats, edge_m: float, most_m: float) -> float:
    """Return the distance (m) at which the covariance, averaged over directions, first is no longer positive."""
    ring = np.minimum(distance / edge_m + 0.5, most_m / edge_m + 2).astype(np.int64).ravel()
    sums = np.bincount(ring, covariance.ravel())
    counts = np.bincount(ring, pairs.ravel().clip(0.0))
    rings = math.ceil(most_m / edge_m)
    for number in range(1, min(rings, len(sums))):
        if counts[number] > 0 and sums[number] <= 0.0:
            return (number - 0.5) * edge_m
    return most_m


def binned(field: Floats, factor: int) -> Floats:
    """Return sums over blocks of factor x factor cells; what is left over at the far edges makes smaller blocks."""
    if factor <= 1:
        return field
    rows = np.add.reduceat(field, np.arange(0, field.shape[0], factor), axis=0)
    result: Floats = np.add.reduceat(rows, np.arange(0, field.shape[1], factor), axis=1)
    return result


def slope(x: Sequence[float], y: Sequence[float]) -> tuple[float, float] | None:
    """Return the least-squares slope of y over x and its standard error; None below three points or without spread."""
    points = np.array([(a, b) for a, b in zip(x, y, strict=True) if math.isfinite(a) and math.isfinite(b)])
    if len(points) < 3:
        return None
    at, value = points.T - points.mean(axis=0)[:, None]
    spread = float((at**2).sum())
    if spread <= 0.0:
        return None
    found = float((at * value).sum()) / spread
    return found, math.sqrt(float(((value - found * at) ** 2).sum()) / (len(points) - 2) / spread)


def partial_slope(y: Sequence[float], x: Sequence[float], beside: Sequence[float]) -> tuple[float, float] | None:
    """Return the slope of y over x at equal `beside` (least squares on both) and its standard error.

    None below six points, or where x and `beside` go together so closely that nothing tells them apart.
    """
    rows = [row for row in zip(y, x, beside, strict=True) if all(map(math.isfinite, row))]
    if len(rows) < 6:
        return None
    value, *both = np.array(rows).T
    design = np.stack([axis - axis.mean() for axis in both], axis=1)
    spread = np.sqrt((design**2).sum(axis=0))
    if (spread == 0.0).any() or abs(float(np.prod(1.0 / spread) * design[:, 0] @ design[:, 1])) > _TOGETHER:
        return None
    inverse = np.linalg.inv(design.T @ design)
    found = inverse @ design.T @ (value - value.mean())
    rest = value - value.mean() - design @ found
    return float(found[0]), math.sqrt(float((rest**2).sum()) / (len(rows) - 3) * float(inverse[0, 0]))
