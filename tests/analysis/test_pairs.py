"""Planes before and after a fill tell which open pores were missed, and teach a model to find them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from analysis.core import SegmentationCore
from analysis.model import WEIGHTS, load, write_card
from analysis.ometiff import Slice
from analysis.pair_lessons import Pair, teach_pairs
from analysis.pairs import OpenPores, Side, known_before, open_pores
from analysis.phases import IGNORE, Fine, Phase, merged
from analysis.score import confusion, mean_iou
from tests.analysis.drawn import Drawn, drawn, opened, samples

PIXEL_M = 60e-9


def side(sample: Drawn, labels: np.ndarray | None = None) -> Side:
    """A picture whose labels are right, or those given, and sure."""
    phases = merged(sample.fine) if labels is None else labels
    return Side(sample.channels["CBS"], phases, np.full(phases.shape, 255, np.uint8), PIXEL_M)


def rolled(sample: Drawn, by: tuple[int, int]) -> Drawn:
    """The same, drifted."""
    channels = {name: np.roll(grey, by, (0, 1)) for name, grey in sample.channels.items()}
    return replace(sample, channels=channels, fine=np.roll(sample.fine, by, (0, 1)))


def test_what_platinum_shows_is_known_of_the_picture_before_however_it_drifted() -> None:
    after = drawn(3)
    truth = merged(after.fine)
    blind = np.where(after.fine == Fine.PT_PORE, np.uint8(Phase.CBD), truth)  # all open pores taken for binder
    known = known_before(side(opened(after), blind), side(rolled(after, (6, -9))))
    assert known is not None
    told = known != IGNORE
    assert {Phase.PORE, Phase.ACTIVE, Phase.CBD} <= set(np.unique(known[told]))
    assert (known[told] == truth[told]).mean() > 0.999
    assert (known == Phase.PORE).sum() > 0.2 * (after.fine == Fine.PT_PORE).sum()
    pores = after.fine[known == Phase.PORE]
    assert (pores == Fine.PT_PORE).mean() > 0.95  # no platinum, no proof: but for rims, which are mixtures
    # planes that lie apart are told of less, the farther the less
    apart = known_before(side(opened(after), blind), side(rolled(after, (6, -9))), 200e-9)
    assert apart is not None
    assert 0 < (apart == Phase.PORE).sum() < (known == Phase.PORE).sum()


def test_two_planes_tell_nothing_of_each_other() -> None:
    assert known_before(side(drawn(3)), side(drawn(4))) is None
    small = drawn(3, (128, 128))
    assert known_before(side(small), side(drawn(3))) is None
    bare = np.full(small.fine.shape, np.uint8(Phase.CBD))
    assert known_before(side(small, bare), side(small)) is None


def test_open_pores_that_were_missed_are_counted_by_hand() -> None:
    after = drawn(3)
    before = opened(after)
    truth = merged(after.fine)
    left = np.zeros(truth.shape, np.bool_)
    left[:, :128] = True
    half_blind = np.where((after.fine == Fine.PT_PORE) & left, np.uint8(Phase.CBD), truth)
    known = np.where(after.fine == Fine.PT_PORE, truth, np.uint8(IGNORE))
    found = OpenPores.of([open_pores(side(before, half_blind), known)])
    filled = after.fine == Fine.PT_PORE
    share = (filled & left).sum() / filled.sum()
    assert found.pixels == pytest.approx(filled.sum(), rel=0.01)
    assert found.missed == pytest.approx(share, abs=0.01)
    assert found.taken_for["cbd"] == pytest.approx(found.missed)
    # what held platinum before was not open
    assert open_pores(side(after), known).sum() < 0.05 * filled.sum()
    assert OpenPores.of([]).missed == 0.0


def test_pairs_without_a_filled_pore_teach_nothing(small_model: Path, tmp_path: Path) -> None:
    one = drawn(3)
    picture = Slice(one.channels, PIXEL_M)
    with pytest.raises(ValueError, match="no pair of pictures shows one plane"):
        teach_pairs([Pair("p", picture, Slice(drawn(4).channels, PIXEL_M))], tmp_path / "t", model=small_model)
    assert not (tmp_path / "t").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("own", "taken"), [(0.3, False), (1.6, True)])
def test_a_model_that_is_surer_than_pairs_bear_out_is_so_no_more(own: float, *, taken: bool, tmp_path: Path) -> None:
    model = shutil.copytree(WEIGHTS, tmp_path / "model")
    write_card(model, load(model).card.model_copy(update={"temperature": own}))
    plane = drawn(79)
    pair = Pair("p", Slice(opened(plane).channels, PIXEL_M), Slice(plane.channels, PIXEL_M))
    card = teach_pairs([pair], tmp_path / "taught", model=model, steps=0)
    found = card.figures["temperature by pairs"]
    assert 0.3 < found < 1.6
    assert card.temperature == (own if taken else found)


@pytest.mark.slow
def test_pairs_teach_to_find_open_pores_and_nothing_is_forgotten(tmp_path: Path) -> None:
    planes = [drawn(seed) for seed in (79, 81)]
    pairs = [Pair(f"p{n}", *(Slice(one.channels, PIXEL_M) for one in (opened(p), p))) for n, p in enumerate(planes)]
    first = SegmentationCore()
    card = teach_pairs(pairs, tmp_path / "taught", steps=40)
    now = SegmentationCore(tmp_path / "taught")
    # on another plane of that sample
    unseen = opened(drawn(83))
    was_open = unseen.fine == Fine.OPEN_PORE
    missed = [(core.label(unseen.channels, PIXEL_M).labels[was_open] != Phase.PORE).mean() for core in (first, now)]
    assert missed[1] < missed[0] - 0.1
    assert card.figures["open pores missed, now"] < card.figures["open pores missed, first"]
    assert card.name.endswith("+pairs")
    kept = [
        mean_iou(sum(confusion(core.label(s.channels, s.pixel_m).labels, merged(s.fine)) for s in samples(1, 3)))
        for core in (first, now)
    ]
    assert kept[1] > kept[0] - 0.02
