"""Write a placement into a graph as QuantizeLinear/DequantizeLinear pairs, the form that onnxruntime fuses.

Before, after::

    x -> Conv(W, b) -> Relu -> y
    x -> Q -> DQ -> Conv(DQ(W8), DQ(b32)) -> Relu -> Q -> DQ -> y

Float weights that were replaced go. Zero points of weights and biases are left out where
onnxruntime does without: absent means 0.
"""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnxcomp.passes.quantize.editor import GraphEditor
from onnxcomp.passes.quantize.placement import Placement, activations, constant, scale_factor, scaled_axis
from onnxcomp.statistics import Range
from onnxcomp.target import Role, Target
from onnxcomp.thresholds import Affine, affine, quantize_weights

__all__ = ["QdqWriter", "measured_tensors"]


def measured_tensors(placement: Placement) -> list[str]:
    """Name the tensors whose ranges the writer needs."""
    names: dict[str, None] = {}
    for node, role in placement.roles.items():
        if role in (Role.ANCHOR, Role.JOIN):
            names[str(placement.output(node).name)] = None
        names.update((str(value.name), None) for value in activations(node, role))
    return list(names)


class QdqWriter:
    """Writes one placement into its graph.

    Args:
        graph: Changed in place.
        placement: What becomes integer.
        ranges: By tensor name, for each of ``measured_tensors``.
        target: Integer types.
        per_channel: One scale per output channel of a weight; else one per weight.
        method: How they are chosen, of ``thresholds.WEIGHT_METHODS``.
    """

    def __init__(
        self,
        graph: ir.Graph,
        placement: Placement,
        ranges: Mapping[str, Range],
        target: Target,
        *,
        per_channel: bool,
        method: str = "minmax",
    ) -> None:
        self._graph = graph
        self._placement = placement
        self._ranges = ranges
        self._dtype, self._symmetric = np.dtype(target.activations), target.symmetric
        self._bits = 7 if target.reduce_range else 8
        self._per_channel = per_channel
        self._quantized_bias = target.quantized_bias
        self._method = method
        self._quantizers: dict[ir.Value, Affine] = {}
        self._dequantized: dict[ir.Value, ir.Value] = {}
        self._unscaled: dict[ir.Value, ir.Value] = {}  # the tensor that another is a multiple of
        self._editor = GraphEditor(graph)

    def write(self) -> int:
        """Insert the pairs; return how many nodes became integer."""
        for node, role in self._placement.roles.items():
            self._choose_quantizers(node, role)
        for node, role in self._placement.roles.items():
            self._rewrite(node, role)
        self._close_sources()
        self._drop_unread()
        return len(self._placement.roles)

    def _choose_quantizers(self, node: ir.Node, role: Role) -> None:
        for value in activations(node, role):
            if value not in self._quantizers:
                self._quantizers[value] = self._measured(value)
        if role is Role.MOVE:
            for output in node.outputs:
                self._quantizers[output] = self._quantizers[node.inputs[0]]  # type: ignore[index]
            return
        output = self._placement.output(node)
        if role is Role.SCALE:
            self._scale(node)
            return
        if not self._placement.rounds_output(node):
            return
        if node.op_type == "Softmax":  # the kernel's own fixed quantizer
            self._quantizers[output] = Affine(np.float32(1 / 256), self._dtype.type(np.iinfo(self._dtype).min))
        else:
            self._quantizers[output] = self._measured(output)

    def _scale(self, node: ir.Node) -> None:
        """Let the readers of a scaled tensor read the levels of the unscaled one with a scale of their own."""
        source, factor = next(activations(node, Role.SCALE)), scale_factor(node)
        assert factor is not None
        quantizer = self._quantizers[source]
        self._quantizers[node.outputs[0]] = Affine(np.float32(quantizer.scale * factor), quantizer.zero_point)
        self._unscaled[node.outputs[0]] = source

    def _measured(self, value: ir.Value) -> Affine:
        found = self._ranges[str(value.name)]
        return affine(found.low, found.high, self._dtype, symmetric=self._symmetric)

    def _rewrite(self, node: ir.Node, role: Role) -> None:
        if role is Role.SCALE:
            return
        inputs = list(node.inputs)
        for value in dict.fromkeys(activations(node, role)):
            replacement = self._dequantize(value)
            for index, old in enumerate(inputs):
                if old is value and (role is not Role.MOVE or index == 0):
                    node.replace_input_with(index, replacement)
        if role is Role.ANCHOR:
            self._quantize_weight(node, inputs)
        elif role is Role.JOIN and node.op_type not in ("Softmax", "Where"):
            for index, old in enumerate(inputs):
                if old is not None and (tensor := constant(old)) is not None:
                    node.replace_input_with(index, self._quantized_operand(node, tensor.numpy()))

    def _dequantize(self, value: ir.Value) -> ir.Value:
        """Return the tensor behind the Q/DQ pair of ``value``, made where it does not exist yet."""
        if value not in self._dequantized:
            quantizer = self._quantizers[value]
            parameters = [self._editor.constant(quantizer.scale), self._editor.constant(quantizer.zero_point)]
            if value in self._unscaled:
                levels = _levels(self._dequantize(self._unscaled[value]))
                new = []
            else:
                new = [self._editor.node("QuantizeLinear", [value, *parameters])]
                levels = new[0].outputs[0]
            new.append(self._editor.node("DequantizeLinear", [levels, *parameters]))
            self._editor.after(levels if value in self._unscaled else value, new)
            self._dequantized[value] = new[-1].outputs[0]
        return self._dequantized[value]

    def _close_sources(self) -> None:
        """Let float readers and graph outputs of integer results read behind the pair as well."""
        for node, role in self._placement.roles.items():
            outputs = node.outputs if role is Role.MOVE else [self._placement.output(node)]
            for value in outputs:
                if value not in self._quantizers:
                    continue
                target = self._dequantize(value)
                quantize = _levels(target).producer()
                for user, index in list(value.uses()):
                    if user is not quantize:
                        user.replace_input_with(index, target)
                if value.is_graph_output():
                    for index, output in enumerate(self._graph.outputs):
                        if output is value:
                            self._graph.outputs[index] = target
                    target.name, value.name = value.name, target.name
                    target.shape, target.type = value.shape, value.type
            if role is Role.SCALE:
                self._graph.remove(node, safe=True)

    def _drop_unread(self) -> None:
        """Remove the pairs' second halves that only scaled tensors needed: onnxruntime would compute them."""
        for value in self._dequantized.values():
            node = value.producer()
            if node is not None and not value.uses() and not value.is_graph_output():
                self._graph.remove(node, safe=True)

    def _quantize_weight(self, node: ir.Node, inputs: list[ir.Value | None]) -> None:
        weight = constant(inputs[1])
        assert weight is not None
        axis = scaled_axis(node) if self._per_channel else None
        has_bias = self._quantized_bias and len(inputs) > 2 and node.op_type != "MatMul"
        bias_value = inputs[2] if has_bias else None
        bias_tensor = constant(bias_value)
        bias = None if bias_tensor is None else bias_tensor.numpy().astype(np.float32).reshape(-1)
        input_scale = float(self._quantizers[inputs[0]].scale)  # type: ignore[index]
        quantized, scale = quantize_weights(
            weight.numpy(), axis=axis, bits=self._bits, method=self._method, input_scale=input_scale, bias=bias
        )
        # onnxruntime fuses Gemm only where the weight's zero point is spelled out
        zero_point = np.zeros(scale.shape, np.int8) if node.op_type == "Gemm" else None
        node.replace_input_with(1, self._dequantized_constant(node, quantized, scale, axis, zero_point))
        if bias is not None:
            bias_scale = (input_scale * scale.astype(np.float64)).astype(np.float32)
            levels = np.rint(bias / bias_scale.astype(np.float64)).astype(np.int32)
            node.replace_input_with(
                2, self._dequantized_constant(node, levels, bias_scale, None if axis is None else 0)
            )

    def _quantized_operand(self, node: ir.Node, array: np.ndarray) -> ir.Value:
        low, high = float(array.min(initial=0.0)), float(array.max(initial=0.0))
        quantizer = affine(low, high, self._dtype, symmetric=self._symmetric)
        info = np.iinfo(self._dtype)
        levels = np.rint(array / np.float64(quantizer.scale)) + float(quantizer.zero_point)
        clipped = np.clip(levels, info.min, info.max).astype(self._dtype)
        return self._dequantized_constant(node, clipped, np.asarray(quantizer.scale), None, quantizer.zero_point)

    def _dequantized_constant(
        self,
        node: ir.Node,
        levels: np.ndarray,
        scale: np.ndarray,
        axis: int | None,
        zero_point: np.ndarray | np.generic | None = None,
    ) -> ir.Value:
        inputs: list[ir.Value | None] = [self._editor.constant(levels), self._editor.constant(scale)]
        if zero_point is not None:
            inputs.append(self._editor.constant(zero_point))
        attributes = {} if axis is None or axis == 1 else {"axis": axis}  # 1 is the default
        dequantize = self._editor.node("DequantizeLinear", inputs, **attributes)
        self._graph.insert_before(node, dequantize)
        return dequantize.outputs[0]


def _levels(dequantized: ir.Value) -> ir.Value:
    """Return the integer tensor that a DequantizeLinear reads."""
    node = dequantized.producer()
    assert node is not None
    levels = node.inputs[0]
    assert levels is not None
    return levels
