"""Greys, rings, cracks, noise, element counts of one virtual face, against the published micrographs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from simulator import materials as m
from simulator.acceptance.finding import Check, Finding, near
from simulator.acceptance.looks import mode
from simulator.deposition import infiltrate
from simulator.eds import element_counts
from simulator.electrode import Electrode
from simulator.face import FaceScene, sample_face, truth
from simulator.imaging import render
from simulator.volume import Volume, build

#: The face that is looked at: voxel and pixel (m), where it is cut after a film of so much (m).
_VOXEL_M, _PLANE_M, _FILM_M = 40e-9, 0.35e-6, 2e-6
_SIZE_M, _HEIGHT_M = 26e-6, 25e-6


@dataclass(frozen=True)
class Looked:
    """A filled face: what the beam meets, its truth, pictures by detector (8 bit), the grid's step (m)."""

    scene: FaceScene
    truth: NDArray[np.uint8]
    pictures: dict[str, NDArray[np.float64]]
    step: float


@cache
def block() -> Volume:
    """Return a virtual cathode of the default preset, with what 2 um of film at its first plane have filled."""
    volume = build(
        Electrode(seed=3, width_m=_SIZE_M, height_m=_HEIGHT_M + 1e-6, depth_m=4e-6, above_m=1e-6, coating_m=19e-6,
                  voxel_m=_VOXEL_M)
    )  # fmt: skip
    x, y = _axes(volume, 100e-9)
    flat = np.zeros((y.size, x.size))
    infiltrate(volume, x, y, flat + _PLANE_M - 0.05e-6, flat + _FILM_M).write(volume)
    return volume


