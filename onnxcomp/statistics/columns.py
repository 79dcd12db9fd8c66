"""How a linear layer reads its input: the vectors that its weights are multiplied with, one per output position.

A convolution multiplies each row of its weight, ``[channels / groups * kernel]``, with a patch of its padded input
("im2col"); a matrix product with a row of it. Both are the same to whoever works on weights: ``y = W x + b``.
"""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Columns", "Window", "columns_of", "draw", "recurrent_columns"]


@dataclass(frozen=True, slots=True)
class Window:
    """The patches of a convolution with any number of spatial axes.

    Attributes:
        kernel: Sizes.
        strides: Steps between output positions.
        dilations: Steps inside a patch.
        pads: Begins, then ends.
        auto_pad: ``NOTSET``, ``VALID``, ``SAME_UPPER`` or ``SAME_LOWER``.
        groups: Each has its own share of the channels.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    auto_pad: str = "NOTSET"
    groups: int = 1

    def padding(self, sizes: tuple[int, ...]) -> list[tuple[int, int]]:
        """Return what is added before and behind each spatial axis of these sizes."""
        if not self.auto_pad.startswith("SAME"):
            return list(zip(self.pads[: len(sizes)], self.pads[len(sizes) :], strict=True))
        found = []
        for size, kernel, stride, dilation in zip(sizes, self.kernel, self.strides, self.dilations, strict=True):
            total = max((-(-size // stride) - 1) * stride + dilation * (kernel - 1) + 1 - size, 0)
            small, large = total // 2, total - total // 2
            found.append((small, large) if self.auto_pad == "SAME_UPPER" else (large, small))
        return found

    def positions(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Return how often the window fits along each spatial axis of these sizes: the sizes of the output."""
        reach = [dilation * (kernel - 1) + 1 for dilation, kernel in zip(self.dilations, self.kernel, strict=True)]
        padded = [size + sum(ends) for size, ends in zip(sizes, self.padding(sizes), strict=True)]
        return tuple((n - r) // s + 1 for n, r, s in zip(padded, reach, self.strides, strict=True))


@dataclass(frozen=True, slots=True)
class Columns:
    """How one layer reads its input, and how its weight is laid out for that.

    Attributes:
        tensor: Name of the input.
        length: Of a vector, K; the same in every group.
        window: Of a convolution; None: the vectors are rows of a matrix.
        axis: Of the input that they lie along where there is no window; the last one but for Gemm's transA.
        weight_transposed: The weight is [K, outputs], not [outputs, K].
        directions: Of a recurrent layer; each has a product of its own.
        hidden: The vectors are hidden states, [time, directions, batch, K], not inputs, [time, batch, K].
    """

    tensor: str
    length: int
    window: Window | None = None
    axis: int = -1
    weight_transposed: bool = False
    directions: int = 1
    hidden: bool = False

    @property
    def groups(self) -> int:
        """Number of independent products."""
        return self.directions if self.window is None else self.window.groups

    def rows(self, weight: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Return a weight as [groups, outputs / groups, K]."""
        matrix = weight.T if self.weight_transposed else weight
        return matrix.reshape(self.groups, -1, self.length)

    def weight(self, rows: npt.NDArray[np.floating], shape: tuple[int, ...]) -> npt.NDArray[np.floating]:
        """Return rows as a weight of this shape again: the inverse of ``rows``."""
        if self.weight_transposed:
            return np.ascontiguousarray(rows.reshape(shape[::-1]).T)
        return rows.reshape(shape)

    def take(self, values: npt.NDArray[np.floating], most: int, rng: np.random.Generator) -> npt.NDArray[np.floating]:
        """Return the vectors of some output positions: [groups, positions, K].

        Args:
            values: The input of one run.
            most: Positions at most; of more, so many are drawn without repetition.
            rng: Draws them.
        """
        return self.at(values, draw(self.count(values), most, rng))

    def count(self, values: npt.NDArray[np.floating]) -> int:
        """Return the number of output positions of a run, given the input."""
        if self.window is not None:
            return len(values) * math.prod(self.window.positions(values.shape[2:]))
        return values.size // max(self.length * (self.directions if self.hidden else 1), 1)

    def at(self, values: npt.NDArray[np.floating], places: npt.NDArray[np.int64]) -> npt.NDArray[np.floating]:
        """Return the vectors of these output positions, counted in the order of the output: [groups, positions, K]."""
        if self.hidden:
            return np.moveaxis(values, 1, 0).reshape(self.directions, -1, self.length)[:, places]
        if self.window is None:
            rows = np.moveaxis(values, self.axis, -1).reshape(-1, self.length)[places]
            return np.broadcast_to(rows, (self.directions, *rows.shape))
        return _patches(values, self.window, places)


def recurrent_columns(node: "ir.Node", index: int) -> Columns | None:
    """Return how the weight of an LSTM, GRU or RNN at this input, 1 or 2, reads inputs or hidden states; else None.

    The states are those that the layer puts out, which are what it reads but for the first and the last; they are known
    where that output is there.
    """
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("LSTM", "GRU", "RNN") or index not in (1, 2):
        return None
    source, weight = node.inputs[0] if index == 1 else node.outputs[0], node.inputs[index]
    tensor = None if weight is None else weight.const_value
    if source is None or not source.name or tensor is None or node.attributes.get_int("layout", 0) != 0:
        return None
    directions, _, length = (int(size) for size in tensor.shape.numpy())
    return Columns(str(source.name), length, directions=directions, hidden=index == 2)


def columns_of(node: "ir.Node") -> Columns | None:
    """Return how a Conv, Gemm or MatMul with a weight of known shape as its second input reads its first; else None.

    What its weight is, a constant or not, and whether its attributes make sense is the caller's business.
    """
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("Conv", "Gemm", "MatMul"):
        return None
    x, weight = node.inputs[:2]
    tensor = None if weight is None else weight.const_value
    if x is None or tensor is None:
        return None
    shape = tuple(int(size) for size in tensor.shape.numpy())
    if node.op_type != "Conv":
        if len(shape) != 2:
            return None
        swapped = node.op_type == "MatMul" or not node.attributes.get_int("transB", 0)
        turned = node.op_type == "Gemm" and bool(node.attributes.get_int("transA", 0))
        return Columns(str(x.name), shape[0 if swapped else 1], axis=0 if turned else -1, weight_transposed=swapped)
    axes, attributes = len(shape) - 2, node.attributes
    window = Window(
        kernel=shape[2:],
        strides=tuple(attributes.get_ints("strides", [1] * axes)),
        dilations=tuple(attributes.get_ints("dilations", [1] * axes)),
        pads=tuple(attributes.get_ints("pads", [0] * 2 * axes)),
        auto_pad=attributes.get_string("auto_pad", "NOTSET"),
        groups=attributes.get_int("group", 1),
    )
    return Columns(str(x.name), math.prod(shape[1:]), window)


def draw(total: int, most: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Return all numbers below a total, or so many of them, drawn without repetition, ascending."""
    return np.arange(total) if total <= most else np.sort(rng.choice(total, most, replace=False))


def _patches(
    values: npt.NDArray[np.floating], window: Window, places: npt.NDArray[np.int64]
) -> npt.NDArray[np.floating]:
    batch, sizes = len(values), values.shape[2:]  # [N, C, *spatial]
    axes = len(sizes)
    padding = window.padding(sizes)
    padded = np.pad(values, [(0, 0), (0, 0), *padding]) if any(map(any, padding)) else values
    image, *position = np.unravel_index(places, (batch, *window.positions(sizes)))
    where = []
    for axis in range(axes):
        first = position[axis] * window.strides[axis]
        taps = np.arange(window.kernel[axis]) * window.dilations[axis]
        along = [1] * axes
        along[axis] = -1
        where.append((first[:, None] + taps).reshape(len(places), *along))
    drawn_first: tuple[npt.NDArray[np.int64] | slice, ...] = (image.reshape(-1, *[1] * axes), slice(None), *where)
    found = padded[drawn_first]  # [P, *kernel, C]: numpy puts the axes of what is drawn first
    patches = np.moveaxis(found, -1, 1).reshape(len(places), window.groups, -1)
    return patches.transpose(1, 0, 2)
