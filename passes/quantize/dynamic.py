"""Dynamic INT8: weights in int8, activations quantized while the model runs. Needs no calibration data.

Before, after (onnxruntime fuses the chain to DynamicQuantizeMatMul; the LSTM has a kernel of its own)::

    MatMul(x, W)       x -> DynamicQuantizeLinear -> MatMulInteger(W8) -> Cast -> Mul(x_scale * w_scale)
    LSTM(x, W, R)      com.microsoft.DynamicQuantizeLSTM(x, W8, R8)
    Gather(table, i)   Gather(table8, i) -> Cast -> Mul(scale)

Weights are symmetric, one scale per output column (MatMul, Gemm, Gather) or gate row (LSTM). Never Conv:
onnxruntime's ConvInteger is several times slower than the float kernel. In the bodies of If, Loop and Scan too: what a
body reads from outside is quantized outside, once. Declines: weights that are not constant float32
matrices, hold NaN, or are too small to pay for the extra nodes. Source: onnxruntime's dynamic quantization operators.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxcomp.errors import RecipeError
from onnxcomp.facts import opset
from onnxcomp.model import infer_shapes
from onnxcomp.passbase import Pass, PassContext, PassStats, Skip, Unit
from onnxcomp.passes.cleanup.constants import LiftConstants
from onnxcomp.passes.quantize.editor import GraphEditor, drop_unused_initializers, name_nodes
from onnxcomp.passes.quantize.placement import constant
from onnxcomp.target import Target
from onnxcomp.thresholds import WEIGHT_METHODS, quantize_weights

__all__ = ["QuantizeDynamic", "QuantizeDynamicConfig"]

_MINIMUM_OPSET = 11  # DynamicQuantizeLinear
_MICROSOFT = "com.microsoft"
_LEAST_COLUMNS = 8  # of a table: what narrower ones save is not worth their rounding errors
_NO_KERNEL = ("GRU", "RNN")  # LSTM alone has one
_OPS = ("MatMul", "Gemm", "LSTM", "Gather")


@dataclass(frozen=True, slots=True)
class QuantizeDynamicConfig:
    """Settings of dynamic INT8.

    Attributes:
        ops: Operator types to rewrite.
        min_elements: Weights with fewer elements stay float: the extra nodes would cost more than they save.
        per_channel: One weight scale per output column or gate row; else one per weight.
        weights: How their scales are chosen: ``minmax``, or ``mmse``, which clips for the least squared error.
        exclude: Names of nodes that stay float.
    """

    ops: tuple[str, ...] = _OPS
    min_elements: int = 1024
    per_channel: bool = True
    weights: str = "minmax"
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.ops) - set(_OPS)):
            raise RecipeError(f"{unknown[0]!r} has no dynamic form", hint=f"of: {', '.join(_OPS)}")
        if self.weights not in WEIGHT_METHODS:
            raise RecipeError(f"weights must be one of {', '.join(WEIGHT_METHODS)}, got {self.weights!r}")
        if self.min_elements < 0:
            raise RecipeError(f"min_elements must not be negative, got {self.min_elements}")


class QuantizeDynamic(Pass[QuantizeDynamicConfig]):
    """Rewrite MatMul, Gemm, LSTM and embedding tables to int8 weights with run-time activation scales."""

    name: ClassVar[str] = "quantize-dynamic"
    Config = QuantizeDynamicConfig
    exact: ClassVar[bool] = False

    def units(self, model: ir.Model, ctx: PassContext) -> list[Unit]:
        """List the nodes that have a dynamic form."""
        work = model.clone()
        LiftConstants().run(work, ctx)
        name_nodes(work.graph)
        infer_shapes(work)
        return [
            Unit(str(n.name), n.op_type, (str(n.name),))
            for n in work.graph.all_nodes()
            if self._applies(n) and not self._why_not(n, ctx.target)
        ]

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite every node that has a dynamic form."""
        if opset(model) < _MINIMUM_OPSET:
            reason = f"opset {opset(model)} has no DynamicQuantizeLinear: run upgrade-opset first"
            return PassStats(modified=False, skipped=(Skip("", "", reason),))
        if ctx.target.no_dynamic is not None:
            return PassStats(modified=False, skipped=(Skip("", "", ctx.target.no_dynamic),))
        lifted = LiftConstants().run(model, ctx)
        name_nodes(model.graph)
        infer_shapes(model)
        bits = 7 if ctx.target.reduce_range else 8
        writer = _Writer(model.graph, bits, self.config)
        counters: dict[str, int] = {}
        for node in list(model.graph.all_nodes()):
            if not self._applies(node):
                if node.domain == "" and node.op_type in _NO_KERNEL:
                    ctx.skip(
                        node, "onnxruntime has no integer kernel of this type; quantize-weights shrinks its weights"
                    )
                continue
            if (why_not := self._why_not(node, ctx.target)) is not None:
                ctx.skip(node, why_not)
                continue
            writer.rewrite(node)
            counters[node.op_type] = counters.get(node.op_type, 0) + 1
        if "LSTM" in counters:
            model.opset_imports.setdefault(_MICROSOFT, 1)
        drop_unused_initializers(model.graph)
        return PassStats(modified=lifted.modified or bool(counters), counters=counters)

    def _applies(self, node: ir.Node) -> bool:
        return node.domain == "" and node.op_type in self.config.ops

    def _why_not(self, node: ir.Node, target: Target) -> str | None:
        """Say why a node stays float, or None."""
        if node.op_type not in target.dynamic:
            return f"{target.name} has no dynamic kernel of this type"
        if node.name in self.config.exclude:
            return "excluded"
        for index in (1, 2) if node.op_type == "LSTM" else (0,) if node.op_type == "Gather" else (1,):
            weight = constant(node.inputs[index])
            if weight is None:
                return "the weight is not constant"
            if weight.dtype != ir.DataType.FLOAT:
                return "the weight is not float32"
            if weight.size < self.config.min_elements:
                return "the weight is too small to pay"
            if len(weight.shape) != (3 if node.op_type == "LSTM" else 2):
                return "the weight has another rank"
            if not np.isfinite(weight.numpy()).all():
                return "the weight holds NaN or infinity"
        special = _WHY_NOT.get(node.op_type)
        return special(node) if special else None


