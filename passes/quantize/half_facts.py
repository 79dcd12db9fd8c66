"""What float16 can do, operator by operator: tables of facts and the ONNX specification's own tables of types."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import numpy as np
import onnx.defs
import onnx_ir as ir

from onnxcomp.facts import is_quantized_op

__all__ = [
    "AGNOSTIC",
    "BOUNDS",
    "COUNTING",
    "LARGEST",
    "MASK",
    "MASKING",
    "MOVERS",
    "OVERFLOWING",
    "SMALLEST",
    "SPREADING",
    "Slots",
    "slots_of",
    "why_float",
]

LARGEST = float(np.finfo(np.float16).max)  # 65504
SMALLEST = float(np.finfo(np.float16).smallest_normal)  # 6.1e-5: below it digits are lost
# What a mask becomes: softmax gives 0 for it, and some of them may be added up, with the scores, without overflow
MASK = 16384.0

# Read a tensor of either type: no Cast is made for them
AGNOSTIC = frozenset({"Cast", "Shape", "Size"})
# Hand numbers on, compare or average them: they take the type that their input has already, so that no Cast is wasted
MOVERS = frozenset(
    {"Abs", "ArgMax", "ArgMin", "Compress", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements",
     "GatherND", "Identity", "IsInf", "IsNaN", "MaxPool", "Neg", "NonZero", "Pad", "ReduceMax", "ReduceMean",
     "ReduceMin", "Reshape", "ReverseSequence", "Slice", "SpaceToDepth", "Split", "Squeeze", "Tile", "TopK",
     "Transpose", "Trilu", "Unsqueeze"}
)  # fmt: skip
# Arithmetic on numbers that were integers a moment ago (sizes, positions, masks): float16 counts to 2048 only
COUNTING = frozenset(
    {"Add", "Ceil", "Cos", "Div", "Exp", "Floor", "Log", "Max", "Min", "Mod", "Mul", "Pow", "Reciprocal", "Round",
     "Sin", "Sqrt", "Sub", "Where", *MOVERS}
)  # fmt: skip
# May leave float16's range where their inputs do not
OVERFLOWING = frozenset(
    {"CumSum", "Exp", "Pow", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceProd",
     "ReduceSum", "ReduceSumSquare"}
)  # fmt: skip
# Whose result is as hard to hold in float16 as what they read
SPREADING = frozenset({"Add", "Clip", "Max", "Pow", "Reciprocal", "Relu", "Sqrt", *MOVERS})
# Bounds and masks: a constant beyond float16's range does its work at the end of the range, too
BOUNDS = frozenset({"Clip", "Max", "Min"})
MASKING = frozenset({"Add", "Mul", "Sub", "Where"})

_NO_KERNEL = "onnxruntime has no float16 kernel of it"
_RANDOM = "random numbers are drawn in float32"
_TYPED = "its type follows another tensor"
_WHY_FLOAT: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform",
                         "RandomUniformLike"), _RANDOM),
        **dict.fromkeys(("BitCast", "CastLike", "EyeLike"), _TYPED),
        **dict.fromkeys(("AffineGrid", "Celu", "Col2Im", "DFT", "DeformConv", "Det", "GlobalLpPool", "GridSample",
                         "LpNormalization", "LpPool", "MaxRoiPool", "MaxUnpool", "MeanVarianceNormalization",
                         "MelWeightMatrix", "Mish", "NonMaxSuppression", "RoiAlign", "STFT", "Unique",
                         "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Sinh", "Tan"), _NO_KERNEL),
        "ConstantOfShape": "a constant",
        "Range": "counts: float16 counts to 2048 only",
    }
)  # fmt: skip
# Inputs that may be float16, where the specification allows more than onnxruntime takes
_SLOTS: Mapping[str, frozenset[int]] = MappingProxyType(
    {"Dropout": frozenset({0}), "OneHot": frozenset({2}), "Resize": frozenset({0}), "Upsample": frozenset({0})}
)
# Operators of com.microsoft whose floats are all float16 where one is
_MICROSOFT = frozenset({"BiasGelu", "FastGelu", "FusedMatMul", "Gelu", "MultiHeadAttention", "QuickGelu"})


@dataclass(frozen=True, slots=True)
class Slots:
    """Which tensors of a node may be float16.

    Attributes:
        inputs: Indices.
        outputs: Indices: those of the type of such an input.
    """

    inputs: frozenset[int] = frozenset()
    outputs: frozenset[int] = frozenset()


def why_float(node: ir.Node) -> str | None:
    """Say why a node stays float32 whatever numbers it meets; None where it need not."""
    if any(a.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for a in node.attributes.values()):
        return "its body stays float32"
    if is_quantized_op(node.op_type):
        return "the operator is quantized"
    if node.domain in ("", "ai.onnx"):
        if _quantized_beside(node):
            return "its neighbours are quantized"
        return _WHY_FLOAT.get(node.op_type)
    if node.domain == "com.microsoft" and node.op_type in _MICROSOFT:
        return None
    return "an operator that float16 is not known to suit"


def slots_of(node: ir.Node, version: int) -> Slots:
    """Return which inputs and outputs of a node may be float16 in a version of the default operator set."""
    if node.domain not in ("", "ai.onnx"):
        return Slots(frozenset(range(len(node.inputs))), frozenset(range(len(node.outputs))))
    inputs, outputs = _formal(node.op_type, version)
    if not inputs:
        return Slots()
    allowed = _SLOTS.get(node.op_type)
    taken = {
        i: inputs[min(i, len(inputs) - 1)][0]
        for i in range(len(node.inputs))
        if inputs[min(i, len(inputs) - 1)][1] and (allowed is None or i in allowed)
    }
    made = (i for i in range(len(node.outputs)) if outputs and outputs[min(i, len(outputs) - 1)] in taken.values())
    return Slots(frozenset(taken), frozenset(made))


@cache
def _formal(op_type: str, version: int) -> tuple[tuple[tuple[str, bool], ...], tuple[str, ...]]:
    """Return the type of every formal input, with whether it may be float16, and of every output; the last repeats."""
    if not onnx.defs.has(op_type, version, ""):
        return (), ()
    schema = onnx.defs.get_schema(op_type, version, "")
    inputs = tuple((formal.type_str, "tensor(float16)" in formal.types) for formal in schema.inputs)
    return inputs, tuple(formal.type_str for formal in schema.outputs)


def _quantized_beside(node: ir.Node) -> bool:
    """Say whether a node reads what was dequantized, or makes what is quantized: a Cast would part them."""
    before = (value.producer() for value in node.inputs if value is not None)
    after = (use.node for value in node.outputs for use in value.uses())
    return any(n is not None and n.op_type == "DequantizeLinear" for n in before) or any(
        n.op_type in ("QuantizeLinear", "DynamicQuantizeLinear") for n in after
    )
