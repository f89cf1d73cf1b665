"""Forms electron images of a face: backscatter yield, pore backs, blur, noise, grey levels, by detector.

Models: physics.md sections 4.1 (yields), 4.2 (shadowing), 4.4 (grey calibration), 4.5 (noise) and 8.4, after
Cooper et al. 2022 and the Monte Carlo numbers given there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy import signal as sp_signal

from simulator import materials as m
from simulator.face import FaceScene, Float32, sample_face, truth
from simulator.randomness import Key, rng
from simulator.sidebyside import beside

__all__ = ["DETECTORS", "FaceScene", "render", "sample_face", "truth"]

Detector = Literal["CBS", "TLD", "ETD"]
Electrons = Literal["backscattered", "secondary"]
DETECTORS: tuple[Detector, ...] = ("CBS", "TLD", "ETD")
ELEMENTARY_CHARGE_C = 1.602176634e-19


@dataclass(frozen=True)
class _Response:
    """How a detector turns yield into grey and electrons.

    black : grey at no signal, at contrast = brightness = 0.5; slope : grey per unit of yield (section 4.4)
    share : detected electrons per beam electron and unit of yield, with the efficiency of section 4.5
    low_rad, high_rad : angles from the axis that it sees (section 4.1, assumed)
    """

    black: float
    slope: float
    share: float
    low_rad: float
    high_rad: float


_RESPONSES: dict[str, _Response] = {
    "CBS": _Response(125 - 836 * 0.240, 836.0, 0.395 * 0.6, math.radians(15), math.radians(42)),
    "TLD": _Response(105 - 780 * 0.240, 780.0, 0.031 * 0.25, 0.0, math.radians(10)),
    "ETD": _Response(30.0, 330.0, 0.10, math.radians(0), math.radians(80)),
}

_YIELD_FLAT = {
    m.NMC: 0.240, m.CBD: 0.125, m.AL: 0.185, m.PT: 0.400, m.CAP: 0.345, m.RESIDUE: 0.215, m.SLIVER: 0.236,
    m.GRAPHITE: 0.075, m.COPPER: 0.335, m.CRACK_RESIDUE: 0.135,
}  # fmt: skip
"""Effective backscatter yields at 5 kV, normal incidence, that give the published greys (section 4.4)."""

_TILT_GAIN_38 = {
    m.NMC: 1.256, m.CBD: 1.45, m.AL: 1.368, m.PT: 1.185, m.CAP: 1.17, m.RESIDUE: 1.28, m.SLIVER: 1.25,
    m.GRAPHITE: 1.71, m.COPPER: 1.22, m.CRACK_RESIDUE: 1.45,
}  # fmt: skip
"""Yield at 38 deg over that at normal incidence (section 4.1, Monte Carlo; binder with some Pt-C in its pores)."""

_BLUR_M = {
    m.NMC: 35e-9, m.CBD: 90e-9, m.AL: 60e-9, m.PT: 12e-9, m.CAP: 15e-9, m.RESIDUE: 40e-9, m.SLIVER: 40e-9,
    m.GRAPHITE: 75e-9, m.COPPER: 25e-9, m.CRACK_RESIDUE: 70e-9,
}  # fmt: skip
"""Lateral spread of the backscattered electrons at 5 kV, standard deviation (section 8.4)."""

_SECONDARY_YIELD = {
    m.NMC: 0.30, m.CBD: 0.22, m.AL: 0.27, m.PT: 0.38, m.CAP: 0.36, m.RESIDUE: 0.3, m.SLIVER: 0.3,
    m.GRAPHITE: 0.22, m.COPPER: 0.34, m.CRACK_RESIDUE: 0.25,
}  # fmt: skip
_NARROW_M, _WIDE_M = 25e-9, 110e-9
_PROBE_M = 3.5e-9
_HALF_ANGLE_RAD = 10e-3
_CHANNELLING = 0.03
#: Binder's own unevenness: clusters of carbon black and nanopores below the voxel (section 6), of its yield.
_BINDER_TEXTURE = 0.13
#: Platinum grows in nodules of more or less carbon (sections 3.1, 4.1: Pt-C1 to Pt-C5): of its yield.
_PLATINUM_TEXTURE = 0.06
#: TLD sees these brighter than the line through the other phases (section 4.4: Al at 69, binder at 31-39).
_TLD_OVER = {m.AL: 1.05, m.CBD: 1.06}
_VACUUM_SIGNAL = 0.105
#: Mixed metal that the cut sheds onto pore walls: thickness at the mouth, how deep it reaches, metres (section 2.2).
_SHED_M, _SHED_REACH_M, _SHED_SEEN_M = 20e-9, 2e-6, 25e-9
#: Charging: grains of a poor conductor darken at their centres by this at high dose, C/m2 (section 4.3: 5 nm pixels).
_CHARGED, _CHARGING_DOSE, _GRAIN_M = 0.12, 150.0, 0.25e-6
#: Binder charges too: a bright trail along the line behind it, share of its step, and how long it is, metres.
_TRAIL, _TRAIL_M = 0.05, 0.6e-6
#: Each scan of the same place darkens the next by this (section 4.3: 1-3 %).
_CONTAMINATION = 0.02
#: Mains hum moves lines by this at most, metres; below this dwell the scintillator lags, by this (section 4.5), s.
_HUM_M, _LAG_BELOW_S, _LAG_S, _MAINS_HZ = 2e-9, 100e-9, 60e-9, 50.0
CONTRAST_STEP = 0.15  # of the contrast knob doubles the gain (section 4.4: exponential-like)


@dataclass(frozen=True)
class Emission:
    """What a scene sends out under the beam, whichever detector takes its part of it; arrays (y, x), float32.

    electrons : which they are
    solid : yield that leaves solids, films on them included; behind : yield of a pore's back, by pixel of `pores`
    pores : flat indices of the pixels in pores; texture, lift : factors of what is seen and of its slope
    charged : factors of charging, in their order
    """

    electrons: Electrons
    solid: Float32
    pores: NDArray[np.intp]
    behind: Float32
    texture: Float32
    lift: Float32
    charged: tuple[Float32, ...]


def emission(
    scene: FaceScene, electrons: Electrons, *, dose: float, voltage_v: float = 5e3, tilt_rad: float = 0.0
) -> Emission:
    """Return what a scene sends out of these electrons; see `render`. `dose` : of the picture, C/m2."""
    charged = beside(_charged, scene, dose)
    secondary = electrons == "secondary"
    table = _secondary(tilt_rad) if secondary else yields(tilt_rad)
    solid, film, at = _solid(scene, table, voltage_v)
    pores = np.flatnonzero(scene.material == m.PORE)
    behind = table.take(scene.back.take(pores))
    shed = np.float32(_SHED_M / _SHED_SEEN_M) * np.exp(scene.depth_m.take(pores) * np.float32(-1 / _SHED_REACH_M))
    behind += (1 - np.exp(-shed)) * (table[m.RESIDUE] - behind)
    texture, lift = _texture(scene, film, at), _lift(scene, pores, secondary=secondary)
    return Emission(electrons, solid, pores, behind, texture, lift, charged())


def electrons_of(detector: str) -> Electrons:
    """Return which electrons a detector takes."""
    return "secondary" if detector == "ETD" else "backscattered"


def dose_of(scene: FaceScene, current_a: float, dwell_s: float) -> float:
    """Return the dose of a picture, C/m2."""
    return current_a * dwell_s / (scene.pixel_m[0] * scene.pixel_m[1])


def render(
    scene: FaceScene,
    detector: str,
    *,
    current_a: float = 1.6e-9,
    dwell_s: float = 3e-6,
    voltage_v: float = 5e3,
    contrast: float = 0.5,
    brightness: float = 0.5,
    tilt_rad: float = 0.0,
    defocus_m: float | NDArray[np.floating] = 0.0,
    stigmation_m: tuple[float, float] = (0.0, 0.0),
    scans_before: int = 0,
    seed: int = 0,
    key: tuple[Key, ...] = (),
    bits: int = 8,
    gain: float = 1.0,
    sent: Emission | None = None,
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Return the image of a face by one detector, (y, x) on the scene's grid.

    Parameters
    ----------
    scene : what the beam meets
    detector : CBS, TLD or ETD
    current_a, dwell_s : beam current, amperes, and dwell per pixel, seconds: the electrons that count
    voltage_v : landing voltage, volts
    contrast, brightness : 0..1; 0.5, 0.5 gives the published greys; 0.15 more contrast doubles the signal
    tilt_rad : angle between beam and face normal, radians
    defocus_m : distance of the focus from the face, metres, one value or one per row (y,)
    stigmation_m : half the distance between the two line foci, metres, of the lens errors along x and y and along the
        diagonals
    scans_before : of the same place: each darkens it a little
    seed, key : of the noise
    bits : 8 or 16, the latter on the same scale x 257
    gain : true gain of the detector over its nominal one
    sent : `emission` of the scene at this dose, voltage and tilt, where it is known already

    Raises
    ------
    ValueError : an unknown detector, another number of bits, an emission of electrons that it doesn't take
    """
    if detector not in _RESPONSES or bits not in (8, 16):
        msg = f"there is no {bits}-bit detector {detector!r}: choose from {', '.join(_RESPONSES)} with 8 or 16 bits"
        raise ValueError(msg)
    response = _RESPONSES[detector]
    electrons = electrons_of(detector)
    if sent is None:
        dose = dose_of(scene, current_a, dwell_s)
        sent = emission(scene, electrons, dose=dose, voltage_v=voltage_v, tilt_rad=tilt_rad)
    if sent.electrons != electrons:
        msg = f"{detector} takes {electrons} electrons, and the emission given is of {sent.electrons} ones"
        raise ValueError(msg)
    signal = _signal(scene, detector, response, tilt_rad, sent)
    if scans_before > 0:
        signal *= np.float32((1 - _CONTAMINATION) ** min(scans_before, 20))
    for factor in sent.charged:
        signal *= factor
    signal = _blurred(signal, scene, defocus_m, stigmation_m)
    draw = rng(seed, "image", detector, *key)
    detected = current_a * dwell_s / ELEMENTARY_CHARGE_C * response.share
    signal = _noisy(_wobbled(signal, scene.pixel_m[1], dwell_s), detected, draw)
    gain = gain * 2 ** ((contrast - 0.5) / CONTRAST_STEP)
    grey = signal
    grey *= np.float32(response.slope * gain)
    grey += np.float32(response.black + 510 * (brightness - 0.5))
    rows = grey.shape[0]
    grey += (0.45 * draw.standard_normal((rows, 1))).astype(np.float32)
    noise = draw.standard_normal(grey.shape, dtype=np.float32)
    noise *= np.float32(0.7)
    grey += noise
    top = 255 if bits == 8 else 65535
    if bits == 16:
        grey *= np.float32(257)
    np.rint(grey, out=grey)
    np.clip(grey, 0, top, out=grey)
    return grey.astype(np.uint8) if bits == 8 else grey.astype(np.uint16)


