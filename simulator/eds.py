"""Element maps: counts per pixel by X-ray intensity of what lies there, blurred by the beam's reach, then counted.

Intensities are the Monte Carlo numbers of physics.md section 5 for 10 kV, with the factor that makes the published
map's 2.6 counts per pixel (calibration there).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulator import materials as m
from simulator.face import FaceScene
from simulator.randomness import rng

Float32 = NDArray[np.float32]
Counts = NDArray[np.uint16]

#: Counts per second and nanoampere at 10 kV before the calibration (physics.md 5), by element and material; binder and
#: carbon apart, weighted by the binder's share.
INTENSITY: dict[str, dict[int, float]] = {
    "Al": {m.AL: 36_700.0, m.SLIVER: 9_000.0},
    "O": {m.NMC: 8_300.0, m.RESIDUE: 3_000.0},
    "Ni": {m.NMC: 3_830.0, m.RESIDUE: 1_200.0},
    "Co": {m.NMC: 450.0},
    "Mn": {m.NMC: 325.0},
    "Pt": {m.PT: 12_000.0, m.CAP: 9_000.0, m.RESIDUE: 3_000.0},
    "C": {m.PT: 1_680.0, m.CAP: 3_500.0, m.RESIDUE: 1_500.0, m.GRAPHITE: 12_200.0, m.CRACK_RESIDUE: 1_200.0},
    "F": {m.RESIDUE: 800.0, m.CRACK_RESIDUE: 9_000.0},
    "Fe": {m.SLIVER: 6_000.0},
    "Cu": {m.COPPER: 9_000.0},
    "P": {m.CRACK_RESIDUE: 1_500.0},
}
#: The carbon-binder's own lines: in pure carbon, in pure PVDF, counts per second and nanoampere (physics.md 5).
CARBON_IN_CARBON, CARBON_IN_BINDER, FLUORINE_IN_BINDER = 12_200.0, 1_700.0, 12_700.0
#: Of the solid's intensities in the porous carbon-binder (physics.md 5: C about 0.95, F about 1.1 counts).
CBD_EFFECT = 0.95
#: Distance, dead time and fitted peaks together (physics.md 5, calibration): 0.10.
FACTOR = 0.10
#: False counts of F per second and nanoampere after the factor: Mn La and tails (physics.md 5, at 1.6 nA, 1 ms).
FALSE_FLUORINE = {m.NMC: 0.25 / 1.6e-3, m.AL: 0.10 / 1.6e-3, m.PT: 0.12 / 1.6e-3, m.CAP: 0.10 / 1.6e-3}
#: False P over platinum (P K under Pt Ma), share of the platinum line.
FALSE_PHOSPHORUS = 0.08
#: Bremsstrahlung that background removal leaves, counts per second and nanoampere.
BACKGROUND = 0.012 / 1.6e-3
#: How far signals reach sideways at 10 kV, standard deviation, metres (physics.md 8.5).
REACH_M = {
    m.NMC: 130e-9, m.PT: 130e-9, m.AL: 300e-9, m.CBD: 430e-9, m.CAP: 150e-9, m.RESIDUE: 150e-9, m.SLIVER: 150e-9,
    m.GRAPHITE: 430e-9, m.COPPER: 130e-9, m.CRACK_RESIDUE: 300e-9,
}  # fmt: skip
#: Take-off angle of the detector (physics.md 1.3).
TAKE_OFF_RAD = math.radians(35.0)
#: Platinum film of this thickness takes 1/e of the signal under it and gives its own, metres.
FILM_M = 100e-9
#: Dead share of the detector's time: a half at this rate of counts seen, per second, so that it is 10 % at 5 kcps and
#: 30 % at 20 kcps of all X-rays (physics.md 5); the published map's rate, at which `FACTOR` holds it already.
HALF_DEAD_PER_S, PUBLISHED_PER_S = 23_000.0, 2_600.0
#: Electron dose over which PVDF loses fluorine to 1/e: our assumption (night.md 17: it does; the published map's dose
#: is 557 C/m2), C/m2.
FADES_AT = 900.0
#: What is left of the signal in the shadow of a wall, by scattering.
_SHADED = 0.05


def element_counts(
    scene: FaceScene | None,
    elements: tuple[str, ...],
    shape: tuple[int, int],
    *,
    voltage_v: float = 10e3,
    current_a: float = 1.6e-9,
    seconds: float = 1e-3,
    dose: float = 0.0,
    shaded: NDArray[np.bool_] | None = None,
    seed: int = 0,
    key: tuple[int, ...] = (),
) -> Counts:
    """Return counts by element, uint16 (element, y, x).

    Parameters
    ----------
    scene : what the beam meets, None for nothing; elements : in this order, those unknown count background alone
    shape : (y, x); voltage_v : of the beam; current_a : amperes; seconds : live time per pixel, all frames together
    dose : electrons that the place had before, C/m2: fluorine goes with it
    shaded : columns (x,) that a wall of the trench hides from the detector
    seed, key : of the counting
    """
    draw = rng(seed, "element map", *key)
    scale = current_a * 1e9 * seconds
    means = [np.full(shape, BACKGROUND * scale, np.float32) for _ in elements]
    if scene is not None:
        seen, film = _visible(scene), 1 - np.exp(-scene.film_m / np.float32(FILM_M))
        for mean, element in zip(means, elements, strict=True):
            mean += _intensity(scene, element, seen, film, voltage_v) * np.float32(scale)
            if element == "F":
                mean *= np.float32(_fluorine_left(dose, current_a * seconds / (scene.pixel_m[0] * scene.pixel_m[1])))
    if shaded is not None:
        means = [np.where(shaded[None, :], np.float32(_SHADED) * mean, mean) for mean in means]
    alive = _alive(sum(float(mean.mean()) for mean in means) / seconds)
    means = [mean * np.float32(alive) for mean in means]
    return np.stack([np.minimum(draw.poisson(mean), 65535).astype(np.uint16) for mean in means])


def shadow_reach(recess_m: float) -> float:
    """Return how far from a wall a recess (m) hides the face from the detector, metres (physics.md 5, 8.5: 1.4 z)."""
    return max(0.0, recess_m) / math.tan(TAKE_OFF_RAD)


def dead_share(per_s: float) -> float:
    """Return the dead share of the detector's time at a rate of counts seen, per second."""
    return per_s / (per_s + HALF_DEAD_PER_S)


