"""What a network is trained and scored on: images with their truth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Sample(Protocol):
    """One training image.

    channels : greys 0..1, float32 (y, x), by detector name
    fine : fine classes, uint8 (y, x), 255 where nothing is known
    pixel_m : the pixel's edge, metres
    beside : the slices `before` and `after` this one on the same pixels, those that there are
    """

    @property
    def channels(self) -> Mapping[str, NDArray[np.float32]]: ...  # noqa: D102
    @property
    def fine(self) -> NDArray[np.uint8]: ...  # noqa: D102
    @property
    def pixel_m(self) -> float: ...  # noqa: D102
    @property
    def beside(self) -> Mapping[str, Sample]: ...  # noqa: D102


class SamplesFactory(Protocol):
    """Makes samples from a seed: even seeds for training, odd ones for scoring."""

    def __call__(self, seed: int, count: int, /) -> Iterable[Sample]:
        """Return `count` samples; the same seed gives the same ones."""
        ...
