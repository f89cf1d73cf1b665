"""The slice beside one is laid over it, or left out."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.neighbours import alike, laid_over
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


def test_slices_of_one_place_are_alike_and_other_places_are_not() -> None:
    rng = np.random.default_rng(5)
    this = part(30, 40).channels
    noisy = {name: (grey + rng.normal(0, 0.1, grey.shape)).astype(np.float32) for name, grey in this.items()}
    assert alike(this, noisy)
    assert not alike(this, drawn(5, (180, 220)).channels)
    assert not alike(this, {"CBS": np.zeros_like(this["CBS"])})


def test_a_channel_that_nobody_knows_does_not_tell_the_drift() -> None:
    this, beside = part(30, 40), part(33, 36)
    unknown = {"ICE": np.zeros_like(this.channels["CBS"])}
    found = laid_over(Slice(unknown | this.channels, 60e-9), Slice(unknown | beside.channels, 60e-9))
    assert found is not None
    assert np.abs(found["CBS"][20:-20, 20:-20] - this.channels["CBS"][20:-20, 20:-20]).max() < 1e-6
