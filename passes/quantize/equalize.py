"""Cross-layer equalization: give the channels between two layers ranges that one scale can serve.

::

    Conv(W1, b1) -> Relu -> Conv(W2)   ==>   Conv(W1 / s, b1 / s) -> Relu -> Conv(s W2),  s = sqrt(r1 r2) / r2

``r1`` is the largest weight that makes a channel, ``r2`` the largest that reads it. Over all pairs of layers again and
again until nothing moves, so that the three of an inverted residual block (a depthwise one in the middle) settle
together. It pays most where a weight has one scale for all its channels.

With the setting ``clips`` a Clip(0, 6) lets those channels through that calibration never saw cut off, and only as far
as they still are not. With ``absorb``, what a channel never falls below before its Relu moves on into the next bias:
``W2 Relu(x) = W2 Relu(x - c) + W2 c`` for ``x >= c``.

Declines: tensors that anything but layers with weights of their own reads in the end (a residual sum, an output of the
model, a subgraph); Clip with an upper bound; weights that are not constant float32. Absorbs nothing before a padded
convolution, whose border does not hold ``c``.

Correct because ``f(x / s) = f(x) / s`` for the functions that ``chains`` lets through. Tensors that were scaled get new
names, and are measured anew.

Source: Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019, equation 11,
sections 4.1.2 and 4.1.3; the bound of what is absorbed is what calibration saw, not three standard deviations.
"""

from dataclasses import dataclass
from typing import ClassVar
from zlib import crc32

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxcomp.errors import PassError, RecipeError
from onnxcomp.passbase import Pass, PassContext, PassStats
from onnxcomp.passes.cleanup._graph import Names, float_attribute, float_constant, ints_attribute, is_op
from onnxcomp.passes.cleanup._shapes import Shapes, infer
from onnxcomp.passes.quantize.chains import Chain, follow, made_by, rename
from onnxcomp.passes.quantize.layers import Edit, Layer, Rescaling, layer_of, write

__all__ = ["Equalize", "EqualizeConfig", "equalizing_scale"]

_SETTLED = 1e-3  # of log(s): when a sweep moves less, it was the last
_WORTHWHILE = 1e-2  # of log(s): pairs that would move less are left as they are


@dataclass(frozen=True, slots=True)
class EqualizeConfig:
    """Settings of cross-layer equalization.

    Attributes:
        sweeps: At most so many times over all pairs.
        faint: Channels whose product of ranges is under this share of the largest are left alone: all they would gain
            is a large bias.
        clips: Let channels through a Clip that calibration never saw cut off.
        absorb: Move what a channel never falls below into the next layer's bias; needs calibration samples.
        exclude: Names of layers whose outputs are left alone.
    """

    sweeps: int = 100
    faint: float = 1e-4
    clips: bool = False
    absorb: bool = False
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.sweeps < 1:
            raise RecipeError(f"sweeps must be 1 or more, got {self.sweeps}")
        if not 0 <= self.faint < 1:
            raise RecipeError(f"faint must be in [0, 1), got {self.faint}")


@dataclass(slots=True)
class _Pair:
    """A layer, those that read it, and the scale between them so far, [channels], with its bounds."""

    layer: Layer
    chain: Chain
    scale: NDArray[np.float64]
    least: NDArray[np.float64]
    most: NDArray[np.float64]
    absorbed: NDArray[np.float64] | None = None

    @property
    def moves(self) -> bool:
        return self.absorbed is not None or float(np.abs(np.log(self.scale)).max()) > _WORTHWHILE


