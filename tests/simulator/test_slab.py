"""A block longer than what is held of it: layers come as the face comes to them, and are the same whenever made."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from simulator import slab
from simulator.block import Block, block_again, new_block
from simulator.electrode import Electrode
from simulator.model import Model
from simulator.options import Options, parse
from simulator.topside import Feature
from simulator.volume import Volume, build

LONG = parse("simulator:3?width=5um&height=5um&depth=16um&coating=4um&above=2um&voxel=60nm&layer=80nm&ragged=0um")
CAP = Feature(kind="cap", x0=-2e-6, z0=1e-6, x1=2e-6, z1=15e-6, amount=0.7e-6)
GROOVE = Feature(kind="groove", x0=-1e-6, z0=2e-6, x1=1e-6, z1=14e-6, width=0.3e-6, amount=0.3e-6)


def cut_back(block: Block, z: float) -> None:
    block.cut_to(np.full_like(block.maps.surface, z))


def moved_on(options: Options, *planes: float) -> Block:
    block = new_block(options)
    block.add(CAP)
    block.add(GROOVE)
    for z in planes:
        cut_back(block, z)
    return block


def test_a_slab_holds_less_than_the_block_and_follows_the_face() -> None:
    block = moved_on(LONG)
    whole = LONG.electrode().shape[0]
    held = block.volume.labels.shape[0]
    assert held < whole
    assert block.volume.first_layer == 0
    cut_back(block, 5e-6)
    assert block.volume.labels.shape[0] == held
    assert block.volume.first_layer > 0
    start = block.volume.origin[2]
    assert start < 5e-6 < start + held * block.volume.layer - 7.9e-6


@pytest.mark.parametrize(
    "planes",
    [(5e-6,), (2e-6, 3e-6, 4e-6, 5e-6), (4.1e-6, 5.7e-6, 7.3e-6, 8.9e-6), (0.7e-6, 4.9e-6, 5e-6), (1e-6, 15.5e-6)],
)
def test_layers_are_the_same_whenever_they_are_made(planes: tuple[float, ...]) -> None:
    block = moved_on(LONG, *planes)
    volume, top = block.volume, block.top
    last = volume.first_layer + volume.labels.shape[0]
    at_once, its_top = block.slab.make(0, last, block.features)
    np.testing.assert_array_equal(volume.labels, at_once.labels[volume.first_layer :])
    np.testing.assert_array_equal(top.height, its_top.height[volume.first_layer :])
    assert volume.origin[2] == pytest.approx(at_once.origin[2] + volume.first_layer * volume.layer)


def test_layers_made_ahead_are_used_and_others_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    spans: list[tuple[int, int]] = []

    def noted(electrode: Electrode, first: int, last: int, *, model: Model) -> Volume:
        spans.append((first, last))
        return build(electrode, first, last, model=model)

    monkeypatch.setattr(slab, "build", noted)
    moved_on(LONG, 4.1e-6, 5.7e-6, 7.3e-6)
    assert len(spans) == len(set(spans)) > 2  # none twice
    spans.clear()
    moved_on(LONG, 4.1e-6, 10e-6)  # two strides at once: what lay ready is not what is asked for
    assert any(one[0] == other[0] and one != other for one in spans for other in spans)


def test_platinum_stays_where_it_was_let_in_as_the_slab_moves() -> None:
    block = moved_on(LONG, 3e-6)
    face = block.maps.face
    block.lay_film(np.full_like(face, 0.8e-6), (0.0, 0.0, 1.0))
    block.settle_film()
    (index,) = block.changes
    layer = block.volume.labels[0].size
    assert index.size
    assert index.min() >= block.volume.first_layer * layer
    filled = block.volume.labels == 4
    before = block.volume.first_layer
    cut_back(block, 5.5e-6)
    moved = block.volume.first_layer - before
    assert moved > 0
    np.testing.assert_array_equal(block.volume.labels[: -moved or None] == 4, filled[moved:])


def test_a_block_is_built_again_as_it_was(tmp_path: Path) -> None:
    block = moved_on(LONG, 3e-6)
    block.lay_film(np.full_like(block.maps.face, 0.8e-6), (0.0, 0.0, 1.0))
    block.settle_film()
    changes = list(block.changes)
    cut_back(block, 4.5e-6)
    again = block_again(LONG, block.maps, block.features, iter(changes))
    offset = again.volume.first_layer - block.volume.first_layer
    low, high = max(0, offset), min(block.volume.labels.shape[0], again.volume.labels.shape[0] + offset)
    assert high - low > 80
    np.testing.assert_array_equal(block.volume.labels[low:high], again.volume.labels[low - offset : high - offset])
    assert again.fills == 1
