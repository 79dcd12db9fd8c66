"""Give quantized layers the mean output that they had in float.

Before, after::

    DQ(x8), DQ(W8), DQ(b32) -> Conv -> y      DQ(x8), DQ(W8), DQ(b32 + (E[y_float] - E[y]) / scale) -> Conv -> y

Rounding and saturation move the mean of a layer's output, channel by channel, and the layers behind it add up such
shifts. The difference of the means over the calibration samples, float model less quantized one, belongs to the bias:
that of a Conv, ConvTranspose or Gemm (one is made where there is none), or the constant that an Add behind a matrix
product adds. Layers go in forward order, as each correction changes what comes after; those that do not feed each other
go together.
Declines: layers that are float; those whose bias is neither float32 nor int32, or whose output the float model lacks.
Source: Nagel et al. 2019, section 4.2 (empirical bias correction); Banner et al. 2019, section 4.
"""

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnxcomp.errors import PassError, RecipeError
from onnxcomp.passbase import Need, Pass, PassContext, PassStats
from onnxcomp.passes.cleanup._graph import stages
from onnxcomp.passes.quantize.biases import BiasSlot, bias_slot
from onnxcomp.passes.quantize.editor import GraphEditor, drop_unused_initializers, name_nodes
from onnxcomp.passes.quantize.placement import constant
from onnxcomp.statistics import collect_means, inner_values

__all__ = ["BiasCorrect", "BiasCorrectConfig"]

_BY_CHANNEL = ("Conv", "ConvTranspose")  # their channels are axis 1; those of products are the last


@dataclass(frozen=True, slots=True)
class BiasCorrectConfig:
    """Settings of bias correction.

    Attributes:
        runs: Calibration samples at most, spread evenly over all.
        exclude: Names of nodes whose bias stays as it is.
    """

    runs: int = 32
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.runs < 1:
            raise RecipeError(f"runs must be 1 or more, got {self.runs}")


@dataclass(frozen=True, slots=True)
class _Layer:
    """A quantized layer.

    Attributes:
        slot: Its bias.
        reference: What the float model calls its result.
        axis: Of the result's channels.
    """

    slot: BiasSlot
    reference: str
    axis: int


class BiasCorrect(Pass[BiasCorrectConfig]):
    """Correct biases by the mean error that quantization causes."""

    name: ClassVar[str] = "bias-correct"
    Config = BiasCorrectConfig
    exact: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATION})

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Correct all quantized layers."""
        if ctx.samples is None or ctx.reference is None:
            raise PassError(
                "bias correction needs calibration samples, and a model that was float when the recipe began",
                hint="--calibration DATA",
            )
        name_nodes(model.graph)
        known = set(inner_values(ctx.reference.model))
        layers = [layer for node in model.graph if (layer := self._layer(node, known, ctx)) is not None]
        if not layers:
            return PassStats(modified=False)
        editor, samples = GraphEditor(model.graph), ctx.samples.spread(self.config.runs)
        wanted = ctx.reference.get({layer.reference: layer.axis for layer in layers}, self.config.runs)
        by_node = {layer.slot.node: layer for layer in layers}
        for stage in stages(model.graph, by_node):
            now = [by_node[node] for node in stage]
            axes = {str(layer.slot.result.name): layer.axis for layer in now}
            found = collect_means(model, samples, axes, threads=ctx.threads, progress=ctx.progress)
            for layer in now:
                layer.slot.add(wanted[layer.reference] - found[str(layer.slot.result.name)], editor)
        drop_unused_initializers(model.graph)
        return PassStats(modified=True, counters={"biases corrected": len(layers)})

    def _layer(self, node: ir.Node, known: set[str], ctx: PassContext) -> _Layer | None:
        """Return a quantized layer that can be corrected; None: it is no such layer, or is skipped."""
        outputs = _outputs(node)
        if outputs is None:
            return None
        slot = bias_slot(_end(node), outputs)
        name = None if slot is None else _float_name(slot.result, known)
        if node.name in self.config.exclude:
            ctx.skip(node, "excluded")
        elif slot is None:
            ctx.skip(node, "it has no bias of float32 or int32, nor place for one")
        elif name is None:
            ctx.skip(node, "the float model has no such tensor")
        else:
            return _Layer(slot, name, 1 if node.op_type in _BY_CHANNEL else -1)
        return None


def _outputs(node: ir.Node) -> int | None:
    """Return the number of output channels of a layer with quantized weights; None: it is none."""
    if node.op_type == "MatMulNBits":
        return node.attributes.get_int("N", 0)
    if node.op_type not in (*_BY_CHANNEL, "Gemm", "MatMul", "MatMulInteger") or node.domain != "":
        return None
    value = node.inputs[1]
    if node.op_type != "MatMulInteger":
        made = None if value is None else value.producer()
        value = made.inputs[0] if made is not None and made.op_type == "DequantizeLinear" else None
    weight = constant(value)
    if weight is None:
        return None
    shape = weight.shape.numpy()
    if node.op_type == "ConvTranspose":
        return int(shape[1] * node.attributes.get_int("group", 1))
    first = node.op_type == "Conv" or (node.op_type == "Gemm" and node.attributes.get_int("transB", 0) != 0)
    return int(shape[0 if first else -1])


def _end(node: ir.Node) -> ir.Node:
    """Return the node that gives a layer's float result: the last one of what dynamic quantization writes."""
    while node.op_type in ("MatMulInteger", "Cast"):
        readers = node.outputs[0].consumers()
        if len(readers) != 1 or readers[0].op_type not in ("Cast", "Mul"):
            break
        node = readers[0]
    return node


def _float_name(value: ir.Value, known: set[str]) -> str | None:
    """Return what the float model calls a tensor: an output of the graph gave its name to what is dequantized."""
    if value.name in known:
        return str(value.name)
    for quantize in value.consumers():
        for dequantize in quantize.outputs[0].consumers() if quantize.op_type == "QuantizeLinear" else ():
            if dequantize.outputs[0].name in known:
                return str(dequantize.outputs[0].name)
    return None
