"""How quantized weights are written: the nodes that give a float tensor back, or the kernel that reads the levels.

A weight is seen as a matrix with its channels as rows or as columns; a group is a channel, or a block along it.

- ``fold``: Cast, (Sub,) Mul: onnxruntime computes it when it loads the model, and runs the float kernel.
- ``dequantize``: DequantizeLinear, the standard's own form: onnxruntime computes it in every run, but for a MatMul.
- ``nbits``: com.microsoft.MatMulNBits, whose kernel reads the levels.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from onnxcomp.passes.quantize.editor import GraphEditor
from onnxcomp.thresholds import Groups, quantize_groups

__all__ = ["MICROSOFT", "Levels", "Numbers", "block_size", "dequantize", "fold", "matmul_nbits", "quantized"]

MICROSOFT = "com.microsoft"
_NBITS_BLOCKS = (16, 32, 64, 128, 256)  # sizes that the kernel knows
_SCALE_ELEMENTS = 8  # about as many take the space of a block's scale


@dataclass(frozen=True, slots=True)
class Numbers:
    """How weights are rounded.

    Attributes:
        bits: 4 or 8.
        block_size: Elements along a channel that share a scale; 0: a channel has one.
        symmetric: Whether 0 is the middle level.
        method: How scales are chosen, of ``thresholds.WEIGHT_METHODS``.
    """

    bits: int
    block_size: int
    symmetric: bool
    method: str


@dataclass(frozen=True, slots=True)
class Levels:
    """A quantized weight.

    Attributes:
        groups: [channels * blocks, block].
        channels: How many.
        block: Elements of a group; the channels are padded with zeros to whole blocks.
        columns: Whether channels are the columns of the matrix (else its rows).
        shape: Of the weight.
        dtype: Of the weight.
        numbers: How it was rounded.
    """

    groups: Groups
    channels: int
    block: int
    columns: bool
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    numbers: Numbers

    @property
    def blocks(self) -> int:
        """How many of them a channel has."""
        return len(self.groups.scale) // self.channels

    @property
    def dequantized(self) -> np.ndarray:
        """The weight that the levels stand for, of its own shape and type."""
        found = self.groups
        steps = (found.levels - found.zero_point[:, None]) * found.scale[:, None]
        elements = math.prod(self.shape) // self.channels
        matrix = steps.reshape(self.channels, -1)[:, :elements]  # without what fills the last block
        return np.ascontiguousarray(matrix.T if self.columns else matrix).reshape(self.shape).astype(self.dtype)


def quantized(weight: np.ndarray, numbers: Numbers, *, rows: int, columns: bool, pad: bool) -> Levels:
    """Quantize a weight.

    Args:
        weight: Of any shape.
        numbers: How.
        rows: Of the matrix that it is seen as.
        columns: Whether the channels are that matrix's columns.
        pad: Whether channels are padded to whole blocks; else blocks are of a size that divides the channel.
    """
    matrix = weight.reshape(rows, -1)
    matrix = matrix.T if columns else matrix  # [channels, elements]
    channels, elements = matrix.shape
    block = block_size(elements, numbers.block_size, pad=pad)
    if missing := -elements % block:
        matrix = np.pad(matrix, ((0, 0), (0, missing)))
    groups = quantize_groups(
        matrix.reshape(-1, block), bits=numbers.bits, symmetric=numbers.symmetric, method=numbers.method
    )
    return Levels(groups, channels, block, columns, weight.shape, weight.dtype, numbers)


def block_size(elements: int, wanted: int, *, pad: bool) -> int:
    """Return how many of a channel's elements share a scale.

    Args:
        elements: Of a channel.
        wanted: As many as possible where 0.
        pad: Whether channels are padded to whole blocks: the size that MatMulNBits knows, up to the one wanted, that
            takes least space. Else the largest that divides the channel, or all of it where that is under half of the
            one wanted.
    """
    if pad:
        sizes = [size for size in _NBITS_BLOCKS if size <= wanted or not wanted]
        return min(sizes, key=lambda size: (-(-elements // size) * (size + _SCALE_ELEMENTS), -size))
    if not wanted or elements <= wanted:
        return elements
    found = next(size for size in range(wanted, 0, -1) if elements % size == 0)
    return found if 2 * found > wanted else elements


def fold(editor: GraphEditor, weight: Levels) -> list[ir.Node]:
    """Return the nodes whose last one gives the weight, in arithmetic that a runtime does ahead.

    Levels are kept as [channels, blocks, block] or, of columns, as [blocks, block, channels].
    """
    to = int(ir.DataType.from_numpy(weight.dtype))
    levels, scale, zero_point = (_laid_out(weight, part) for part in _parts(weight))
    if weight.blocks == 1:
        levels = levels.reshape(weight.shape)
        scale, zero_point = (_beside(part, weight) for part in (scale, zero_point))
    nodes = [editor.node("Cast", [editor.constant(_integers(levels, weight.numbers))], to=to)]
    if not weight.numbers.symmetric:
        offset = editor.node("Cast", [editor.constant(zero_point.astype(np.uint8))], to=to)
        nodes += [offset, editor.node("Sub", [nodes[0].outputs[0], offset.outputs[0]])]
    nodes.append(editor.node("Mul", [nodes[-1].outputs[0], editor.constant(scale.astype(weight.dtype))]))
    return [*nodes, *_reshaped(editor, nodes[-1].outputs[0], weight, levels.shape)]


def dequantize(editor: GraphEditor, weight: Levels) -> list[ir.Node]:
    """Return the nodes whose last one gives the weight: DequantizeLinear, with a ``block_size`` for blocks."""
    levels, scale, zero_point = (_laid_out(weight, part) for part in _parts(weight))
    blocked = weight.blocks > 1
    matrix = (-1, weight.channels) if weight.columns else (weight.channels, -1)
    scale, zero_point = (part.reshape(matrix if blocked else -1) for part in (scale, zero_point))
    attributes = {"axis": int(weight.columns is not blocked), **({"block_size": weight.block} if blocked else {})}
    keeps_shape = not blocked and not weight.columns and weight.shape[0] == weight.channels
    levels = levels.reshape(weight.shape if keeps_shape else matrix)
    inputs: list[ir.Value | None] = [
        editor.constant(_integers(levels, weight.numbers)),
        editor.constant(scale.astype(weight.dtype)),
    ]
    if not weight.numbers.symmetric:
        inputs.append(editor.constant(_integers(zero_point, weight.numbers)))
    node = editor.node("DequantizeLinear", inputs, **attributes)
    return [node, *_reshaped(editor, node.outputs[0], weight, levels.shape)]


def matmul_nbits(editor: GraphEditor, source: ir.Value, weight: Levels, accuracy_level: int) -> ir.Node:
    """Return the node that multiplies by a weight of which only the levels are kept.

    Args:
        editor: Makes it.
        source: [..., K].
        weight: Channels in whole blocks of a power of 2.
        accuracy_level: 4: the kernel rounds ``source`` to int8, block by block; 1: float32.
    """
    bits = weight.numbers.bits
    offset = 1 << (bits - 1) if weight.numbers.symmetric else 0
    levels = (weight.groups.levels + offset).astype(np.uint8).reshape(weight.channels, weight.blocks, weight.block)
    scale = weight.groups.scale.astype(weight.dtype).reshape(weight.channels, weight.blocks)
    inputs: list[ir.Value | None] = [source, editor.constant(_packed(levels, bits)), editor.constant(scale)]
    if not weight.numbers.symmetric:
        zero_point = weight.groups.zero_point.astype(np.uint8).reshape(weight.channels, weight.blocks)
        inputs.append(editor.constant(_packed(zero_point, bits)))
    elements = int(np.prod(weight.shape)) // weight.channels
    sizes = {"K": elements, "N": weight.channels, "bits": bits, "block_size": weight.block}
    node = editor.node("MatMulNBits", inputs, **sizes, accuracy_level=accuracy_level)
    node.domain = MICROSOFT
    return node


def _parts(weight: Levels) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return levels, scales and zero points as [channels, blocks, block] or [channels, blocks, 1]."""
    form = (weight.channels, weight.blocks, -1)
    groups = weight.groups
    return groups.levels.reshape(form), groups.scale.reshape(form), groups.zero_point.reshape(form)