def _table(values: dict[int, float], other: float = 0.0) -> Float32:
    """Return a value for each of 256 materials."""
    table = np.full(256, other, np.float32)
    for code, value in values.items():
        table[code] = value
    return table


def yields(tilt_rad: float = 0.0) -> Float32:
    """Return the effective backscatter yield by material, float32 (256,), at a tilt of the surface, radians."""
    flat, gain = _table(_YIELD_FLAT), _table(_TILT_GAIN_38, 1.0)
    share = (1 / max(math.cos(tilt_rad), 0.2) - 1) / (1 / math.cos(math.radians(38)) - 1)
    out = flat * gain ** np.float32(share)
    out[m.VACUUM] = _VACUUM_SIGNAL
    return out.astype(np.float32)


def _secondary(tilt_rad: float) -> Float32:
    """Return the secondary yield by material, float32 (256,), at a tilt of the surface, radians."""
    table = _table(_SECONDARY_YIELD) * np.float32(1 / max(math.cos(tilt_rad), 0.2))
    table[m.VACUUM] = 0.03
    return np.asarray(table, np.float32)


def _solid(scene: FaceScene, table: Float32, voltage_v: float) -> tuple[Float32, Float32, NDArray[np.intp]]:
    """Return the yield that leaves solids, before blur; how opaque films are, and at which pixels (flat) they lie."""
    upper, lower = _layered(table)
    signal = upper.take(_pair(scene.material, scene.half_below))
    signal += lower.take(_pair(scene.material, scene.tenth_below))
    deep = (voltage_v / 5e3) ** 1.67  # electrons go deeper at higher voltage (Kanaya-Okayama, section 4.1)
    at = np.flatnonzero(scene.film_m)
    film = 1 - np.exp(scene.film_m.take(at) * np.float32(-1 / (25e-9 * deep)))
    under = signal.take(at)
    signal.put(at, under + film * (table[m.PT] - under))
    return signal, film, at