def _why_not_gemm(node: ir.Node) -> str | None:
    attributes = node.attributes
    if attributes.get_float("alpha", 1.0) != 1.0 or attributes.get_float("beta", 1.0) != 1.0:
        return "alpha or beta is set"
    return "transA is set" if attributes.get_int("transA", 0) else None


def _why_not_lstm(node: ir.Node) -> str | None:
    if node.attributes.get_int("layout", 0):
        return "layout 1 has no integer kernel"
    return None


def _why_not_gather(node: ir.Node) -> str | None:
    if node.attributes.get_int("axis", 0):
        return "gathers along another axis"
    table = constant(node.inputs[0])
    assert table is not None
    short = table.shape.numpy()[1] < _LEAST_COLUMNS
    return "the rows of the table are too short to pay" if short else None


_WHY_NOT: dict[str, Callable[[ir.Node], str | None]] = {
    "Gather": _why_not_gather,
    "Gemm": _why_not_gemm,
    "LSTM": _why_not_lstm,
}


class _Writer:
    """Replaces nodes of a graph and its bodies; those that read the same tensor share its DynamicQuantizeLinear."""

    def __init__(self, graph: ir.Graph, bits: int, config: QuantizeDynamicConfig) -> None:
        self._bits = bits
        self._config = config
        self._editor = GraphEditor(graph)
        self._quantized: dict[ir.Value, ir.Node] = {}

    def rewrite(self, node: ir.Node) -> None:
        writers = {"MatMul": self._matmul, "Gemm": self._matmul, "LSTM": self._lstm, "Gather": self._gather}
        replaced = writers[node.op_type](node)
        for old, new in zip(node.outputs, replaced[-1].outputs, strict=False):
            new.type, new.shape = old.type, old.shape
            name = old.name
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            old.name, new.name = None, name
        replaced[-1].name = node.name
        assert isinstance(node.graph, ir.Graph)
        node.graph.insert_before(node, replaced)
        node.graph.remove(node, safe=True)

    def _weight(self, value: ir.Value | None, axis: int) -> tuple[np.ndarray, np.ndarray]:
        tensor = constant(value)
        assert tensor is not None
        return self._rounded(tensor.numpy(), axis)

    def _rounded(self, weight: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
        """Return levels and scales [channels]; equal scales where the weight has one: kernels take either form."""
        per_channel = axis if self._config.per_channel else None
        levels, scale = quantize_weights(weight, axis=per_channel, bits=self._bits, method=self._config.weights)
        return levels, scale if self._config.per_channel else np.full(weight.shape[axis], scale)

    def _matmul(self, node: ir.Node) -> list[ir.Node]:
        """MatMul(x [..., K], W [K, N]); Gemm has W [N, K] where transB is set, and a bias [N]."""
        transposed = bool(node.attributes.get_int("transB", 0)) if node.op_type == "Gemm" else False
        weight, scale = self._weight(node.inputs[1], 0 if transposed else 1)
        weight = np.ascontiguousarray(weight.T) if transposed else weight
        assert node.inputs[0] is not None
        source = self._dynamic(node.inputs[0])
        levels, input_scale, zero_point = source.outputs
        editor = self._editor
        product = editor.node("MatMulInteger", [levels, editor.constant(weight), zero_point])
        cast = editor.node("Cast", [product.outputs[0]], to=int(ir.DataType.FLOAT))
        both = editor.node("Mul", [input_scale, editor.constant(scale)])
        result = [product, cast, both, editor.node("Mul", [cast.outputs[0], both.outputs[0]])]
        bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
        if bias is not None:
            result.append(editor.node("Add", [result[-1].outputs[0], bias]))
        return result

    def _dynamic(self, value: ir.Value) -> ir.Node:
        if value not in self._quantized:
            node = self._editor.node("DynamicQuantizeLinear", [value], outputs=3)
            self._editor.after(value, [node])
            self._quantized[value] = node
        return self._quantized[value]

    def _lstm(self, node: ir.Node) -> list[ir.Node]:
        """W [directions, 4H, I] and R [directions, 4H, H] become [directions, I, 4H] and [directions, H, 4H]."""
        inputs: list[ir.Value | None] = [*node.inputs, *[None] * (8 - len(node.inputs))]
        for index in (1, 2):
            tensor = constant(inputs[index])
            assert tensor is not None
            directions = [self._rounded(w, 0) for w in tensor.numpy()]
            weight = np.stack([np.ascontiguousarray(w.T) for w, _ in directions])
            scale = np.stack([s for _, s in directions])
            inputs[index] = self._editor.constant(weight)
            inputs += [self._editor.constant(scale), self._editor.constant(np.zeros(scale.shape, np.int8))]
        kept = {name: value for name, value in node.attributes.items() if name != "layout"}
        outputs = len(node.outputs)
        new = ir.Node(_MICROSOFT, "DynamicQuantizeLSTM", inputs, kept.values(), num_outputs=outputs)
        return [new]

    def _gather(self, node: ir.Node) -> list[ir.Node]:
        """A table [V, D] gets one scale per column, [D]: as many as a row has, and no second look-up.

        Not DequantizeLinear: with a scale per column it takes onnxruntime 3.6 times as long as Cast and Mul.
        """
        table, scale = self._weight(node.inputs[0], 1)
        editor = self._editor
        rows = editor.node("Gather", [editor.constant(table), node.inputs[1]])
        cast = editor.node("Cast", [rows.outputs[0]], to=int(ir.DataType.FLOAT))
        return [rows, cast, editor.node("Mul", [cast.outputs[0], editor.constant(scale)])]
