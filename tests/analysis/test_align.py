"""Registration finds shifts that were put in."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from analysis.align import shift_between, shifted_back, shifts
from tests.analysis.drawn import drawn


@pytest.mark.parametrize("shift", [(0.0, 0.0), (3.0, -2.0), (0.5, 1.25), (-6.0, 4.5)])
def test_a_known_shift_is_found(shift: tuple[float, float]) -> None:
    image = ndimage.gaussian_filter(drawn(0).channels["CBS"], 1.0)
    moved = ndimage.shift(image, shift, order=3, mode="nearest")
    assert shift_between(image, moved) == pytest.approx(shift, abs=0.15)


def test_shifts_add_up_and_are_taken_back() -> None:
    image = ndimage.gaussian_filter(drawn(0).channels["CBS"], 1.0)
    stack = [np.roll(image, (2 * k, -k), axis=(0, 1)) for k in range(4)]
    found = shifts(stack)
    assert found[0] == (0.0, 0.0)
    assert found[3] == pytest.approx((6.0, -3.0), abs=0.2)
    back = shifted_back(stack[3], (6.0, -3.0))
    np.testing.assert_allclose(back[10:-10, 10:-10], image[10:-10, 10:-10], atol=1e-5)


def test_labels_are_not_mixed() -> None:
    labels = np.array([[1, 1, 4, 4]] * 4, np.uint8)
    assert set(np.unique(shifted_back(labels, (0.4, 0.4), labels=True))) <= {0, 1, 4}


def test_unlike_images_are_refused() -> None:
    with pytest.raises(ValueError, match="one shape"):
        shift_between(np.zeros((4, 4)), np.zeros((4, 5)))
