"""Fold constants that are added or multiplied per channel into the weights before them.

::

    t = Conv(x, W)
    u = Mul(t, s)            # s, b: scalar or [C, 1, 1]
    y = Add(u, b)            ==>    y = Conv(x, s W, b)

Takes Add, Sub, Mul and Div by a constant after Conv, ConvTranspose and Gemm, and after MatMul by a matrix: scaling
always, adding (which makes it a Gemm) where the input is known to be a matrix.

Declines: constants that vary along another axis than the channels' or that would widen the output by broadcasting;
weights that are not constants; an output that is used elsewhere too; division *by* the output. Never folds into an
operator that comes *after*: at a padded border the constant would be missing.

Correct because these operators are linear: ``s (W x + c) + b = (s W) x + (s c + b)``. Computed in float64,
rounded once.

Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
CVPR 2018, section 3.2 (the same rewrite as for BatchNormalization).
"""

from collections import Counter
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxcomp.passbase import NoConfig, Pass, PassContext, PassStats

from ._affine import LINEAR_OPS, linear
from ._graph import Names, bypass, float_constant, graphs, is_op
from ._shapes import Shapes, infer

__all__ = ["FoldBias"]

_OPS = ("Add", "Sub", "Mul", "Div")


class FoldBias(Pass[NoConfig]):
    """Fold per-channel Add, Sub, Mul and Div into the linear operator before them."""

    name: ClassVar[str] = "fold-bias"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the model in place."""
        nodes = [node for graph in graphs(model) for node in graph if is_op(node, *_OPS)]
        if not nodes:
            return PassStats(modified=False)
        names, shapes = Names(model), infer(model)
        counts: Counter[str] = Counter()
        for node in nodes:
            pair = _operands(node)
            if pair is None:
                continue
            source, array = pair
            if reason := _fold(node, source, array, shapes=shapes, names=names):
                ctx.skip(node, reason)
            else:
                counts[f"{node.op_type} folded"] += 1
        return PassStats(counts.total() > 0, dict(counts))


def _operands(node: ir.Node) -> tuple[ir.Value, np.ndarray] | None:
    """Return the output of a linear operator and the constant that meets it, if the node joins such a pair."""
    for source, other in (node.inputs, tuple(reversed(node.inputs))):
        array = float_constant(other)
        if source is not None and array is not None and is_op(source.producer(), *LINEAR_OPS):
            return source, array
    return None


def _fold(node: ir.Node, source: ir.Value, array: np.ndarray, *, shapes: Shapes, names: Names) -> str | None:
    """Fold one node, or say why not."""
    found = linear(source, node, shapes)
    if isinstance(found, str):
        return found
    vector = found.channel_vector(array)
    if vector is None:
        return "its constant is not one value per output channel"
    step = _scale_and_shift(node, vector, constant_first=node.inputs[1] is source)
    if isinstance(step, str):
        return step
    reason = found.fold(*step, names)
    if reason is None:
        bypass(node, source)
    return reason


def _scale_and_shift(node: ir.Node, vector: np.ndarray, *, constant_first: bool) -> tuple[np.ndarray, np.ndarray] | str:
    """Write the node as ``y * scale + shift``."""
    ones, zeros = np.ones_like(vector), np.zeros_like(vector)
    if node.op_type == "Add":
        return ones, vector
    if node.op_type == "Sub":
        return (-ones, vector) if constant_first else (ones, -vector)
    if node.op_type == "Mul":
        return vector, zeros
    if constant_first:
        return "it divides by the output"
    if np.any(vector == 0):
        return "it divides by 0"
    return 1 / vector, zeros
