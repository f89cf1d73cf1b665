"""How far an image is from what a network was trained on, by what its deepest level holds.

The level's mean over an image is one vector, its gist. The gists of training images have a mean and a covariance; an
image's distance from them in those units (Mahalanobis) tells a kind of image that training never showed, which the
network's own probabilities don't: it can be sure of nonsense (Lee et al., NeurIPS 2018, "A simple unified framework for
detecting out-of-distribution samples").
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

#: Directions of a gist that are kept, at most; the others hardly vary and would be noise over nothing.
_DIRECTIONS = 48
#: A deviation of less than this share of the largest is rounding.
_NOTHING = 1e-4
#: The distance of this share of training images is called 1.
_WITHIN = 0.995


@dataclass(frozen=True)
class Known:
    """What training images are like.

    middle : mean gist (n,)
    directions : the unit directions in which gists differ most, (k, n); deviation : how much along each, (k,)
    rest : how much they differ in all the others together
    scale : distance that hardly any training image exceeds
    """

    middle: Floats
    directions: Floats
    deviation: Floats
    rest: float
    scale: float

    @classmethod
    def of(cls, gists: Floats) -> Known:
        """Describe training images by their gists, (images, n)."""
        middle = gists.mean(axis=0)
        off = gists - middle
        _, spread, directions = np.linalg.svd(off, full_matrices=False)
        kept = min(_DIRECTIONS, max(1, len(gists) // 4), int((spread > _NOTHING * max(spread[0], 1e-12)).sum()) or 1)
        directions = directions[:kept]
        deviation = np.maximum(spread[:kept] / np.sqrt(max(1, len(gists) - 1)), 1e-12)
        rest = float(np.sqrt(np.mean(_remainder(off, directions) ** 2)))
        free = cls(middle, directions, deviation, max(rest, _NOTHING * float(deviation[0])), 1.0)
        distances = [free.novelty(gist) for gist in gists]
        return replace(free, scale=float(np.quantile(distances, _WITHIN)) or 1.0)

    def novelty(self, gist: Floats) -> float:
        """Return how far an image is from the training images, 0 in their middle, above 1 beyond nearly all of them."""
        off = gist - self.middle
        along = np.mean((self.directions @ off / self.deviation) ** 2)
        beside = (_remainder(off[None], self.directions)[0] / self.rest) ** 2
        return float(np.sqrt(0.5 * (along + beside)) / self.scale)

    def widened(self, novelty: float) -> Known:
        """Return the same with an image of this novelty known: it is 1 at most from now on."""
        return replace(self, scale=self.scale * max(1.0, novelty))

    def arrays(self) -> dict[str, Floats]:
        """Return what is kept beside the weights."""
        return {
            "middle": np.asarray(self.middle, np.float32),
            "directions": np.ascontiguousarray(self.directions, np.float32),
            "deviation": np.asarray(self.deviation, np.float32),
            "rest and scale": np.array([self.rest, self.scale], np.float32),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Floats]) -> Known:
        """Return what `arrays` gave."""
        rest, scale = (float(value) for value in arrays["rest and scale"])
        return cls(arrays["middle"], arrays["directions"], arrays["deviation"], rest, scale)


def _remainder(off: Floats, directions: Floats) -> Floats:
    """Return how long what is left of vectors (m, n) is, once what lies along the directions is taken off."""
    left = off - (off @ directions.T) @ directions
    return np.asarray(np.linalg.norm(left, axis=1), np.float32)
