"""Pictures by the electron beam, and by the ion beam where it lands on the face: what is seen, truth, detectors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from math import acos, cos
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from instrument.settings import BeamSettings, DetectorSettings, EdsScan, Scan
from simulator import materials as m
from simulator.beams import COINCIDENCE_M, Sight
from simulator.block import FACE_REACH_M, Block
from simulator.face import FaceScene, roughen, sample_face, truth
from simulator.imaging import Electrons, Emission, dose_of, electrons_of, emission, render
from simulator.ionimage import texture
from simulator.levels import levels
from simulator.randomness import rng
from simulator.sidebyside import beside
from simulator.topside import relief

Float32 = NDArray[np.float32]
Floats = NDArray[np.floating[Any]]

#: A beam that meets the face more glancingly than this (cosine of its angle to the normal) shows nothing of it.
LEAST_FACING = 0.25
#: Walls of curtains and nodules are this many times steeper than the maps' grid can hold (physics.md 2.3: streaks of
#: 1-2.5 % after rocking).
WALLS = 15.0
#: Nominal gains of detectors are met within this (standard deviation).
GAIN_SPREAD = 0.015
#: What steepening adds up over this length is levelled again, metres: three times a moving mean.
_WALLS_OVER_M = 3e-6
#: No wall of a curtain is steeper than about this, m/m: single streaks of 5-10 % (physics.md 2.3).
STEEPEST = 0.5
_LEVELS = 8
#: What a column that nobody has set lands with, volts.
USUAL_V = 5e3


@dataclass(frozen=True)
class Seen:
    """A scan's view of the face.

    scene : what the beam meets, on the scan's grid; x : block x of its columns, metres
    focus : height of each row's point towards the column, metres (y,)
    tilt : angle between beam and face normal, radians; flip : whether the picture runs against the block's x, y
    plane, film, step : mean z of the face, share of the scan that film covers, distance of grid points (y, x); metres
    """

    scene: FaceScene
    x: NDArray[np.float64]
    focus: NDArray[np.float64]
    tilt: float
    flip: tuple[bool, bool]
    plane: float
    film: float
    step: tuple[float, float]


def look(block: Block, sight: Sight, scan: Scan | EdsScan, drift_v: tuple[float, float] = (0.0, 0.0)) -> Seen | None:
    """Return what a scan meets of the face, None where the beam doesn't see it.

    `drift_v` is by how much the sample moves down the picture from the scan's first row to its last, metres: from, to.
    """
    facing = float(sight.flight[2])
    if facing < LEAST_FACING:
        return None
    u = scan.centre_x_m + (np.arange(scan.width_px) - (scan.width_px - 1) / 2) * scan.pixel_m
    rows = (np.arange(scan.height_px) - (scan.height_px - 1) / 2) * scan.pixel_m * cos(scan.tilt_correction_rad)
    v = scan.centre_y_m + rows - np.linspace(*drift_v, scan.height_px)
    plane = block.middle_z()
    for _ in range(2):
        on_face = sight.on_plane(2, plane)
        x, y = _axes(on_face.matrix, on_face.offset, u, v)
        rows_in = _range(block.y, y)
        columns_in = _range(block.x, x)
        plane = block.middle_z(rows_in, columns_in)
    flip = (bool(x[0] > x[-1]), bool(y[0] > y[-1]))
    x, y = (x[::-1] if flip[0] else x), (y[::-1] if flip[1] else y)
    view = (float(sight.flight[0]), float(sight.flight[1]), facing)
    rough = beside(_rough, block, x, y)
    face = block.at(block.maps.face, x, y)
    scene = sample_face(block.volume, face, block.at(block.film, x, y), x, y, view)
    scene = roughen(scene, rough())
    near = np.where(face > plane + FACE_REACH_M, m.VACUUM, scene.material).astype(np.uint8)
    scene = _with(scene, scene.material != near, near)
    scene = _beyond_the_top(block, scene, x, y, view, plane)
    middle = float(x[x.size // 2])
    heights = np.array([sight.working_distance((middle, float(b), plane)) for b in (y[0], y[-1])])
    focus = np.interp(y, (y[0], y[-1]), COINCIDENCE_M - heights)
    covered = float(np.mean((scene.film_m > 20e-9) & (scene.material != m.VACUUM)))
    return Seen(scene, x, focus, acos(min(1.0, facing)), flip, plane, covered, scene.pixel_m)


def _rough(block: Block, x: Floats, y: Floats) -> Float32:
    """Return the relief of the block's face as a picture sees it, metres."""
    return walls(block.at(block.maps.relief, x, y), float(x[1] - x[0]) if x.size > 1 else block.pixel)


