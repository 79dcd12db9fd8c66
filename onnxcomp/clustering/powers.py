"""Codebooks of powers of two: a product with such a weight is a shift (Zhou et al. 2017, INQ).

0 and neighbouring powers, with both signs, as in their equation 3. They take the largest power from the largest weight
(equation 2); here it is the one of least error.
"""

import math

import numpy as np

from onnxcomp.clustering.cells import Cells
from onnxcomp.clustering.codebook import Codebook

__all__ = ["powers_of_two"]

_TRIED = 8  # largest exponents


def powers_of_two(cells: Cells, k: int) -> Codebook:
    """Return 0 and signed neighbouring powers of two, of least error.

    Args:
        cells: Histogram of the numbers.
        k: Centroids at most, 3 or more; with an even number there is one less.
    """
    each = (k - 1) // 2
    largest = float(np.abs(cells.means).max()) or 1.0
    books = []
    for top in range(top_of := math.ceil(math.log2(largest)), top_of - _TRIED, -1):
        powers = 2.0 ** np.arange(top, top - each, -1)
        books.append(Codebook.nearest(np.concatenate([-powers, [0.0], powers])))
    return min(books, key=lambda book: book.error(cells))
