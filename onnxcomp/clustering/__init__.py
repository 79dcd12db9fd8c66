"""Clusters of numbers: exact one-dimensional k-means, and quantizers that spend bits of entropy, not of index.

Clusters of vectors, by Lloyd's algorithm.

With numba (the extra ``fast``) they are found faster; they are the same to the bit without it.
"""

from onnxcomp.clustering.cells import Cells, tally
from onnxcomp.clustering.codebook import Codebook
from onnxcomp.clustering.entropy import entropy_clusters
from onnxcomp.clustering.fit import fitted_centroids, fitted_vectors
from onnxcomp.clustering.kmeans import INITS, kmeans
from onnxcomp.clustering.powers import powers_of_two
from onnxcomp.clustering.vectors import VectorBook, vector_kmeans

__all__ = ["INITS", "Cells", "Codebook", "VectorBook", "entropy_clusters", "fitted_centroids", "fitted_vectors",
           "kmeans", "powers_of_two", "tally", "vector_kmeans"]  # fmt: skip
