"""Whether an image is of the kind that a network was trained on, by what its deepest level holds.

The level's mean over an image is one vector, its gist. A logistic regression tells the gists of training images from
those of pictures that are no electrodes (analysis.strangers); it also tells others that nobody showed it, which the
network's own probabilities don't: it can be sure of nonsense. Showing what is not meant is outlier exposure (Hendrycks
et al., ICLR 2019, "Deep anomaly detection with outlier exposure").
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

#: Ridge on the weights of gists of unit deviation.
_RIDGE = 1e-3
#: Log-odds, at most, of an image that a model was taught: 12 %.
_TAUGHT = -2.0


@dataclass(frozen=True)
class Known:
    """What tells training images from others: novelty = sigmoid(weights . (gist - middle) + offset).

    middle, weights : (n,)
    """

    middle: Floats
    weights: Floats
    offset: float

    @classmethod
    def of(cls, known: Floats, strange: Floats) -> Known:
        """Learn from the gists of training images and of others, (images, n) each; both count alike."""
        from scipy import optimize

        every = np.concatenate([known, strange]).astype(np.float64)
        answer = np.concatenate([np.zeros(len(known)), np.ones(len(strange))])
        share = np.concatenate([np.full(len(part), 0.5 / max(1, len(part))) for part in (known, strange)])
        middle, deviation = every.mean(axis=0), every.std(axis=0)
        unit = (every - middle) / np.where(deviation > 0, deviation, 1.0)

        def loss(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            odds = unit @ weights[:-1] + weights[-1]
            off = share * (_sigmoid(odds) - answer)
            cost = share @ (np.logaddexp(0.0, odds) - answer * odds) + _RIDGE * (weights[:-1] @ weights[:-1])
            return float(cost), np.append(unit.T @ off + 2 * _RIDGE * weights[:-1], off.sum())

        found = optimize.minimize(loss, np.zeros(unit.shape[1] + 1), jac=True, method="L-BFGS-B").x
        weights = found[:-1] / np.where(deviation > 0, deviation, 1.0)
        return cls(middle.astype(np.float32), weights.astype(np.float32), float(found[-1]))

    def novelty(self, gist: Floats) -> float:
        """Return how likely an image with this gist is none of the kind that is known, 0..1."""
        return float(_sigmoid(np.asarray(self._odds(gist))))

    def taught(self, gist: Floats) -> Known:
        """Return the same with images of this gist known, however strange they were."""
        return replace(self, offset=self.offset - max(0.0, self._odds(gist) - _TAUGHT))

    def _odds(self, gist: Floats) -> float:
        return float(self.weights @ (gist - self.middle)) + self.offset

    def arrays(self) -> dict[str, Floats]:
        """Return what is kept beside the weights."""
        return {
            "middle": np.ascontiguousarray(self.middle, np.float32),
            "weights": np.ascontiguousarray(self.weights, np.float32),
            "offset": np.array([self.offset], np.float32),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, Floats]) -> Known:
        """Return what `arrays` gave."""
        return cls(arrays["middle"], arrays["weights"], float(arrays["offset"][0]))


def _sigmoid(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * odds)))