def _laid_out(weight: Levels, part: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(part, 0, -1)) if weight.columns else part


def _beside(part: np.ndarray, weight: Levels) -> np.ndarray:
    """Shape one number per channel so that it fits beside a weight that keeps its shape."""
    if weight.columns:
        return part.reshape(1, *weight.shape[1:])
    leading = next(n for n in range(len(weight.shape) + 1) if np.prod(weight.shape[:n], dtype=int) == weight.channels)
    return part.reshape(*weight.shape[:leading], *[1] * (len(weight.shape) - leading))


def _integers(levels: np.ndarray, numbers: Numbers) -> np.ndarray:
    kind = ir.DataType[f"{'INT' if numbers.symmetric else 'UINT'}{numbers.bits}"]
    return levels.astype(kind.numpy())


def _reshaped(editor: GraphEditor, value: ir.Value, weight: Levels, shape: tuple[int, ...]) -> list[ir.Node]:
    if shape == weight.shape:
        return []
    return [editor.node("Reshape", [value, editor.constant(np.array(weight.shape, np.int64))])]


def _packed(levels: np.ndarray, bits: int) -> np.ndarray:
    """Put two 4-bit levels into a byte, the first one low; an odd last axis gets a 0."""
    if bits == 8:
        return levels
    if levels.shape[-1] % 2:
        levels = np.pad(levels, [(0, 0)] * (levels.ndim - 1) + [(0, 1)])
    return np.asarray(levels[..., 0::2] | (levels[..., 1::2] << 4))
