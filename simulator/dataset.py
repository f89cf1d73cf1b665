"""Training images: faces of many virtual electrodes in every state that a night brings, rendered with wide variation.

Unfilled, freshly filled, filled and cut back, with film still on parts of the face; face-on and at 38 deg; with cap,
buried ruler, trench, foil; thin coatings of small particles and thick ones of large particles; pixels of 20-190 nm;
dwell, current, focus and contrast as people set them.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulator import materials as m
from simulator.deposition import infiltrate
from simulator.electrode import Electrode
from simulator.face import sample_face, truth
from simulator.imaging import CONTRAST_STEP, Detector, render
from simulator.randomness import rng
from simulator.volume import Volume, build

Float32 = NDArray[np.float32]
Bytes = NDArray[np.uint8]

SOURCES = (
    "dataset.py",
    "deposition.py",
    "distances.py",
    "electrode.py",
    "face.py",
    "imaging.py",
    "materials.py",
    "model.py",
    "packing.py",
    "particles.py",
    "randomness.py",
    "sidebyside.py",
    "specimen.py",
    "textures.py",
    "volume.py",
    "widths.py",
)
"""The files that make the images: a change in one of them asks for another training."""

SIDE_PX = 320
_VIEWS = (NORMAL := (0.0, 0.0, 1.0), (0.0, math.sin(math.radians(38)), math.cos(math.radians(38))))
BLACK, GREYS_PER_YIELD = -78.0, 808.0  # mean of both detectors at middle contrast and brightness (simulator.imaging)
_DEEPEST_M = 1.2e-6  # of an image above the volume's last layer: pore backs must be there
_MAP_M = 100e-9
_DETECTORS: tuple[Detector, ...] = ("CBS", "TLD", "ETD")
_WITH_ETD = 0.35
#: Share of the images that come with the slices beside them, and how far apart slices lie, metres.
_WITH_BESIDE, _THICKNESS_M = 0.6, (15e-9, 150e-9)


@dataclass(frozen=True)
class RenderedSample:
    """One training image: greys 0..1 by detector, float32 (y, x); fine classes, uint8 (y, x); pixel edge, metres.

    `beside` are the slices before and after it on the same pixels, where they were rendered.
    """

    channels: dict[str, Float32]
    fine: Bytes
    pixel_m: float
    beside: dict[str, RenderedSample] = field(default_factory=dict)


@dataclass(frozen=True)
class _Kind:
    """A family of electrodes: how large, how finely built, seen at which pixels (metres)."""

    share: float
    coating_m: tuple[float, float]
    large_m: tuple[float, float] | None
    width_m: float
    depth_m: float
    voxel_m: float
    layer_m: float
    pixel_m: tuple[float, float]


_KINDS = (
    _Kind(0.45, (16e-6, 23e-6), None, 26e-6, 4.6e-6, 40e-9, 50e-9, (32e-9, 85e-9)),
    _Kind(0.40, (34e-6, 56e-6), (7.5e-6, 12e-6), 50e-6, 6.0e-6, 60e-9, 80e-9, (55e-9, 190e-9)),
    _Kind(0.15, (12e-6, 16e-6), (4e-6, 8e-6), 16e-6, 3.6e-6, 25e-9, 40e-9, (20e-9, 45e-9)),
)


def renderer_sha256() -> str:
    """Return the hash of the source files that make the images, which a model card keeps."""
    digest = hashlib.sha256()
    for name in SOURCES:
        text = (Path(__file__).parent / name).read_bytes().replace(b"\r\n", b"\n")
        digest.update(name.encode() + b"\0" + hashlib.sha256(text).digest())
    return digest.hexdigest()


def samples(seed: int, count: int) -> Iterator[RenderedSample]:
    """Yield `count` training images, the same for the same seed and count.

    Up to thirty images share an electrode: building and filling one takes as long as rendering them.
    """
    each = min(30, max(5, count // 12))
    for number in range(math.ceil(count / each)):
        yield from _from_one(seed, number, min(each, count - number * each))


def _from_one(seed: int, number: int, count: int) -> Iterator[RenderedSample]:
    """Yield images of one electrode along its way through a night: cut, filled, cleaned, cut further, filled again."""
    draw = rng(seed, "dataset electrode", number)
    kind = _KINDS[int(draw.choice(len(_KINDS), p=[k.share for k in _KINDS]))]
    volume = build(_electrode(seed, number, kind, draw))
    half_height = 0.5 * SIDE_PX * kind.pixel_m[1]
    _dress(volume, draw)
    end = kind.depth_m - _DEEPEST_M
    fills = int(draw.integers(1, 3))
    starts = np.sort(draw.uniform(0.15e-6, 0.55 * end, fills))
    if draw.random() < 0.08:
        starts = np.empty(0)  # a block that was never filled
    stages = [0.0, *starts, end]
    spans = [stages[i + 1] - stages[i] for i in range(len(stages) - 1)]
    weights = np.array([0.12 if starts.size else 1.0, *([1.0] * starts.size)])
    shared = _shared(count, weights)
    for stage, many in enumerate(shared):
        z = float(stages[stage])
        film = _filled(volume, z, draw) if stage else None
        for _ in range(many):
            yield _image(volume, kind, z, min(spans[stage], 1.6e-6), film, half_height, draw)


def _electrode(seed: int, number: int, kind: _Kind, draw: np.random.Generator) -> Electrode:
    """Draw an electrode of a kind."""
    coating = float(draw.uniform(*kind.coating_m))
    foil = float(draw.uniform(9e-6, 18e-6))
    seen = float(draw.choice([0.0, 5e-6, 11e-6], p=[0.2, 0.4, 0.4]))
    return Electrode(
        seed=int(rng(seed, "dataset electrode seed", number).integers(1 << 30)),
        width_m=kind.width_m,
        height_m=coating + min(seen, foil) - (4e-6 if seen == 0 else 0),
        depth_m=kind.depth_m,
        above_m=5e-6,
        coating_m=coating,
        foil_m=foil,
        voxel_m=kind.voxel_m,
        layer_m=kind.layer_m,
        large_m=None if kind.large_m is None else float(draw.uniform(*kind.large_m)),
        spread=float(draw.uniform(1.2, 1.45)),
        small_share=float(draw.uniform(0.2, 0.40)),
        active=float(draw.uniform(0.66, 0.77)),
        cbd=float(draw.uniform(0.06, 0.13)),
        cracks=float(draw.choice([0.3, 1.0, 1.4], p=[0.25, 0.6, 0.15])),
        roughness_m=float(draw.uniform(0.1e-6, 0.5e-6)),
    )


def _dress(volume: Volume, draw: np.random.Generator) -> None:
    """Put a cap with a buried ruler on most electrodes, and cut a trench beside some."""
    _, rows, columns = volume.labels.shape
    y = volume.origin[1] + volume.voxel * np.arange(rows)
    if draw.random() < 0.85:
        high = float(draw.uniform(1.2e-6, 4.8e-6))
        top = volume.labels[:, (y > -high) & (y < 2e-6)]
        top[top == m.VACUUM] = m.CAP
        volume.labels[:, (y > -high) & (y < 2e-6)] = top
        if draw.random() < 0.8:
            _bury_ruler(volume, high, draw)
    if draw.random() < 0.35:
        wide = round(float(draw.uniform(0.05, 0.2)) * columns)
        side = slice(0, wide) if draw.random() < 0.5 else slice(columns - wide, columns)
        volume.labels[:, :, side] = m.VACUUM


def _bury_ruler(volume: Volume, high_m: float, draw: np.random.Generator) -> None:
    """Write the ruler's two grooves at +-45 deg into the middle of the cap: their distance grows with z."""
    depth, rows, columns = volume.labels.shape
    x = volume.origin[0] + volume.voxel * np.arange(columns)
    y = volume.origin[1] + volume.voxel * np.arange(rows)
    middle = -float(draw.uniform(0.35, 0.65)) * high_m
    wide, deep = float(draw.uniform(0.25e-6, 0.6e-6)), float(draw.uniform(0.3e-6, 0.8e-6))
    centre, apart = float(draw.uniform(-0.3, 0.3)) * x[-1], float(draw.uniform(1e-6, 8e-6))
    inside = np.flatnonzero((y > middle) & (y < min(middle + deep, -0.2e-6)))
    for layer in range(depth):
        z = layer * volume.layer
        for side in (-1, 1):
            for row in inside:
                narrow = 1 - 0.7 * (y[row] - middle) / deep
                near = np.abs(x - centre - side * (apart / 2 + z)) < 0.5 * wide * narrow
                cells = volume.labels[layer, row]
                cells[near & (cells == m.CAP)] = m.RESIDUE


