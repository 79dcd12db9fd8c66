"""Quantizers of weights, many groups at once: a group is a channel, or a block of one, with a scale of its own.

``minmax`` spans the group's values. ``mmse`` has the least squared error that a search finds: the span
is shortened, and the best of these scales is refitted, ``s = <w, q> / <q, q>``, which can only lessen the error for
these levels (Nagel et al. 2021, sec. 3.1; the refit is Lloyd's).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

__all__ = ["WEIGHT_METHODS", "Groups", "clipped_scales", "quantize_groups"]

WEIGHT_METHODS = ("minmax", "mmse")
_SHARES = np.geomspace(1.0, 1 / 8, 28)[1:]  # of the whole span
_FINE = np.geomspace(_SHARES[0], 1 / _SHARES[0], 7)  # around the best of them
_SIDES = np.append(np.geomspace(1.0, 1 / 3, 10)[1:], 1.1)  # of one side of an asymmetric span
_ROUNDS = 2  # of moving either side in turn, and of refitting
_AT_ONCE = 1 << 16  # elements: a search that stays in the processor's cache is several times faster
_SMALLEST_SCALE = 1e-30  # float32: keeps what is divided by it finite

Array = npt.NDArray[np.float64]
Weights = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Groups:
    """Quantized groups: ``w = scale * (levels - zero_point)``.

    Attributes:
        levels: [groups, elements], int16.
        scale: [groups], float32; a group of zeros has 1.
        zero_point: [groups], int16; 0 where symmetric.
    """

    levels: npt.NDArray[np.int16]
    scale: npt.NDArray[np.float32]
    zero_point: npt.NDArray[np.int16]


def quantize_groups(weights: Weights, *, bits: int, symmetric: bool = True, method: str = "mmse") -> Groups:
    """Quantize each row of a matrix with a scale of its own.

    Symmetric levels are ``-2**(bits - 1) ... 2**(bits - 1) - 1``, asymmetric ones ``0 ... 2**bits - 1`` with a zero
    point such that 0.0 is a level.

    Args:
        weights: [groups, elements], finite.
        bits: 2 to 8.
        symmetric: Whether the zero point is 0.
        method: One of ``WEIGHT_METHODS``.

    Raises:
        ValueError: A weight is not finite.
    """
    if not np.isfinite(weights).all():
        raise ValueError("weights are not finite")
    groups, size = weights.shape
    found = Groups(np.empty((groups, size), np.int16), np.empty(groups, np.float32), np.empty(groups, np.int16))
    for rows in _few_rows(weights):
        part = weights[rows].astype(np.float64)
        solver = _Symmetric.of_bits(part, bits) if symmetric else _Asymmetric(part, bits)
        exact, zero_point = solver.mmse() if method == "mmse" else solver.minmax()
        found.scale[rows] = scale = _usable(exact)
        found.zero_point[rows] = zero_point
        found.levels[rows] = solver.levels(scale.astype(np.float64), zero_point)
    return found


def clipped_scales(weights: Weights, *, levels: int) -> Array:
    """Return, per row, the scale of least squared error on the levels ``-levels ... levels``.

    Args:
        weights: [groups, elements], finite.
        levels: Positive ones.

    Returns:
        [groups]; 0 for a row of zeros.
    """
    found = np.empty(len(weights))
    for rows in _few_rows(weights):
        found[rows] = _Symmetric(weights[rows].astype(np.float64), -levels, levels).mmse()[0]
    return found


class _Quantizer:
    """Searches quantizers for a few groups, [groups, elements]."""

    def __init__(self, weights: Array, low: int, high: int) -> None:
        self._weights = weights
        self._low = low
        self._high = high

    def levels(self, scale: Array, zero_point: Array) -> Array:
        """Return the nearest levels, [groups, elements]."""
        exact = self._weights / np.where(scale == 0, 1.0, scale)[:, None]
        return np.clip(np.rint(exact) + zero_point[:, None], self._low, self._high)

    def errors(self, scale: Array, zero_point: Array) -> Array:
        """Return the squared errors, [groups]."""
        steps = self.levels(scale, zero_point) - zero_point[:, None]
        steps *= scale[:, None]
        steps -= self._weights
        return np.asarray(np.einsum("ij,ij->i", steps, steps))

    def refitted(self, scale: Array, zero_point: Array) -> Array:
        """Return the scales of least error for the levels that these scales lead to, where that is less."""
        for _ in range(_ROUNDS):
            steps = self.levels(scale, zero_point) - zero_point[:, None]
            power = np.einsum("ij,ij->i", steps, steps)
            product = np.einsum("ij,ij->i", steps, self._weights)
            other = np.where(power > 0, product / np.where(power > 0, power, 1.0), scale)
            scale = np.where(self.errors(other, zero_point) < self.errors(scale, zero_point), other, scale)
        return scale


class _Symmetric(_Quantizer):
    """Zero point 0."""

    @classmethod
    def of_bits(cls, weights: Array, bits: int) -> "_Symmetric":
        half = 1 << (bits - 1)
        return cls(weights, -half, half - 1)

    def minmax(self) -> tuple[Array, Array]:
        return np.abs(self._weights).max(axis=1, initial=0.0) / self._high, np.zeros(len(self._weights))

    def mmse(self) -> tuple[Array, Array]:
        widest, zero = self.minmax()

        def errors(scale: Array) -> Array:
            return self.errors(scale, zero)

        coarse = _best(widest, _SHARES, errors)
        return self.refitted(_best(coarse, _FINE, errors), zero), zero


class _Asymmetric(_Quantizer):
    """Levels from 0, the zero point among them."""

    def __init__(self, weights: Array, bits: int) -> None:
        super().__init__(weights, 0, (1 << bits) - 1)
        self._lows = weights.min(axis=1, initial=0.0)
        self._highs = weights.max(axis=1, initial=0.0)

    def minmax(self) -> tuple[Array, Array]:
        return self._quantizer(self._lows, self._highs)

    def mmse(self) -> tuple[Array, Array]:
        share = _best(
            np.ones(len(self._lows)), _SHARES, lambda share: self._cost(share * self._lows, share * self._highs)
        )
        lows, highs = share * self._lows, share * self._highs
        for _ in range(_ROUNDS):
            lows = np.maximum(_best(lows, _SIDES, partial(self._cost, highs=highs)), self._lows)
            highs = np.minimum(_best(highs, _SIDES, partial(self._cost, lows)), self._highs)
        scale, zero_point = self._quantizer(lows, highs)
        scale = _best(scale, _FINE, partial(self.errors, zero_point=zero_point))
        return self.refitted(scale, zero_point), zero_point

    def _cost(self, lows: Array, highs: Array) -> Array:
        return self.errors(*self._quantizer(np.maximum(lows, self._lows), np.minimum(highs, self._highs)))

    def _quantizer(self, lows: Array, highs: Array) -> tuple[Array, Array]:
        scale = (highs - lows) / self._high
        zero_point = np.rint(-lows / np.where(scale > 0, scale, 1.0))
        return scale, np.clip(zero_point, self._low, self._high)


def _best(start: Array, shares: Array, errors: Callable[[Array], Array]) -> Array:
    """Return, per group, the multiple of ``start`` by 1 or one of the shares that has the least error."""
    best, least = start, errors(start)
    for share in shares:
        tried = start * share
        found = errors(tried)
        best, least = np.where(found < least, tried, best), np.minimum(found, least)
    return best


def _few_rows(weights: Weights) -> Iterator[slice]:
    step = max(1, _AT_ONCE // max(weights.shape[1], 1))
    for start in range(0, len(weights), step):
        yield slice(start, start + step)


def _usable(scale: Array) -> npt.NDArray[np.float32]:
    """Return scales that float32 can hold and divide by; a group of zeros gets 1."""
    return np.where(scale == 0, 1.0, np.maximum(scale, _SMALLEST_SCALE)).astype(np.float32)
