"""From what was measured of a tensor to the quantizer that is used for it. Pure functions on numbers and arrays."""

from onnxcomp.thresholds.affine import Affine, affine, quantize_weights
from onnxcomp.thresholds.blocks import WEIGHT_METHODS, Groups, quantize_groups
from onnxcomp.thresholds.histogram import Grid, Histogram, Range
from onnxcomp.thresholds.noise import noise
from onnxcomp.thresholds.rounding import damped, gptq, rounding_error
from onnxcomp.thresholds.solve import METHODS, solve, solve_all

__all__ = [
    "METHODS",
    "WEIGHT_METHODS",
    "Affine",
    "Grid",
    "Groups",
    "Histogram",
    "Range",
    "affine",
    "damped",
    "gptq",
    "noise",
    "quantize_groups",
    "quantize_weights",
    "rounding_error",
    "solve",
    "solve_all",
]
