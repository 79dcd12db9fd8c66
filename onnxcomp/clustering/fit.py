"""Centroids by least squares: given which centroid stands for which weight, the values that change a layer least.

With Q the weights that share values, ``trace((W - Q) G (W - Q)^T)`` is quadratic in the centroids: its minimum is the
solution of a linear system of their number. It stands in for training centroids (Han et al. 2016, section 3.3).
"""

import numpy as np
import numpy.typing as npt

__all__ = ["fitted_centroids", "fitted_vectors"]

_MOST = 1 << 20  # weights that are looked at: there are few unknowns
_RIDGE = 1e-6
_STEPS = 24  # of conjugate gradients
_SOLVED = 1e-8  # of the residual, squared

Floats = npt.NDArray[np.float64]


def fitted_centroids(
    weights: Floats, indices: npt.NDArray[np.uint8], moment: Floats, centroids: Floats, *, zero: bool = False
) -> Floats:
    """Return the centroids that are best for these indices.

    Args:
        weights: [groups, rows, K].
        indices: Which centroid stands for each, of the same shape.
        moment: Second moment of what the weights multiply, [groups, K, K].
        centroids: As they are, [k]; one that stands for nothing stays.
        zero: Whether a centroid of 0 stays.

    Returns:
        [k].
    """
    weights, indices = _some(weights, indices)
    k, flat = len(centroids), indices.reshape(-1).astype(np.int64)
    normal = np.empty((k, k))
    for index in range(k):
        normal[index] = np.bincount(flat, ((indices == index) @ moment).reshape(-1), minlength=k)
    # What is added to the centroids explains what they leave of the weights
    rest = weights - centroids[indices]
    wanted = np.bincount(flat, (rest @ moment).reshape(-1), minlength=k)
    free = np.bincount(flat, minlength=k) > 0
    if zero:
        free &= centroids != 0
    found = centroids.copy()
    if free.any():
        some = normal[np.ix_(free, free)]
        some += _RIDGE * np.trace(some) / len(some) * np.eye(len(some))
        found[free] += np.linalg.solve(some, wanted[free])
    return found


def fitted_vectors(weights: Floats, indices: npt.NDArray[np.uint8], moment: Floats, centroids: Floats) -> Floats:
    """Return the vectors that are (nearly) best for these indices: a few steps of conjugate gradients towards them.

    There are too many unknowns to solve for; every step lowers the error.

    Args:
        weights: [groups, rows, K].
        indices: Which vector stands for each d neighbours in a row, the last ones maybe fewer, [groups, rows, K / d].
        moment: Second moment of what the weights multiply, [groups, K, K].
        centroids: As they are, [k, d]; one that stands for nothing stays.

    Returns:
        [k, d].
    """
    weights, indices = _some(weights, indices)
    (k, d), length = centroids.shape, weights.shape[2]
    owners = indices.reshape(-1).astype(np.int64)
    padding = ((0, 0), (0, 0), (0, indices.shape[2] * d - length))

    def spread(vectors: Floats) -> Floats:
        return vectors[indices].reshape(*weights.shape[:2], -1)[:, :, :length]

    def gathered(numbers: Floats) -> Floats:
        parts = np.pad(numbers, padding).reshape(-1, d)
        return np.stack([np.bincount(owners, part, minlength=k) for part in parts.T], axis=1)

    diagonal = np.diagonal(moment, axis1=1, axis2=2)[:, None, :]
    scales = gathered(np.broadcast_to(diagonal, weights.shape))  # the diagonal of the system, for its preconditioner
    scales = np.where(scales > 0, scales, np.inf)
    found = np.zeros_like(centroids)
    rest = gathered((weights - spread(centroids)) @ moment)
    wanted, direction = float((rest**2 / scales).sum()), rest / scales
    left = wanted
    for _ in range(_STEPS):
        if left <= _SOLVED * wanted:
            break
        product = gathered(spread(direction) @ moment)
        size = left / float((direction * product).sum())
        found += size * direction
        rest -= size * product
        before, left = left, float((rest**2 / scales).sum())
        direction = rest / scales + left / before * direction
    return np.asarray(centroids + found)


def _some(weights: Floats, indices: npt.NDArray[np.uint8]) -> tuple[Floats, npt.NDArray[np.uint8]]:
    """Leave rows out where there are more weights than are needed."""
    step = -(-weights.size // _MOST)
    return (weights[:, ::step], indices[:, ::step]) if 1 < step <= weights.shape[1] else (weights, indices)
