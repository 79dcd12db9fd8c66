"""k-means of vectors: few vectors that stand for many (Gong et al. 2014, section 3.2).

Scikit-learn's: Lloyd's algorithm from the centroids of k-means++.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxcomp.errors import EnvironmentUnavailable

__all__ = ["VectorBook", "vector_kmeans"]

_ITERATIONS = 60
_PER_CENTROID = 256  # vectors that are looked at; more move centroids little
_LEAST = 1e-4  # that a vector counts, of the mean
_CHUNK = 1 << 14

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class VectorBook:
    """Vectors that stand for others.

    Attributes:
        centroids: float64 [k, d], the shortest first: rows of a weight that hold small numbers then have small indices,
            which coders of packed files make use of.
    """

    centroids: Floats

    @classmethod
    def ordered(cls, centroids: Floats) -> "VectorBook":
        """Return a codebook of these, in order."""
        return cls(centroids[np.argsort((centroids**2).sum(axis=1), kind="stable")])

    def __len__(self) -> int:
        return len(self.centroids)

    def indices(self, vectors: npt.NDArray[np.floating], counts: Floats | None = None) -> npt.NDArray[np.uint8]:
        """Return the nearest centroid of each vector, [n] (at most 256 centroids).

        Args:
            vectors: [n, d]; shorter ones are compared with the first numbers of the centroids.
            counts: How much the numbers count, [n, d], or [d] for all vectors; None: all the same.
        """
        centroids = self.centroids[:, : vectors.shape[1]]
        found = np.empty(len(vectors), np.uint8)
        for start in range(0, len(vectors), _CHUNK):
            part = vectors[start : start + _CHUNK].astype(np.float64, copy=False)
            weights = np.ones(part.shape[1]) if counts is None else counts
            weights = weights[start : start + _CHUNK] if weights.ndim == 2 else weights
            # Without what all centroids have in common
            distances = weights @ (centroids**2).T - 2 * (weights * part) @ centroids.T
            found[start : start + _CHUNK] = distances.argmin(axis=1)
        return found


def vector_kmeans(vectors: Floats, k: int, *, counts: Floats | None = None, seed: int = 0) -> VectorBook:
    """Cluster vectors.

    Args:
        vectors: [n, d]; of many, a part is looked at.
        k: Clusters, at most 256; there are fewer where there are fewer distinct vectors.
        counts: How much each number counts, [n, d]; a vector counts as much as its mean. None: all the same.
        seed: Of what is drawn.

    Raises:
        EnvironmentUnavailable: scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import KMeans
        from threadpoolctl import threadpool_limits
    except ImportError as err:
        raise EnvironmentUnavailable(
            "vectors need scikit-learn, which is not installed", hint="pip install scikit-learn, or vector 1"
        ) from err
    weights = np.ones(len(vectors)) if counts is None else counts.mean(axis=1)
    if len(vectors) > _PER_CENTROID * k:
        drawn = np.random.default_rng(seed).choice(len(vectors), _PER_CENTROID * k, replace=False)
        vectors, weights = vectors[drawn], weights[drawn]
    distinct = np.unique(vectors, axis=0)
    if len(distinct) <= k:
        return VectorBook.ordered(distinct)
    weights = np.maximum(weights / weights.mean(), _LEAST) if weights.any() else np.ones(len(vectors))
    found = KMeans(k, n_init=1, max_iter=_ITERATIONS, random_state=seed)
    with threadpool_limits(1):  # in which order threads add up is chance
        found.fit(vectors, sample_weight=weights)
    return VectorBook.ordered(np.asarray(found.cluster_centers_, np.float64))
