"""How cuts come out: thickness and its errors, cuts that are repeated or given no dose, streaks."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import ndimage

from simulator import materials as m
from simulator.acceptance.finding import Check, Finding, fails_visibly
from simulator.acceptance.operator import ENOUGH, STILL, Operator
from simulator.block import Block
from simulator.electronimage import walls
from simulator.face import sample_face
from simulator.imaging import render

#: The face on which streaks are measured, its pixel (m), on two electrodes.
_WIDE_M, _HIGH_M, _PIXEL_M, _SEEDS = 20e-6, 34e-6, 80e-9, (3, 5)
_STREAKED = (
    "simulator:{seed}?width=21um&height=36um&depth=2.5um&coating=24um&above=3um&voxel=80nm&layer=80nm&ragged=0.3um"
    "&site=0um&aim=0um&jump=0um&drift=0&rates=0%"
)


def _settled(current: float) -> tuple[Operator, float]:
    """Return an operator whose cuts of 25 nm have come to a steady state, and the next plane."""
    operator = Operator(STILL)
    operator.go("mill")
    operator.ion(current)
    return operator, operator.slices(0.4e-6, 8)


def thickness() -> list[Finding]:
    """Check that single cuts err, and images of four cuts much less."""
    operator, plane = _settled(15e-9)
    at = []
    for _ in range(56):
        plane = operator.slices(plane, 1)
        at.append(operator.plane)
    cuts, images = np.diff(at), np.diff(at[::4])
    return [
        Finding("spread of single cuts of 25 nm", "physics.md 8.8", "30-60", 100 * cuts.std() / 25e-9, 30, 60, "%"),
        Finding("spread of images of 100 nm", "physics.md 8.8", "<20", 100 * images.std() / 100e-9, 0, 20, "%"),
    ]


def repeated() -> list[Finding]:
    """Check that a cut given again cuts again, and that one without dose takes nothing (night.md 2)."""
    operator, plane = _settled(60e-9)
    second = []
    for _ in range(12):
        operator.cut(plane, plane + 25e-9)
        before = operator.plane
        operator.cut(plane, plane + 25e-9)
        second.append(operator.plane - before)
        plane += 25e-9
    before = operator.plane
    operator.cut(plane, plane + 25e-9, 1e-9)
    return [
        Finding("a cut of 25 nm given again takes", "night.md 2", "20-25", 1e9 * float(np.mean(second)), 20, 25, "nm"),
        Finding("a cut without dose takes", "night.md 2", "0", 1e9 * (operator.plane - before), 0, 0.1, "nm"),
    ]


def streaks() -> list[Finding]:
    """Check streaks after rocking and filling, and without either."""
    best = streaked(rocked=True, filled=True)
    return [
        Finding("streaks after rocking and filling", "physics.md 8.8", "1-2.5", best, 1.0, 2.5, "%"),
        Finding("streaks without rocking, times that", "physics.md 8.8", ">2",
                streaked(rocked=False, filled=True) / best, 2.0, float("inf")),
        Finding("streaks without filling, times that", "physics.md 8.8", ">2",
                streaked(rocked=True, filled=False) / best, 2.0, float("inf")),
    ]  # fmt: skip


def rocking() -> list[Finding]:
    """Check streaks of cuts from one direction, and of pores that are not filled."""
    both = streaked(rocked=True, filled=True)
    return [
        fails_visibly("rocking", both, streaked(rocked=False, filled=True), at_most=2.5, at_least=2 * both,
                      unit="% streaks"),
        fails_visibly("filling", both, streaked(rocked=True, filled=False), at_most=2.5, at_least=2 * both,
                      unit="% streaks"),
    ]  # fmt: skip


@cache
def streaked(*, rocked: bool, filled: bool) -> float:
    """Return the streaks of faces polished in 25 nm cuts, one direction or two, with or without platinum before, %."""
    return float(np.mean([_polished(seed, rocked=rocked, filled=filled) for seed in _SEEDS]))


def _polished(seed: int, *, rocked: bool, filled: bool) -> float:
    operator = Operator(_STREAKED.format(seed=seed), _WIDE_M, _HIGH_M)
    plane = 0.35e-6

    def cut(thickness: float, times: int) -> None:
        nonlocal plane
        for index in range(times):
            operator.go(("rock-plus" if index % 2 else "rock-minus") if rocked else "cut")
            operator.ion(15e-9)
            operator.cut(plane, plane + thickness, ENOUGH)
            plane += thickness

    cut(0.1e-6, 3)
    block = operator.machine.block
    if filled:
        block.lay_film(np.full(block.maps.face.shape, 1e-6, np.float32), (0.0, 0.0, 1.0))
        block.settle_film()
        block.maps.surface = block.maps.face.copy()
    cut(25e-9, 6)
    return column_streaks(block)


def column_streaks(block: Block) -> float:
    """Return the standard deviation of the columns' mean grey, of the picture over its own without relief, per cent.

    CBS, active material and foil, of waves shorter than 10 um or so across the face.
    """
    x = np.arange(-_WIDE_M / 2 + 1e-6, _WIDE_M / 2 - 1e-6, _PIXEL_M)
    y = np.arange(1.5e-6, _HIGH_M - 1e-6, _PIXEL_M)
    face, relief = block.at(block.maps.face, x, y), walls(block.at(block.maps.relief, x, y), _PIXEL_M)
    grey = []
    for rough in (relief, 0 * relief):
        scene = sample_face(block.volume, face, np.zeros_like(face), x, y, relief_m=rough)
        grey.append(render(scene, "CBS", dwell_s=1e-3, bits=16).astype(float))
    solid = np.isin(scene.material, (m.NMC, m.AL))
    columns = np.where(solid, grey[0], 0).sum(0) / np.where(solid, grey[1], 0).sum(0)
    return float(100 * (columns - ndimage.gaussian_filter1d(columns, 3e-6 / _PIXEL_M)).std())


CHECKS: tuple[Check, ...] = (thickness, repeated, streaks, rocking)