def _shared(count: int, weights: NDArray[np.float64]) -> list[int]:
    """Share a number out by weights."""
    edges = np.rint(count * np.cumsum(weights) / weights.sum()).astype(int)
    return [int(n) for n in np.diff(edges, prepend=0)]


def _axes(volume: Volume) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return x and y of maps over the whole face, metres."""
    _, rows, columns = volume.labels.shape
    x0, y0, _ = volume.origin
    return (
        np.arange(x0, x0 + volume.voxel * columns, _MAP_M),
        np.arange(y0, y0 + volume.voxel * rows, _MAP_M),
    )


def _filled(volume: Volume, z: float, draw: np.random.Generator) -> float:
    """Fill the pores open to a plane in one to three rounds, each cleaned a little below it; return the film left."""
    x, y = _axes(volume)
    thickness = float(draw.choice([0.6e-6, 1.0e-6, 2.0e-6], p=[0.35, 0.15, 0.5]))
    beam = (0.0, 0.0, 1.0) if draw.random() < 0.8 else (0.0, -math.sin(math.radians(52)), math.cos(math.radians(52)))
    for _ in range(int(draw.integers(1, 3))):
        shape = (y.size, x.size)
        infiltrate(volume, x, y, np.full(shape, z), np.full(shape, thickness), beam=beam).write(volume)
    return thickness


def _image(
    volume: Volume,
    kind: _Kind,
    z: float,
    span: float,
    film: float | None,
    half_height: float,
    draw: np.random.Generator,
) -> RenderedSample:
    """Render one image somewhere on the face, at or below the plane z that was filled last."""
    pixel = float(np.exp(draw.uniform(*np.log(kind.pixel_m))))
    bins = max(1, math.ceil(pixel / (1.6 * kind.voxel_m) - 0.2)) if draw.random() < 0.8 else 1
    view = _VIEWS[int(draw.random() < 0.3)]
    tilt = math.acos(view[2])
    stretch = 1 / view[2] if tilt and draw.random() < 0.5 else 1.0  # not corrected for tilt: rows lie farther apart
    x, y = _place(volume, pixel, stretch, draw)
    x, y = _fine(x, bins), _fine(y, bins)
    covered = film is not None and draw.random() < 0.2
    cut = 0.0 if covered else float(draw.uniform(0.0, 1.0) ** 2 * span)
    face = z + cut + _tilted(x, y, draw)
    left = _film_left(x, y, draw) if covered else np.zeros((y.size, x.size), np.float32)
    relief = curtains(x, y, draw)
    current = float(np.exp(draw.uniform(math.log(0.8e-9), math.log(5e-9))))
    dwell = float(np.exp(draw.uniform(math.log(1e-6), math.log(6e-6))))
    focus = float(draw.exponential(1.5e-6)) if draw.random() < 0.6 else 0.3e-6
    stigmation = (float(draw.normal(0, 0.5e-6)), float(draw.normal(0, 0.3e-6)))
    scans = int(draw.poisson(0.7))
    knobs = _knobs(draw)
    detectors = _DETECTORS if draw.random() < _WITH_ETD else _DETECTORS[:2]
    gains = dict(zip(_DETECTORS, np.exp(draw.normal(0, 0.05, len(_DETECTORS))), strict=True))
    knobs_of = {name: np.add(knobs, draw.normal(0, 0.01, 2)) for name in _DETECTORS}

    def rendered(face: Float32, left: Float32, relief: Float32) -> RenderedSample:
        scene = sample_face(volume, face, left, x, y, view, relief_m=relief)
        fine = _commonest(truth(scene), bins)
        channels: dict[str, Float32] = {}
        empty = scene.material == m.VACUUM
        for detector in detectors:
            contrast, brightness = knobs_of[detector]
            grey = render(
                scene, detector, current_a=current, dwell_s=dwell, contrast=float(contrast),
                brightness=float(brightness), tilt_rad=tilt, defocus_m=focus, stigmation_m=stigmation,
                scans_before=scans, seed=int(draw.integers(1 << 30)), gain=float(gains[detector]),
            ).astype(np.float32)  # fmt: skip
            grey *= np.float32(1 / 255)
            if empty.any():
                grey = _with_surroundings(grey, empty, detector, draw)
            channels[detector] = _binned(grey, bins)
        return RenderedSample(channels, fine, pixel)

    this = rendered(face, left, relief)
    if draw.random() > _WITH_BESIDE:
        return this
    apart = float(np.exp(draw.uniform(*np.log(_THICKNESS_M))))
    beside: dict[str, RenderedSample] = {}
    for name, step in (("before", -apart), ("after", apart)):
        if cut + step >= 0:  # before the last fill its pores were others
            clean = np.zeros_like(left)
            beside[name] = rendered(np.float32(step) + face, clean, curtains(x, y, draw))
    return RenderedSample(this.channels, this.fine, pixel, beside)


def _knobs(draw: np.random.Generator) -> tuple[float, float]:
    """Draw contrast and brightness: about the published greys, or what brings a face's own ends into range.

    Black is what the darkest place gives: nothing from a deep pore, or binder where all pores are filled.
    """
    if draw.random() < 0.4:
        contrast, brightness = 0.5 + draw.normal(0, 0.02, 2).clip(-0.05, 0.05)
        return float(contrast), float(brightness)
    darkest, brightest = float(draw.uniform(0.0, 0.12)), float(draw.uniform(0.38, 0.41))
    low, high = float(draw.uniform(3, 30)), float(draw.uniform(225, 260))
    gain = (high - low) / (GREYS_PER_YIELD * (brightest - darkest))
    black = low - GREYS_PER_YIELD * gain * darkest
    return 0.5 + CONTRAST_STEP * math.log2(gain), 0.5 + (black - BLACK) / 510


def _place(
    volume: Volume, pixel: float, stretch: float, draw: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Choose where an image lies: half of them show the top or the foil. Returns x and y of its pixels, metres."""
    _, rows, columns = volume.labels.shape
    x0, y0, _ = volume.origin
    wide, high = columns * volume.voxel, rows * volume.voxel
    across = min(SIDE_PX, int(wide / pixel))
    down = min(SIDE_PX, int(high / (pixel * stretch)))
    across, down = max(32, across), max(32, down)
    spare_x, spare_y = max(0.0, wide - across * pixel), max(0.0, high - down * pixel * stretch)
    where = draw.random()
    top = spare_y * (0.35 * where / 0.3 if where < 0.3 else 1 - 0.2 * (where - 0.3) if where < 0.5 else draw.random())
    left = spare_x * draw.random()
    return (
        x0 + left + pixel * (np.arange(across) + 0.5),
        y0 + top + pixel * stretch * (np.arange(down) + 0.5),
    )


