"""Least squares for the weights of a linear layer, from sums alone: no samples are kept.

A layer gives ``W x + b`` where it should give ``y``; with the residual ``r = y - W x - b``, the best change ``D`` of
the weights solves ``D E[x x^T] = E[r x^T]``. Where there is a bias it takes up the means, and the covariances take the
place of the moments. Damping draws towards the old weights: ``D (E[x x^T] + d I) = E[r x^T]``.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import scipy.linalg

__all__ = ["Change", "Sums", "affine", "least_squares", "mean_shift"]

_SMALL = 64  # inputs of a layer; many small systems are solved at once
_TINY = 1e-12
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Change:
    """What is added to weights, [groups, outputs / groups, K], and to a bias, [groups, outputs / groups]."""

    weight: Floats
    bias: Floats


@dataclass(slots=True)
class Sums:
    """Sums over vectors that a layer read and over the residuals of its outputs; grows.

    Attributes:
        xx: Sum of x x^T, [groups, K, K].
        rx: Sum of r x^T, [groups, outputs / groups, K].
        x: Sum of x, [groups, K].
        r: Sum of r, [groups, outputs / groups].
        rr: Sum of r^2, [groups, outputs / groups].
        yy: Sum of y^2, [groups, outputs / groups].
        count: How many vectors, per group.
    """

    xx: Floats
    rx: Floats
    x: Floats = field(init=False)
    r: Floats = field(init=False)
    rr: Floats = field(init=False)
    yy: Floats = field(init=False)
    count: int = 0

    def __post_init__(self) -> None:
        self.x = np.zeros(self.rx.shape[::2])
        self.r, self.rr, self.yy = (np.zeros(self.rx.shape[:2]) for _ in range(3))

    @classmethod
    def empty(cls, groups: int, outputs: int, length: int) -> "Sums":
        """Return the sums over nothing."""
        return cls(np.zeros((groups, length, length)), np.zeros((groups, outputs, length)))

    def add(self, x: npt.NDArray[np.floating], r: npt.NDArray[np.floating], y: npt.NDArray[np.floating]) -> None:
        """Add vectors, [groups, n, K], residuals and targets, [groups, n, outputs / groups].

        Products have their own precision, sums are float64.

        Raises:
            ValueError: One holds a NaN or an infinity.
        """
        if not (np.isfinite(x).all() and np.isfinite(r).all()):
            raise ValueError("not a number (NaN) or infinite")
        self.xx += np.matmul(x.transpose(0, 2, 1), x)
        self.rx += np.matmul(r.transpose(0, 2, 1), x)
        self.x += x.sum(axis=1, dtype=np.float64)
        self.r += r.sum(axis=1, dtype=np.float64)
        self.rr += np.square(r).sum(axis=1, dtype=np.float64)
        self.yy += np.square(y).sum(axis=1, dtype=np.float64)
        self.count += x.shape[1]

    def __add__(self, other: "Sums") -> "Sums":
        total = Sums(self.xx + other.xx, self.rx + other.rx)
        for name in ("x", "r", "rr", "yy", "count"):
            setattr(total, name, getattr(self, name) + getattr(other, name))
        return total

    def against(self, rx: Floats, r: Floats) -> "Sums":
        """Return sums over the same vectors and other residuals; those of squares are not known."""
        other = Sums(self.xx, rx)
        other.x, other.r, other.count = self.x, r, self.count
        return other

    def moments(self, *, centred: bool) -> tuple[Floats, Floats]:
        """Return E[x x^T] and E[r x^T], or the covariances."""
        n = max(self.count, 1)
        xx, rx = self.xx / n, self.rx / n
        if centred:
            mean = self.x / n
            xx -= mean[:, :, None] * mean[:, None, :]
            rx -= self.r[:, :, None] / n * mean[:, None, :]
        return xx, rx

    def error(self, change: Change | None = None) -> float:
        """Return the mean squared residual, summed over the outputs, once the layer is changed."""
        n = max(self.count, 1)
        total = self.rr.sum() / n
        if change is None:
            return float(total)
        d, b = change.weight, change.bias
        total += (np.matmul(d, self.xx / n) * d).sum() - 2 * (d * self.rx).sum() / n
        total += (b * (b - 2 * self.r / n + 2 * np.einsum("gok,gk->go", d, self.x) / n)).sum()
        return float(total)


def mean_shift(sums: Sums) -> Change:
    """Return the change of the bias alone that gives each output the mean that it should have."""
    return Change(np.zeros_like(sums.rx), sums.r / max(sums.count, 1))


def affine(sums: Sums, weight: Floats, *, bias: bool) -> Change:
    """Return the change that scales each output, and shifts it where there is a bias.

    Args:
        sums: Over the residuals of these weights.
        weight: [groups, outputs / groups, K].
        bias: Whether there is one.
    """
    xx, rx = sums.moments(centred=bias)
    variance = (np.matmul(weight, xx) * weight).sum(axis=2)
    shared = (weight * rx).sum(axis=2)
    scale = np.divide(shared, variance, out=np.zeros_like(shared), where=variance > 1e-12 * max(variance.max(), 1e-30))
    return _with_bias(sums, scale[:, :, None] * weight, bias=bias)


def least_squares(sums: Sums, damping: float, *, bias: bool) -> Change:
    """Return the change of all weights that leaves the least residual.

    Args:
        sums: Over the residuals.
        damping: Added to the diagonal, as a share of its mean; a bias is not damped.
        bias: Whether there is one.
    """
    xx, rx = sums.moments(centred=bias)
    change = np.zeros_like(rx)
    if xx.shape[1] <= _SMALL:
        levels = np.trace(xx, axis1=1, axis2=2)[:, None, None] / xx.shape[1]
        steady = xx + np.where(levels > 0, damping * levels + _TINY * levels.max(), 1) * np.eye(xx.shape[1])
        change = np.linalg.solve(steady, rx.transpose(0, 2, 1)).transpose(0, 2, 1).astype(np.float64, copy=False)
        return _with_bias(sums, change, bias=bias)
    for group, (matrix, right) in enumerate(zip(xx, rx, strict=True)):
        level = float(np.trace(matrix)) / max(len(matrix), 1)
        if not level > 0:
            continue
        change[group] = scipy.linalg.cho_solve(_factor(matrix, damping * level), right.T, check_finite=False).T
    return _with_bias(sums, change, bias=bias)


def _factor(matrix: Floats, damping: float) -> tuple[Floats, bool]:
    """Return the Cholesky factor of a damped matrix, damped more where rounding has made it indefinite."""
    while True:
        damped = matrix + damping * np.eye(len(matrix))
        try:
            factor, lower = scipy.linalg.cho_factor(damped, lower=True, overwrite_a=True, check_finite=False)
        except np.linalg.LinAlgError:
            damping *= 10
        else:
            return factor, bool(lower)


def _with_bias(sums: Sums, weight: Floats, *, bias: bool) -> Change:
    """Let the bias take up the mean that is left."""
    n = max(sums.count, 1)
    shift = (sums.r - np.einsum("gok,gk->go", weight, sums.x)) / n
    return Change(weight, shift if bias else np.zeros_like(shift))
