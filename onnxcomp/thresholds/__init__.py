"""From what was measured of a tensor to the quantizer that is used for it. Pure functions on numbers and arrays."""

from onnxcomp.thresholds.affine import Affine, affine, quantize_weights
from onnxcomp.thresholds.blocks import WEIGHT_METHODS, Groups, quantize_groups
from onnxcomp.thresholds.histogram import Grid, Histogram, Range
from onnxcomp.thresholds.noise import noise
from onnxcomp.thresholds.rounding import gptq, rounding_error
from onnxcomp.thresholds.solve import METHODS, solve, solve_all
from onnxcomp.thresholds.sparsity import magnitude_mask, removal_costs, sparsify
from onnxcomp.thresholds.sweep import by_diagonal, damped, damping_for, sweep

__all__ = [
    "METHODS",
    "WEIGHT_METHODS",
    "Affine",
    "Grid",
    "Groups",
    "Histogram",
    "Range",
    "affine",
    "by_diagonal",
    "damped",
    "damping_for",
    "gptq",
    "magnitude_mask",
    "noise",
    "quantize_groups",
    "quantize_weights",
    "removal_costs",
    "rounding_error",
    "solve",
    "solve_all",
    "sparsify",
    "sweep",
]
