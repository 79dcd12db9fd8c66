"""SmoothQuant: move what makes activations hard to quantize, channel by channel, into the weights that read them.

::

    LayerNormalization(x, g, b) -> MatMul(W)   ==>   LayerNormalization(x, g / s, b / s) -> MatMul(s W)
    s_j = max|X_j| ** alpha / max|W_j| ** (1 - alpha)

Activations have one scale per tensor, so that one large channel leaves few levels to the others; weights bear more. The
division goes into whatever makes the channels: a LayerNormalization (also decomposed, or one of onnxruntime's own), a
product with a constant vector, or a layer with weights, also through what ``chains`` lets pass. Where nothing can take
it (behind Gelu, or where a residual sum reads the tensor, too) a Mul is put before the layer, if what comes before it
stays float in any case: there it costs one pass over the tensor and no rounding.

Declines: layers whose weights are not constant float32 or are used elsewhere too; tensors that have an integer kernel
before them and nothing that takes the division; tensors with infinite values.

Correct because ``(X / s) (s W) = X W`` (equation 3 of the paper). Tensors that were divided get new names, and are
measured anew.

Source: Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", ICML
2023, equation 4; there a channel's largest magnitudes come from calibration samples, too.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar
from zlib import crc32

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxcomp.errors import PassError, RecipeError
from onnxcomp.passbase import Need, Pass, PassContext, PassStats
from onnxcomp.passes.cleanup._graph import Names, float_constant, int_attribute, is_op, onnx_domain
from onnxcomp.passes.cleanup._shapes import Shapes, infer
from onnxcomp.passes.quantize.chains import Chain, Place, Reader, follow, made_by, rename
from onnxcomp.passes.quantize.layers import LAYERS, Edit, Layer, Rescaling, layer_of, write
from onnxcomp.statistics import ChannelRange

__all__ = ["Smooth", "SmoothConfig", "smoothing_scale"]

_WORTHWHILE = 1e-2  # of log(s): tensors that would change less are left as they are
# Inputs that hold scale and bias, of operators that normalize over the last axis
_NORMALIZERS: Mapping[tuple[str, str], tuple[int, ...]] = {
    ("", "LayerNormalization"): (1, 2),
    ("", "RMSNormalization"): (1,),
    ("", "SimplifiedLayerNormalization"): (1,),
    ("com.microsoft", "SkipLayerNormalization"): (2, 3),
    ("com.microsoft", "SkipSimplifiedLayerNormalization"): (2,),
    ("com.microsoft", "EmbedLayerNormalization"): (5, 6),
}


@dataclass(frozen=True, slots=True)
class SmoothConfig:
    """Settings of SmoothQuant.

    Attributes:
        alpha: How much of the difficulty moves into the weights: 0 none, 1 all of it.
        ops: Operator types whose input is smoothed.
        insert: Put a Mul before layers where nothing takes the division.
        exclude: Names of layers whose input is left as it is.
    """

    alpha: float = 0.5
    ops: tuple[str, ...] = ("MatMul", "Gemm")
    insert: bool = True
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.alpha <= 1:
            raise RecipeError(f"alpha must be in [0, 1], got {self.alpha}")
        if unknown := sorted(set(self.ops) - set(LAYERS)):
            raise RecipeError(f"the input of {unknown[0]!r} can't be smoothed", hint=f"of: {', '.join(LAYERS)}")


@dataclass(slots=True)
class _Site:
    """A tensor to smooth: what makes its channels and who reads them.

    ``source`` None: a Mul is put before the readers, which read the tensor ``value``.
    """

    value: ir.Value
    place: Place
    channels: int
    readers: list[Reader]
    source: Layer | None = None
    parameters: tuple[tuple[ir.Node, int, Place], ...] = ()
    chain: Chain | None = None
    scale: NDArray[np.float64] = field(default_factory=lambda: np.ones(0))

    @property
    def inserted(self) -> bool:
        return self.chain is None


class Smooth(Pass[SmoothConfig]):
    """SmoothQuant: move outlying channels of activations into the weights that read them, exactly."""

    name: ClassVar[str] = "smooth"
    Config = SmoothConfig
    exact: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATION})
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"alpha": (0.5, 0.75, 0.9)}

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the model in place."""
        if ctx.ranges is None:
            raise PassError("smoothing needs calibration samples", hint="--calibration DATA")
        sites = self._sites(model, infer(model), ctx)
        axes = {str(_read(reader).name): reader.place.axis for site in sites for reader in site.readers}
        found = ctx.ranges.channels(axes, model)
        sites = [site for site in sites if self._measure(site, found, ctx)]
        if not sites:
            return PassStats(modified=False)
        names = Names(model)
        if (reason := write(_edits(sites), names)) is not None:
            ctx.skip(sites[0].readers[0].layer.node, reason)
            return PassStats(modified=False)
        counts: Counter[str] = Counter()
        for site in sites:
            mark = f"{crc32(site.scale.tobytes()):08x}"
            if site.chain is not None:
                rename(site.chain.tensors, mark, names)
            else:
                _insert(site, mark, names)
            counts["tensors smoothed"] += 1
            counts["Mul inserted"] += site.inserted
        return PassStats(modified=True, counters=dict(+counts))

    def _sites(self, model: ir.Model, shapes: Shapes, ctx: PassContext) -> list[_Site]:
        """Find what to smooth, each layer once."""
        wanted: dict[ir.Node, Layer] = {}
        for node in model.graph:
            layer = layer_of(node) if node.op_type in self.config.ops else None
            if isinstance(layer, str):
                ctx.skip(node, layer)
            elif layer is not None and node.name in self.config.exclude:
                ctx.skip(node, "excluded")
            elif layer is not None:
                wanted[node] = layer
        sites, reasons = _folded(model.graph, shapes, wanted)
        handled = {reader.layer.node for site in sites for reader in site.readers}
        groups: dict[ir.Value, list[Layer]] = {}
        for node, layer in wanted.items():
            if node not in handled and (value := node.inputs[0]) is not None:
                groups.setdefault(value, []).append(layer)
        for value, layers in groups.items():
            reason = reasons.get(value, "nothing before it takes the division")
            if self.config.insert:
                reason = _why_no_mul(value, layers, ctx) or ""
            if not reason:
                readers = [Reader(layer, Place(-1, None)) for layer in layers]
                sites.append(_Site(value, Place(-1, None), layers[0].inputs, readers))
            for layer in layers if reason else ():
                ctx.skip(layer.node, reason)
        return sites

    def _measure(self, site: _Site, found: Mapping[str, ChannelRange], ctx: PassContext) -> bool:
        """Choose the scale; say whether that changes anything."""
        extremes = [found[str(_read(reader).name)] for reader in site.readers]
        if not all(range_.finite for range_ in extremes):
            for reader in site.readers:
                ctx.skip(reader.layer.node, "its input takes infinite values")
            return False
        shape = (site.channels, -1)
        activations = np.max([range_.largest.reshape(shape).max(axis=1) for range_ in extremes], axis=0)
        weights = np.max(
            [np.abs(r.layer.matrix).max(axis=(1, 3)).reshape(shape).max(axis=1) for r in site.readers], axis=0
        )
        site.scale = smoothing_scale(activations, weights, self.config.alpha)
        return float(np.abs(np.log(site.scale)).max()) > _WORTHWHILE