def _alive(per_s: float) -> float:
    """Return what is counted at a rate over what is counted at the published one."""
    return (1 - dead_share(per_s)) / (1 - dead_share(PUBLISHED_PER_S))


def _fluorine_left(before: float, during: float) -> float:
    """Return the mean share of fluorine that is left during a map, after a dose before it, C/m2."""
    if during <= 0:
        return math.exp(-before / FADES_AT)
    return math.exp(-before / FADES_AT) * FADES_AT / during * (1 - math.exp(-during / FADES_AT))


def _intensity(scene: FaceScene, element: str, seen: Float32, film: Float32, voltage_v: float) -> Float32:
    """Return counts per second and nanoampere of one element, blurred by what sends it out."""
    total = np.zeros(scene.material.shape, np.float32)
    for material in REACH_M:
        rate = _line(scene, element, material, voltage_v)
        false = FALSE_FLUORINE.get(material, 0.0) if element == "F" else 0.0
        if np.ndim(rate) == 0 and float(rate) == 0 and false == 0:
            continue
        share = (scene.back == material).astype(np.float32) * seen
        share = share + film * (np.float32(material == m.PT) - share)
        source = share * (np.asarray(rate, np.float32) * np.float32(FACTOR) + np.float32(false))
        sigma = [REACH_M[material] * math.sqrt(voltage_v / 10e3) / pixel for pixel in scene.pixel_m]
        total += ndimage.gaussian_filter(source, sigma, truncate=3)
    return total


def _line(scene: FaceScene, element: str, material: int, voltage_v: float) -> Float32 | float:
    """Return the intensity of an element in a material, counts per second and nanoampere, one value or one per row."""
    over = float((voltage_v / 10e3) ** 1.2)  # between 5 and 15 kV intensities go about so (physics.md 5)
    if material == m.CBD:
        binder = scene.binder[:, None].astype(np.float32)
        if element == "C":
            both = (1 - binder) * CARBON_IN_CARBON + binder * CARBON_IN_BINDER
            return np.asarray(both * np.float32(CBD_EFFECT * over), np.float32)
        if element == "F":
            return np.asarray(binder * np.float32(FLUORINE_IN_BINDER * CBD_EFFECT * over), np.float32)
        return 0.0
    if element == "P" and material == m.PT:
        return INTENSITY["Pt"][m.PT] * FALSE_PHOSPHORUS * over
    return INTENSITY.get(element, {}).get(material, 0.0) * over


def _visible(scene: FaceScene) -> Float32:
    """Return the share of X-rays that leave a pixel: 1 on the face, little from the back of a pore.

    A back at depth z in a pore of half width a is hidden from the detector where z / tan(35 deg) exceeds the way to
    the mouth's edge; the beam's own X-rays from the walls leave a little (physics.md 5, 8.5).
    """
    way = scene.depth_m / np.float32(math.tan(TAKE_OFF_RAD))
    mouth = np.maximum(2 * scene.half_width_m, np.float32(1e-9))
    seen = np.clip(1 - way / mouth, 0.04, 1)
    return np.where(scene.depth_m > 0, seen, 1).astype(np.float32)