def walls(relief_m: Float32, pixel_m: float) -> Float32:
    """Return curtains and nodules as a picture sees them, metres: steeper than the maps hold them, up to a limit."""
    seen = relief_m * np.float32(WALLS)
    slope = np.gradient(seen, pixel_m, axis=1) if seen.shape[1] > 1 else np.zeros_like(seen)
    beyond = slope - STEEPEST * np.tanh(slope / STEEPEST)
    offset = np.cumsum(beyond, axis=1) * pixel_m
    smooth, width = offset, round(_WALLS_OVER_M / pixel_m)
    for _ in range(3):
        smooth = ndimage.uniform_filter1d(smooth, max(1, width), axis=1)
    return np.asarray(seen - (offset - smooth), np.float32)


def picture(
    seen: Seen | None,
    scan: Scan,
    detector: DetectorSettings,
    settings: BeamSettings,
    *,
    current_a: float,
    focus_off_m: float,
    stigmation_m: tuple[float, float] = (0.0, 0.0),
    scans_before: int = 0,
    gain: float = 1.0,
    seed: int,
    key: tuple[int, ...],
    sent: Mapping[Electrons, Emission] | None = None,
) -> NDArray[Any]:
    """Return one detector's picture (y, x).

    `gain` : of the detector and the emission, over the nominal one; `sent` : `emissions` of the scan, where
    they are known already.
    """
    gain *= float(np.exp(GAIN_SPREAD * rng(seed, "detector gain", detector.name).standard_normal()))
    if seen is None:
        return _nothing(scan, detector, seed, key)
    contrast, brightness = levels(detector)
    pixels = render(
        seen.scene,
        detector.name,
        current_a=current_a,
        dwell_s=frame_dwell(scan),
        voltage_v=settings.voltage_v or USUAL_V,
        contrast=contrast,
        brightness=brightness,
        tilt_rad=seen.tilt,
        defocus_m=defocus(seen, scan, settings, focus_off_m),
        stigmation_m=stigmation_m,
        scans_before=scans_before,
        seed=seed,
        key=key,
        bits=scan.bits,
        gain=gain,
        sent=None if sent is None else sent[electrons_of(detector.name)],
    )
    return _flipped(pixels, seen.flip)


def frame_dwell(scan: Scan) -> float:
    """Return how long the beam stays on each pixel in all, seconds."""
    return scan.dwell_s * scan.line_integrations * scan.frame_integrations


def emissions(seen: Seen, scan: Scan, settings: BeamSettings, current_a: float) -> dict[Electrons, Emission]:
    """Return what a scan's detectors take their parts of; it is the same in another focus."""
    dose, voltage = dose_of(seen.scene, current_a, frame_dwell(scan)), settings.voltage_v or USUAL_V
    return {
        electrons: emission(seen.scene, electrons, dose=dose, voltage_v=voltage, tilt_rad=seen.tilt)
        for electrons in sorted({electrons_of(one.name) for one in scan.detectors})
    }


def defocus(seen: Seen, scan: Scan, settings: BeamSettings, focus_off_m: float) -> float | NDArray[np.float64]:
    """Return how far each row lies from the focus, metres; dynamic focus follows the tilt correction's angle."""
    distance = COINCIDENCE_M - seen.focus
    off = distance - (settings.working_distance_m or COINCIDENCE_M) + focus_off_m
    if scan.dynamic_focus:
        off = off - (off - off.mean()) * (1.0 if scan.tilt_correction_rad else 0.0)
    if float(np.ptp(off)) < 0.3e-6:
        return float(off.mean())
    return np.asarray(off, np.float64)


