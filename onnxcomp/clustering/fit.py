"""Centroids by least squares: given which centroid stands for which weight, the values that change a layer least.

With Q the weights that share values, ``trace((W - Q) G (W - Q)^T)`` is quadratic in the centroids: its minimum is the
solution of a linear system of their number. It stands in for training centroids (Han et al. 2016, section 3.3).
"""

import numpy as np
import numpy.typing as npt

__all__ = ["fitted_centroids"]

_MOST = 1 << 20  # weights that are looked at: there are few unknowns
_RIDGE = 1e-6

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
    step = -(-weights.size // _MOST)
    if step > 1 and weights.shape[1] >= step:
        weights, indices = weights[:, ::step], indices[:, ::step]
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
