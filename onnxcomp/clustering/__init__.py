"""Clusters of numbers: exact one-dimensional k-means, and quantizers that spend bits of entropy, not of index.

With numba (the extra ``fast``) they are found faster; they are the same to the bit without it.
"""

from onnxcomp.clustering.cells import Cells, tally
from onnxcomp.clustering.codebook import Codebook
from onnxcomp.clustering.entropy import entropy_clusters
from onnxcomp.clustering.fit import fitted_centroids
from onnxcomp.clustering.kmeans import INITS, kmeans
from onnxcomp.clustering.powers import powers_of_two

__all__ = ["INITS", "Cells", "Codebook", "entropy_clusters", "fitted_centroids", "kmeans", "powers_of_two", "tally"]
