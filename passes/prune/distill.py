"""Fit all weights of a pruned model together, by descent, to what the original gives.

::

    W' = argmin E|z(x) - z'(x; W')|^2      z: outputs of the original, before a Softmax or a Sigmoid that ends it

`recover` fits one layer at a time, each to what that layer gave. Where channels went, no layer can give that any more,
and what is lost in one could be made up for better in another. Here all that are behind something pruned move together,
from the weights as they are (`descent`). No labels are needed, and no training framework: onnxruntime runs the model
forwards, `adjoints` backwards. One run in eight is held out: it judges each epoch, and the best weights are kept.

A few hundred samples would be learnt by heart. But the original answers whatever it is asked, so each epoch asks
something new: images are moved a little, each by another way, and most of them are mixed with another. Other inputs
stay as they are.

Time: about four times that of running the model over all samples, for each epoch, on one core in numpy; small runs go
side by side where the model takes them so. Memory: the activations of one run, or 16 MB of several, three times the
weights, and the inputs of 32 runs that others are mixed with; what the original gives waits in files where it is much.

Declines: layers whose weight is shared, computed or not float32; those that an operator without an adjoint is behind;
all, where no epoch is better on what is held out. Weights that are 0 stay 0.

Sources: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", section 2.1 (matching logits); Li et al.
2021, "BRECQ" (fitting layers together to few unlabelled samples); Beyer et al. 2022, "Knowledge distillation: A good
teacher is patient and consistent" (the same mixed image for both); Zhang et al. 2018, "mixup", section 2.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxcomp.data import Feed, Samples, mixed, shifted
from onnxcomp.data.samples import Selection
from onnxcomp.errors import ModelError, OnnxCompError, RecipeError
from onnxcomp.model import infer_shapes, open_session
from onnxcomp.passbase import Need, Pass, PassContext, PassStats
from onnxcomp.passes.cleanup._graph import constant, onnx_domain
from onnxcomp.runtime import Session
from onnxcomp.statistics import Relay, inner_values

from .adjoints import ADJOINTS
from .descent import Descent
from .linear import Layer, layer_of, left
from .order import differing
from .origin import beside

__all__ = ["Distill", "DistillConfig"]

_HELD_OUT = 8  # every so many runs one judges
_ENDS = ("Softmax", "LogSoftmax", "Sigmoid", "Identity")  # only say otherwise what they read
_POOL = 32  # runs that are kept to mix others with
_TINY = 1e-12
_BYTES = 1 << 24  # of tensors of runs that are worked on side by side

_Relays = tuple[Relay, Relay]  # of the original up to what should be met, and of the smaller model up to what is fitted


@dataclass(frozen=True, slots=True)
class DistillConfig:
    """Settings of distillation.

    Attributes:
        epochs: How often the samples are gone through.
        rate: First size of a step, as a share of the root mean square of a tensor.
        batch: Runs per step.
        runs: Calibration samples at most, spread evenly over all.
        shift: How far images are moved at most, as a share of their smaller side; 0: not at all.
        mix: Share of the runs whose images are mixed with those of another run, in [0, 1].
        exclude: Names of nodes whose weights stay as they are.
    """

    epochs: int = 200
    rate: float = 0.01
    batch: int = 16
    runs: int = 512
    shift: float = 0.05
    mix: float = 0.75
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.rate < 1:
            raise RecipeError(f"rate must be in (0, 1), got {self.rate}")
        if min(self.epochs, self.batch) < 1 or self.runs < 2:
            raise RecipeError("epochs and batch must be 1 or more, and runs 2 or more")
        if not 0 <= self.shift < 1:
            raise RecipeError(f"shift must be in [0, 1), got {self.shift}")
        if not 0 <= self.mix <= 1:
            raise RecipeError(f"mix must be in [0, 1], got {self.mix}")


class Distill(Pass[DistillConfig]):
    """Fit all that is left after pruning together to what the original gives, with calibration samples alone."""

    name: ClassVar[str] = "distill"
    Config: ClassVar[type[DistillConfig]] = DistillConfig
    exact: ClassVar[bool] = False
    shifts: ClassVar[bool] = True
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATION})

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the weights in place."""
        teacher, samples = beside(model, ctx)
        feeds = samples.spread(self.config.runs)
        part = _Part.of(model, teacher, ctx, self.config.exclude)
        if part is None or feeds.count() < 2:
            return PassStats(modified=False)
        best = self._descend(model, teacher, part, ctx, feeds)
        if best is None:
            for layer in part.layers:
                ctx.skip(layer.node, "no change makes it better on samples that were held out")
            return PassStats(modified=False)
        for value in part.weights:
            value.const_value = ir.tensor(best[str(value.name)], name=value.name)
        return PassStats(modified=True, counters={"layers fitted": len(part.layers)})

    def _descend(
        self, model: ir.Model, teacher: ir.Model, part: "_Part", ctx: PassContext, feeds: Samples
    ) -> dict[str, np.ndarray] | None:
        """Return the best weights by name; None: the old ones."""
        assert ctx.origin is not None
        kept, rng = ctx.origin.kept, np.random.default_rng(ctx.seed)
        powers = _powers(teacher, part.aims, feeds, threads=ctx.threads)
        count = feeds.count()
        judges = [run for run in range(count) if run % _HELD_OUT == min(_HELD_OUT, count) - 1]
        fit = Selection(feeds, sorted({*range(count)} - {*judges}))
        weights = {str(value.name): array for value in part.weights if (array := constant(value)) is not None}
        parts = {str(layer.node.inputs[1].name): layer.size[0] for layer in part.layers if layer.node.inputs[1]}
        steps = self.config.epochs * -(-fit.count() // self.config.batch)
        state = Descent(weights, parts, self.config.rate, steps)
        session = part.session(model, threads=ctx.threads)

        def errors(relays: _Relays, *at: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], float]:
            """Run once, on runs side by side; return all tensors, the loss's slope for each aim, and the loss."""
            given = {name: _joined(relays[1], at, name) for name in part.fronts}
            found = given | session.run(given | state.weights, part.outputs)
            slopes, loss = {}, 0.0
            for name in part.aims:
                away = found[name] - left(_joined(relays[0], at, name), kept.get(name, {}))
                loss += float(np.square(away, dtype=np.float64).mean()) / powers[name]
                slopes[name] = (away * (2 / (away.size * powers[name]))).astype(np.float32)
            if not math.isfinite(loss):
                raise ModelError(f"what {part.aims[0]} and other outputs give is not a number (NaN) or infinite")
            return found, slopes, loss

        with part.ran(teacher, model, lambda: Selection(feeds, judges), threads=ctx.threads) as held:
            best, least = None, sum(errors(held, index)[2] for index in range(len(judges)))
            done, total, most = 0, self.config.epochs * fit.count(), 0
            for epoch in range(self.config.epochs):
                asked = partial(_asked, fit, self.config.shift, self.config.mix, (ctx.seed, epoch))
                with part.ran(teacher, model, asked, threads=ctx.threads) as relays:
                    most = most or _side_by_side(lambda *at, relays=relays: errors(relays, *at)[0], relays[0].length)
                    for batch in _batches(rng.permutation(relays[0].length), self.config.batch):
                        gradient: dict[str, np.ndarray] = {}
                        for at in _batches(batch, most):
                            found, slopes, _ = errors(relays, *at.tolist())
                            for name, slope in part.backwards(found | state.weights, slopes).items():
                                gradient[name] = gradient.get(name, 0.0) + slope * (len(at) / len(batch))
                            done += len(at)
                            if ctx.progress:
                                ctx.progress(done, total)
                        state.step(gradient)
                loss = sum(errors(held, index)[2] for index in range(len(judges)))
                if loss < least:
                    best, least = dict(state.weights), loss
        return best


