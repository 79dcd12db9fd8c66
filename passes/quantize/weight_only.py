"""Weight-only quantization: weights in 4 or 8 bits, activations in float. Needs no calibration data.

Before, after (see ``weight_forms`` for the forms)::

    MatMul(x, W)    com.microsoft.MatMulNBits(x, W4, scales)
    Gemm(x, W, b)   Add(MatMulNBits(x, W4, scales), b)
    Conv(x, W)      Conv(x, Mul(Cast(W8), scale))

What runs best where is a table of facts per target. On a CPU onnxruntime's MatMulNBits is faster than its float kernel;
everything else is folded at load: the float kernel at its speed, a quarter or an eighth of the size on disk. There a
DequantizeLinear would run in every run, and keep a convolution from its fastest layout. For other runtimes:
DequantizeLinear. Declines: weights that are not constant, not float32 or float16, hold NaN, are a graph output, or are
too small to pay. A weight that several nodes read is quantized once, for all of them.
Source: the ONNX specification (DequantizeLinear, ``block_size``); onnxruntime's contributed operators (MatMulNBits).
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxcomp.errors import RecipeError
from onnxcomp.facts import name_nodes, opset
from onnxcomp.passbase import Pass, PassContext, PassStats, Simulation, Unit
from onnxcomp.passes.quantize.editor import GraphEditor
from onnxcomp.passes.quantize.simulate import SWITCHES
from onnxcomp.passes.quantize.weight_forms import (
    MICROSOFT,
    Levels,
    Numbers,
    block_size,
    dequantize,
    fold,
    matmul_nbits,
    quantized,
)
from onnxcomp.passes.quantize.weights import Weight, drop_unread, replace_weight, weights_of
from onnxcomp.thresholds import WEIGHT_METHODS

__all__ = ["QuantizeWeights", "QuantizeWeightsConfig"]

Form = Literal["nbits", "fold", "dequantize"]
_BLOCK_SIZES = (0, 16, 32, 64, 128)
_ACCURACY_LEVELS = (0, 1, 4)
_INT4_OPSET = 21  # 4-bit types
_BLOCKS_OPSET = 21  # DequantizeLinear's block_size
_INT4_IR = 10
_AXIS_OPSET = 13  # DequantizeLinear's axis
_MOST_OF_ITS_SIZE = 0.75  # a weight that keeps more than that is left alone
_SCALE_BYTES = 5  # and its zero point
_NODES_BYTES = 250  # that the nodes beside a quantized weight take on disk

_MEASURED: Mapping[str, Form] = MappingProxyType({"MatMul": "nbits", "Gemm": "nbits"})
# What runs best, by target and operator; operators without an entry: "fold"; targets without one: "dequantize"
_FORMS: Mapping[str, Mapping[str, Form]] = MappingProxyType(
    {"cpu-x86-vnni": _MEASURED, "cpu-x86-avx2": _MEASURED, "cpu-arm": _MEASURED, "cuda": _MEASURED}
)
# Inputs that hold weights, by operator
_OPS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"Conv": (1,), "ConvTranspose": (1,), "GRU": (1, 2), "Gather": (0,), "Gemm": (1,), "LSTM": (1, 2), "MatMul": (1,),
     "RNN": (1, 2)}
)  # fmt: skip
_RECURRENT = ("GRU", "LSTM", "RNN")


@dataclass(frozen=True, slots=True)
class QuantizeWeightsConfig:
    """Settings of weight-only quantization.

    Attributes:
        bits: Of a weight: 8 or 4.
        block_size: Weights along a channel that share a scale: 16, 32, 64 or 128; 0: a channel has one (MatMulNBits:
            blocks of 256, its largest). Where the operator is not a matrix product, the size nearest to it that divides
            the channel. DequantizeLinear below opset 21: 0.
        symmetric: Whether 0 is the middle level; else each block has a zero point.
        weights: How scales are chosen: ``minmax``, or ``mmse``, which clips for the least squared error.
        form: How weights are written: ``nbits``, ``fold`` or ``dequantize``; ``auto``: what runs best on the target.
        accuracy_level: Of MatMulNBits: 4 rounds activations to int8 inside the kernel, 1 and 0 do not (many times
            slower with 8 bits).
        ops: Operator types whose weights are quantized.
        min_elements: Smaller weights stay float.
        exclude: Names of nodes whose weights stay float.
    """

    bits: int = 8
    block_size: int = 128
    symmetric: bool = False
    weights: str = "mmse"
    form: Literal["auto", "nbits", "fold", "dequantize"] = "auto"
    accuracy_level: int = 4
    ops: tuple[str, ...] = tuple(_OPS)
    min_elements: int = 1024
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, choices in (
            ("bits", (4, 8)),
            ("block_size", _BLOCK_SIZES),
            ("weights", WEIGHT_METHODS),
            ("accuracy_level", _ACCURACY_LEVELS),
        ):
            if (value := getattr(self, name)) not in choices:
                raise RecipeError(f"{name} must be one of {', '.join(map(str, choices))}, got {value}")
        if unknown := sorted(set(self.ops) - set(_OPS)):
            raise RecipeError(f"{unknown[0]!r} has no weights to quantize", hint=f"of: {', '.join(_OPS)}")
        if self.min_elements < 0:
            raise RecipeError(f"min_elements must not be negative, got {self.min_elements}")


class QuantizeWeights(Pass[QuantizeWeightsConfig]):
    """Keep weights in 4 or 8 bits."""

    name: ClassVar[str] = "quantize-weights"
    Config = QuantizeWeightsConfig
    exact: ClassVar[bool] = False
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"bits": (8, 4), "block_size": (128, 64, 32, 16)}

    def units(self, model: ir.Model, ctx: PassContext) -> list[Unit]:
        """List the weights, by the nodes that read them."""
        work = model.clone()
        found = (tuple(weight.readers) for weight in self._weights(work, ctx))
        return [  # an LSTM has two weights and is one unit
            Unit(str(readers[0].name), readers[0].op_type, tuple(str(node.name) for node in readers))
            for readers in dict.fromkeys(found)
        ]

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Quantize every weight that pays."""
        editor = GraphEditor(model.graph)
        counters: dict[str, int] = {}
        for weight in self._weights(model, ctx):
            form = self._form(weight, ctx)
            self._write(model, editor, weight, form)
            key = f"int{self.config.bits} weights, {form}"
            counters[key] = counters.get(key, 0) + 1
        drop_unread(model)
        return PassStats(modified=bool(counters), counters=counters)

    def simulate(self, model: ir.Model, ctx: PassContext) -> Simulation | None:
        """Return a model that holds every weight twice, rounded and as it was, with a switch for each."""
        work = model.clone()
        editor = GraphEditor(work.graph)
        weights = list(self._weights(work, ctx))
        if not weights:
            return None
        readers = [{str(node.name) for node in weight.readers} for weight in weights]
        version = opset(work)
        switches = ir.val(SWITCHES, dtype=ir.DataType.BOOL, shape=[len(weights)])
        work.graph.inputs.append(switches)
        for index, weight in enumerate(weights):
            rounded = editor.constant(self._levels(weight, self._form(weight, ctx), version).dequantized)
            pick = editor.node("Gather", [switches, editor.constant(np.int64(index))])
            kept = editor.constant(weight.array)
            chosen = editor.node("Where", [pick.outputs[0], rounded, kept])
            replace_weight(work, weight.value, [pick, chosen])

        def switched(left_out: Collection[str]) -> dict[str, NDArray[np.bool_]]:
            return {SWITCHES: np.array([not names & set(left_out) for names in readers])}

        return Simulation(work, switched)

    def _weights(self, model: ir.Model, ctx: PassContext) -> Iterator[Weight]:
        """Yield the weights that are to be quantized; the others are recorded in ``ctx``, with the reason."""
        for graph in model.graphs():
            name_nodes(graph)
        version = opset(model)
        for weight in weights_of(model, {op: _OPS[op] for op in self.config.ops}, ctx):
            if reason := self._why_not(weight, version, ctx):
                for node in weight.readers:
                    ctx.skip(node, reason)
            else:
                yield weight

    def _why_not(self, weight: Weight, version: int, ctx: PassContext) -> str | None:
        if any(node.name in self.config.exclude for node in weight.readers):
            return "excluded"
        if reason := weight.why_not:
            return reason
        if reasons := [why for node in weight.readers if (why := _why_not_read(node, len(weight.tensor.shape)))]:
            return reasons[0]
        if weight.array.size < self.config.min_elements:
            return "the weight is too small to pay"
        form = self._form(weight, ctx)
        needed = _INT4_OPSET if self.config.bits == 4 else _AXIS_OPSET if form == "dequantize" else 1
        if form != "nbits" and version < needed:
            return f"opset {version} can't express it: run upgrade-opset to {needed} first"
        if self._bytes(weight, form, version) > _MOST_OF_ITS_SIZE * weight.array.nbytes:
            return "its scales would take too much of what its levels save"
        return None

    def _bytes(self, weight: Weight, form: Form, version: int) -> float:
        """Return about what a quantized weight takes on disk."""
        rows, columns = _matrix(weight.readers[0], weight.array.shape)
        channels = weight.array.size // rows if columns else rows
        elements = weight.array.size // channels
        block = block_size(elements, self._block_size(form, version), pad=form == "nbits")
        blocks = channels * -(-elements // block)
        return blocks * (block * self.config.bits / 8 + _SCALE_BYTES) + _NODES_BYTES

    def _form(self, weight: Weight, ctx: PassContext) -> Form:
        forms = _FORMS.get(ctx.target.name)
        otherwise: Form = "dequantize" if forms is None else "fold"
        if self.config.form not in ("auto", "nbits"):
            return self.config.form  # type: ignore[return-value]
        if forms is None and self.config.form == "auto":
            return otherwise
        wanted = {(forms or _MEASURED).get(node.op_type, otherwise) for node in weight.readers}
        return "nbits" if wanted == {"nbits"} and all(map(_is_product, weight.readers)) else otherwise

    def _block_size(self, form: Form, version: int) -> int:
        return 0 if form == "dequantize" and version < _BLOCKS_OPSET else self.config.block_size

    def _levels(self, weight: Weight, form: Form, version: int) -> Levels:
        config = self.config
        numbers = Numbers(config.bits, self._block_size(form, version), config.symmetric, config.weights)
        rows, columns = _matrix(weight.readers[0], weight.array.shape)
        return quantized(weight.array, numbers, rows=rows, columns=columns, pad=form == "nbits")

    def _write(self, model: ir.Model, editor: GraphEditor, weight: Weight, form: Form) -> None:
        if form == "nbits":
            model.opset_imports.setdefault(MICROSOFT, 1)
            self._multiply(editor, weight)
            return
        if self.config.bits < 8:
            model.ir_version = max(model.ir_version, _INT4_IR)
        writers = {"fold": fold, "dequantize": dequantize}
        replace_weight(model, weight.value, writers[form](editor, self._levels(weight, form, opset(model))))

    def _multiply(self, editor: GraphEditor, weight: Weight) -> None:
        """Give every reader of a weight the kernel that reads its levels."""
        for columns in (True, False):  # one weight may be read both ways
            readers = [node for node in weight.readers if _matrix(node, weight.array.shape)[1] is columns]
            if not readers:
                continue
            levels = self._levels(Weight(weight.value, weight.tensor, readers), "nbits", 0)
            for node in readers:
                assert node.inputs[0] is not None
                product = matmul_nbits(editor, node.inputs[0], levels, self.config.accuracy_level)
                bias = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else None
                new = [product] if bias is None else [product, editor.node("Add", [product.outputs[0], bias])]
                _take_place(node, new)


def _take_place(node: ir.Node, new: list[ir.Node]) -> None:
    """Put nodes in the place of one whose name and output they take over."""
    graph, old, result = node.graph, node.outputs[0], new[-1].outputs[0]
    assert graph is not None
    result.type, result.shape = old.type, old.shape
    name = old.name
    old.replace_all_uses_with(result, replace_graph_outputs=True)
    old.name, result.name = None, name
    new[-1].name = node.name
    graph.insert_before(node, new)
    graph.remove(node, safe=True)


def _matrix(node: ir.Node, shape: tuple[int, ...]) -> tuple[int, bool]:
    """Return the rows of the matrix that a node's weight is, and whether its columns are the channels."""
    if node.op_type in _RECURRENT:
        return shape[0] * shape[1], False
    columns = node.op_type in ("ConvTranspose", "Gemm", "MatMul") and node.attributes.get_int("transB", 0) == 0
    return shape[0], columns


def _why_not_read(node: ir.Node, rank: int) -> str | None:
    """Say what about a reader keeps its weight float, or None."""
    if rank < 2 or (rank > 2 and node.op_type == "MatMul"):
        return "the weight is not a matrix"
    if node.op_type == "Gather" and node.attributes.get_int("axis", 0) != 0:
        return "gathers along another axis"
    return None


def _is_product(node: ir.Node) -> bool:
    """Whether a node is a plain product, and a bias."""
    attributes = node.attributes
    scaled = attributes.get_float("alpha", 1.0) != 1.0 or attributes.get_float("beta", 1.0) != 1.0
    return not scaled and attributes.get_int("transA", 0) == 0
