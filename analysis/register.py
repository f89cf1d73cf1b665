"""Lays an element map over the labels of the same face.

Map and image are taken minutes apart, at another voltage and often another magnification: published ones lie 2.8 um
off, scaled by 1.5 % and sheared by 1.3 %. With two or three counts a pixel there is nothing to correlate pixel by
pixel. So the map is explained by the phases: every phase has a mean count of every element, and the best place is
where that explains most of the map.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from analysis.phases import Phase
from analysis.sampling import binned

Labels = NDArray[np.uint8]
Floats = NDArray[np.float64]

UNKNOWN = 255
"""On the map's grid: the image doesn't reach here."""

_WORK_M = 0.25e-6
_WORK_PIXELS = 15_000  # a large map has counts to spare: it may be coarser
_BLUR_M = 0.15e-6  # sigma: lateral resolution at 10 kV is 0.3 um in NMC and platinum, 1 um in carbon (FWHM)
_COARSE_M = 0.6e-6
_EDGE_M = 1.0e-6
_WORTH = 25.0  # gain that four more parameters must bring (chi square at 99.99 % is 23.5)
_LEAST_GAIN = 50.0
_LEAST_OVERLAP = 0.3
_STEPS = (0.3e-6, 0.3e-6, 0.01, 0.01, 0.01, 0.01)


@dataclass(frozen=True)
class ElementMap:
    """Counts of one X-ray map.

    counts : counts per pixel by element (Al, Ni, Pt, C, F), each (y, x), not negative
    pixel_m : the pixel's edge, metres
    offset_m : where the map's centre should lie from the labels' centre, (y, x), metres, as far as the stage knows
    live_s : live time, seconds, where known
    """

    counts: Mapping[str, NDArray[np.generic]]
    pixel_m: float
    offset_m: tuple[float, float] = (0.0, 0.0)
    live_s: float | None = None

    def __post_init__(self) -> None:
        shapes = {image.shape for image in self.counts.values()}
        if len(shapes) != 1 or len(next(iter(shapes))) != 2:
            msg = f"an element map has one or more images (y, x) of one shape, not {sorted(map(str, shapes))}"
            raise ValueError(msg)
        if self.pixel_m <= 0:
            msg = f"a map's pixel is a positive length (m), not {self.pixel_m}"
            raise ValueError(msg)
        for name, image in self.counts.items():
            if not np.isfinite(image).all() or image.min() < 0:
                msg = f"{name}: counts are finite and not negative"
                raise ValueError(msg)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        height, width = next(iter(self.counts.values())).shape
        return int(height), int(width)

    @property
    def counts_per_pixel(self) -> float:
        """Counts of all elements together, mean per pixel."""
        return float(sum(float(image.astype(np.float64).mean()) for image in self.counts.values()))


class Placement(BaseModel):
    """How the map lies over the labels: face position = matrix x (position in the map from its centre) + shift.

    Positions are (y, x) in metres from the labels' centre.

    Parameters
    ----------
    shift_m : where the map's centre lies, (y, x)
    matrix : ((yy, yx), (xy, xx)); the identity where only a shift was found
    moved_m : how far that is from where the stage said, (y, x)
    affine : whether scale and shear were worth fitting
    gain : twice the log likelihood (Poisson) by which the phases explain the map better than one mean everywhere
    overlap : part of the map that lies on the labels
    found : whether the gain is beyond doubt and the place not at the edge of the search; if not, the stage's is kept
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")

    shift_m: tuple[float, float]
    matrix: tuple[tuple[float, float], tuple[float, float]] = ((1.0, 0.0), (0.0, 1.0))
    moved_m: tuple[float, float] = (0.0, 0.0)
    affine: bool = False
    gain: float = 0.0
    overlap: float = 1.0
    found: bool = True