def _fine(at: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Return the grid of an axis with `bins` points a pixel."""
    step = at[1] - at[0]
    inner = (np.arange(bins) - (bins - 1) / 2) * step / bins
    grid: NDArray[np.float64] = (at[:, None] + inner[None]).reshape(-1)
    return grid


def _tilted(x: NDArray[np.float64], y: NDArray[np.float64], draw: np.random.Generator) -> Float32:
    """Return a face that is not quite plane, metres."""
    a, b = draw.normal(0, 3e-3, 2)
    plane: Float32 = (a * (y - y.mean())[:, None] + b * (x - x.mean())[None]).astype(np.float32)
    return plane


def _soft(shape: tuple[int, int], sigma: tuple[float, float], draw: np.random.Generator) -> Float32:
    """Return smooth noise of unit deviation."""
    small = tuple(max(2, math.ceil(n / max(1.0, s / 2))) for n, s in zip(shape, sigma, strict=True))
    coarse = draw.standard_normal(small, dtype=np.float32)
    coarse = ndimage.gaussian_filter(coarse, 1.0, mode="wrap")
    zoom = [n / c for n, c in zip(shape, small, strict=True)]
    out = ndimage.zoom(coarse, zoom, order=1, mode="nearest", grid_mode=True)[: shape[0], : shape[1]]
    return np.asarray((out - out.mean()) / (out.std() + 1e-9), np.float32)


def _film_left(x: NDArray[np.float64], y: NDArray[np.float64], draw: np.random.Generator) -> Float32:
    """Return platinum that a clean has left: streaks along the beam, more of it at the top; or all of it."""
    shape = (y.size, x.size)
    step_y, step_x = y[1] - y[0], x[1] - x[0]
    if draw.random() < 0.15:
        return np.full(shape, 0.5e-6, np.float32)
    streaks = _soft(
        shape, (float(draw.uniform(3e-6, 10e-6)) / step_y, float(draw.uniform(0.3e-6, 1.2e-6)) / step_x), draw
    )
    wedge = float(draw.uniform(-0.05, 0.25)) * (0.5 - (y - y[0]) / max(1e-9, y[-1] - y[0]))[:, None]
    mean = float(draw.uniform(-0.08, 0.12))
    thick = (mean + wedge) * 1e-6 + float(draw.uniform(0.02e-6, 0.08e-6)) * streaks
    left: Float32 = np.maximum(thick, 0).astype(np.float32)
    return left


def curtains(
    x: NDArray[np.floating], y: NDArray[np.floating], draw: np.random.Generator, strength: float | None = None
) -> Float32:
    """Return the relief that milling leaves on a grid (y, x), metres: streaks along the beam, some tens of nm."""
    shape = (y.size, x.size)
    step_y, step_x = y[1] - y[0], x[1] - x[0]
    strength = float(draw.exponential(16e-9)) if strength is None else strength
    return strength * _soft(shape, (8e-6 / step_y, float(draw.uniform(0.15e-6, 0.6e-6)) / step_x), draw)


def _with_surroundings(grey: Float32, empty: NDArray[np.bool_], detector: str, draw: np.random.Generator) -> Float32:
    """Give what lies beyond the block the flat or shaded grey of trench walls, floor or the cap's top."""
    if draw.random() < 0.4:
        return grey
    level = float(draw.uniform(0.0, 0.75 if draw.random() < 0.35 else 0.3))
    shade = 1 + 0.25 * _soft((grey.shape[0], grey.shape[1]), (grey.shape[0] / 3, grey.shape[1] / 3), draw)
    noise = (0.02 if detector == "CBS" else 0.06) * draw.standard_normal(grey.shape, dtype=np.float32)
    soft = ndimage.gaussian_filter(empty.astype(np.float32), 0.7)
    other = np.clip(level * shade + noise, 0, 1)
    return np.asarray(grey + soft * (other - grey), np.float32)


def _commonest(fine: Bytes, bins: int) -> Bytes:
    """Return the class that most of the `bins` x `bins` points of a pixel are, the lower one of two."""
    if bins == 1:
        return np.ascontiguousarray(fine)
    high, wide = fine.shape[0] // bins, fine.shape[1] // bins
    points = fine[: high * bins, : wide * bins].reshape(high, bins, wide, bins)
    best, most = np.zeros((high, wide), np.uint8), np.zeros((high, wide), np.int64)
    for code in np.unique(fine):
        count = (points == code).sum(axis=(1, 3))
        best[count > most] = code
        np.maximum(most, count, out=most)
    return best


def _binned(grey: Float32, bins: int) -> Float32:
    """Return the mean of squares of `bins` pixels."""
    if bins == 1:
        return grey
    high, wide = grey.shape[0] // bins, grey.shape[1] // bins
    mean: Float32 = grey.reshape(high, bins, wide, bins).mean((1, 3), dtype=np.float32)
    return mean