def true_classes(seen: Seen, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return the fine class of every pixel of the frame, uint8 (y, x)."""
    return _flipped(truth(seen.scene), seen.flip) if seen.scene.material.shape == shape else np.zeros(shape, np.uint8)


def _flipped(pixels: NDArray[Any], flip: tuple[bool, bool]) -> NDArray[Any]:
    out = pixels[:, ::-1] if flip[0] else pixels
    return np.ascontiguousarray(out[::-1] if flip[1] else out)


def _axes(matrix: Floats, offset: Floats, u: Floats, v: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return block x of the columns and y of the rows; what little the picture is turned against them is left out."""
    x = matrix[0, 0] * u + matrix[0, 1] * float(v.mean()) + offset[0]
    y = matrix[1, 1] * v + matrix[1, 0] * float(u.mean()) + offset[1]
    return np.asarray(x, float), np.asarray(y, float)


def _range(own: NDArray[np.float64], wanted: NDArray[np.float64]) -> slice:
    low, high = np.searchsorted(own, (float(wanted.min()), float(wanted.max())))
    return slice(int(low), int(high)) if high > low else slice(None)


def _beyond_the_top(
    block: Block, scene: FaceScene, x: Floats, y: Floats, view: tuple[float, float, float], plane: float
) -> FaceScene:
    """Let a slanted view that passes over the face's upper edge land on the top surface, and see what stands there."""
    if view[1] < 0.05 or not (scene.material[0] == m.VACUUM).any():
        return scene
    layer = int(np.clip(round((plane - block.volume.origin[2]) / block.volume.layer), 0, block.top.z.size - 1))
    edge = np.interp(x, block.top.x, block.top.height[layer])[None, :]
    over = (y[:, None] < edge) & (scene.material == m.VACUUM)
    rows = int(np.flatnonzero(over.any(axis=1)).max(initial=-1)) + 1
    if rows == 0:
        return scene
    height, found = np.zeros((rows, x.size), np.float32), np.zeros((rows, x.size), bool)
    highest = _highest(block)
    step = highest / _LEVELS
    for level in np.linspace(highest, step, _LEVELS):  # what stands higher is met earlier
        cap, _, _ = relief(block.features, *_lands(x, y[:rows], view, plane, np.float32(level - step / 2)))
        fresh = ~found & (cap >= level - step / 2)
        height, found = np.where(fresh, np.minimum(cap, level), height).astype(np.float32), found | fresh
    at_x, at_z = _lands(x, y[:rows], view, plane, height)
    _, cut, share = relief(block.features, at_x, at_z)
    bare = np.where(texture(block, at_x, at_z) > -0.2, m.NMC, m.CBD)
    stands = np.where(found | (share > 0.5), m.CAP, bare)
    material = scene.material.copy()
    material[:rows] = np.where(cut > 0.15e-6, np.where(cut > 1.5e-6, m.VACUUM, m.CBD), stands)
    return _with(scene, over, material)


def _highest(block: Block) -> float:
    """Return how high the highest cap stands, metres, 0 without one."""
    caps = [one for one in block.features if one.kind == "cap"]
    if not caps:
        return 0.0
    x, z = np.array([(c.x0 + c.x1) / 2 for c in caps]), np.array([(c.z0 + c.z1) / 2 for c in caps])
    return float(relief(block.features, x, z)[0].max())


def _lands(
    x: Floats, y: Floats, view: tuple[float, float, float], plane: float, height: Float32 | np.float32
) -> tuple[Float32, Float32]:
    """Return block x and z where rays through the face's plane land on the top at a height above it."""
    way = (-height - y[:, None]) / view[1]
    at_x, at_z = np.broadcast_arrays(x[None, :] + view[0] * way, plane + view[2] * way)
    return at_x.astype(np.float32), at_z.astype(np.float32)


def _with(scene: FaceScene, where: NDArray[np.bool_], material: NDArray[np.uint8]) -> FaceScene:
    """Return the scene with flat solids of these materials at some pixels."""
    if not where.any():
        return scene
    return dataclasses.replace(
        scene,
        material=np.where(where, material, scene.material).astype(np.uint8),
        back=np.where(where, material, scene.back).astype(np.uint8),
        half_below=np.where(where, material, scene.half_below).astype(np.uint8),
        tenth_below=np.where(where, material, scene.tenth_below).astype(np.uint8),
        depth_m=np.where(where, 0, scene.depth_m).astype(np.float32),
        film_m=np.where(where, 0, scene.film_m).astype(np.float32),
        slope=np.where(where, 0, scene.slope).astype(np.float32),
    )


def _nothing(scan: Scan, detector: DetectorSettings, seed: int, key: tuple[int, ...]) -> NDArray[Any]:
    """Return a flat grey with noise: the beam meets no face in this pose."""
    draw = rng(seed, "blank picture", detector.name, *key)
    top = 255 if scan.bits == 8 else 65535
    grey = top * (0.25 + 0.02 * draw.standard_normal((scan.height_px, scan.width_px)))
    return np.clip(grey, 0, top).astype(np.uint8 if scan.bits == 8 else np.uint16)
