"""Take two versions of a model apart: what is stored, what takes time, what became of each layer and activation."""

import math
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.data import Feed
from onnxcomp.errors import DataError, ModelError
from onnxcomp.facts import all_nodes
from onnxcomp.measure import node_profile, node_times, operator_times
from onnxcomp.metrics import sqnr
from onnxcomp.model import materialized, open_session
from onnxcomp.report.anatomy import Activation, Anatomy, Layer, OperatorShare, Storage
from onnxcomp.statistics import float_tensors, inner_values, tapped
from onnxcomp.thresholds import Histogram

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["anatomy"]

Times = Mapping[str, float]
_BINS = 64
_PROFILE_SECONDS = 1.0  # of one profile, where fewer runs keep it that short
_MOST_RUNS, _LEAST_RUNS = 10, 2
_LARGEST = 1 << 29  # bytes of a model whose inner tensors are compared: a run holds all of them
_LEAST_ELEMENTS = 16  # of a weight: fewer are scales
_NO_WEIGHTS = frozenset({"int64", "int32", "bool", "string"})  # shapes, positions, biases between integers
_DEEPEST = 6  # nodes that a rewritten layer may have behind the one with its weights
_LONG_NAMES = {"float": "float32", "double": "float64"}  # where ONNX's name leaves out the bits


def anatomy(
    original: "ir.Model",
    cleaned: "ir.Model",
    delivered: "ir.Model",
    feed: Feed,
    *,
    histograms: Mapping[str, Histogram],
    seconds: float | None,
    threads: int,
) -> Anatomy:
    """Compare what models are made of.

    Args:
        original: Its storage and its time by operator are those before.
        cleaned: The same after clean-up: its layers are those before.
        delivered: What was made of it.
        feed: One run, that is profiled and whose inner tensors are compared.
        histograms: Of activations, by the name of the tensor.
        seconds: Of one run of the original; None: no time is to be taken.
        threads: Intra-op threads of the profile.
    """
    notes: list[str] = []
    operators: tuple[OperatorShare, ...] = ()
    times: tuple[Times, Times] = ({}, {})
    if seconds is not None:
        runs = int(min(_MOST_RUNS, max(_LEAST_RUNS, _PROFILE_SECONDS / max(seconds, 1e-9))))
        try:
            operators = tuple(_operators(original, delivered, feed, threads=threads, runs=runs))
            before, after = (node_times(m, feed, threads=threads, runs=runs) for m in (cleaned, delivered))
            times = before, after
        except ModelError as err:
            notes.append(f"no time by operator: {err}")
    layers = _layers(_parts(cleaned), _parts(delivered), delivered, times)
    noise = _noise(cleaned, delivered, [layer.output for layer in layers], feed, notes)
    return Anatomy(
        layers=tuple(layer.told(noise.get(layer.output)) for layer in layers),
        storage=tuple(_storage(original, delivered)),
        operators=operators,
        activations=tuple(_activations(delivered, histograms)),
        notes=tuple(notes),
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """A node and the constants that it alone, or first, reads: data type and bytes of each."""

    node: "ir.Node"
    constants: tuple[tuple[str, int], ...]
    weights: tuple[tuple[str, int], ...]  # data type and elements of those with two axes or more

    @property
    def bytes(self) -> int:
        return sum(count for _, count in self.constants)

    @property
    def dtype(self) -> str:
        """Data type of the weight with the most elements, as it is stored."""
        found, _ = max(self.weights, key=lambda one: one[1], default=("", 0))
        bits = self.node.attributes.get_int("bits", 0) if self.node.op_type == "MatMulNBits" else 0
        return f"uint{bits}" if bits else found

    @property
    def output(self) -> str:
        return str(self.node.outputs[0].name)


@dataclass(frozen=True, slots=True)
class _Pair:
    """A layer before and after; one of them may be missing."""

    before: _Part | None
    after: _Part | None
    seconds: tuple[float | None, float | None]

    @property
    def output(self) -> str:
        return self._shown.output

    @property
    def _shown(self) -> _Part:
        found = self.before or self.after  # what was rewritten has a new name; its output has the old one
        assert found is not None
        return found

    def told(self, noise: float | None) -> Layer:
        shown = self._shown.node
        return Layer(
            name=str(shown.name or self.output),
            op_type=(self.after or self._shown).node.op_type,
            dtype_before=self.before.dtype if self.before else "",
            dtype_after=self.after.dtype if self.after else "",
            bytes_before=self.before.bytes if self.before else 0,
            bytes_after=self.after.bytes if self.after else 0,
            seconds_before=self.seconds[0],
            seconds_after=self.seconds[1],
            sqnr=noise,
        )


def _parts(model: "ir.Model") -> list[_Part]:
    """List the nodes that read constants, in order; what is made of constants alone belongs to who reads that."""
    constant: set[ir.Value] = {v for g in model.graphs() for v in g.initializers.values() if v.const_value is not None}
    held: dict[ir.Value, list[tuple[str, int, int]]] = {}  # data type, bytes, elements where they are weights
    for value in constant:
        tensor = value.const_value
        assert tensor is not None
        held[value] = [_held(tensor)]
    found = []
    for node in all_nodes(model):
        inputs = [value for value in node.inputs if value is not None]
        taken = [entry for value in inputs for entry in held.pop(value, [])]
        attribute = node.attributes.get("value") if node.op_type == "Constant" else None
        if attribute is not None:
            taken.append(_held(attribute.as_tensor()))
        if node.outputs and not _has_bodies(node) and (attribute or inputs) and all(v in constant for v in inputs):
            constant.update(node.outputs)
            held[node.outputs[0]] = taken
        elif taken:
            large = tuple((dtype, elements) for dtype, _, elements in taken if elements)
            found.append(_Part(node, tuple((dtype, count) for dtype, count, _ in taken), large))
    return found


def _held(tensor: "ir.TensorProtocol") -> tuple[str, int, int]:
    name = tensor.dtype.name.lower()
    is_weight = len(tensor.shape) > 1 and tensor.size >= _LEAST_ELEMENTS and name not in _NO_WEIGHTS
    return _LONG_NAMES.get(name, name), tensor.nbytes, tensor.size * is_weight


def _has_bodies(node: "ir.Node") -> bool:
    """Whether a node runs graphs of its own: what it gives may depend on more than its inputs."""
    import onnx_ir as ir

    return any(one.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS) for one in node.attributes.values())