def place(element_map: ElementMap, labels: Labels, pixel_m: float, *, search_m: float = 4e-6) -> Placement:
    """Find how a map lies over labels.

    Parameters
    ----------
    element_map : the map; all its elements count
    labels : phases of the face, uint8 (y, x)
    pixel_m : the labels' pixel edge, metres
    search_m : how far off (m) from `offset_m` it may lie, in y and x
    """
    from scipy import optimize

    fit = _Fit(element_map, labels, pixel_m)
    start = element_map.offset_m
    steps = np.arange(-np.ceil(search_m / _COARSE_M), np.ceil(search_m / _COARSE_M) + 1) * _COARSE_M
    tried = [((y, x), fit.gain((start[0] + y, start[1] + x, 0, 0, 0, 0))) for y in steps for x in steps]
    best = max(tried, key=lambda item: item[1])[0]

    def polished(first: Floats, free: int) -> tuple[Floats, float]:
        steps, rest = np.asarray(_STEPS[:free]), first[free:]
        found = optimize.minimize(
            lambda off: -fit.gain((*(first[:free] + off * steps), *rest)),
            np.zeros(free),
            method="Powell",
            options={"xtol": 0.01, "ftol": 1e-7, "maxfev": 120 * free},
        )
        return np.concatenate([first[:free] + found.x * steps, rest]), -float(found.fun)

    at = np.array([start[0] + best[0], start[1] + best[1], 0.0, 0.0, 0.0, 0.0])
    fit.keep_to(tuple(at))
    shifted, _ = polished(at, 2)
    fit.keep_to(tuple(shifted))
    shifted, _ = polished(shifted, 2)
    full, _ = polished(shifted, 6)
    fit.keep_to(tuple(full))
    plain = fit.gain(tuple(shifted))
    full, better = polished(full, 6)
    affine = better - plain > _WORTH
    values, gain = (full, better) if affine else (shifted, plain)
    moved = (float(values[0] - start[0]), float(values[1] - start[1]))
    inside = max(abs(moved[0]), abs(moved[1])) < search_m
    overlap = fit.overlap(tuple(values))
    if not (gain > _LEAST_GAIN and inside and overlap >= _LEAST_OVERLAP):
        return Placement(shift_m=start, gain=max(0.0, gain), overlap=fit.overlap((*start, 0, 0, 0, 0)), found=False)
    matrix = _matrix(tuple(values))
    return Placement(
        shift_m=(float(values[0]), float(values[1])),
        matrix=((float(matrix[0, 0]), float(matrix[0, 1])), (float(matrix[1, 0]), float(matrix[1, 1]))),
        moved_m=moved,
        affine=affine,
        gain=gain,
        overlap=overlap,
    )


def labels_on(element_map: ElementMap, labels: Labels, pixel_m: float, placement: Placement) -> Labels:
    """Return the labels on the map's grid (nearest pixel), uint8 (y, x); UNKNOWN beyond the labels."""
    matrix, offset = _indices(
        labels.shape, pixel_m, element_map.shape, element_map.pixel_m, np.asarray(placement.matrix), placement.shift_m
    )
    v, u = np.arange(element_map.shape[0])[:, None], np.arange(element_map.shape[1])[None, :]
    row = np.floor(matrix[0, 0] * v + matrix[0, 1] * u + offset[0] + 0.5).astype(np.int64)
    column = np.floor(matrix[1, 0] * v + matrix[1, 1] * u + offset[1] + 0.5).astype(np.int64)
    inside = (row >= 0) & (row < labels.shape[0]) & (column >= 0) & (column < labels.shape[1])
    found = np.full(element_map.shape, UNKNOWN, np.uint8)
    found[inside] = labels[row[inside], column[inside]]
    return found


def on_map(element_map: ElementMap, image: Floats, pixel_m: float, placement: Placement) -> Floats:
    """Return an image on the labels' grid (y, x) as seen on the map's grid, interpolated; NaN beyond it."""
    return _sampled(
        image, pixel_m, element_map.shape, element_map.pixel_m, np.asarray(placement.matrix), placement.shift_m
    )


def _indices(
    image: tuple[int, ...],
    pixel_m: float,
    shape: tuple[int, int],
    edge_m: float,
    matrix: Floats,
    shift_m: Floats | tuple[float, float],
) -> tuple[Floats, Floats]:
    """Return matrix and offset that turn the indices of a grid centred on its own middle into those of the image."""
    scaled = matrix * (edge_m / pixel_m)
    middle = (np.asarray(image) - 1) / 2.0
    offset: Floats = middle + np.asarray(shift_m) / pixel_m - scaled @ ((np.asarray(shape) - 1) / 2.0)
    return scaled, offset


