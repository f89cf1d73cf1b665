"""Curtains: streaks in the picture by how the face was cut (physics.md 2.3, 8.8)."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy import ndimage

import tests.simulator.bench as benches
from simulator import materials as m
from simulator.block import Block
from simulator.electronimage import WALLS
from simulator.face import sample_face
from simulator.imaging import render

WIDE, HIGH = 20e-6, 34e-6
URL = (
    "simulator:{seed}?width=21um&height=36um&depth=2.5um&coating=24um&above=3um&voxel=80nm&layer=80nm&ragged=0.3um"
    "&site=0um&aim=0um&jump=0um&drift=0&rates=0%"
)
PIXEL = 80e-9


def streaks(block: Block) -> float:
    """Return the standard deviation of the columns' mean grey, of the picture less its own without relief, per cent.

    CBS, active material and foil, of waves shorter than 10 um or so across the face.
    """
    x = np.arange(-WIDE / 2 + 1e-6, WIDE / 2 - 1e-6, PIXEL)
    y = np.arange(1.5e-6, HIGH - 1e-6, PIXEL)
    face, relief = block.at(block.maps.face, x, y), block.at(block.maps.relief, x, y) * np.float32(WALLS)
    grey = []
    for rough in (relief, 0 * relief):
        scene = sample_face(block.volume, face, np.zeros_like(face), x, y, relief_m=rough)
        grey.append(render(scene, "CBS", dwell_s=1e-3, bits=16).astype(float))
    solid = np.isin(scene.material, (m.NMC, m.AL))
    columns = np.where(solid, grey[0], 0).sum(0) / np.where(solid, grey[1], 0).sum(0)
    return float(100 * (columns - ndimage.gaussian_filter1d(columns, 3e-6 / PIXEL)).std())


@cache
def measured(rocked: bool, filled: bool) -> float:
    """Return the streaks of faces polished in 25 nm cuts, one direction or two, with or without platinum before."""
    return float(np.mean([_polished(seed, rocked=rocked, filled=filled) for seed in (3, 5)]))


def _polished(seed: int, *, rocked: bool, filled: bool) -> float:
    bench = benches.Bench(URL.format(seed=seed))
    plane = 0.35e-6

    def cut(thickness: float, times: int) -> None:
        nonlocal plane
        for index in range(times):
            bench.go(("rock-plus" if index % 2 else "rock-minus") if rocked else "mill")
            bench.ion(15e-9)
            view = bench.view()
            u, first = view.field((0.0, HIGH / 2, plane))
            last = view.field((0.0, HIGH / 2, plane + thickness))[1]
            pattern = benches.CleaningCrossSection(x_m=u, width_m=WIDE, start_y_m=first, end_y_m=last, depth_m=HIGH)
            bench.microscope.pattern(bench.job([pattern], 1.15 * benches.mill_dose(WIDE * HIGH * thickness)))
            plane += thickness

    cut(0.1e-6, 3)
    block = bench.microscope.block
    if filled:
        block.lay_film(np.full(block.maps.face.shape, 1e-6, np.float32), (0.0, 0.0, 1.0))
        block.settle_film()
        block.maps.surface = block.maps.face.copy()
    cut(25e-9, 6)
    found = streaks(block)
    bench.microscope.close()
    return found


def test_a_filled_and_rocked_face_has_the_published_streaks() -> None:
    assert 0.7 <= measured(rocked=True, filled=True) <= 2.5


@pytest.mark.parametrize(("rocked", "filled"), [(False, True), (True, False)])
def test_without_rocking_or_without_platinum_streaks_are_twice_as_strong(rocked: bool, filled: bool) -> None:
    assert measured(rocked=rocked, filled=filled) >= 2 * measured(rocked=True, filled=True)


def test_without_both_they_are_worst() -> None:
    assert measured(rocked=False, filled=False) > 1.5 * max(
        measured(rocked=False, filled=True), measured(rocked=True, filled=False)
    )
