"""Which weights become zero, and what the others do about it.

Unstructured, or N of M neighbours along the input axis stay. Which ones: the smallest (magnitude), or those whose loss
the others can make up for best: w^2 / [H^-1]_jj, the OBS saliency, with H^-1 of the columns that are not decided yet.
Sources: Han et al. 2015 (magnitude); Hassibi and Stork 1993, eq. 5; Frantar and Alistarh 2023 (SparseGPT, algorithm 1,
sections 3.3 on the choice of the mask and on N:M).
"""

import numpy as np
import numpy.typing as npt

from onnxcomp.thresholds.sweep import BLOCK, by_diagonal, sweep

__all__ = ["magnitude_mask", "removal_costs", "sparsify"]

_REFITS = 20  # steps of conjugate gradients
Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Pattern = tuple[int, int]


def magnitude_mask(weights: npt.NDArray[np.floating], zeros: int, pattern: Pattern | None = None) -> Mask:
    """Return which weights go: the smallest ones.

    Args:
        weights: [groups, rows, K].
        zeros: How many go; with a pattern it says.
        pattern: N, M: of M neighbours along K, which is a multiple of M, N stay.
    """
    return _smallest(np.abs(weights), zeros, pattern)


def removal_costs(weights: Array, hessian: Array) -> Array:
    """Return what the outputs lose when one weight goes and the others make up for it, [groups, rows, K].

    Args:
        weights: [groups, rows, K].
        hessian: Positive definite, [groups, K, K].
    """
    costs: Array = weights**2 / np.diagonal(np.linalg.inv(hessian), axis1=1, axis2=2)[:, None, :]
    return costs


def sparsify(
    weights: Array, hessian: Array, zeros: int, *, pattern: Pattern | None = None, mask: Mask | None = None
) -> Array:
    """Set weights to zero and let the others make up for it.

    Args:
        weights: [groups, rows, K]. Zeros stay zeros.
        hessian: Positive definite, [groups, K, K].
        zeros: How many weights go, those that are zero already included; with a pattern or a mask it says.
        pattern: N, M: of M neighbours along K, which is a multiple of M, N stay.
        mask: Which weights go; None: chosen here, as SparseGPT does.

    Returns:
        [groups, rows, K].
    """
    gone = weights == 0
    if mask is not None:
        return _refit(np.where(mask, 0.0, weights), weights, hessian)
    # What counts most goes last: it takes up most of what the others lose. A pattern goes through its neighbours
    natural = np.broadcast_to(np.arange(hessian.shape[-1]), hessian.shape[:2])
    ranks = by_diagonal(hessian)[:, ::-1] if pattern is None else natural
    block = BLOCK if pattern is None else max(BLOCK // pattern[1], 1) * pattern[1]
    known = np.take_along_axis(gone, ranks[:, None, :], axis=2)
    chosen = np.zeros(weights.shape, bool)
    if pattern is None:  # how many of each block go is told from what each costs alone
        alone = np.where(gone, -1.0, removal_costs(weights, hessian))
        planned = np.take_along_axis(_smallest(alone, zeros, None), ranks[:, None, :], axis=2)

    def begin(places: slice, values: Array, spread: Array) -> None:
        costs = np.where(known[:, :, places], -1.0, (values / spread[:, None, :]) ** 2)
        count = int(planned[:, :, places].sum()) if pattern is None else 0
        chosen[:, :, places] = _smallest(costs, count, pattern)

    def decide(at: int, values: Array) -> Array:
        return np.where(chosen[:, :, at], 0.0, values)

    found = sweep(weights, hessian, decide, ranks=ranks, begin=begin, block=block)
    return _refit(found, weights, hessian)


def _refit(start: Array, target: Array, hessian: Array) -> Array:
    """Bring what is not zero closer to its least-squares fit: conjugate gradients, each row by itself.

    A sweep can't go back to columns that it has passed; the error never rises here.
    """
    stay = start != 0
    diagonal = np.diagonal(hessian, axis1=1, axis2=2)[:, None, :]
    found, rest = start, ((target - start) @ hessian) * stay
    step = scaled = rest / diagonal
    power = (rest * scaled).sum(axis=2, keepdims=True)
    for _ in range(_REFITS):
        bent = (step @ hessian) * stay
        curve = (step * bent).sum(axis=2, keepdims=True)
        length = np.divide(power, curve, out=np.zeros_like(power), where=curve > 0)
        found = found + length * step
        rest = rest - length * bent
        scaled = rest / diagonal
        before, power = power, (rest * scaled).sum(axis=2, keepdims=True)
        step = scaled + np.divide(power, before, out=np.zeros_like(power), where=before > 0) * step
    return found


def _smallest(costs: npt.NDArray[np.floating], count: int, pattern: Pattern | None) -> Mask:
    """Mark the smallest: so many of all, or all but N of each M neighbours on the last axis."""
    found = np.zeros(costs.shape, bool)
    if pattern is not None:
        kept, of = pattern
        parts = np.argsort(costs.reshape(-1, of), axis=1, kind="stable")[:, : of - kept]
        np.put_along_axis(found.reshape(-1, of), parts, values=True, axis=1)
    elif count > 0:
        found.reshape(-1)[np.argsort(costs, axis=None, kind="stable")[:count]] = True
    return found