class Equalize(Pass[EqualizeConfig]):
    """Cross-layer equalization: even out the ranges of channels between two layers, exactly."""

    name: ClassVar[str] = "equalize"
    Config = EqualizeConfig
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the model in place."""
        if ctx.ranges is None and (self.config.clips or self.config.absorb):
            raise PassError("the settings clips and absorb need calibration samples", hint="--calibration DATA")
        pairs = self._pairs(model, infer(model), ctx)
        self._bound(pairs, model, ctx)
        _settle(pairs, self.config.sweeps, self.config.faint)
        if self.config.absorb:
            _absorb(pairs, model, ctx)
        moved = [pair for pair in pairs if pair.moves]
        if not moved:
            return PassStats(modified=False)
        names = Names(model)
        if (reason := write(_edits(moved), names)) is not None:
            ctx.skip(moved[0].layer.node, reason)
            return PassStats(modified=False)
        for pair in moved:
            shift = b"" if pair.absorbed is None else pair.absorbed.tobytes()
            rename(pair.chain.tensors, f"{crc32(pair.scale.tobytes() + shift):08x}", names)
        absorbing = sum(pair.absorbed is not None for pair in moved)
        counters = {"layers equalized": len(moved), "biases absorbed": absorbing}
        return PassStats(modified=True, counters={name: count for name, count in counters.items() if count})

    def _pairs(self, model: ir.Model, shapes: Shapes, ctx: PassContext) -> list[_Pair]:
        pairs = []
        for node in model.graph:
            layer = layer_of(node)
            if layer is None:
                continue
            found = "excluded" if node.name in self.config.exclude else self._chain(layer, shapes)
            if isinstance(found, str) or isinstance(layer, str):
                ctx.skip(node, str(found))
            else:
                channels = layer.outputs
                pairs.append(_Pair(layer, found, np.ones(channels), np.zeros(channels), np.full(channels, np.inf)))
        return pairs

    def _chain(self, layer: Layer | str, shapes: Shapes) -> Chain | str:
        if isinstance(layer, str):
            return layer
        if layer.shared:
            return "its weights are used elsewhere too"
        if layer.bias is not None and float_constant(layer.bias) is None:
            return "its bias is not constant"
        found = follow(layer.node.outputs[0], made_by(layer, shapes), layer.outputs, shapes)
        if isinstance(found, Chain) and found.clips and not self.config.clips:
            return f"a Clip at {found.clips[0].high:g} takes no factor per channel"
        return found

    @staticmethod
    def _bound(pairs: list[_Pair], model: ir.Model, ctx: PassContext) -> None:
        """Keep channels behind a Clip as far from its bound as calibration saw them; cut off ones keep their scale."""
        clips = {str(clip.source.name): clip.place.axis for pair in pairs for clip in pair.chain.clips}
        if not clips or ctx.ranges is None:
            return
        found = ctx.ranges.channels(clips, model)
        for pair in pairs:
            for clip in pair.chain.clips:
                high = found[str(clip.source.name)].high.reshape(-1, clip.place.repeat).max(axis=1)
                pair.least = np.maximum(pair.least, np.where(high > clip.high, 1.0, high / clip.high))
                pair.most = np.where(high > clip.high, 1.0, pair.most)


def equalizing_scale(made: np.ndarray, read: np.ndarray) -> NDArray[np.float64]:
    """Return ``s = sqrt(r1 r2) / r2`` (Nagel et al. 2019, equation 11), 1 where a range is 0.

    Args:
        made: r1, largest magnitude of the weights that make each channel: [channels].
        read: r2, largest magnitude of the weights that read it: [channels].
    """
    used = (made > 0) & (read > 0)
    return np.sqrt(np.where(used, made, 1.0) / np.where(used, read, 1.0))


def _settle(pairs: list[_Pair], sweeps: int, faint: float) -> None:
    """Find the scales: over all pairs until a sweep moves none."""
    ranges = {layer.node: np.abs(layer.matrix).max(axis=3) for layer in _layers(pairs)}  # [groups, out, in] per group
    for _ in range(sweeps):
        largest = 0.0
        for pair in pairs:
            made, read = _made(pair, ranges), _read(pair, ranges)
            step = equalizing_scale(made, read)
            product = made * read
            step = np.where(product < faint * product.max(initial=0.0), 1.0, step)
            step = np.clip(pair.scale * step, pair.least, pair.most) / pair.scale
            pair.scale = pair.scale * step
            ranges[pair.layer.node] /= step.reshape(*ranges[pair.layer.node].shape[:2], 1)
            for reader in pair.chain.readers:
                shape = ranges[reader.layer.node].shape
                ranges[reader.layer.node] *= np.repeat(step, reader.place.repeat).reshape(shape[0], 1, shape[2])
            largest = max(largest, float(np.abs(np.log(step)).max()))
        if largest < _SETTLED:
            return


def _layers(pairs: list[_Pair]) -> list[Layer]:
    return [layer for pair in pairs for layer in (pair.layer, *(reader.layer for reader in pair.chain.readers))]


def _made(pair: _Pair, ranges: dict[ir.Node, np.ndarray]) -> NDArray[np.float64]:
    return np.asarray(ranges[pair.layer.node].max(axis=2).reshape(-1))


def _read(pair: _Pair, ranges: dict[ir.Node, np.ndarray]) -> NDArray[np.float64]:
    found = [
        ranges[reader.layer.node].max(axis=1).reshape(-1, reader.place.repeat).max(axis=1)
        for reader in pair.chain.readers
    ]
    return np.asarray(np.max(found, axis=0))


def _absorb(pairs: list[_Pair], model: ir.Model, ctx: PassContext) -> None:
    """Choose what each channel gives to the next bias, in its new scale: what it never fell below before its Relu."""
    able = [pair for pair in pairs if _may_absorb(pair)]
    axes = {str(pair.chain.tensors[0].name): pair.layer.channel_axis for pair in able}
    if not axes or ctx.ranges is None:
        return
    found = ctx.ranges.channels(axes, model)
    for pair in able:
        extremes = found[str(pair.chain.tensors[0].name)]
        kept = extremes.low > 1e-3 * np.abs(extremes.high)  # less is not worth a rewrite
        if kept.any() and extremes.finite:
            pair.absorbed = np.where(kept, extremes.low, 0.0) / pair.scale


def _may_absorb(pair: _Pair) -> bool:
    relu_only = {node.op_type for node in pair.chain.steps} == {"Relu"}
    layers = [pair.layer, *(reader.layer for reader in pair.chain.readers)]
    return relu_only and all(map(_has_plain_bias, layers)) and not any(map(_is_padded, layers[1:]))


def _has_plain_bias(layer: Layer) -> bool:
    """Whether the layer adds a constant bias with factor 1, or could."""
    node = layer.node
    known = layer.bias is None or float_constant(layer.bias) is not None
    factors = {float_attribute(node, name, 1.0) for name in ("alpha", "beta")} if is_op(node, "Gemm") else {1.0}
    return known and factors == {1.0} and not is_op(node, "MatMul")


def _is_padded(layer: Layer) -> bool:
    node = layer.node
    automatic = node.attributes.get_string("auto_pad", "NOTSET") if not is_op(node, "Gemm") else "NOTSET"
    return is_op(node, "ConvTranspose") or automatic.startswith("SAME") or any(ints_attribute(node, "pads") or ())


def _edits(pairs: list[_Pair]) -> list[Edit]:
    """Return every new constant."""
    rescaling = Rescaling()
    for pair in pairs:
        rescaling.divide_outputs(pair.layer, pair.scale)
        for reader in pair.chain.readers:
            rescaling.multiply_inputs(reader.layer, np.repeat(pair.scale, reader.place.repeat))
    for pair in pairs:
        if pair.absorbed is None:
            continue
        rescaling.shift(pair.layer, -pair.absorbed)
        for reader in pair.chain.readers:
            matrix = rescaling.matrix(reader.layer)
            given = np.repeat(pair.absorbed, reader.place.repeat).reshape(matrix.shape[0], matrix.shape[2])
            rescaling.shift(reader.layer, np.einsum("goik,gi->go", matrix, given).reshape(-1))
    return rescaling.edits() + [edit for pair in pairs for edit in pair.chain.offset_edits(pair.scale)]
