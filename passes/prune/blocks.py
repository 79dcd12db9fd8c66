"""Remove whole residual blocks: of a residual network, of a transformer its attention and feed-forward layers.

::

    a = MatMul(LayerNormalization(x), w1)
    y = Add(x, MatMul(Gelu(a), w2))          ==>   y = x

Which blocks there are is told by the structure of the graph (``residual``), whoever exported it. How much one matters
is measured: the noise in the outputs of the model when the block gives 0, on calibration samples. The block whose
absence is heard least goes; then all others are measured again, without it.

Declines: sums that repeat what they add; blocks whose sum is an output of the model where nothing can take its name;
without calibration samples all blocks that are not named; quantized models. The bodies of If, Loop and Scan stay.

Correct because ``x + 0`` is ``x``: the smaller model is held against the original in which what the blocks give is
multiplied by 0, always. That is not the original: this is lossy.

Source: Veit et al. 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks"; Michel et al. 2019,
"Are Sixteen Heads Really Better than One?", section 4.1, for the greedy order.
"""

import math
import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxcomp.data import Feed, Samples
from onnxcomp.errors import DataError, ModelError, RecipeError
from onnxcomp.facts import is_quantized, parameter_count
from onnxcomp.metrics import typical_sqnr
from onnxcomp.model import open_session
from onnxcomp.passbase import Need, Origin, Pass, PassContext, PassStats, Unit

from .groups import prepare
from .residual import Block, gated, residual_blocks, without
from .trace import inputs_for, shapes_of
from .verify import TOLERANCE, difference

__all__ = ["PruneBlocks", "PruneBlocksConfig"]


@dataclass(frozen=True, slots=True)
class PruneBlocksConfig:
    """Settings of block pruning. At most one of count, ratio and names is given; without any, one block goes.

    Attributes:
        count: How many blocks are removed.
        ratio: Share of the blocks that is removed, rounded down, in [0, 1].
        names: Of the blocks that are removed (of their Add); nothing is measured then.
        runs: How many calibration samples tell what a block matters.
        ignore: Patterns of names of blocks, or of layers in them, that stay.
        exclude: Names of blocks that stay.
    """

    count: int | None = None
    ratio: float | None = None
    names: tuple[str, ...] = ()
    runs: int = 32
    ignore: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        given = [name for name, there in self._targets() if there]
        if len(given) > 1:
            raise RecipeError(f"{' and '.join(given)} are both given", hint="give one of count, ratio, names")
        if self.count is not None and self.count < 0:
            raise RecipeError(f"count must be 0 or more, got {self.count}")
        if self.ratio is not None and not 0 <= self.ratio <= 1:
            raise RecipeError(f"ratio must be in [0, 1], got {self.ratio}")
        if self.runs < 1:
            raise RecipeError(f"runs must be 1 or more, got {self.runs}")

    def _targets(self) -> tuple[tuple[str, bool], ...]:
        return ("count", self.count is not None), ("ratio", self.ratio is not None), ("names", bool(self.names))

    def wanted(self, blocks: int) -> int:
        """Return how many of some blocks are to go."""
        if self.names:
            return len(self.names)
        if self.ratio is not None:
            return int(self.ratio * blocks + 1e-9)
        return 1 if self.count is None else self.count


