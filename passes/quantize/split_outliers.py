"""Outlier channel splitting: halve the largest weights, and let two channels do what one did.

::

    Conv(W1) -> Relu -> Conv(W2)   ==>   Conv(W1 and some rows again) -> Relu -> Conv(W2 with those columns in halves)
    w  ==>  w / 2 - step / 4,  w / 2 + step / 4

One large weight gives a whole tensor a coarse grid. The input channel that holds it is split, its weights halved, and
so on until a share of the channels is split. The halves lie a quarter of a step beside the middle, so that their
rounded sum is what the weight would have been rounded to. The layer before makes the channel twice where it feeds this
layer alone, through functions of single elements or pools; else a Gather repeats it.

It pays where a weight has one scale for all its channels. It costs the same share of memory and time.

Declines: grouped convolutions; weights that are not constant float32 or are used elsewhere too; layers so narrow that
the channels added would be more than a quarter; weights in which nothing sticks out.

Correct because ``w x = w' x + w'' x`` where ``w' + w'' = w``. Tensors with more channels get new names.

Source: Zhao et al., "Improving Neural Network Quantization without Retraining using Outlier Channel Splitting", ICML
2019, sections 3.1 to 3.3 (equation 5: the halves).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar
from zlib import crc32

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxcomp.errors import RecipeError
from onnxcomp.passbase import Pass, PassContext, PassStats
from onnxcomp.passes.cleanup._graph import Names, float_constant, int_attribute, is_op
from onnxcomp.passes.cleanup._shapes import Shapes, infer
from onnxcomp.passes.quantize.chains import Chain, follow, made_by, rename
from onnxcomp.passes.quantize.layers import Edit, Layer, layer_of, write

__all__ = ["SplitOutliers", "SplitOutliersConfig", "halved", "outlying_channels"]

_MOST = 0.25  # of the input channels of a layer are added
_FUNCTIONS = frozenset({"Clip", "Elu", "Erf", "Gelu", "HardSigmoid", "HardSwish", "Selu", "Sigmoid", "Softplus",
                        "Softsign", "Tanh"})  # fmt: skip


@dataclass(frozen=True, slots=True)
class SplitOutliersConfig:
    """Settings of outlier channel splitting.

    Attributes:
        ratio: Share of the input channels of each layer that is split.
        multiple: The number of channels added is rounded up to a multiple of this: odd ones make slow kernels.
        gain: Layers whose scale would shrink by less than this share are left alone.
        bits: Of the quantized weights.
        per_channel: Whether their scales are by output channel.
        gather: Repeat channels by a Gather where the layer before can't make them twice.
        exclude: Names of layers that are left alone.
    """

    ratio: float = 0.02
    multiple: int = 4
    gain: float = 0.05
    bits: int = 8
    per_channel: bool = False
    gather: bool = True
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.ratio <= _MOST:
            raise RecipeError(f"ratio must be in (0, {_MOST:g}], got {self.ratio}")
        if self.multiple < 1:
            raise RecipeError(f"multiple must be 1 or more, got {self.multiple}")
        if not 0 <= self.gain < 1:
            raise RecipeError(f"gain must be in [0, 1), got {self.gain}")
        if not 2 <= self.bits <= 8:
            raise RecipeError(f"bits must be in 2..8, got {self.bits}")


class SplitOutliers(Pass[SplitOutliersConfig]):
    """Outlier channel splitting: two channels with half the weights in the place of one with the largest."""

    name: ClassVar[str] = "split-outliers"
    Config = SplitOutliersConfig
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the model in place."""
        shapes, names = infer(model), Names(model)
        counts: Counter[str] = Counter()
        for node in tuple(model.graph):
            layer = layer_of(node)
            if layer is None:
                continue
            found = self._columns(layer, ctx) if isinstance(layer, Layer) else layer
            if isinstance(layer, str) or isinstance(found, str):
                ctx.skip(node, str(found))
                continue
            order, step = found
            if reason := self._apply(layer, order, step, shapes=shapes, names=names):
                ctx.skip(node, reason)
                continue
            counts["layers split"] += 1
            counts["channels added"] += len(order)
            before = node.inputs[0]
            counts["Gather inserted"] += before is not None and is_op(before.producer(), "Gather")
        return PassStats(modified=counts.total() > 0, counters=dict(+counts))

    def _columns(self, layer: Layer, ctx: PassContext) -> tuple[list[int], NDArray[np.float64]] | str:
        """Choose the columns to halve, one after the other, and the step of the grid afterwards; or say why not."""
        if layer.node.name in self.config.exclude:
            return "excluded"
        if layer.matrix.shape[0] != 1:
            return "its channels lie in groups"
        if layer.shared:
            return "its weights are used elsewhere too"
        if is_op(layer.node, "Gemm") and int_attribute(layer.node, "transA", 0):
            return "it reads its input turned"
        count = math.ceil(self.config.ratio * layer.inputs / self.config.multiple) * self.config.multiple
        if count > _MOST * layer.inputs:
            return f"{count} channels more would be too many for {layer.inputs}"
        largest = np.abs(layer.matrix[0]).max(axis=2)  # [out, in]
        groups = largest if self.config.per_channel else largest.max(axis=0, keepdims=True)
        order = outlying_channels(groups, count)
        after = halved(groups[:, :, None], order, np.zeros(len(groups))).max(axis=(1, 2))
        before = groups.max(axis=1)
        if after.sum() > (1 - self.config.gain) * before.sum():
            return "no weights stick out"
        levels = 2 ** (self.config.bits - 1 - ctx.target.reduce_range) - 1
        return order, np.broadcast_to(after / levels, (layer.outputs,))

    def _apply(
        self, layer: Layer, order: Sequence[int], step: NDArray[np.float64], *, shapes: Shapes, names: Names
    ) -> str | None:
        """Split the weights of a layer and repeat the channels that it reads, or say why not."""
        value = layer.node.inputs[0]
        assert value is not None
        sources = _sources(layer.inputs, order)
        edits = [Edit(layer.node, 1, layer.stored(halved(layer.matrix[0], order, step)[None]))]
        found = _maker(value, layer, shapes)
        if found is None and not self.config.gather:
            return "what comes before can't make channels twice"
        if found is not None:
            edits += _widened(*found, sources)
        if reason := write(edits, names):
            return reason
        mark = f"{crc32(sources.tobytes()):08x}"
        if found is None:
            _gather(layer, value, sources, names.fresh(f"{value.name}.{mark}"), names)
        else:
            rename(found[1].tensors, mark, names)
            for tensor in found[1].tensors:
                tensor.shape = None
        return None


