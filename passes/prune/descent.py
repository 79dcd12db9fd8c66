"""Steps down a slope: of matrices along orthogonal directions, of all else by Adam.

::

    W' = W - rate * size(W) * U V^T / rms(U V^T)       U S V^T = mean of the last slopes of W

What a layer gives changes with its matrix as a whole. Steps by single elements follow the few directions in which the
slopes are large; here all that a matrix has are stepped in alike, which comes to the same error in a third of the
steps (docs/pruning.md). Rates are a share of each tensor's size and fall to 0 along a cosine.

Sources: Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks" (momentum of Nesterov, the
quintic iteration in place of a singular value decomposition); Carlson et al. 2015, "Preconditioned Spectral Descent for
Deep Learning", section 2; Kingma and Ba 2015 (Adam), algorithm 1.
"""

import math
from collections.abc import Mapping

import numpy as np

__all__ = ["Descent", "orthogonal"]

_SHARE = 0.25  # of the rate, for matrices: Adam's steps come to less than its rate, these to all of theirs
_MOMENTUM = 0.95
_BETAS = (0.9, 0.999)
_SMALL = 1e-3  # size of a tensor from which on steps are a share of it
_TINY = 1e-12
_QUINTIC = (3.4445, -4.7750, 2.0315)  # Jordan et al.: singular values come to 0.7 to 1.2 in five rounds
_ROUNDS = 5


def orthogonal(matrices: np.ndarray) -> np.ndarray:
    """Return nearly the matrices of the same singular vectors whose singular values are all 1, [..., m, n].

    Singular values of less than about a thousandth of the largest come to less than 1; see `_QUINTIC`.
    """
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x: np.ndarray = matrices if wide else matrices.swapaxes(-1, -2)
    x = x / (np.sqrt(np.square(x).sum(axis=(-2, -1), keepdims=True)) + _TINY)
    a, b, c = _QUINTIC
    for _ in range(_ROUNDS):
        square = x @ x.swapaxes(-1, -2)
        x = a * x + (b * square + c * square @ square) @ x
    return x if wide else x.swapaxes(-1, -2)


class Descent:
    """Weights on their way down.

    Args:
        weights: By name.
        parts: Of weights of layers, into how many matrices their first axis is parted (groups of a convolution).
        rate: First size of a step, as a share of the root mean square of a tensor.
        steps: How many there will be.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], parts: Mapping[str, int], rate: float, steps: int) -> None:
        self.weights = dict(weights)
        self._parts, self._steps, self._done = parts, steps, 0
        self._first = {name: np.zeros_like(array) for name, array in weights.items()}
        self._second = {name: np.zeros_like(array) for name, array in weights.items()}
        self._rates = {
            name: rate * max(float(np.sqrt(np.square(array).mean())), _SMALL) for name, array in weights.items()
        }

    def step(self, gradient: Mapping[str, np.ndarray]) -> None:
        """Make a step; what is 0 in a weight that is no bias stays 0."""
        rate = (1 + math.cos(math.pi * self._done / self._steps)) / 2
        self._done += 1
        for name, slope in gradient.items():
            old, size = self.weights[name], rate * self._rates[name]
            matrices = self._matrices(name)
            way = self._adam(name, slope) if matrices is None else _SHARE * self._along(name, slope, matrices)
            still = (old == 0) if old.ndim > 1 else np.zeros((), np.bool_)
            self.weights[name] = np.where(still, old, old - size * way).astype(np.float32)

    def _matrices(self, name: str) -> tuple[int, ...] | None:
        """Return the shape of a weight as matrices; None: it is none, or they are single rows."""
        shape = self.weights[name].shape
        parts = self._parts.get(name, 1)
        if len(shape) < 2 or shape[0] // parts < 2 or math.prod(shape[1:]) < 2:
            return None
        return (parts, shape[0] // parts, math.prod(shape[1:]))

    def _along(self, name: str, slope: np.ndarray, matrices: tuple[int, ...]) -> np.ndarray:
        mean = self._first[name] = _MOMENTUM * self._first[name] + (1 - _MOMENTUM) * slope
        ahead = _MOMENTUM * mean + (1 - _MOMENTUM) * slope
        way = orthogonal(ahead.reshape(matrices)).reshape(slope.shape)
        found: np.ndarray = way / (np.sqrt(np.square(way).mean()) + _TINY)
        return found

    def _adam(self, name: str, slope: np.ndarray) -> np.ndarray:
        self._first[name] = _BETAS[0] * self._first[name] + (1 - _BETAS[0]) * slope
        self._second[name] = _BETAS[1] * self._second[name] + (1 - _BETAS[1]) * np.square(slope)
        mean, square = (
            sums[name] / (1 - beta**self._done) for sums, beta in zip((self._first, self._second), _BETAS, strict=True)
        )
        found: np.ndarray = mean / (np.sqrt(square) + _TINY)
        return found