def _layers(before: list[_Part], after: list[_Part], delivered: "ir.Model", times: tuple[Times, Times]) -> list[_Pair]:
    """Pair the nodes with weights: by their names, by those of their outputs, by what the output is computed from."""
    old = {part.node: part for part in before if part.weights}
    new = {part.node: part for part in after if part.weights}
    by_name = {str(node.name): node for node in old if node.name}
    by_output = {part.output: node for node, part in old.items()}
    origin: dict[ir.Node, ir.Node] = {}
    for node, part in new.items():
        match = by_name.get(str(node.name)) or by_output.get(part.output)
        if match is not None and match not in origin.values():
            origin[node] = match
    left = [node for node in old if node not in origin.values()]
    places = inner_values(delivered) if left else {}
    for node in left:
        value = places.get(old[node].output)
        rewritten = None if value is None else _behind(value, [other for other in new if other not in origin])
        if rewritten is not None:
            origin[rewritten] = node
    pairs = [_pair(old[origin[node]] if node in origin else None, part, times) for node, part in new.items()]
    return [*pairs, *(_pair(part, None, times) for node, part in old.items() if node not in origin.values())]


def _behind(value: "ir.Value", wanted: "Collection[ir.Node]") -> "ir.Node | None":
    """Return the nearest of the wanted nodes that a value is computed from; None: none is near."""
    level = [value]
    for _ in range(_DEEPEST):
        makers = [made for one in level if (made := one.producer()) is not None]
        if (found := next((node for node in makers if node in wanted), None)) is not None:
            return found
        level = [one for node in makers for one in node.inputs if one is not None]
    return None


def _pair(before: _Part | None, after: _Part | None, times: tuple[Times, Times]) -> _Pair:
    taken = (
        found.get(str(part.node.name)) if part is not None else None
        for part, found in zip((before, after), times, strict=True)
    )
    return _Pair(before, after, (next(taken), next(taken)))


def _storage(original: "ir.Model", delivered: "ir.Model") -> Iterator[Storage]:
    before, after = (_stored(model) for model in (original, delivered))
    for key in sorted(before | after, key=lambda key: (-max(before[key], after[key]), key)):
        yield Storage(*key, before=before[key], after=after[key])


def _stored(model: "ir.Model") -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for part in _parts(model):
        for dtype, count in part.constants:
            found[part.node.op_type, dtype] += count
    return found


