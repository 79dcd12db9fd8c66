"""Fold BatchNormalization into the linear operator before it.

::

    t = Conv(x, W, b)                                  s = gamma / sqrt(var + eps)
    y = BatchNormalization(t, gamma, beta, mean, var)  ==>   y = Conv(x, s W, s (b - mean) + beta)

Takes Conv and ConvTranspose (also grouped), Gemm (any transB, alpha and beta) and MatMul of a matrix, which becomes a
Gemm. Weights that other nodes share are copied first.

Declines: training mode; weights or statistics that are not constants; an output of the linear operator that is used
elsewhere too or is a graph output; a MatMul that is not known to give a matrix; a result that would overflow float16.

Correct because at inference BatchNormalization is ``y * s + (beta - s * mean)`` with constants per channel, and the
operators before it are linear: ``s (W x + b) = (s W) x + s b``. Computed in float64, rounded once.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, section 3.2, equation 14.
"""

from collections import Counter
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxcomp.passbase import NoConfig, Pass, PassContext, PassStats

from ._affine import linear
from ._graph import Names, bypass, float_attribute, float_constant, graphs, int_attribute, is_op
from ._shapes import Shapes, infer

__all__ = ["FoldBatchNorm"]


class FoldBatchNorm(Pass[NoConfig]):
    """Fold BatchNormalization into the Conv, ConvTranspose, Gemm or MatMul before it."""

    name: ClassVar[str] = "fold-batch-norm"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the model in place."""
        nodes = [node for graph in graphs(model) for node in graph if is_op(node, "BatchNormalization")]
        if not nodes:
            return PassStats(modified=False)
        names, shapes = Names(model), infer(model)
        counts: Counter[str] = Counter()
        for node in nodes:
            if reason := _fold(node, shapes, names):
                ctx.skip(node, reason)
            else:
                counts["BatchNormalization folded"] += 1
        return PassStats(counts.total() > 0, dict(counts))


def _fold(node: ir.Node, shapes: Shapes, names: Names) -> str | None:
    """Fold one node, or say why not."""
    source = node.inputs[0]
    if source is None:
        return "it has no input"
    found = linear(source, node, shapes)
    if isinstance(found, str):
        return found
    if found.channel_axis + (found.rank or 0) != 1:
        return f"MatMul {found.node.name} is not known to give a matrix"
    step = _scale_and_shift(node, found.channels)
    if isinstance(step, str):
        return step
    reason = found.fold(*step, names)
    if reason is None:
        bypass(node, source)
    return reason


def _scale_and_shift(node: ir.Node, channels: int) -> tuple[np.ndarray, np.ndarray] | str:
    """Write the node as ``y * scale + shift``, both ``[channels]``, or say why it is not that."""
    if int_attribute(node, "training_mode", 0) or any(output.name for output in node.outputs[1:]):
        return "it is in training mode"
    if not int_attribute(node, "spatial", 1):
        return "it normalizes every position by itself"
    parameters = [array for value in node.inputs[1:5] if (array := float_constant(value)) is not None]
    if len(parameters) != 4:
        return "its parameters are not constants"
    gamma, beta, mean, variance = parameters
    deviation = np.sqrt(np.maximum(variance + float_attribute(node, "epsilon", 1e-5), 0))
    if np.any(deviation == 0) or any(array.shape != (channels,) for array in parameters):
        return "its parameters do not fit the channels, or a variance is not positive"
    scale = gamma / deviation
    return scale, beta - scale * mean