def _axes(volume: Volume, step: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return (
        volume.origin[0] + np.arange(0, volume.labels.shape[2] * volume.voxel, step),
        np.arange(0, _HEIGHT_M, step),
    )


@cache
def wide_block(seed: int) -> Volume:
    """Return a coarser one of the published sizes, filled too: pores wider than 2 um are between large particles."""
    volume = build(
        Electrode(seed=seed, width_m=40e-6, height_m=34e-6, depth_m=8e-6, above_m=1e-6, coating_m=32e-6, large_m=11e-6,
                  small_m=3.6e-6, voxel_m=100e-9, layer_m=100e-9)
    )  # fmt: skip
    x, y = volume.origin[0] + np.arange(0, 40e-6, 200e-9), np.arange(0, 33e-6, 200e-9)
    flat = np.zeros((y.size, x.size))
    infiltrate(volume, x, y, flat + _PLANE_M - 0.05e-6, flat + _FILM_M).write(volume)
    return volume


def looked(volume: Volume, x: NDArray[np.float64], y: NDArray[np.float64], frames: int = 1) -> Looked:
    """Return a plane of a volume as it is seen, the mean of so many pictures."""
    scene = sample_face(volume, np.full((y.size, x.size), _PLANE_M), 0.0, x, y)
    pictures = {
        name: np.mean([render(scene, name, seed=3, key=(frame,)).astype(float) for frame in range(frames)], axis=0)
        for name in ("CBS", "TLD")
    }
    return Looked(scene, truth(scene), pictures, float(x[1] - x[0]))


def _deep_in(where: NDArray[np.bool_], step: float, reach: float) -> NDArray[np.bool_]:
    return np.asarray(ndimage.distance_transform_edt(where) * step > reach)


def greys() -> list[Finding]:
    """Check the peaks of the phases' histograms, by detector."""
    seen = looked(block(), *_axes(block(), _VOXEL_M), frames=6)
    published = {"CBS": (35, 125, 79, 248), "TLD": (35, 105, 69, 225)}
    phases = (m.TRUTH_CBD, m.TRUTH_ACTIVE, m.TRUTH_COLLECTOR, m.TRUTH_PT_PORE)
    found = []
    for detector, values in published.items():
        for phase, name, value in zip(phases, ("CBD", "active", "Al", "Pt in pores"), values, strict=True):
            inside = _deep_in(seen.truth == phase, seen.step, 0.12e-6)
            peak = mode(seen.pictures[detector][inside])
            found.append(near(f"{detector} grey of {name}", "physics.md 4.4", value, peak, 8.0))
    return found


def _pores(seen: Looked) -> NDArray[np.bool_]:
    return np.isin(seen.truth, (m.TRUTH_PT_PORE, m.TRUTH_OPEN_PORE))


def rings() -> list[Finding]:
    """Check that pores wider than 2 um keep a bright rim and a darker core, in CBS far more than in TLD."""
    greys: dict[str, list[list[float]]] = {"CBS": [[], [], []], "TLD": [[], [], []]}
    for seed in (3, 5, 11):
        volume = wide_block(seed)
        x, y = volume.origin[0] + np.arange(0, 39e-6, 100e-9), np.arange(0, 31e-6, 100e-9)
        seen = looked(volume, x, y, frames=2)
        empty = seen.truth == m.TRUTH_OPEN_PORE
        pores = empty | (seen.truth == m.TRUTH_PT_PORE)
        inside = ndimage.distance_transform_edt(pores) * seen.step
        labels, count = ndimage.label(pores)
        widest = np.concatenate([[0.0], ndimage.maximum(inside, labels, np.arange(1, count + 1))])[labels]
        wide = widest > 1.0e-6
        core, rim = wide & (inside > 0.75e-6), wide & (inside > 0.1e-6) & (inside < 0.35e-6)
        deep = empty & (inside > 0.3e-6) & (seen.scene.depth_m > 3.7 * widest)
        for name, picture in seen.pictures.items():
            for place, where in enumerate((core, rim, deep)):
                greys[name][place] += picture[where].tolist()
    ratio = {name: float(np.mean(core) / np.mean(rim)) for name, (core, rim, _) in greys.items()}
    return [
        near("core over rim of wide pores, CBS", "physics.md 8.8", 0.5, ratio["CBS"], 0.1),
        Finding("core over rim of wide pores, TLD", "physics.md 8.8", "0.9-1.0", ratio["TLD"], 0.85, 1.05),
        Finding("CBS grey of deep pores", "physics.md 4.4", "<10", float(np.median(greys["CBS"][2])), 0, 10),
    ]


def _solid(shape: tuple[int, int, int]) -> Volume:
    """Return a block of active material of 40 nm x 40 nm x 50 nm voxels, its face in front, x and y about 0."""
    labels = np.full(shape, m.NMC, np.uint8)
    origin = (-(shape[2] - 1) / 2 * 40e-9, -(shape[1] - 1) / 2 * 40e-9, 25e-9)
    return Volume(labels, origin, 40e-9, 50e-9, Electrode(), np.zeros((1, 1, 1), np.int8))


def _lay(volume: Volume) -> None:
    axis = np.arange(-6e-6, 6e-6, 100e-9)
    flat = np.zeros((axis.size, axis.size))
    infiltrate(volume, axis, axis, flat, flat + _FILM_M).write(volume)


def cracks() -> list[Finding]:
    """Check that a film fills a narrow slit, for about ten images, and leaves a ring in a wide pore."""
    slit = _solid((40, 260, 120))
    slit.labels[:, 30:230, 50:70] = m.PORE
    _lay(slit)
    pore = _solid((60, 180, 180))
    side = (np.arange(180) - 89.5) * 40e-9
    radius = np.hypot(side[:, None], side[None, :])
    pore.labels[:, radius < 2.5e-6] = m.PORE
    _lay(pore)
    ring = (pore.labels[2] == m.PT).sum() * 40e-9**2

    def filled(image: int) -> float:
        return float((slit.labels[2 * image + 1, 120:140, 50:70] == m.PT).mean())

    return [
        Finding("slits of 0.8 um filled right after a film", "physics.md 8.8", "all", 100 * filled(0), 99, 100, "%"),
        Finding("the same ten images later", "physics.md 8.8", "none", 100 * filled(11), 0, 15, "%"),
        Finding("ring in a pore of 5 um after a film of 2 um", "physics.md 3.2", "0.35-0.7",
                1e6 * (2.5e-6 - float(np.sqrt(2.5e-6**2 - ring / np.pi))), 0.35, 0.7, "um"),
    ]  # fmt: skip


def rounds() -> list[Finding]:
    """Check that films fill of what is left what the first one filled of all, and that none takes anything back."""
    volume = build(
        Electrode(seed=7, width_m=24e-6, height_m=20e-6, depth_m=6e-6, above_m=1e-6, coating_m=19e-6, voxel_m=80e-9,
                  layer_m=80e-9)
    )  # fmt: skip
    x, y = volume.origin[0] + np.arange(0, 24e-6, 160e-9), np.arange(0, 19e-6, 160e-9)
    flat, layer = np.zeros((y.size, x.size)), round(0.3e-6 / volume.layer)
    pores = volume.labels[layer] == m.PORE
    wide = ndimage.binary_opening(pores, iterations=round(0.6e-6 / volume.voxel))
    shares, lost = [], 0
    for _ in range(3):
        before = volume.labels == m.PT
        infiltrate(volume, x, y, flat + 0.25e-6, flat + 0.15e-6).write(volume)
        lost += int((before & (volume.labels != m.PT)).sum())
        shares.append(float((volume.labels[layer][wide] == m.PT).mean()))
    expected = 1 - (1 - shares[0]) ** 3
    return [
        Finding(
            "wide pores filled by three rounds",
            "physics.md 3.2",
            f"1-(1-p)^3 = {expected:.2f}",
            shares[2],
            expected - 0.05,
            1.0,
        ),
        Finding("platinum taken back by a further round", "physics.md 3.2", "none", float(lost), 0, 0, "voxels"),
    ]


def noise() -> list[Finding]:
    """Check the noise in active material at 20 nm, 1.6 nA, 3 us."""
    x, y = _axes(block(), 20e-9)
    seen = looked(block(), x[:600], y[:450])
    again = {name: render(seen.scene, name, seed=3, key=("again",)).astype(float) for name in ("CBS", "TLD")}
    inside = _deep_in(seen.truth == m.TRUTH_ACTIVE, seen.step, 0.3e-6)
    found = {name: float((seen.pictures[name] - again[name])[inside].std() / np.sqrt(2)) for name in again}
    return [
        near("noise in active material, CBS", "physics.md 4.5", 5.0, found["CBS"], 1.5, "grey"),
        near("noise in active material, TLD", "physics.md 4.5", 25.0, found["TLD"], 7.0, "grey"),
    ]


def fractions() -> list[Finding]:
    """Check the default cathode's phases by volume, pores with what lies in them."""
    labels = build(
        Electrode(seed=6, width_m=30e-6, height_m=24e-6, depth_m=10e-6, above_m=1e-6, coating_m=22e-6, voxel_m=120e-9,
                  layer_m=120e-9)
    ).labels[:, 10:180]  # fmt: skip
    shares = {name: float(np.isin(labels, which).mean()) for name, which in _PHASES.items()}
    return [
        near(f"{name} by volume", "physics.md 6", published, shares[name], 0.03)
        for name, published in (("active", 0.72), ("CBD", 0.10), ("pore", 0.18))
    ]


_PHASES = {"active": (m.NMC,), "CBD": (m.CBD,), "pore": (m.PORE, m.CRACK_RESIDUE, m.RESIDUE)}


def elements() -> list[Finding]:
    """Check the published map: 54 nm, 10 kV, 1.6 nA, 1 ms a pixel; coating on both sides of 17 um of foil."""
    names = ("Al", "O", "Ni", "Co", "Mn", "Pt", "C", "F")
    x, y = _axes(block(), 54e-9)
    scene = sample_face(block(), np.full((y.size, x.size), _PLANE_M), 0.0, x, y)
    counts = element_counts(scene, names, (y.size, x.size), seed=3)
    coating = y < 18.5e-6
    share = 17 / (2 * 67 + 17)
    total = (1 - share) * counts[:, coating].sum(0).mean() + share * counts[:, ~coating].sum(0).mean()
    binder = scene.material == m.CBD
    at_foil = binder & ((y > 18.3e-6) & (y < 19.3e-6))[:, None]
    inside = binder & ((y > 4e-6) & (y < 14e-6))[:, None]
    fluorine = counts[names.index("F")]
    ratio = float(fluorine[at_foil].mean() / fluorine[inside].mean())
    return [
        near("element counts per pixel", "physics.md 5", 2.6, float(total), 0.3),
        near("F at the foil over F elsewhere in the binder", "physics.md 8.8", 2.0, ratio, 0.5),
    ]


CHECKS: tuple[Check, ...] = (greys, rings, cracks, rounds, noise, fractions, elements)