def outlying_channels(largest: NDArray[np.float64], count: int) -> list[int]:
    """Choose what to split, so that the scales shrink most: each time the channel that now holds the largest weights.

    Args:
        largest: Largest magnitudes by scale and input channel: [scales, channels].
        count: How many splits.

    Returns:
        Column of each split; the second half becomes a new last column, which may be split again.
    """
    work = largest.copy()
    order = []
    for _ in range(count):
        first = work.max(axis=1)
        at = work.argmax(axis=1)
        rest = work.copy()
        rest[np.arange(len(work)), at] = 0.0
        gained = first**2 - np.maximum(rest.max(axis=1), first / 2) ** 2  # of noise power, by splitting at[i]
        per_column = np.bincount(at, weights=gained, minlength=work.shape[1])
        column = int(per_column.argmax()) if per_column.max() > 0 else int(at[first.argmax()])
        order.append(column)
        work[:, column] /= 2
        work = np.concatenate([work, work[:, column : column + 1]], axis=1)
    return order


def halved(weights: NDArray[np.float64], order: Sequence[int], step: NDArray[np.float64]) -> NDArray[np.float64]:
    """Split columns of weights, one after the other (Zhao et al. 2019, equation 5).

    Args:
        weights: [out, in, kernel].
        order: Columns to split; the second half of each becomes a new last column.
        step: Of the grid that the weights will be rounded to, [out]; 0 for plain halves.
    """
    columns = [weights[:, index] for index in range(weights.shape[1])]
    quarter = step[:, None] / 4
    for index in order:
        half = columns[index] / 2
        columns[index] = half - quarter
        columns.append(half + quarter)
    return np.stack(columns, axis=1)


def _sources(channels: int, order: Sequence[int]) -> NDArray[np.int64]:
    """Return which of the old channels each of the new ones repeats."""
    found = list(range(channels))
    for index in order:
        found.append(found[index])
    return np.array(found, np.int64)


def _maker(value: ir.Value, reader: Layer, shapes: Shapes) -> tuple[Layer, Chain] | None:
    """Return the layer that makes the channels for this reader alone, and what lies between; None: a Gather must do."""
    node = value.producer()
    while node is not None and not isinstance(layer_of(node), Layer):
        sources = [v for v in node.inputs if v is not None and v.producer() is not None and float_constant(v) is None]
        if len(sources) != 1 or is_op(node, "Reshape"):
            return None
        node = sources[0].producer()
    maker = layer_of(node)
    if not isinstance(maker, Layer) or maker.matrix.shape[0] != 1 or maker.shared:
        return None
    if maker.bias is not None and float_constant(maker.bias) is None:
        return None
    chain = follow(maker.node.outputs[0], made_by(maker, shapes), maker.outputs, shapes, also=_FUNCTIONS)
    if isinstance(chain, str) or [found.layer.node for found in chain.readers] != [reader.node]:
        return None
    return (maker, chain) if chain.readers[0].place.repeat == 1 else None


def _widened(maker: Layer, chain: Chain, sources: NDArray[np.int64]) -> list[Edit]:
    """Return the constants of a layer, and of what follows it, with channels repeated."""
    channels = maker.outputs
    edits = [Edit(maker.node, 1, maker.stored(maker.matrix[:, sources]))]
    operands = [(node, index, place.axis) for node, index, place in chain.operands]
    for node, index, axis in [*operands, (maker.node, 2, -1)]:
        array = float_constant(node.inputs[index]) if index < len(node.inputs) else None
        if array is not None and array.ndim >= -axis and array.shape[axis] == channels > 1:
            edits.append(Edit(node, index, np.take(array, sources, axis=axis)))
    return edits


def _gather(layer: Layer, value: ir.Value, sources: NDArray[np.int64], name: str, names: Names) -> None:
    """Put a Gather before a layer that repeats channels of what it reads."""
    graph = layer.node.graph
    assert isinstance(graph, ir.Graph)
    tensor = ir.tensor(sources, name=names.fresh(f"{name}.channels"))
    indices = ir.val(str(tensor.name), const_value=tensor)
    graph.register_initializer(indices)
    axis = -1 if layer.rank is None else 1
    gather = ir.node("Gather", [value, indices], attributes={"axis": axis}, name=name)
    gather.outputs[0].name, gather.outputs[0].type = name, value.type
    graph.insert_before(layer.node, gather)
    layer.node.replace_input_with(0, gather.outputs[0])