def _sampled(
    image: Floats,
    pixel_m: float,
    shape: tuple[int, int],
    edge_m: float,
    matrix: Floats,
    shift_m: Floats | tuple[float, float],
) -> Floats:
    from scipy import ndimage

    scaled, offset = _indices(image.shape, pixel_m, shape, edge_m, matrix, shift_m)
    found: Floats = ndimage.affine_transform(
        image, scaled, offset, output_shape=shape, order=1, mode="constant", cval=np.nan, prefilter=False
    )
    return found


Values = tuple[float, ...]


def _matrix(values: Values) -> Floats:
    """Return the matrix of (shift y, shift x, yy - 1, xx - 1, yx, xy)."""
    return np.array([[1.0 + values[2], values[4]], [values[5], 1.0 + values[3]]])


class _Fit:
    """Map and phases at a working resolution; tells how well the phases explain the map at a place."""

    def __init__(self, element_map: ElementMap, labels: Labels, pixel_m: float) -> None:
        from scipy import ndimage

        area = math.prod(element_map.shape) * element_map.pixel_m**2
        work = max(_WORK_M, math.sqrt(area / _WORK_PIXELS))
        factor = max(1, round(work / element_map.pixel_m))
        height, width = (n // factor * factor for n in element_map.shape)
        top, left = (element_map.shape[0] - height) // 2, (element_map.shape[1] - width) // 2
        self.edge_m = factor * element_map.pixel_m
        # what is cut off to bin evenly moves the centre
        self.middle = (
            np.array([top + (height - 1) / 2, left + (width - 1) / 2]) - (np.array(element_map.shape) - 1) / 2
        ) * element_map.pixel_m
        maps = [
            binned(image.astype(np.float64)[top : top + height, left : left + width], factor)
            for image in element_map.counts.values()
        ]
        self.shape = (maps[0].shape[0], maps[0].shape[1])
        self.maps = np.stack([image.ravel() for image in maps], axis=1)
        self.kept = np.ones(len(self.maps), np.bool_)
        coarse = max(1, round(0.5 * work / pixel_m))
        rows, columns = (n // coarse * coarse for n in labels.shape)
        cut = labels[:rows, :columns]
        self.pixel_m = coarse * pixel_m
        self.cut = (np.array([(rows - 1) / 2, (columns - 1) / 2]) - (np.array(labels.shape) - 1) / 2) * pixel_m
        shares = [binned((cut == phase).astype(np.float64), coarse) / coarse**2 for phase in Phase]
        self.phases = [ndimage.gaussian_filter(share, _BLUR_M / self.pixel_m, mode="nearest") for share in shares]

    def _design(self, values: Values) -> Floats:
        matrix = _matrix(values)
        shift = np.array(values[:2]) + matrix @ self.middle - self.cut
        return np.stack(
            [_sampled(phase, self.pixel_m, self.shape, self.edge_m, matrix, shift).ravel() for phase in self.phases],
            axis=1,
        )

    def overlap(self, values: Values) -> float:
        """Return the part of the map that lies on the labels."""
        return float(np.isfinite(self._design(values)[:, 0]).mean())

    def keep_to(self, values: Values) -> None:
        """From now on count only what lies well on the labels at this place: no place gains by what it leaves out."""
        from scipy import ndimage

        seen = np.isfinite(self._design(values)[:, 0]).reshape(self.shape)
        inner = ndimage.binary_erosion(seen, iterations=max(1, round(_EDGE_M / self.edge_m)), border_value=1)
        if inner.mean() >= _LEAST_OVERLAP:
            self.kept = inner.ravel()

    def gain(self, values: Values) -> float:
        """Return twice the log likelihood by which the phases' means beat one mean; 0 with too little overlap."""
        design = self._design(values)
        seen = np.isfinite(design[:, 0]) & self.kept
        if seen.mean() < _LEAST_OVERLAP:
            return 0.0
        design, maps = design[seen], self.maps[seen]
        mean = maps.mean(axis=0).clip(1e-9)
        step = np.linalg.pinv(design.T @ design, rcond=1e-6) @ (design.T @ (maps - mean))
        expected = (mean + design @ step).clip(0.02 * mean)
        gain = 2.0 * (maps * np.log(expected / mean) - (expected - mean)).sum()
        return float(gain) * int(self.kept.sum()) / int(seen.sum())