class PruneBlocks(Pass[PruneBlocksConfig]):
    """Remove the residual blocks, attention and feed-forward layers that matter least."""

    name: ClassVar[str] = "prune-blocks"
    Config: ClassVar[type[PruneBlocksConfig]] = PruneBlocksConfig
    exact: ClassVar[bool] = False
    shifts: ClassVar[bool] = True
    wants: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATION})

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the model in place.

        Raises:
            RecipeError: A block is named that is not there.
            PassError: The model does not run.
            ModelError: It does not run on a calibration sample.
        """
        if is_quantized(model):
            ctx.skip(next(iter(model.graph)), "the model is quantized already: prune first, then quantize")
            return PassStats(modified=False)
        prepared = prepare(model, ctx)
        feed = inputs_for(prepared, ctx.samples, seed=ctx.seed)
        blocks, refused = residual_blocks(prepared, shapes_of(prepared, feed))
        nodes = {str(node.name): node for node in prepared.graph}
        for name, reason in refused.items():
            ctx.skip(nodes[name], reason)
        open_to_choice = []
        for block in blocks:
            if stays := self._stays(block, ctx):
                ctx.skip(nodes[block.name], stays)
            else:
                open_to_choice.append(block)
        if unknown := sorted(set(self.config.names) - {block.name for block in open_to_choice}):
            known = ", ".join(block.name for block in open_to_choice) or "it has none that may go"
            raise RecipeError(f"the model has no residual block {unknown[0]!r}", hint=f"blocks: {known}")
        removed, small = _Choice(prepared, feed, ctx, self.config.runs).removed(
            open_to_choice, self.config.wanted(len(blocks)), measure=not self.config.names
        )
        if small is None:
            return PassStats(modified=False)
        ctx.origin = ctx.origin or Origin(prepared)
        before = parameter_count(model)
        small.graph.meta.update(model.graph.meta)
        model.graph = small.graph
        counters = {"blocks removed": len(removed), "parameters removed": before - parameter_count(model)}
        return PassStats(modified=True, counters=counters)

    def _stays(self, block: Block, ctx: PassContext) -> str | None:
        """Return why a block is not open to choice."""
        if block.name in self.config.exclude:
            return "excluded"
        if any(fnmatchcase(name, pattern) for name in (block.name, *block.layers) for pattern in self.config.ignore):
            return "it is to be ignored"
        if self.config.names:
            return None if block.name in self.config.names else "others are named"
        return None if ctx.samples is not None else "no calibration samples tell how much it matters"

    def units(self, model: ir.Model, ctx: PassContext) -> list[Unit]:
        """List the blocks; a search leaves one in by naming it in ``exclude``."""
        if is_quantized(model):
            return []
        prepared = prepare(model, ctx)
        blocks, _ = residual_blocks(prepared, shapes_of(prepared, inputs_for(prepared, ctx.samples, seed=ctx.seed)))
        return [Unit(block.name, "Add", (block.name,)) for block in blocks]


class _Choice:
    """Chooses which blocks go, and makes sure that they can.

    Args:
        model: What `groups.prepare` returned; not changed.
        feed: To compare on.
        ctx: Its samples, threads and progress are used.
        runs: How many samples are.
    """

    def __init__(self, model: ir.Model, feed: Feed, ctx: PassContext, runs: int) -> None:
        self._model, self._feed, self._ctx, self._runs = model, feed, ctx, runs
        self._nodes = {str(node.name): node for node in model.graph}

    def removed(self, blocks: Sequence[Block], count: int, *, measure: bool) -> tuple[list[Block], ir.Model | None]:
        """Remove blocks one by one.

        Args:
            blocks: That may go.
            count: How many go, or as many as there are.
            measure: Remove the one that matters least; else the first one.

        Returns:
            The blocks that are gone, and what is left; None where all stay.
        """
        left, gone, result = list(blocks), list[Block](), None
        noise: dict[str, float] = {}
        while left and len(gone) < count:
            noise = self._heard(left, gone) if measure else {}
            block = max(left, key=lambda each: noise.get(each.name, 0.0))  # the first one of equals
            left.remove(block)
            small = self._without([*gone, block])
            if isinstance(small, str):
                self._ctx.skip(self._nodes[block.name], small)
                continue
            gone.append(block)
            result = small
            left = [each for each in left if each.name not in block.nodes]  # those that it held are gone, too
        for block in left:
            sqnr = noise.get(block.name)
            reason = "no more are to go" if sqnr is None else f"it matters more: {sqnr:.1f} dB SQNR without it"
            self._ctx.skip(self._nodes[block.name], reason)
        return gone, result

    def _without(self, blocks: Sequence[Block]) -> ir.Model | str:
        """Return the model without some blocks, or why that can't be."""
        small = without(self._model, blocks, self._ctx)
        if small is None:
            return "its sum is an output of the model, and what goes past it can't have its name"
        silent, gates = gated(self._model, blocks)
        for name in gates.values():
            _set_zero(silent, name)
        try:
            found = difference(silent, small, self._feed)
        except (ModelError, DataError) as err:
            return str(err)
        if not found <= TOLERANCE:
            return f"without it the model differs by {found:.1e} from the one in which it gives 0"
        return small

    def _heard(self, blocks: Sequence[Block], gone: Sequence[Block]) -> dict[str, float]:
        """Return the SQNR (dB) of the outputs without each of some blocks, and without those that are gone already.

        The reference is the whole model. The median over the samples counts; nothing but one sample's outputs is held.
        """
        samples = self._ctx.samples
        assert isinstance(samples, Samples)
        model, gates = gated(self._model, [*blocks, *gone])
        session = open_session(model, threads=self._ctx.threads)
        inputs = {value.name: value for value in model.graph.inputs}
        types = {block: np.dtype(value.dtype.numpy()) for block, name in gates.items()
                 if (value := inputs[name]).dtype is not None}  # fmt: skip

        def outputs(feed: Feed, silent: Collection[Block]) -> dict[str, object]:
            off = {block.name for block in silent}
            switches = {name: np.asarray(block not in off, types[block]) for block, name in gates.items()}
            return dict(session.run({**feed, **switches}))

        heard: dict[str, list[float]] = {block.name: [] for block in blocks}
        chosen = samples.spread(self._runs)
        for done, feed in enumerate(chosen, start=1):
            whole = outputs(feed, ())
            for block in blocks:
                heard[block.name].append(typical_sqnr([(whole, outputs(feed, [*gone, block]))]))
            if self._ctx.progress is not None:
                self._ctx.progress(done, chosen.length)
        return {name: statistics.median_high(values) if values else -math.inf for name, values in heard.items()}


def _set_zero(model: ir.Model, name: str) -> None:
    """Make a constant 0 of a scalar input."""
    gate = next(value for value in model.graph.inputs if value.name == name)
    assert gate.dtype is not None
    model.graph.inputs.remove(gate)
    gate.const_value = ir.tensor(np.zeros((), gate.dtype.numpy()), name=name)
    model.graph.register_initializer(gate)
