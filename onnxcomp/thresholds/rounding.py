"""Rounding weights to a grid so that a layer's outputs change least, given what the layer reads.

The squared change of the outputs is ``trace(D H D^T)`` with D what rounding changes and H the second moment of the
layer's input. Rounding to nearest minimises D; these solvers minimise the trace.
Sources: Frantar et al. 2022 (GPTQ, algorithm 1); Nagel et al. 2020 (the objective: AdaRound, eq. 13).
"""

import numpy as np
import numpy.typing as npt

__all__ = ["damped", "gptq", "rounding_error"]

_BLOCK = 64  # columns whose updates are collected before they reach the rest: one matrix product instead of many
Array = npt.NDArray[np.float64]


def damped(moment: Array, damping: float) -> Array:
    """Return H plus ``damping`` times the mean of its diagonal on the diagonal; the identity for an H of zeros.

    Args:
        moment: Positive semidefinite, [groups, K, K].
        damping: Share of the mean; makes what was hardly seen cost something, and H invertible.
    """
    size = moment.shape[-1]
    mean = np.trace(moment, axis1=1, axis2=2)[:, None, None] / size
    return moment + np.where(mean > 0, damping * mean, 1.0) * np.eye(size)


def rounding_error(weights: Array, rounded: Array, moment: Array) -> Array:
    """Return the mean squared change of each output, [groups, rows]."""
    change = rounded - weights
    error: Array = np.einsum("grk,grk->gr", change @ moment, change)
    return error


def gptq(
    weights: Array, hessian: Array, *, levels: int, order: bool = True, fixed: npt.NDArray[np.bool_] | None = None
) -> Array:
    """Round column by column, each time moving what is not rounded yet to make up for the error.

    Args:
        weights: In steps of the grid, [groups, rows, K].
        hessian: Positive definite, [groups, K, K].
        levels: The grid is the integers of [-levels, levels].
        order: Whether columns go by their diagonal element, largest first; else from first to last.
        fixed: Which weights are rounded to nearest whatever happened to the others, of the shape of ``weights``.

    Returns:
        Integers, as float64, of the shape of ``weights``.
    """
    size = hessian.shape[-1]
    diagonal = np.diagonal(hessian, axis1=1, axis2=2)
    ranks = np.argsort(-diagonal, axis=1, kind="stable") if order else np.broadcast_to(np.arange(size), diagonal.shape)
    work = np.take_along_axis(weights, ranks[:, None, :], axis=2)
    nearest = np.rint(work)
    kept = np.zeros(work.shape, bool) if fixed is None else np.take_along_axis(fixed, ranks[:, None, :], axis=2)
    sorted_rows = np.take_along_axis(hessian, ranks[:, :, None], axis=1)
    factor = _inverse_factor(np.take_along_axis(sorted_rows, ranks[:, None, :], axis=2))
    rounded = np.empty_like(work)
    for start in range(0, size, _BLOCK):
        end = min(start + _BLOCK, size)
        errors = np.empty((*work.shape[:2], end - start))
        for column in range(start, end):
            rounded[:, :, column] = np.where(kept[:, :, column], nearest[:, :, column], np.rint(work[:, :, column]))
            np.clip(rounded[:, :, column], -levels, levels, out=rounded[:, :, column])
            error = (work[:, :, column] - rounded[:, :, column]) / factor[:, column, column, None]
            work[:, :, column + 1 : end] -= error[:, :, None] * factor[:, None, column, column + 1 : end]
            errors[:, :, column - start] = error
        work[:, :, end:] -= errors @ factor[:, start:end, end:]
    result = np.empty_like(rounded)
    np.put_along_axis(result, ranks[:, None, :], rounded, axis=2)
    return result


def _inverse_factor(hessian: Array) -> Array:
    """Return the upper triangular U of H^-1 = U^T U."""
    flipped = np.linalg.cholesky(hessian[:, ::-1, ::-1])  # J H J = L L^T, so that H = R R^T with R = J L J, upper
    factor: Array = np.linalg.inv(flipped[:, ::-1, ::-1])
    return np.triu(factor)
