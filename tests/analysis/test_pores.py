"""Empty pores are counted, followed through a fill, and the curve of them is read."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.phases import Fine
from analysis.pores import emptiness, filling, refills

PIXEL = 0.1e-6


def _face(first: Fine, second: Fine) -> np.ndarray:
    """Two narrow pores of 4 x 10 pixels and one wide one with platinum round a dark core."""
    fine = np.full((60, 60), Fine.ACTIVE, np.uint8)
    fine[5:9, 5:15] = first
    fine[5:9, 30:40] = second
    fine[20:50, 20:50] = Fine.PT_PORE
    fine[25:45, 25:45] = Fine.OPEN_PORE
    return fine


def test_emptiness_by_hand() -> None:
    found = emptiness(_face(Fine.PT_PORE, Fine.OPEN_PORE), PIXEL)
    assert (found.pores, found.unfilled_pores) == (2, 1)
    assert found.fillable_m2 == pytest.approx(80 * 1e-14)
    assert found.share == pytest.approx(0.5)
    assert found.wide_m2 == pytest.approx(900 * 1e-14)
    assert found.wide_open_m2 == pytest.approx(400 * 1e-14)


def test_a_face_without_pores() -> None:
    found = emptiness(np.full((20, 20), Fine.ACTIVE, np.uint8), PIXEL)
    assert (found.share, found.pores, found.wide_m2) == (0.0, 0, 0.0)


def test_a_fill_is_followed() -> None:
    before = _face(Fine.OPEN_PORE, Fine.OPEN_PORE)
    found = filling(before, _face(Fine.PT_PORE, Fine.OPEN_PORE), PIXEL)
    assert (found.empty_before, found.filled, found.still_empty, found.gone) == (2, 1, 1, 0)
    assert found.filled_m2 == pytest.approx(40 * 1e-14)
    gone = filling(before, _face(Fine.ACTIVE, Fine.PT_PORE), PIXEL)
    assert (gone.filled, gone.still_empty, gone.gone) == (1, 0, 1)
    with pytest.raises(ValueError, match="one shape"):
        filling(before, before[1:], PIXEL)


def test_refills_are_read_from_the_curve() -> None:
    z = [k * 0.1e-6 for k in range(8)]
    share = [0.05, 0.10, 0.15, 0.20, 0.04, 0.06, 0.08, 0.10]
    found = refills(z, share, [False] * 4 + [True] + [False] * 3)
    assert len(found) == 1
    assert (found[0].slice, found[0].before, found[0].after) == (4, 0.20, 0.04)
    assert found[0].lowered_by == pytest.approx(0.8)
    assert found[0].opening_per_m == pytest.approx(0.02 / 0.1e-6)
    assert found[0].opening_sigma_per_m == pytest.approx(0.0, abs=1.0)


def test_the_first_slice_has_nothing_before_it_and_short_stretches_no_slope() -> None:
    assert refills([0.0, 1e-7], [0.1, 0.2], [True, False]) == []
    found = refills([0.0, 1e-7, 2e-7], [0.0, 0.1, 0.2], [False, True, False])
    assert (found[0].opening_per_m, found[0].lowered_by) == (None, 0.0)
    with pytest.raises(ValueError, match="one z"):
        refills([0.0], [0.1, 0.2], [False])
