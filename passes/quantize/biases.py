"""Where a constant vector is added to what a linear layer gives, in float or in int32, and how to change it."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxcomp.passes.quantize.editor import GraphEditor
from onnxcomp.passes.quantize.placement import constant

__all__ = ["BiasSlot", "bias_slot"]

_OWN = ("Conv", "ConvTranspose", "Gemm")  # their third input is their bias
_LARGEST = 2**31 - 1


@dataclass(frozen=True, slots=True)
class BiasSlot:
    """The input of a node that is, or may become, the bias of a layer.

    Attributes:
        node: The layer itself, or the Add behind it.
        index: Of the input.
    """

    node: ir.Node
    index: int

    @property
    def value(self) -> ir.Value | None:
        """What is there; None: nothing yet."""
        return self.node.inputs[self.index] if self.index < len(self.node.inputs) else None

    @property
    def result(self) -> ir.Value:
        """The tensor that has the bias added."""
        return self.node.outputs[0]

    def add(self, shift: npt.NDArray[np.float64], editor: GraphEditor) -> None:
        """Add a vector to the bias; a tensor that other nodes read too stays as it is for them.

        An int32 bias takes up whole multiples of its scale, and no channel goes beyond the largest integer.
        """
        old = self.value
        if (levels := _levels(old)) is not None:
            dequantize, whole, scale = levels
            moved = whole + np.rint(shift / scale)
            kept = np.where(np.abs(moved) <= _LARGEST, moved, whole).astype(np.int32)
            dequantize.replace_input_with(0, editor.constant(kept))
            return
        if old is None:
            scale_of = [_scale(value) for value in self.node.inputs[:2]]
            if self.index >= len(self.node.inputs):
                self.node.resize_inputs(self.index + 1)
            if scale_of[0] is None or scale_of[1] is None:
                self.node.replace_input_with(self.index, editor.constant(shift.astype(np.float32)))
                return
            self._make_int32(shift, (scale_of[0] * scale_of[1]).astype(np.float32), editor)
            return
        tensor = constant(old)
        assert tensor is not None
        array = tensor.numpy()
        moved = (array + shift.reshape(array.shape)).astype(np.float32)
        self.node.replace_input_with(self.index, editor.constant(moved))

    def _make_int32(self, shift: npt.NDArray[np.float64], scale: npt.NDArray[np.float32], editor: GraphEditor) -> None:
        """Make the bias that onnxruntime wants beside quantized inputs: int32, with scale s_x * s_w."""
        whole = np.rint(shift / scale.astype(np.float64))
        kept = np.where(np.abs(whole) <= _LARGEST, whole, 0).astype(np.int32)
        inputs: list[ir.Value | None] = [editor.constant(kept), editor.constant(scale)]
        dequantize = editor.node("DequantizeLinear", inputs, **({"axis": 0} if scale.ndim else {}))
        editor.graph.insert_before(self.node, dequantize)
        self.node.replace_input_with(self.index, dequantize.outputs[0])


def bias_slot(layer: ir.Node, outputs: int) -> BiasSlot | None:
    """Return where the bias of a layer is or may be put; None where there is no place for one.

    Args:
        layer: Whose own bias, or that of the Add that alone reads its result, is meant.
        outputs: Length of the bias.
    """
    if layer.op_type in _OWN:
        slot = BiasSlot(layer, 2)
        fits = slot.value is None or _is_vector(slot.value, outputs) or _levels(slot.value) is not None
        return slot if fits else None
    value = layer.outputs[0]
    readers = value.consumers()
    if len(readers) != 1 or readers[0].op_type != "Add" or readers[0].domain != "" or value.is_graph_output():
        return None
    slot = BiasSlot(readers[0], 1 if readers[0].inputs[0] is value else 0)
    return slot if _is_vector(slot.value, outputs) else None


def _is_vector(value: ir.Value | None, length: int) -> bool:
    """Whether a tensor is a constant float32 vector along the last axis."""
    tensor = constant(value)
    if tensor is None or tensor.dtype != ir.DataType.FLOAT or not tensor.shape.rank():
        return False
    return tensor.size == length == tensor.shape.numpy()[-1] and bool(np.isfinite(tensor.numpy()).all())


def _levels(value: ir.Value | None) -> tuple[ir.Node, npt.NDArray[np.int64], npt.NDArray[np.float64]] | None:
    """Return what dequantizes an int32 bias that one node alone reads, its integers and its scale."""
    node = None if value is None else value.producer()
    if node is None or node.op_type != "DequantizeLinear" or value is None or len(value.uses()) > 1:
        return None
    levels, scale = (constant(v) for v in node.inputs[:2])
    if levels is None or scale is None or levels.dtype != ir.DataType.INT32:
        return None
    return node, levels.numpy().astype(np.int64), scale.numpy().astype(np.float64)


def _scale(value: ir.Value | None) -> npt.NDArray[np.float64] | None:
    """Return the scale of a dequantized tensor; None where it is float."""
    node = None if value is None else value.producer()
    scale = constant(node.inputs[1]) if node is not None and node.op_type == "DequantizeLinear" else None
    return None if scale is None else scale.numpy().astype(np.float64)
