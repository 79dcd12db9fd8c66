"""Set single weights to zero: the smallest, or those that the others can best make up for; or N of M stay.

::

    Gemm(x, W)    Gemm(x, W')    with a share of W' zero, and the rest moved so that the outputs change least

The shapes stay. A zero costs little in a packed file (``onnxcomp pack``), and nothing less in time: onnxruntime
multiplies zeros like other numbers. Only ``pattern = "2:4"`` is faster somewhere, in TensorRT on GPUs with sparse
tensor cores, which wants two of four neighbours along the input axis to be zero.
Method ``sparsegpt`` takes the weights with the least OBS saliency ``w^2 / [H^-1]_jj``, H the second moment of what the
layer reads, and moves those that stay; a bias takes up the mean of the error. Layers go in forward order: each is
fitted to what the model as pruned so far gives it. With ``scope = "global"`` the zeros are dealt out so that the sum of
the layers' relative errors is least. Method ``magnitude`` takes the smallest weights; where there are samples and
``recover`` is on, the others make up for them, too.
Declines: weights that are no constant finite float32 matrix, that several nodes read, or that are small; Gram matrices
that take too much memory; input axes that M does not divide; layers with as many zeros already.
Sources: Han et al. 2015 (magnitude); Zhu and Gupta 2017, eq. 1 (schedule); Frantar and Alistarh 2023 (SparseGPT).
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxcomp.errors import PassError, RecipeError
from onnxcomp.facts import name_nodes
from onnxcomp.passbase import Need, Pass, PassContext, PassStats, Unit
from onnxcomp.passes.cleanup._graph import Names, is_op
from onnxcomp.statistics import POSITIONS, Gram, collect_grams, columns_of
from onnxcomp.thresholds import damped, damping_for, magnitude_mask, removal_costs, sparsify

from .sparse_layers import OPS, SparseLayer, passes_over, why_not

__all__ = ["PruneWeights", "PruneWeightsConfig"]

_LARGEST_M = 64
_KEPT = 0.01  # of a layer's weights, where zeros are dealt out over layers: one without any would give nothing
Layers = Mapping[ir.Node, SparseLayer]


@dataclass(frozen=True, slots=True)
class PruneWeightsConfig:
    """Settings of weight pruning.

    Attributes:
        sparsity: Share of the weights that are zero afterwards, in [0, 1); a pattern says it by itself.
        method: What goes: ``magnitude``: the smallest weights; ``sparsegpt``: those that the others can best make up
            for; ``auto``: ``sparsegpt`` where there are samples.
        scope: What has that share of zeros: each ``layer``, or all layers together (``global``).
        pattern: As ``2:4``: of 4 neighbours along the input axis 2 stay, and so on; empty: any weights.
        schedule: Whether the share is reached at once (``constant``) or in ``steps`` (``polynomial``: the share still
            missing falls with the third power); each step recovers on calibration samples before the next.
        steps: Of the polynomial schedule.
        recover: Whether weights that stay make up for those that go, where there are samples.
        damping: Added to the diagonal of the second moment, as a share of its mean; 0: by the number of samples.
        positions: Input vectors per layer at most, over all samples.
        min_elements: Smaller weights stay as they are.
        ignore: Patterns of names of nodes whose weights stay as they are.
        exclude: Names of nodes whose weights stay as they are.
    """

    sparsity: float = 0.5
    method: Literal["auto", "magnitude", "sparsegpt"] = "auto"
    scope: Literal["layer", "global"] = "layer"
    pattern: str = ""
    schedule: Literal["constant", "polynomial"] = "constant"
    steps: int = 1
    recover: bool = True
    damping: float = 0.0
    positions: int = POSITIONS
    min_elements: int = 512
    ignore: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.sparsity < 1:
            raise RecipeError(f"sparsity must be in [0, 1), got {self.sparsity}")
        if self.pattern and self.kept_of is None:
            raise RecipeError(
                f"pattern must be N:M with 1 <= N < M <= {_LARGEST_M}, got {self.pattern!r}", hint='such as "2:4"'
            )
        if self.pattern and (self.scope, self.schedule) != ("layer", "constant"):
            raise RecipeError("a pattern says how many weights go", hint="scope layer and schedule constant")
        if self.steps < 1 or (self.schedule == "constant" and self.steps > 1):
            raise RecipeError(f"steps must be 1 or more, and 1 with schedule constant, got {self.steps}")
        if self.method == "sparsegpt" and not self.recover:
            raise RecipeError("sparsegpt is about weights that make up for others", hint="recover true")
        if not 0 <= self.damping <= 1:
            raise RecipeError(f"damping must be in [0, 1], got {self.damping}")
        if self.positions < 1 or self.min_elements < 0:
            raise RecipeError("positions must be 1 or more, min_elements 0 or more")

    @property
    def kept_of(self) -> tuple[int, int] | None:
        """N and M of the pattern; None: there is none."""
        found = re.fullmatch(r"(\d{1,2}):(\d{1,2})", self.pattern)
        kept, of = (int(number) for number in found.groups()) if found else (0, 0)
        return (kept, of) if 1 <= kept < of <= _LARGEST_M else None


class PruneWeights(Pass[PruneWeightsConfig]):
    """Set the weights that matter least to zero."""

    name: ClassVar[str] = "prune-weights"
    Config: ClassVar[type[PruneWeightsConfig]] = PruneWeightsConfig
    exact: ClassVar[bool] = False
    shifts: ClassVar[bool] = True
    wants: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATION})
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {"sparsity": (0.5, 0.7, 0.8, 0.9)}

    def units(self, model: ir.Model, ctx: PassContext) -> list[Unit]:
        """List the layers whose weights would be pruned."""
        found = self._layers(model.clone(), ctx)
        return [Unit(layer.name, layer.node.op_type, (layer.name,)) for layer in found.values()]

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Prune the weights of all layers, step by step."""
        if self.config.method == "sparsegpt" and ctx.samples is None:
            raise PassError("method sparsegpt needs calibration samples", hint="--calibration DATA, or magnitude")
        layers = self._layers(model, ctx)
        steps, names, pruned = self.config.steps, Names(model), set[str]()
        for step in range(1, steps + 1):
            share = self.config.sparsity * (1 - (1 - step / steps) ** 3)
            zeros = self._zeros(model, layers, share, ctx)
            wanted = {node: layer for node, layer in layers.items() if zeros[layer.name] > _zeros_in(layer)}
            pruned |= {layer.name for layer in wanted.values()}
            if self._follows_inputs(ctx):
                self._recovered(model, wanted, zeros, names, ctx)
            else:
                for layer in wanted.values():
                    rows = layer.rows
                    layer.write(np.where(self._mask(rows, zeros[layer.name]), 0, rows), names)
        for node, layer in layers.items():
            if layer.name not in pruned:
                ctx.skip(node, "as many of its weights are zero already" if self.config.sparsity else "none is to go")
        counters = {
            "layers pruned": len(pruned),
            "zeros": sum(map(_zeros_in, layers.values())),
            "of weights": sum(int(layer.weight.size) for layer in layers.values()),
        }
        return PassStats(modified=bool(pruned), counters=counters if pruned else {})

    def _layers(self, model: ir.Model, ctx: PassContext) -> dict[ir.Node, SparseLayer]:
        """Return the layers that may be pruned; the others are recorded in ``ctx``, with the reason."""
        name_nodes(model.graph)
        pattern, config = self.config.kept_of, self.config
        found: dict[ir.Node, SparseLayer] = {}
        for node in model.graph:
            if not is_op(node, *OPS):
                continue
            columns = columns_of(node)
            layer = None if columns is None else SparseLayer.of(node, columns)
            if node.name in config.exclude:
                ctx.skip(node, "excluded")
            elif any(fnmatchcase(str(node.name), pattern) for pattern in config.ignore):
                ctx.skip(node, "it is to be ignored")
            elif reason := why_not(node, columns, least=config.min_elements, gram=self._follows_inputs(ctx)):
                ctx.skip(node, reason)
            elif layer is not None and pattern is not None and layer.inputs % pattern[1]:
                ctx.skip(node, f"its input axis of {layer.inputs} is no multiple of {pattern[1]}")
            elif layer is not None:
                found[node] = layer
        return found

    def _follows_inputs(self, ctx: PassContext) -> bool:
        return ctx.samples is not None and self.config.recover

    def _is_sparsegpt(self, ctx: PassContext) -> bool:
        return self.config.method != "magnitude" and self._follows_inputs(ctx)

    def _mask(self, rows: NDArray[np.float64], zeros: int) -> NDArray[np.bool_]:
        return magnitude_mask(rows, zeros, self.config.kept_of)

    def _zeros(self, model: ir.Model, layers: Layers, share: float, ctx: PassContext) -> dict[str, int]:
        """Return how many weights of each layer shall be zero."""
        if (pattern := self.config.kept_of) is not None:
            return {
                layer.name: 0 if _has(layer, pattern) else int(layer.weight.size) for layer in layers.values()
            }  # any number that is more than there are
        sizes = {layer.name: int(layer.weight.size) for layer in layers.values()}
        if self.config.scope == "layer" or not sizes:
            return {name: round(share * size) for name, size in sizes.items()}
        costs: dict[str, NDArray[np.float64]] = {}
        if self._is_sparsegpt(ctx):
            for layer, gram in self._grams(model, list(layers.values()), ctx):
                moment, rows = layer.moments(gram, centred=layer.can_shift()), layer.rows
                hessian = damped(moment, self._damping(gram))
                energy = float(np.einsum("grk,grk->", rows @ hessian, rows))
                costs[layer.name] = removal_costs(rows, hessian).reshape(-1) / (energy or 1.0)
        else:
            costs = {layer.name: np.abs(layer.rows).reshape(-1) for layer in layers.values()}
        for name, found in costs.items():
            kept = -(-sizes[name] * _KEPT // 1)
            found[np.argsort(found)[-int(kept) :]] = np.inf
        order = np.argsort(np.concatenate(list(costs.values())), kind="stable")[: round(share * sum(sizes.values()))]
        owner = np.repeat(np.arange(len(costs)), [len(found) for found in costs.values()])[order]
        return dict(zip(costs, np.bincount(owner, minlength=len(costs)).tolist(), strict=True))

    def _recovered(
        self, model: ir.Model, layers: Layers, zeros: Mapping[str, int], names: Names, ctx: PassContext
    ) -> None:
        """Prune layers in forward order, each for what the ones before it give by now."""
        for stage in passes_over(model.graph, layers):
            for layer, gram in self._grams(model, stage, ctx):
                rows, shifts = layer.rows, layer.can_shift()
                hessian = damped(layer.moments(gram, centred=shifts), self._damping(gram))
                count = zeros[layer.name]
                mask = None if self._is_sparsegpt(ctx) else self._mask(rows, count)
                found = sparsify(rows, hessian, count, pattern=self.config.kept_of, mask=mask)
                layer.write(found, names)
                if shifts:
                    layer.shift(rows - found, gram, names)

    def _damping(self, gram: Gram) -> float:
        return self.config.damping or damping_for(gram.sums.shape[1], gram.count)

    def _grams(
        self, model: ir.Model, layers: list[SparseLayer], ctx: PassContext
    ) -> Iterator[tuple[SparseLayer, Gram]]:
        assert ctx.samples is not None
        by_name = {layer.name: layer for layer in layers}
        grams = collect_grams(
            model.clone(),
            ctx.samples,
            {layer.name: layer.columns for layer in layers},
            positions=self.config.positions,
            seed=ctx.seed,
            threads=ctx.threads,
            progress=ctx.progress,
        )
        for name, gram in grams:
            yield by_name[name], gram


def _zeros_in(layer: SparseLayer) -> int:
    weight = layer.weight
    return int(weight.size - np.count_nonzero(weight))


def _has(layer: SparseLayer, pattern: tuple[int, int]) -> bool:
    """Whether a layer has a pattern already."""
    kept, of = pattern
    return bool((np.count_nonzero(layer.rows.reshape(-1, of), axis=1) <= kept).all())
