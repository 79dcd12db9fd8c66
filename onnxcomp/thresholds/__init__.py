"""From what was measured of a tensor to the quantizer that is used for it. Pure functions on numbers and arrays."""

from onnxcomp.thresholds.affine import Affine, affine, quantize_weights

__all__ = ["Affine", "affine", "quantize_weights"]
