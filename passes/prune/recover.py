"""Fit the weights that are left after pruning, so that each layer gives again what it gave in the original.

::

    y = Conv(x, W: [64, 64, 3, 3], b)   ==>   y = Conv(x', W': [64, 32, 3, 3], b')   with E|y - y'|^2 least

Layers go in forward order: x' is what the layer really reads in the smaller model, its earlier layers already fitted; y
is what the layer gave in the original, without the channels that went. Where the result is added to a residual stream,
what the stream lost is part of what the layer should give: y = z + skip - skip'. ``least-squares`` solves for all
weights and the bias, ``affine`` for a scale and a shift of each output, ``bias`` for the shift alone.

Memory: sums of K^2 + outputs x K numbers per layer for inputs of K weights, twice, however many samples there are. Both
models run piece by piece, each node once per sample; what waits between pieces is in files where it is much (see
`Relay`).

What a Relu or a Clip behind a layer cuts off in both models costs nothing: a few more sweeps over the samples move the
targets there. The matrices of recurrent layers are fitted to what they added up for the gates (`gates`).

Declines: layers whose weight is shared, computed or not float32; those whose output the original lacks; and those that
no change makes better on samples that were held out. Weights of which many are 0 are scaled at most: they stay 0.

Sources: He et al. 2017, "Channel Pruning for Accelerating Very Deep Neural Networks", section 3.1 (least squares from
the student's input), 3.2 (residual branches); Nagel et al. 2019, section 4.2 (mean of the outputs).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir

from onnxcomp.data import Samples
from onnxcomp.data.samples import Selection
from onnxcomp.errors import RecipeError
from onnxcomp.passbase import Need, Pass, PassContext, PassStats
from onnxcomp.passes.cleanup._graph import Names
from onnxcomp.statistics import MOST_BYTES, POSITIONS, Relay, inner_values

from .gates import Gates, gates_of
from .linear import Layer, alone, layer_of
from .order import differing, in_stages, one_way
from .origin import beside
from .refit import SWEEPS, Fit

__all__ = ["Recover", "RecoverConfig"]


@dataclass(frozen=True, slots=True)
class RecoverConfig:
    """Settings of recovery.

    Attributes:
        method: What is fitted: all weights, scale and shift of each output, or shift alone.
        damping: Draws weights towards the old ones: a share of the mean square of a layer's inputs; 0: what is best on
            samples that are held out.
        positions: Input vectors per layer at most, over all samples.
        runs: Calibration samples at most, spread evenly over all.
        spare: Of so many runs the last one is left out, for who judges by it later (`distill`: 8); 0: none is.
        exclude: Names of nodes whose weights stay as they are.
    """

    method: Literal["least-squares", "bias", "affine"] = "least-squares"
    damping: float = 0.0
    positions: int = POSITIONS
    runs: int = 512
    spare: int = 0
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.damping <= 1:
            raise RecipeError(f"damping must be in [0, 1], got {self.damping}", hint="0 chooses it per layer")
        if self.positions < 1 or self.runs < 2:
            raise RecipeError("positions must be 1 or more, and runs 2 or more")
        if self.spare < 0 or self.spare == 1:
            raise RecipeError(f"spare must be 0, or 2 or more, got {self.spare}", hint="0 leaves no run out")


class Recover(Pass[RecoverConfig]):
    """Fit what is left after pruning to the original, layer by layer, with calibration samples and without training."""

    name: ClassVar[str] = "recover"
    Config: ClassVar[type[RecoverConfig]] = RecoverConfig
    exact: ClassVar[bool] = False
    shifts: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATION})

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the weights in place."""
        teacher, samples = beside(model, ctx)
        layers = self._layers(model, teacher, ctx)
        if not layers:
            return PassStats(modified=False)
        feeds = samples.spread(self.config.runs)
        if self.config.spare:
            feeds = Selection(feeds, [run for run in range(feeds.count()) if (run + 1) % self.config.spare])
        fitted = self._fit(model, teacher, layers, ctx, feeds)
        return PassStats(modified=fitted > 0, counters={"layers fitted": fitted} if fitted else {})

    def _fit(
        self, model: ir.Model, teacher: ir.Model, layers: list[Layer | Gates], ctx: PassContext, feeds: Samples
    ) -> int:
        """Fit the layers, those that do not feed each other together; return how many became better."""
        assert ctx.origin is not None
        plan = [part for stage in in_stages(model.graph, layers) for part in _parts(stage)]
        sides = [[layer.theirs for layer in part] for part in plan], [[layer.mine for layer in part] for part in plan]
        theirs, mine = ([set().union(*names) for names in each] for each in sides)
        fitted, names = 0, Names(model)
        with (
            Relay(teacher, feeds, set().union(*theirs), threads=ctx.threads) as first,
            Relay(model, feeds, set().union(*mine), threads=ctx.threads) as second,
        ):
            each = -(-self.config.positions // max(first.length, 1))
            total = len(plan) * (1 + SWEEPS) * first.length
            for number, part in enumerate(plan):
                todo = fits = [Fit.of(layer, ctx.origin, first.length) for layer in part]
                for sweep in range(1 + SWEEPS):
                    runs = zip(first.ahead(theirs[number]), second.ahead(mine[number]), strict=True)
                    for index, (wanted, found) in enumerate(runs):
                        for fit in todo:
                            fit.add(wanted, found, most=each, rng=np.random.default_rng((ctx.seed, index)))
                        if ctx.progress:
                            ctx.progress(((1 + SWEEPS) * number + sweep) * first.length + index + 1, total)
                    todo = [fit for fit in todo if fit.solve(self.config.method, self.config.damping)]
                    if not todo:
                        break
                first.finished(theirs[number] - set().union(*theirs[number + 1 :]))
                second.finished(mine[number] - set().union(*mine[number + 1 :]))
                for fit in fits:
                    if fit.change is not None:
                        fit.apply(names)
                        fitted += 1
                    elif not fit.exact:
                        ctx.skip(fit.layer.node, "no change makes it better on samples that were held out")
        if ctx.progress:
            ctx.progress(total, total)
        return fitted

    def _layers(self, model: ir.Model, teacher: ir.Model, ctx: PassContext) -> list[Layer | Gates]:
        """Return the layers whose output may differ from the original's, in the order of the graph."""
        assert ctx.origin is not None
        known, nodes = inner_values(teacher), {str(node.name): node for node in teacher.graph}
        layers: list[Layer] = []
        gates: list[Gates] = []
        changed = differing(model, teacher)
        for node in model.graph:
            found: Layer | list[Gates] | str | None = layer_of(node) if node in changed else None
            if node in changed and found is None:
                found = gates_of(node, nodes.get(str(node.name)), ctx.origin.kept)
            if found is None:
                continue
            if node.name in self.config.exclude:
                ctx.skip(node, "excluded")
            elif isinstance(found, str):
                ctx.skip(node, found)
            elif max(map(_bytes, found if isinstance(found, list) else [found])) > MOST_BYTES:
                ctx.skip(node, f"its Gram matrices would take more than {MOST_BYTES >> 20} MB")
            elif isinstance(found, list):
                gates += found
            elif str(found.result.name) not in known:
                ctx.skip(node, "the original has no such tensor")
            else:
                layers.append(found if found.theirs <= set(known) else alone(found))
        return [*one_way(layers), *gates]


def _bytes(layer: Layer | Gates) -> int:
    """Return what the sums of a layer take."""
    groups, outputs, length = layer.size
    return 2 * 8 * groups * length * (length + outputs)


def _parts(stage: Sequence[Layer | Gates]) -> Iterator[list[Layer | Gates]]:
    """Deal layers out so that the sums of a part keep to the bound."""
    part: list[Layer | Gates] = []
    used = 0
    for layer in stage:
        size = _bytes(layer)
        if part and used + size > MOST_BYTES:
            yield part
            part, used = [], 0
        part.append(layer)
        used += size
    yield part
