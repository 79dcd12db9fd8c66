"""Move each weight to the grid of the quantization that follows, so that the layer's outputs change least.

Before, after (``s`` is the scale that the quantizing pass will choose for the channel)::

    Conv(x, W, b) -> y      Conv(x, W', b') -> y      with W' / s integer

The model stays float: whatever quantizes it next, static or dynamic, finds weights that it represents exactly. Each
channel keeps its largest weight, and so its scale. Rounding is GPTQ's, with the second moment of what the layer reads,
gathered from the calibration samples; a bias, where there is a place for one, takes up the mean of the error, so that
the covariance remains to be minimised.
Declines: weights that are not constant finite float32, or that several nodes read; Gram matrices that take too much
memory; layers where rounding to nearest is as good.
Sources: Frantar et al. 2022 (GPTQ); Nagel et al. 2019, section 4.2 (the mean of the error belongs into the bias).
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxcomp.errors import PassError, RecipeError
from onnxcomp.passbase import Need, Pass, PassContext, PassStats
from onnxcomp.passes.quantize.biases import bias_slot
from onnxcomp.passes.quantize.editor import GraphEditor, drop_unused_initializers, name_nodes
from onnxcomp.passes.quantize.placement import constant
from onnxcomp.statistics import MOST_BYTES, POSITIONS, Columns, Gram, collect_grams, columns_of
from onnxcomp.thresholds import damped, gptq, rounding_error

__all__ = ["RoundWeights", "RoundWeightsConfig"]

_OPS = ("Conv", "Gemm", "MatMul")
_ON_GRID = 1e-4  # of a step: float32 weights that are on the grid are that close to it


@dataclass(frozen=True, slots=True)
class RoundWeightsConfig:
    """Settings of optimised rounding.

    Attributes:
        bits: Of the quantization that follows; 8 is 7 where the target's sums would saturate.
        per_channel: Whether it has one scale per output channel.
        fit_bias: Whether a bias takes up the mean of the error; a Conv or Gemm without one gets one.
        order: Whether the inputs that matter most are rounded first.
        damping: Added to the diagonal of the second moment, as a share of its mean.
        positions: Input vectors per layer at most, over all samples.
        exclude: Names of nodes whose weights stay as they are.
    """

    bits: int = 8
    per_channel: bool = True
    fit_bias: bool = True
    order: bool = True
    damping: float = 0.01
    positions: int = POSITIONS
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 8:
            raise RecipeError(f"bits must be from 2 to 8, got {self.bits}")
        if not 0 < self.damping <= 1:
            raise RecipeError(f"damping must be in (0, 1], got {self.damping}")
        if self.positions < 1:
            raise RecipeError(f"positions must be 1 or more, got {self.positions}")


class RoundWeights(Pass[RoundWeightsConfig]):
    """Round weights with respect to what their layers read, before they are quantized."""

    name: ClassVar[str] = "round-weights"
    Config = RoundWeightsConfig
    exact: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATION})

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Round the weights of every layer that gains by it."""
        if ctx.samples is None:
            raise PassError("rounding weights needs calibration samples", hint="--calibration DATA")
        name_nodes(model.graph)
        layers: dict[str, tuple[ir.Node, Columns]] = {}
        for node in model.graph:
            if node.op_type not in _OPS or node.domain != "":
                continue
            columns = columns_of(node)
            if columns is None:
                ctx.skip(node, "the weight is no constant matrix")
            elif reason := self._why_not(node, columns):
                ctx.skip(node, reason)
            else:
                layers[str(node.name)] = node, columns
        grams = collect_grams(
            model.clone(),  # layers in front of those that are measured later change
            ctx.samples,
            {name: columns for name, (_, columns) in layers.items()},
            positions=self.config.positions,
            seed=ctx.seed,
            threads=ctx.threads,
            progress=ctx.progress,
        )
        editor, rounded = GraphEditor(model.graph), 0
        bits = min(self.config.bits, 7 if ctx.target.reduce_range else 8)
        for name, gram in grams:
            node, columns = layers[name]
            if self._round(node, columns, gram, editor=editor, levels=2 ** (bits - 1) - 1):
                rounded += 1
            else:
                ctx.skip(node, "rounding to nearest is as good")
        drop_unused_initializers(model.graph)
        return PassStats(modified=rounded > 0, counters={"layers rounded": rounded} if rounded else {})

    def _why_not(self, node: ir.Node, columns: Columns) -> str | None:
        """Say why a layer's weight stays as it is, or None."""
        if node.name in self.config.exclude:
            return "excluded"
        value = node.inputs[1]
        weight = constant(value)
        if weight is None or value is None or weight.dtype != ir.DataType.FLOAT:
            return "the weight is not constant float32"
        if len(value.uses()) > 1 or value.is_graph_output():
            return "the weight is used elsewhere too"
        if not np.isfinite(weight.numpy()).all():
            return "the weight holds NaN or infinity"
        if not weight.size:
            return "the weight is empty"
        if 8 * columns.groups * columns.length**2 > MOST_BYTES:
            return f"its Gram matrix would take more than {MOST_BYTES >> 20} MB"
        if any(node.attributes.get_float(name, 1.0) != 1.0 for name in ("alpha", "beta")):
            return "alpha or beta is set"
        return None

    def _round(self, node: ir.Node, columns: Columns, gram: Gram, *, editor: GraphEditor, levels: int) -> bool:
        """Round one layer's weight, and fit its bias; say whether that is better than rounding to nearest."""
        value = node.inputs[1]
        assert value is not None
        assert value.const_value is not None
        weight = value.const_value.numpy()
        rows = columns.rows(weight).astype(np.float64)  # [groups, rows, K]
        slot = bias_slot(node, rows.shape[0] * rows.shape[1]) if self.config.fit_bias else None
        largest = np.abs(rows).max(axis=2 if self.config.per_channel else None, keepdims=True)
        scale = np.where(largest > 0, largest / levels, 1.0).astype(np.float32).astype(np.float64)
        moment = gram.covariance if slot else gram.moment
        steps = rows / scale
        if np.abs(steps - np.rint(steps)).max() < _ON_GRID:
            return False
        fixed = np.abs(rows) == largest
        found = gptq(steps, damped(moment, self.config.damping), levels=levels, order=self.config.order, fixed=fixed)
        nearest = rounding_error(steps, np.rint(steps), gram.moment)
        if not (scale[..., 0] ** 2 * (nearest - rounding_error(steps, found, moment))).sum() > 0:
            return False
        # No weight but the largest may be larger, be it by rounding to float32: it would change the scale
        rounded = np.where(fixed, rows, np.clip(found * scale, -largest, largest))
        value.const_value = ir.tensor(columns.weight(rounded.astype(np.float32), weight.shape), name=value.name)
        if slot is not None:
            slot.add(np.einsum("grk,gk->gr", rows - rounded, gram.mean).reshape(-1), editor)
        return True
