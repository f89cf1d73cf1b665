"""Where things are, read from pictures: the fiducial, the front edge, drift, "was anything milled at all?".

Pure functions on arrays (y, x) with a pixel size; positions in metres from the picture's centre, x right and y down,
which are field coordinates. Each says how sure it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from numpy.typing import NDArray

from analysis import align

Float = NDArray[np.float64]

#: A fiducial below this score was not found (physics.md 1.6: ASV clients stop at 0.75 of their scale; ours is plain
#: normalised correlation on a noisy, worn mark, which lies lower).
LEAST_SCORE = 0.45
#: Two pictures that overlap by less than so many pixels tell nothing.
_LEAST_PX = 64
#: What varies by less than this share of the picture's own variance is taken for flat.
_FLAT = 1e-3
#: So many pixels of a picture's middle tell its detail.
_DETAIL_PX = 1024


@dataclass(frozen=True)
class Found:
    """A mark: its centre (m, field), the correlation with what was looked for (-1..1)."""

    u_m: float
    v_m: float
    score: float


def cross(size_px: float, width_px: float) -> Float:
    """Return the picture of an X-shaped mark, dark on bright (y, x), of this size and line width in pixels."""
    half = round(size_px * 0.62)
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(float)
    arm = 0.5 * size_px
    distance = np.full(x.shape, np.inf)
    for sign in (1.0, -1.0):
        along = np.clip((x + sign * y) / np.sqrt(2.0), -arm * np.sqrt(2.0), arm * np.sqrt(2.0))
        across = np.hypot(x - along / np.sqrt(2.0), y - sign * along / np.sqrt(2.0))
        distance = np.minimum(distance, across)
    soft: Float = -np.clip(0.5 + (0.5 * width_px - distance) / max(1.0, 0.5 * width_px), 0.0, 1.0)
    return soft


def find_mark(image: NDArray[np.generic], pixel_m: float, size_m: float, width_m: float, *, reach_m: float) -> Found:
    """Find the X-shaped mark nearest to where it is expected, the picture's centre.

    Parameters
    ----------
    image : (y, x), any grey
    pixel_m, size_m, width_m : pixel, length of the mark's arms' box and their width, metres
    reach_m : how far from the centre it is looked for, metres
    """
    template = cross(size_m / pixel_m, max(1.5, width_m / pixel_m))
    middle = [(side - 1) / 2 for side in image.shape]
    spans = [
        slice(max(0, ceil(at - reach_m / pixel_m)), min(side, floor(at + reach_m / pixel_m) + 1))
        for at, side in zip(middle, image.shape, strict=True)
    ]
    score = correlation(image.astype(float), template, (spans[0], spans[1]))
    return _found(score, score, (spans[0].start - middle[0], spans[1].start - middle[1]), pixel_m)


def find_pair(
    image: NDArray[np.generic], pixel_m: float, size_m: float, width_m: float, *, apart_m: tuple[float, float]
) -> Found:
    """Find two X-shaped marks, alike, anywhere in a picture; returns the first, the second lies `apart_m` (u, v) off.

    Seen together they can't be taken for each other. The score is the lower one of both.
    """
    template = cross(size_m / pixel_m, max(1.5, width_m / pixel_m))
    height, width = image.shape
    score = correlation(image.astype(float), template, (slice(0, height), slice(0, width)))
    down, right = round(apart_m[1] / pixel_m), round(apart_m[0] / pixel_m)
    both = np.full_like(score, -1.0)
    rows, columns = (slice(max(0, -by), side - max(0, by)) for by, side in ((down, height), (right, width)))
    other = score[rows.start + down : rows.stop + down, columns.start + right : columns.stop + right]
    both[rows, columns] = np.minimum(score[rows, columns], other)
    return _found(both, score, (-(height - 1) / 2, -(width - 1) / 2), pixel_m)


def _found(best: Float, score: Float, corner_px: tuple[float, float], pixel_m: float) -> Found:
    """Return where `best` is highest, to a fraction of a pixel by `score`; `corner_px` (y, x): of both maps."""
    row, column = (int(i) for i in np.unravel_index(int(np.argmax(best)), best.shape))
    dy, dx = _peak(score, row, column)
    return Found(
        u_m=(corner_px[1] + column + dx) * pixel_m,
        v_m=(corner_px[0] + row + dy) * pixel_m,
        score=float(best[row, column]),
    )


def correlation(image: Float, template: Float, part: tuple[slice, slice]) -> Float:
    """Return the normalised cross-correlation of a template at every pixel of a part of an image (y, x)."""
    from scipy.signal import fftconvolve

    rows, columns = part
    kernel = template - template.mean()
    kernel /= np.linalg.norm(kernel)
    count = float(template.size)
    centred = image - image.mean()
    high, wide = template.shape
    around = np.pad(centred, [(side // 2, side // 2) for side in template.shape], mode="reflect")
    around = around[rows.start : rows.stop + high - 1, columns.start : columns.stop + wide - 1]
    product = fftconvolve(around.astype(np.float32), kernel[::-1, ::-1].astype(np.float32), mode="valid")
    mean = _box_sums(around, template.shape) / count
    flat = count * max(_FLAT * float(centred.var()), 1e-12)  # noise, of the picture or of sums, is no shape
    spread = np.sqrt(np.maximum(_box_sums(around**2, template.shape) - count * mean**2, flat))
    result: Float = product / spread
    return result[: rows.stop - rows.start, : columns.stop - columns.start]


def _box_sums(values: Float, shape: tuple[int, ...]) -> Float:
    """Return the sum over every box of this shape that lies within an array (y, x)."""
    sums = np.zeros((values.shape[0] + 1, values.shape[1] + 1))
    sums[1:, 1:] = values.cumsum(axis=0).cumsum(axis=1)
    rows, columns = shape
    return sums[rows:, columns:] - sums[:-rows, columns:] - sums[rows:, :-columns] + sums[:-rows, :-columns]


def _peak(score: Float, row: int, column: int) -> tuple[float, float]:
    """Return the sub-pixel offset (dy, dx) of a maximum by a parabola through its neighbours."""
    offsets = []
    for axis, at in ((0, row), (1, column)):
        if not 0 < at < score.shape[axis] - 1:
            offsets.append(0.0)
            continue
        line = score[:, column] if axis == 0 else score[row, :]
        before, here, after = (float(v) for v in line[at - 1 : at + 2])
        curve = before - 2 * here + after
        offsets.append(float(np.clip(0.5 * (before - after) / curve, -0.5, 0.5)) if curve < 0 else 0.0)
    return offsets[0], offsets[1]


def find_edge(image: NDArray[np.generic], pixel_m: float, *, material_below: bool) -> tuple[float, float]:
    """Find the sample's front edge in a picture that shows it from side to side.

    Returns (v, contrast): its mean position (m, field, down) and the step in grey over the picture's spread.
    """
    profile = np.median(image.astype(float), axis=1)
    total = np.concatenate([[0.0], np.cumsum(profile)])
    count = profile.size
    cuts = np.arange(max(2, count // 20), count - max(2, count // 20))
    above = total[cuts] / cuts
    below = (total[-1] - total[cuts]) / (count - cuts)
    step = (below - above) if material_below else (above - below)
    weight = np.sqrt(cuts * (count - cuts)) / count
    best = int(np.argmax(step * weight))
    spread = float(profile.std()) or 1.0
    return (float(cuts[best]) - count / 2) * pixel_m, float(step[best]) / spread


def find_lower_edge(image: NDArray[np.generic], pixel_m: float, *, thickness_m: float, reach_m: float) -> float | None:
    """Find the lower edge of a bright, even band: the cap over the electrode. Returns v (m, field), None where unseen.

    Parameters
    ----------
    image, pixel_m : (y, x) and metres
    thickness_m : of the band in the picture; rows that far above and below the edge are compared
    reach_m : how far from the centre it is looked for
    """
    grey = image.astype(float)
    width = grey.shape[1]
    profile = np.median(grey[:, width // 4 : 3 * width // 4], axis=1)
    rows = max(3, round(0.6 * thickness_m / pixel_m))
    total = np.concatenate([[0.0], np.cumsum(profile)])
    cuts = np.arange(rows, profile.size - rows)
    step = (total[cuts] - total[cuts - rows] - (total[cuts + rows] - total[cuts])) / rows
    offset = (cuts - profile.size / 2) * pixel_m
    step = np.where(np.abs(offset) <= reach_m, step, -np.inf)
    best = int(np.argmax(step))
    spread = float(np.percentile(profile, 95) - np.percentile(profile, 5))
    if not np.isfinite(step[best]) or step[best] < 0.15 * spread or spread <= 0:
        return None
    return float(offset[best])


def drift_between(first: NDArray[np.generic], second: NDArray[np.generic], pixel_m: float) -> float:
    """Return how far (m) the picture moved from one quick frame to the next."""
    return float(np.hypot(*moved(first, second))) * pixel_m


def moved(first: NDArray[np.generic], second: NDArray[np.generic]) -> tuple[float, float]:
    """Return how far the picture moved from one frame to the next, pixels down and right."""
    from scipy import fft

    a, b = (align.windowed(image).astype(np.float32) for image in (first, second))
    spectrum = fft.rfft2(b) * np.conj(fft.rfft2(a))
    spectrum /= np.abs(spectrum) + 1e-3 * np.abs(spectrum).max()
    peak = fft.irfft2(spectrum, a.shape)
    row, column = (int(i) for i in np.unravel_index(int(np.argmax(peak)), peak.shape))
    rolled = np.roll(peak, (a.shape[0] // 2 - row, a.shape[1] // 2 - column), (0, 1))
    dy, dx = _peak(rolled, a.shape[0] // 2, a.shape[1] // 2)
    down, right = (
        (at + part + size // 2) % size - size // 2
        for at, part, size in ((row, dy, a.shape[0]), (column, dx, a.shape[1]))
    )
    return float(down), float(right)


def detail(image: NDArray[np.generic]) -> float:
    """Return how much of a picture's structure is as fine as a pixel, over what is twice as coarse; noise is taken off.

    Blur lowers it, contrast and brightness don't. Of large pictures the middle is enough.
    """
    from scipy import ndimage

    rows, columns = (slice(max(0, (size - _DETAIL_PX) // 2), (size + _DETAIL_PX) // 2) for size in image.shape)
    picture = image[rows, columns].astype(np.float32)
    soft = ndimage.gaussian_filter(picture, 1.0)
    fine, coarse = picture - soft, soft - ndimage.gaussian_filter(soft, 3**0.5)
    noise = 1.4826 * float(np.median(np.abs(fine)))  # edges are few: what most pixels have is noise
    structure = max(0.0, float(fine.var()) - noise**2)
    return float(np.sqrt(structure / max(float(coarse.var()), 1e-9)))


def alike_when_moved(first: NDArray[np.generic], second: NDArray[np.generic], by: tuple[float, float]) -> float:
    """Return how alike (-1..1) two pictures are where they show the same, the second moved by pixels down and right."""
    back = (-round(by[0]), -round(by[1]))
    seen = align.moved(np.ones(second.shape, np.bool_), back)
    both = np.ix_(seen.any(axis=1), seen.any(axis=0))
    one, other = first[both], align.moved(second, back)[both]
    return alike(one, other) if min(one.shape) >= _LEAST_PX else 0.0


def alike(first: NDArray[np.generic], second: NDArray[np.generic]) -> float:
    """Return the correlation (-1..1) of two pictures of one shape, noise smoothed away."""
    from scipy import ndimage

    a, b = (ndimage.uniform_filter(image.astype(np.float32), 5)[::3, ::3].ravel() for image in (first, second))
    if a.std() == 0 or b.std() == 0:
        return 1.0 if np.array_equal(a, b) else 0.0
    return float(np.corrcoef(a, b)[0, 1])