def smoothing_scale(activations: np.ndarray, weights: np.ndarray, alpha: float) -> NDArray[np.float64]:
    """Return ``max|X_j| ** alpha / max|W_j| ** (1 - alpha)`` (Xiao et al. 2023, equation 4).

    A channel that is always 0, or that no weight reads, gets the median of the others: its rounding harms nobody.

    Args:
        activations: max|X_j|, [channels].
        weights: max|W_j|, [channels].
        alpha: How much moves into the weights.
    """
    used = (activations > 0) & (weights > 0)
    if not used.any():
        return np.ones(len(activations))
    scale = np.ones(len(activations))
    scale[used] = activations[used] ** alpha / weights[used] ** (1 - alpha)
    scale[~used] = np.median(scale[used])
    return scale


def _read(reader: Reader) -> ir.Value:
    value = reader.layer.node.inputs[0]
    assert value is not None
    return value


def _folded(
    graph: ir.Graph, shapes: Shapes, wanted: Mapping[ir.Node, Layer]
) -> tuple[list[_Site], dict[ir.Value, str]]:
    """Find the tensors whose maker takes the division, the nearest one; and why other makers do not."""
    sites, reasons, left = [], {}, set(wanted)
    for node in reversed(graph):
        site = _site(node, shapes)
        if isinstance(site, str):
            reasons[node.outputs[0]] = site
        elif site is not None and (nodes := {reader.layer.node for reader in site.readers}) <= left:
            sites.append(site)
            left -= nodes
    return sites, reasons