def _operators(
    original: "ir.Model", delivered: "ir.Model", feed: Feed, *, threads: int, runs: int
) -> Iterator[OperatorShare]:
    found = []
    for model in (original, delivered):
        with materialized(model) as source:
            found.append(
                {one.op_type: one for one in operator_times(node_profile(source, feed, threads=threads, runs=runs))}
            )
    before, after = found
    for op_type in dict.fromkeys([*before, *after]):
        old, new = before.get(op_type), after.get(op_type)
        yield OperatorShare(
            op_type,
            nodes_before=old.nodes if old else 0,
            nodes_after=new.nodes if new else 0,
            seconds_before=old.seconds if old else 0.0,
            seconds_after=new.seconds if new else 0.0,
        )


def _noise(
    cleaned: "ir.Model", delivered: "ir.Model", names: Iterable[str], feed: Feed, notes: list[str]
) -> dict[str, float]:
    """Run both models with their inner tensors as outputs and return the SQNR of those that have the same shape, dB."""
    if max(sum(part.bytes for part in _parts(model)) for model in (cleaned, delivered)) > _LARGEST:
        notes.append("layers were not compared: the model is too large for that")
        return {}
    both = set(float_tensors(cleaned)) & set(float_tensors(delivered))
    shared = [name for name in dict.fromkeys(names) if name in both]
    if not shared:
        return {}
    try:
        values = [
            open_session(tapped(model, shared), threads=0, optimize=False, spin=False).run(feed, shared)
            for model in (cleaned, delivered)
        ]
    except (ModelError, DataError) as err:
        notes.append(f"layers were not compared: {err}")
        return {}
    before, after = values
    found = {name: sqnr(before[name], after[name]) for name in shared if before[name].shape == after[name].shape}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _activations(delivered: "ir.Model", histograms: Mapping[str, Histogram]) -> Iterator[Activation]:
    """Read the ranges off the QuantizeLinear nodes, and count what lies outside."""
    seen = set()
    for node in delivered.graph:
        name = str(node.inputs[0].name) if node.inputs and node.inputs[0] is not None else ""
        histogram = histograms.get(name)
        if node.op_type != "QuantizeLinear" or histogram is None or name in seen or not histogram.extremes.finite:
            continue
        spanned = _span(node)
        if spanned is not None:
            seen.add(name)
            yield _activation(name, histogram, *spanned)


def _activation(name: str, histogram: Histogram, low: float, high: float) -> Activation:
    least, most = histogram.extremes.low, histogram.extremes.high
    edges = (histogram.start + histogram.width * np.arange(len(histogram.counts) + 1)).clip(least, most)
    below = np.concatenate([[0], np.cumsum(histogram.counts)]).astype(np.float64)
    bounds = np.linspace(least, most, _BINS + 1)
    inside = np.interp(bounds, edges, below)
    inside[0], inside[-1] = 0.0, below[-1]
    counts = np.diff(np.rint(inside)).astype(np.int64)
    half = (high - low) / 510  # what rounds to the outermost levels is not cut off
    kept = np.interp([min(high + half, most), max(low - half, least)], edges, below)
    kept[0] = below[-1] if high + half >= most else kept[0]
    kept[1] = 0.0 if low - half <= least else kept[1]
    clipped = 1 - (kept[0] - kept[1]) / below[-1] if below[-1] else 0.0
    return Activation(name, least, most, low, high, max(0.0, float(clipped)), tuple(counts.tolist()))


def _span(node: "ir.Node") -> tuple[float, float] | None:
    """Return the range that a QuantizeLinear with one constant scale can tell apart."""
    import onnx_ir as ir

    constants = [None if value is None else ir.convenience.get_const_tensor(value) for value in node.inputs[1:3]]
    scale, zero = (*constants, None)[:2]
    if scale is None or scale.size != 1 or (len(node.inputs) > 2 and node.inputs[2] is not None and zero is None):
        return None
    kind = np.dtype(zero.dtype.numpy()) if zero is not None else np.dtype(np.uint8)
    if kind not in (np.uint8, np.int8, np.uint16, np.int16):
        return None
    limits, offset = np.iinfo(kind), int(zero.numpy().reshape(-1)[0]) if zero is not None else 0
    step = float(scale.numpy().reshape(-1)[0])
    return (limits.min - offset) * step, (limits.max - offset) * step