def _pair(above: NDArray[np.uint8], below: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Return one number for two materials."""
    pair = above.astype(np.uint16)
    pair <<= 8
    pair |= below
    return pair


def _layered(table: Float32) -> tuple[Float32, Float32]:
    """Return what surface and half depth give together, and what nine tenths of the depth adds, by `_pair`.

    Under vacuum or cap nothing counts; from over a pore less comes back.
    """
    code = np.arange(256)
    own = table[:, None]
    below = np.where(code == m.PORE, 0.6 * own, table)
    alone = np.isin(code, (m.VACUUM, m.CAP))[:, None]
    upper = np.where(alone, own, 0.5 * own + 0.3 * below)
    return upper.reshape(-1), np.where(alone, np.float32(0), 0.2 * below).reshape(-1)


def _texture(scene: FaceScene, film: Float32, at: NDArray[np.intp]) -> Float32:
    """Return the factor of crystals, binder and nodules on what is seen; films cover those below them."""
    strength = _table(
        {m.NMC: _CHANNELLING, m.AL: _CHANNELLING, m.CBD: _BINDER_TEXTURE, m.PT: _PLATINUM_TEXTURE}
    ).take(scene.back)  # fmt: skip
    strength *= scene.grain
    strength.put(at, strength.take(at) * np.where(scene.back.take(at) == m.PT, np.float32(1), 1 - film))
    strength += 1
    return strength


def _lift(scene: FaceScene, pores: NDArray[np.intp], *, secondary: bool) -> Float32:
    """Return the factor of slopes: steep ones give more, those that face away less."""
    along_y, along_x = scene.slope
    lift = along_y**2
    lift += along_x**2
    np.sqrt(lift, out=lift)
    np.square(lift, out=lift)  # of the rounded steepness: greys stay those that the weights were trained on
    lift += 1
    np.sqrt(lift, out=lift)
    lift -= 1
    lift *= np.float32(0.8)
    lift -= np.float32(0.35) * along_y
    lift -= np.float32(0.15) * along_x
    if secondary:
        lift *= np.float32(1.5)
    lift.put(pores, lift.take(pores) * np.float32(0.5))
    lift += 1
    held: Float32 = np.clip(lift, 0.3, 2.0, out=lift)
    return held


def _signal(scene: FaceScene, detector: str, response: _Response, tilt_rad: float, sent: Emission) -> Float32:
    """Return the yield that reaches the detector, before blur."""
    signal = sent.solid.copy()
    signal.put(sent.pores, sent.behind * _visible(scene, sent.pores, response, tilt_rad))
    signal *= sent.texture
    if detector == "TLD":
        signal *= _table(_TLD_OVER, 1.0).take(scene.back)
    signal *= sent.lift
    return signal


def _visible(scene: FaceScene, pores: NDArray[np.intp], response: _Response, tilt_rad: float) -> Float32:
    """Return the share of a detector's angles that sees a pore's back past its mouth, by pore (section 4.2)."""
    depth = np.maximum(scene.depth_m.take(pores), np.float32(1e-9))
    mouth = scene.half_width_m.take(pores) * np.float32(max(math.cos(tilt_rad), 0.2))
    angle = np.arctan2(mouth, depth)
    share = (angle - np.float32(response.low_rad)) / np.float32(response.high_rad - response.low_rad)
    seen: Float32 = np.clip(share, 0, 1).astype(np.float32)
    return seen


def _charged(scene: FaceScene, dose: float) -> tuple[Float32, ...]:
    """Return factors, (y, x): oxide grains darken at their centres where the dose (C/m2) is high, binder leaves trails.

    Platinum nearby carries the charge away (section 4.3).
    """
    factors = []
    strength = _CHARGED * dose / (dose + _CHARGING_DOSE)
    oxide = scene.material == m.NMC
    if strength > 0.005 and oxide.any():
        size = [_GRAIN_M / pixel for pixel in scene.pixel_m]
        centre = ndimage.gaussian_filter(np.abs(scene.grain), [0.5 * one for one in size], truncate=2)
        dark = 1 - np.float32(strength) * np.minimum(2 * centre, 1)
        factors.append(np.where(oxide, dark, 1).astype(np.float32))
    binder = (scene.material == m.CBD).astype(np.float32)
    keep = math.exp(-scene.pixel_m[1] / _TRAIL_M)
    if keep > 0.05 and binder.any():
        trail = np.asarray(sp_signal.lfilter([1 - keep], [1.0, -keep], binder, axis=1), np.float32)
        grounded = 1 - ndimage.uniform_filter(
            (scene.material == m.PT).astype(np.float32), [max(1, round(1.5e-6 / p)) for p in scene.pixel_m]
        )
        factors.append(np.asarray(1 + np.float32(_TRAIL) * trail * grounded * (1 - binder), np.float32))
    return tuple(factors)


def _wobbled(signal: Float32, pixel_m: float, dwell_s: float) -> Float32:
    """Move lines with the mains, and let the scintillator lag behind fast scans."""
    rows, columns = signal.shape
    line_s = columns * dwell_s + 35e-6
    hum = np.float32(_HUM_M / pixel_m) * np.sin(2 * np.pi * _MAINS_HZ * line_s * np.arange(rows))
    if float(np.abs(hum).max(initial=0)) > 0.02 and columns > 2:
        signal = signal.copy()
        step = 0.5 * (signal[:, 2:] - signal[:, :-2])
        signal[:, 1:-1] += hum.astype(np.float32)[:, None] * step
    if dwell_s < _LAG_BELOW_S:
        keep = math.exp(-dwell_s / _LAG_S)
        signal = np.asarray(sp_signal.lfilter([1 - keep], [1.0, -keep], signal, axis=1), np.float32)
    return signal


def _blurred(
    signal: Float32,
    scene: FaceScene,
    defocus_m: float | NDArray[np.floating],
    stigmation_m: tuple[float, float],
) -> Float32:
    """Mix a narrow and a wide blur by what lies at each pixel; defocus widens both, astigmatism by direction."""
    along_y, along_x = scene.pixel_m
    defocus = np.asarray(defocus_m, float)
    if defocus.ndim:
        return _blurred_by_rows(signal, scene, defocus, stigmation_m)
    straight, diagonal = stigmation_m
    # rms radius of a disc of 2 alpha dz across; along the diagonals the larger of both counts for both axes
    discs = [_HALF_ANGLE_RAD * math.hypot(float(defocus) + s * straight, diagonal) for s in (1, -1)]
    own = [math.hypot(_PROBE_M, disc) for disc in discs]
    blurs = [
        ndimage.gaussian_filter(signal, [math.hypot(b, own[0]) / along_y, math.hypot(b, own[1]) / along_x], truncate=3)
        if math.hypot(b, max(own)) > 0.25 * min(along_y, along_x)
        else signal
        for b in (_NARROW_M, _WIDE_M)
    ]
    spread = _table(_BLUR_M, 50e-9)
    share = np.clip((spread - _NARROW_M) / (_WIDE_M - _NARROW_M), 0, 1)[scene.material]
    return np.asarray(blurs[0] + share * (blurs[1] - blurs[0]), np.float32)


def _blurred_by_rows(
    signal: Float32, scene: FaceScene, defocus_m: NDArray[np.float64], stigmation_m: tuple[float, float]
) -> Float32:
    """Blur with a defocus that changes down the image, interpolated between four uniform ones."""
    nodes = np.linspace(float(defocus_m.min()), float(defocus_m.max()), 5)
    if nodes[-1] - nodes[0] < 0.2e-6:
        return _blurred(signal, scene, float(nodes.mean()), stigmation_m)
    stacked = np.stack([_blurred(signal, scene, float(node), stigmation_m) for node in nodes])
    place = np.interp(defocus_m, nodes, np.arange(nodes.size))
    low = np.minimum(place.astype(int), nodes.size - 2)
    share = (place - low).astype(np.float32)[:, None]
    rows = np.arange(signal.shape[0])
    return np.asarray(stacked[low, rows] * (1 - share) + stacked[low + 1, rows] * share, np.float32)


def _noisy(signal: Float32, electrons: float, draw: np.random.Generator) -> Float32:
    """Return the signal as counted: Poisson, or its normal limit where counts are many."""
    counts = np.maximum(signal, 0) * np.float32(electrons)
    if float(counts.mean()) > 60:
        counts += np.sqrt(counts + np.float32(1)) * draw.standard_normal(counts.shape, dtype=np.float32)
    else:
        counts = draw.poisson(counts).astype(np.float32)
    counts /= np.float32(electrons)
    jitter = (0.15 * draw.standard_normal((counts.shape[0], 1))).astype(np.float32)
    if counts.shape[1] > 2:
        counts[:, 1:-1] += jitter * 0.5 * (counts[:, 2:] - counts[:, :-2])
    return counts
