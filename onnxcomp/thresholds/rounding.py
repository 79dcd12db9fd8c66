"""Rounding weights to a grid so that a layer's outputs change least, given what the layer reads.

The squared change of the outputs is ``trace(D H D^T)`` with D what rounding changes and H the second moment of the
layer's input. Rounding to nearest minimises D; these solvers minimise the trace.
Sources: Frantar et al. 2022 (GPTQ, algorithm 1); Nagel et al. 2020 (the objective: AdaRound, eq. 13).
"""

import numpy as np
import numpy.typing as npt

from onnxcomp.thresholds.sweep import by_diagonal, sweep

__all__ = ["gptq", "rounding_error"]

Array = npt.NDArray[np.float64]


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
    ranks = by_diagonal(hessian) if order else np.broadcast_to(np.arange(hessian.shape[-1]), hessian.shape[:2])
    nearest = np.take_along_axis(np.rint(weights), ranks[:, None, :], axis=2)
    kept = np.zeros(weights.shape, bool) if fixed is None else np.take_along_axis(fixed, ranks[:, None, :], axis=2)

    def decide(column: int, values: Array) -> Array:
        rounded = np.where(kept[:, :, column], nearest[:, :, column], np.rint(values))
        return np.clip(rounded, -levels, levels)

    return sweep(weights, hessian, decide, ranks=ranks)
