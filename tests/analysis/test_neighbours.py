"""The slice beside one is laid over it, or left out."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.neighbours import laid_over
from analysis.ometiff import Slice
from tests.analysis.drawn import drawn

WHOLE = drawn(4, (240, 300)).channels


def part(y: int, x: int, pixel_m: float = 60e-9, names: tuple[str, ...] = ("CBS", "TLD")) -> Slice:
    return Slice({name: WHOLE[name][y : y + 180, x : x + 220] for name in names}, pixel_m)


@pytest.mark.parametrize("off", [(0, 0), (3, -4), (-7, 9)])
def test_a_slice_that_has_drifted_is_moved_back(off: tuple[int, int]) -> None:
    this, beside = part(30, 40), part(30 + off[0], 40 + off[1])
    found = laid_over(this, beside)
    assert found is not None
    middle = (slice(20, -20), slice(20, -20))
    assert np.abs(found["CBS"][middle] - this.channels["CBS"][middle]).max() < 1e-6


def test_where_the_neighbour_shows_nothing_this_slice_stands_in() -> None:
    this = part(30, 40)
    found = laid_over(this, part(30, 49))
    assert found is not None
    assert np.array_equal(found["CBS"][:, :9], this.channels["CBS"][:, :9])


def test_only_detectors_that_both_have_help() -> None:
    found = laid_over(part(30, 40), part(30, 40, names=("TLD",)))
    assert found is not None
    assert list(found) == ["TLD"]


def test_what_cannot_be_laid_over_is_left_out() -> None:
    this = part(30, 40)
    assert laid_over(this, part(30, 40, pixel_m=50e-9)) is None
    assert laid_over(this, Slice({"ETD": this.channels["CBS"]}, 60e-9)) is None
    assert laid_over(this, Slice({"CBS": this.channels["CBS"][:-1]}, 60e-9)) is None
    assert laid_over(this, part(0, 80)) is None  # that far is no drift
