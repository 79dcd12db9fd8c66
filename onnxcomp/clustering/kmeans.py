"""Exact weighted k-means of numbers, and Lloyd's algorithm from the initialisations of Han et al. (2016).

Exact: dynamic programming on a histogram whose cells are much narrower than clusters. The others exist for study; they
end in a local optimum.
"""

import numpy as np
import numpy.typing as npt

from onnxcomp.clustering.cells import Cells
from onnxcomp.clustering.codebook import Codebook
from onnxcomp.clustering.segments import best_segments
from onnxcomp.errors import EnvironmentUnavailable

__all__ = ["INITS", "kmeans"]

INITS = ("exact", "linear", "density", "random")
_CELLS_PER_CLUSTER = 64
_LEAST_CELLS = 1 << 12
_ITERATIONS = 300


def kmeans(cells: Cells, k: int, *, init: str = "exact", zero: bool = False, seed: int = 0) -> Codebook:
    """Cluster the numbers of a histogram.

    Args:
        cells: The histogram.
        k: Clusters; there are fewer where there are fewer distinct numbers.
        init: ``exact``: the optimum. Lloyd's algorithm from ``linear`` (evenly over the range), ``density`` (evenly
            over the distribution) or ``random`` (drawn from the numbers) centroids: Han et al. 2016, section 3.2.
        zero: Whether 0 is one of the centroids: for weights that are pruned.
        seed: Of ``random``.

    Raises:
        EnvironmentUnavailable: ``init`` needs scikit-learn, and it is not installed.
    """
    rest = cells.without_zeros() if zero else cells
    wanted = k - 1 if zero else k
    fine = rest.reduced(max(_LEAST_CELLS, _CELLS_PER_CLUSTER * k))
    if wanted < 1 or not len(fine):
        centroids = np.empty(0)
    elif len(fine) <= wanted:
        centroids = fine.means
    elif init == "exact":
        starts = best_segments(fine.weights, fine.sums, wanted)
        centroids = np.add.reduceat(fine.sums, starts) / np.add.reduceat(fine.weights, starts)
    else:
        centroids = _lloyd(fine, wanted, init, seed)
    return Codebook.nearest(np.append(centroids, 0.0) if zero else centroids)


def _lloyd(cells: Cells, k: int, init: str, seed: int) -> npt.NDArray[np.float64]:
    try:
        from sklearn.cluster import KMeans
    except ImportError as err:
        raise EnvironmentUnavailable(
            f"init {init!r} needs scikit-learn, which is not installed", hint="pip install scikit-learn, or init exact"
        ) from err
    places = cells.means
    match init:
        case "linear":
            first: npt.NDArray[np.float64] | str = np.linspace(places[0], places[-1], k)[:, None]
        case "density":
            reached = np.cumsum(cells.counts) - cells.counts / 2
            first = np.interp((np.arange(k) + 0.5) / k * cells.counts.sum(), reached, places)[:, None]
        case _:
            first = "random"
    found = KMeans(k, init=first, n_init=1, max_iter=_ITERATIONS, tol=0, random_state=seed)
    found.fit(places[:, None], sample_weight=cells.weights)
    return np.asarray(found.cluster_centers_[:, 0], np.float64)
