"""Distances to walls are those of the transform of all cells, wherever walls lie."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from simulator.distances import to_wall


@given(
    seed=st.integers(0, 2**16),
    shape=st.one_of(st.tuples(*[st.integers(2, 40)] * 2), st.tuples(*[st.integers(2, 16)] * 3)),
    share=st.sampled_from([0.3, 0.9, 0.995]),
)
def test_every_open_cell_has_its_exact_distance(seed: int, shape: tuple[int, ...], share: float) -> None:
    draw = np.random.default_rng(seed)
    open_ = draw.random(shape) < share
    open_.flat[0] = False
    size = tuple(draw.uniform(40e-9, 120e-9, len(shape)))
    at = np.nonzero(open_)
    exact = ndimage.distance_transform_edt(open_, sampling=size)[at]
    np.testing.assert_allclose(to_wall(open_, at, size), exact, rtol=1e-6)


@pytest.mark.parametrize("wide", [20, 60, 200])
def test_walls_that_are_far_away_are_found_too(wide: int) -> None:
    open_ = np.zeros((30, wide + 2), np.bool_)
    open_[:, 1:-1] = True
    open_[3, wide // 2] = False
    at = np.nonzero(open_)
    exact = ndimage.distance_transform_edt(open_, sampling=(1.0, 0.5))[at]
    np.testing.assert_allclose(to_wall(open_, at, (1.0, 0.5)), exact, rtol=1e-6)


def test_some_cells_are_asked_about_and_others_left_out() -> None:
    open_ = np.random.default_rng(3).random((25, 31)) < 0.8
    row, column = np.nonzero(open_)
    some = (row[::7], column[::7])
    np.testing.assert_array_equal(to_wall(open_, some, (1.0, 2.0)), to_wall(open_, (row, column), (1.0, 2.0))[::7])


def test_where_no_wall_is_the_whole_is_the_distance() -> None:
    open_ = np.ones((3, 4), np.bool_)
    np.testing.assert_allclose(to_wall(open_, np.nonzero(open_), (1.0, 1.0)), 5.0)
