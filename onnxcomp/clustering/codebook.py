"""A codebook: a few numbers that stand for many, and the thresholds between them."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxcomp.clustering.cells import Cells

__all__ = ["Codebook"]

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Codebook:
    """Numbers that stand for others.

    Attributes:
        centroids: float64 [k], ascending, all different.
        thresholds: float64 [k - 1]: above the i-th begins the cluster of the next centroid.
    """

    centroids: npt.NDArray[np.float64]
    thresholds: npt.NDArray[np.float64]

    @classmethod
    def nearest(cls, centroids: npt.NDArray[np.floating]) -> "Codebook":
        """Return the codebook in which the nearest centroid stands for a number."""
        sorted_ = np.unique(np.asarray(centroids, np.float64))
        return cls(sorted_, (sorted_[1:] + sorted_[:-1]) / 2)

    def __len__(self) -> int:
        return len(self.centroids)

    def indices(self, numbers: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
        """Return which centroid stands for each number, in the shape of the numbers (at most 256 centroids)."""
        flat = numbers.reshape(-1)
        found = np.empty(flat.size, np.uint8)
        limits = self.thresholds.astype(np.float32)
        for start in range(0, flat.size, _CHUNK):
            part = flat[start : start + _CHUNK].astype(np.float32, copy=False)
            found[start : start + _CHUNK] = np.searchsorted(limits, part)
        return found.reshape(numbers.shape)

    def stand_ins(self, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return the centroid that stands for each number."""
        found: npt.NDArray[np.float64] = self.centroids[np.searchsorted(self.thresholds, numbers)]
        return found

    def counts(self, cells: Cells) -> npt.NDArray[np.float64]:
        """Return how many numbers of a histogram each centroid stands for, [k]."""
        owners = np.searchsorted(self.thresholds, cells.means)
        return np.bincount(owners, cells.counts, minlength=len(self)).astype(np.float64, copy=False)

    def error(self, cells: Cells) -> float:
        """Return the weighted squared error of a histogram, but for what its cells hide."""
        means = cells.means
        differences = means - self.centroids[np.searchsorted(self.thresholds, means)]
        return float((cells.weights * differences**2).sum())

    def bits(self, cells: Cells) -> float:
        """Return the entropy of the indices of a histogram's numbers, in bits per number."""
        counts = self.counts(cells)
        shares = counts[counts > 0] / counts.sum()
        return float(-(shares * np.log2(shares)).sum())
