"""Optimal brain surgery, column by column: what a column loses, the columns behind it make up for.

Each column of a weight gets new values; the others, not yet decided, take the step that keeps the layer's outputs
closest: the inverse Hessian, downdated, says which. One Cholesky factor of the inverse holds all these steps.
Sources: Hassibi and Stork 1993 (OBS); Frantar et al. 2022 (GPTQ, algorithm 1); Frantar and Alistarh 2023 (SparseGPT).
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

__all__ = ["BLOCK", "Begin", "Decide", "by_diagonal", "damped", "damping_for", "sweep"]

BLOCK = 64  # columns whose updates are collected before they reach the rest: one matrix product instead of many
_LEAST, _MOST = 0.01, 0.3
_PER_VECTOR = 0.05
Array = npt.NDArray[np.float64]
Decide = Callable[[int, Array], Array]
Begin = Callable[[slice, Array, Array], None]


def damped(moment: Array, damping: float) -> Array:
    """Return H plus ``damping`` times the mean of its diagonal on the diagonal; the identity for an H of zeros.

    Args:
        moment: Positive semidefinite, [groups, K, K].
        damping: Share of the mean; makes what was hardly seen cost something, and H invertible.
    """
    size = moment.shape[-1]
    mean = np.trace(moment, axis1=1, axis2=2)[:, None, None] / size
    return moment + np.where(mean > 0, damping * mean, 1.0) * np.eye(size)


def damping_for(length: int, count: int) -> float:
    """Return how much to damp a Hessian of K = ``length`` columns that was seen in ``count`` vectors.

    The fewer there are, the more of what it says is chance. From 0.01 (many) to 0.3 (fewer than K / 6).
    """
    return min(max(_PER_VECTOR * length / max(count, 1), _LEAST), _MOST)


def by_diagonal(hessian: Array) -> npt.NDArray[np.intp]:
    """Return the columns of each group by their diagonal element, largest first, [groups, K]."""
    return np.argsort(-np.diagonal(hessian, axis1=1, axis2=2), axis=1, kind="stable")


def sweep(
    weights: Array,
    hessian: Array,
    decide: Decide,
    *,
    ranks: npt.NDArray[np.intp] | None = None,
    begin: Begin | None = None,
    block: int = BLOCK,
) -> Array:
    """Give each column new values, each time moving what is not decided yet to make up for the change.

    Args:
        weights: [groups, rows, K].
        hessian: Positive definite, [groups, K, K].
        decide: From the place of a column in the order, and what it holds by now, [groups, rows], to its new values.
        ranks: The columns in the order in which they are decided, [groups, K]; None: from first to last.
        begin: Told before each block of columns its places in the order, what it holds by now, [groups, rows, block],
            and the square roots of what changing a weight by 1 costs, inverted, [groups, block].
        block: Columns in a block.

    Returns:
        [groups, rows, K].
    """
    size = hessian.shape[-1]
    if ranks is None:
        ranks = np.broadcast_to(np.arange(size), hessian.shape[:2])
    work = np.take_along_axis(weights, ranks[:, None, :], axis=2)
    sorted_rows = np.take_along_axis(hessian, ranks[:, :, None], axis=1)
    factor = _inverse_factor(np.take_along_axis(sorted_rows, ranks[:, None, :], axis=2))
    decided = np.empty_like(work)
    for start in range(0, size, block):
        end = min(start + block, size)
        errors = np.empty((*work.shape[:2], end - start))
        if begin is not None:
            begin(slice(start, end), work[:, :, start:end], np.diagonal(factor, axis1=1, axis2=2)[:, start:end])
        for column in range(start, end):
            decided[:, :, column] = decide(column, work[:, :, column])
            error = (work[:, :, column] - decided[:, :, column]) / factor[:, column, column, None]
            work[:, :, column + 1 : end] -= error[:, :, None] * factor[:, None, column, column + 1 : end]
            errors[:, :, column - start] = error
        work[:, :, end:] -= errors @ factor[:, start:end, end:]
    result = np.empty_like(decided)
    np.put_along_axis(result, ranks[:, None, :], decided, axis=2)
    return result


def _inverse_factor(hessian: Array) -> Array:
    """Return the upper triangular U of H^-1 = U^T U."""
    flipped = np.linalg.cholesky(hessian[:, ::-1, ::-1])  # J H J = L L^T, so that H = R R^T with R = J L J, upper
    factor: Array = np.linalg.inv(flipped[:, ::-1, ::-1])
    return np.triu(factor)