def _site(node: ir.Node, shapes: Shapes) -> _Site | str | None:
    """Return what a node may give its channels to, why not, or None: it makes no channels that it could divide."""
    value, layer = node.outputs[0], layer_of(node)
    parameters: tuple[tuple[ir.Node, int, Place], ...] = ()
    if isinstance(layer, Layer):
        if layer.shared or (layer.bias is not None and float_constant(layer.bias) is None):
            return "the weights before it are used elsewhere too, or its bias is not constant"
        place, channels = made_by(layer, shapes), layer.outputs
    else:
        made = _normalized(node, shapes) or _multiplied(node, shapes)
        if made is None:
            return None
        layer, (place, channels, indices) = None, made
        parameters = tuple((node, index, place) for index in indices)
    chain = follow(value, place, channels, shapes)
    if isinstance(chain, str):
        return chain
    if chain.clips:
        return f"a Clip at {chain.clips[0].high:g} takes no factor per channel"
    return _Site(value, place, channels, chain.readers, layer, parameters, chain)


def _normalized(node: ir.Node, shapes: Shapes) -> tuple[Place, int, tuple[int, ...]] | None:
    """Read a normalization over the last axis with constant scale and bias."""
    domain = "" if onnx_domain(node) else node.domain
    indices = tuple(
        index
        for index in _NORMALIZERS.get((domain, node.op_type), ())
        if index < len(node.inputs) and node.inputs[index] is not None
    )
    arrays = [float_constant(node.inputs[index]) for index in indices]
    if not arrays or any(array is None or array.ndim != 1 for array in arrays) or arrays[0] is None:
        return None
    return Place(-1, shapes.rank(node.outputs[0])), arrays[0].size, indices


def _multiplied(node: ir.Node, shapes: Shapes) -> tuple[Place, int, tuple[int, ...]] | None:
    """Read a product with a constant vector, one number for each channel of the other operand."""
    if not is_op(node, "Mul"):
        return None
    for index in (0, 1):
        array, dims = float_constant(node.inputs[index]), shapes.dims(node.inputs[1 - index])
        if array is None or dims is None or array.ndim > len(dims):
            continue
        axes = [axis - array.ndim for axis, size in enumerate(array.shape) if size > 1]
        if len(axes) == 1 and dims[axes[0]] == array.size:  # else the product is what has the channels
            return Place(axes[0], len(dims)), array.size, (index,)
    return None


def _why_no_mul(value: ir.Value, layers: list[Layer], ctx: PassContext) -> str | None:
    """Say why no Mul is put between a tensor and layers that read it."""
    maker = value.producer()
    if maker is None:
        return "its input is one of the model's"
    if any(is_op(layer.node, "Conv", "ConvTranspose") for layer in layers):
        return "nothing before it takes a factor per channel"
    if any(int_attribute(layer.node, "transA", 0) for layer in layers) or any(layer.shared for layer in layers):
        return "it reads its input turned, or its weights are used elsewhere too"
    if maker.graph is not layers[0].node.graph or maker.op_type in ctx.target.roles:
        return f"{maker.op_type} before it may run in integers: dividing after its rounding would be too late"
    return None


def _edits(sites: list[_Site]) -> list[Edit]:
    rescaling, edits = Rescaling(), []
    for site in sites:
        if site.source is not None:
            rescaling.divide_outputs(site.source, site.scale)
        for reader in site.readers:
            rescaling.multiply_inputs(reader.layer, np.repeat(site.scale, reader.place.repeat))
        for node, index, place in site.parameters:
            array = float_constant(node.inputs[index])
            assert array is not None
            edits.append(Edit(node, index, array / place.spread(site.scale)))
        if site.chain is not None:
            edits += site.chain.offset_edits(site.scale)
    return edits + rescaling.edits()


def _insert(site: _Site, mark: str, names: Names) -> None:
    """Put a Mul between a tensor and the layers that read it."""
    maker = site.value.producer()
    assert maker is not None
    assert isinstance(maker.graph, ir.Graph)
    name = names.fresh(f"{site.value.name}.{mark}")
    tensor = ir.tensor((1 / site.scale).astype(np.float32), name=names.fresh(f"{name}.factors"))
    factors = ir.val(str(tensor.name), const_value=tensor)
    maker.graph.register_initializer(factors)
    node = ir.node("Mul", [site.value, factors], name=name)
    node.outputs[0].name, node.outputs[0].type, node.outputs[0].shape = name, site.value.type, site.value.shape
    maker.graph.insert_after(maker, node)
    for reader in site.readers:
        reader.layer.node.replace_input_with(0, node.outputs[0])
