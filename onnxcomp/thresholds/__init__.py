"""From what was measured of a tensor to the quantizer that is used for it. Pure functions on numbers and arrays."""

from onnxcomp.thresholds.affine import Affine, affine, quantize_weights
from onnxcomp.thresholds.clip import METHODS, minmax, mmse, percentile, solve

__all__ = ["METHODS", "Affine", "affine", "minmax", "mmse", "percentile", "quantize_weights", "solve"]