def _powers(teacher: ir.Model, aims: Sequence[str], feeds: Samples, *, threads: int) -> dict[str, float]:
    """Return the mean square of what the original gives."""
    powers = dict.fromkeys(aims, _TINY)
    with Relay(teacher, feeds, aims, threads=threads) as relay:
        for wanted in relay.ahead(aims):
            for name in aims:
                powers[name] += float(np.square(wanted[name], dtype=np.float64).mean()) / relay.length
    return powers


def _asked(samples: Samples, shift: float, mix: float, seed: tuple[int, int]) -> Iterator[Feed]:
    """Deliver samples, their images moved, and some mixed with those of another run: the same for the same seed."""
    rng = np.random.default_rng(seed)
    others: list[Feed] = []
    for index, feed in enumerate(samples):
        moved = shifted(feed, shift, rng)
        blends = bool(others) and rng.random() < mix
        yield mixed(moved, others[rng.integers(len(others))], rng.random(), rng) if blends else moved
        if mix and len(others) < _POOL:
            others.append(moved)
        elif mix and (place := rng.integers(index + 1)) < _POOL:
            others[place] = moved


def _joined(relay: Relay, at: Sequence[int], name: str) -> np.ndarray:
    """Put a tensor of several runs side by side, along its first axis."""
    arrays = [relay.get(index, name) for index in at]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _side_by_side(run: Callable[..., Mapping[str, np.ndarray]], count: int) -> int:
    """Return how many runs to put side by side: one, if two then give anything else than one after the other."""
    pair = (0, count - 1)
    alone = [run(index) for index in pair]
    try:
        both = run(*pair)
        for name, found in both.items():
            wanted = np.concatenate([each[name] for each in alone])
            if found.shape != wanted.shape or not np.allclose(found, wanted, 1e-3, 1e-4 * float(np.abs(wanted).max())):
                return 1
    except (OnnxCompError, ValueError):  # it takes no more, or they differ in their shapes
        return 1
    return max(1, _BYTES // max(1, sum(array.nbytes for array in alone[0].values())))


def _batches(order: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(order), size):
        yield order[start : start + size]


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """The part of a graph between weights that are fitted and what the model gives.

    Attributes:
        layers: Whose weights are fitted.
        weights: Their constants, biases too.
        nodes: That depend on them and that aims depend on, in the order of the graph.
        aims: Names of tensors that should be as in the original.
        fronts: Names of computed tensors that these nodes read and that none of them gives.
        outputs: Names of all tensors that they give and that are needed.
    """

    layers: Sequence[Layer]
    weights: Sequence[ir.Value]
    nodes: Sequence[ir.Node]
    aims: Sequence[str]
    fronts: Sequence[str]
    outputs: Sequence[str]

    @classmethod
    def of(cls, model: ir.Model, teacher: ir.Model, ctx: PassContext, exclude: Sequence[str]) -> "_Part | None":
        """Find it; None: there is nothing to fit."""
        aims = _aims(model, set(inner_values(teacher)))
        leading, blocked = _behind(model.graph, aims)
        layers: list[Layer] = []
        changed = differing(model, teacher)
        for node in model.graph:
            found = layer_of(node) if node in changed and node.outputs[0] in leading else None
            if found is None:
                continue
            if node.name in exclude:
                ctx.skip(node, "excluded")
            elif isinstance(found, str):
                ctx.skip(node, found)
            elif node.op_type not in ADJOINTS or node.outputs[0] in blocked:
                ctx.skip(node, "it, or an operator behind it, has no adjoint")
            else:
                layers.append(found)
        weights = [value for layer in layers for value in _weights(layer)]
        nodes = _between(model.graph, weights, leading)
        if not nodes:
            return None
        made = {str(value.name) for node in nodes for value in node.outputs if value.name}
        mine = {str(value.name) for value in weights}
        computed = {str(v.name) for node in nodes for v in node.inputs if v is not None and constant(v) is None}
        names = [str(value.name) for value in aims if str(value.name) in made]
        outputs = (computed & made) | {str(node.outputs[0].name) for node in nodes}
        return cls(layers, weights, nodes, names, sorted(computed - made - mine), sorted(outputs))

    def session(self, model: ir.Model, *, threads: int) -> Session:
        """Open a session of this part alone that takes the weights as inputs too."""
        copy = model.clone()
        graph = ir.convenience.extract(copy.graph, [*self.fronts], [*self.outputs])
        piece = ir.Model(graph, ir_version=max(copy.ir_version, 8), functions=list(copy.functions.values()))
        piece.graph.opset_imports.update(copy.graph.opset_imports)
        infer_shapes(piece)
        graph.inputs.extend(graph.initializers[str(value.name)] for value in self.weights)
        return open_session(piece, threads=threads, spin=False)

    @contextmanager
    def ran(
        self, teacher: ir.Model, model: ir.Model, feeds: Callable[[], Iterable[Feed]], *, threads: int
    ) -> Iterator[_Relays]:
        """Run the original up to the aims, and the smaller model up to this part, over the same feeds."""
        with (
            Relay(teacher, feeds(), self.aims, threads=threads) as first,
            Relay(model, feeds(), self.fronts, threads=threads) as second,
        ):
            for relay, names in ((first, self.aims), (second, self.fronts)):
                for _ in relay.ahead(names):
                    pass
            yield first, second

    def backwards(self, found: Mapping[str, np.ndarray], slopes: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return the slope of a loss for each weight.

        Args:
            found: All tensors of a run, and the weights.
            slopes: Of the loss, for each aim.
        """
        known = dict(slopes)
        for node in reversed(self.nodes):
            slope = known.pop(str(node.outputs[0].name), None)
            if slope is None:
                continue
            read = [None if v is None else found.get(str(v.name), constant(v)) for v in node.inputs]
            given = found[str(node.outputs[0].name)]
            for value, part in zip(node.inputs, ADJOINTS[node.op_type](node, read, given, slope), strict=False):
                if value is not None and part is not None:
                    known[str(value.name)] = known[str(value.name)] + part if value.name in known else part
        return {str(value.name): known[str(value.name)] for value in self.weights if value.name in known}


def _weights(layer: Layer) -> Iterator[ir.Value]:
    value = layer.node.inputs[1]
    assert value is not None
    yield value
    if layer.holder is not None and layer.place < len(layer.holder.inputs):
        bias = layer.holder.inputs[layer.place]
        if bias is not None and len(bias.uses()) == 1 and not bias.is_graph_output():
            yield bias


def _aims(model: ir.Model, known: set[str]) -> list[ir.Value]:
    """Return what the model gives, before what only says it otherwise, where the original has it."""
    found: dict[ir.Value, None] = {}
    for value in model.graph.outputs:
        while (node := value.producer()) is not None and node.op_type in _ENDS and node.inputs[0] is not None:
            if str(node.inputs[0].name) not in known:
                break
            value = node.inputs[0]  # noqa: PLW2901
        if str(value.name) in known:
            found[value] = None
    return list(found)


def _behind(graph: ir.Graph, aims: Sequence[ir.Value]) -> tuple[set[ir.Value], set[ir.Value]]:
    """Return the values that aims depend on by more than their shape, and those of them whose slope can't be told."""
    leading, blocked = set(aims), set[ir.Value]()
    for node in reversed(graph):
        given = [value for value in node.outputs if value in leading]
        if not given or node.op_type in ("Shape", "Size"):
            continue
        read = {value for value in node.inputs if value is not None}
        leading |= read
        if (
            node.op_type not in ADJOINTS
            or not onnx_domain(node)
            or given != [node.outputs[0]]
            or node.outputs[0] in blocked
        ):
            blocked |= read
    return leading, blocked


def _between(graph: ir.Graph, weights: Sequence[ir.Value], leading: set[ir.Value]) -> list[ir.Node]:
    """Return the nodes that depend on weights and that aims depend on."""
    live, found = set(weights), []
    for node in graph:
        if node.op_type not in ("Shape", "Size") and node.outputs[0] in leading and not live.isdisjoint(node.inputs):
            found.append(node)
            live |= set(node.outputs)
    return found
