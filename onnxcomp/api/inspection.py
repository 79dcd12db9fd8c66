"""``inspect``: what a model is, what it costs, and what quantization would do with each node."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from onnxcomp.api.common import Data, check_images_used, make_up, open_data
from onnxcomp.api.live import activation_memory
from onnxcomp.api.placement import place
from onnxcomp.api.shapes import Costs, count_costs
from onnxcomp.api.weighing import estimates, type_text, weight_histograms
from onnxcomp.data import Feed, ImageOptions, Samples
from onnxcomp.errors import DataError, ModelError, PassError, UsageError
from onnxcomp.facts import is_quantized, parameter_count, weights
from onnxcomp.measure import Stopwatch
from onnxcomp.model import external_files, is_packed, load, read, size
from onnxcomp.passbase import Grouping, PassContext
from onnxcomp.recipe import METADATA_KEY
from onnxcomp.registry import pass_class
from onnxcomp.report import now, versions
from onnxcomp.report.inspection import Inspection, NodeFacts, OperatorFacts, TensorFacts, WeightFacts
from onnxcomp.target import get_target

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["inspect"]

_DEFAULT_DOMAINS = ("", "ai.onnx")


def inspect(
    model: "str | os.PathLike[str] | bytes | ir.Model",
    *,
    nodes: bool = False,
    quantization: bool = False,
    groups: bool = False,
    latency: bool = False,
    histograms: bool = False,
    calibration: Data | None = None,
    synthetic_calibration: bool = False,
    target: str = "auto",
    batch: int = 1,
    images: ImageOptions | None = None,
    seed: int = 0,
) -> Inspection:
    """Look at a model without changing anything.

    Args:
        model: A path, a serialized model, or a model in memory. One that onnxruntime refuses is shown as well.
        nodes: Also list every node.
        quantization: Also say for every node whether it would run in int8, and if not, why.
        groups: Also list the groups of channels that structured pruning could remove, and why others stay.
        latency: Of groups, also measure which share of the time each takes.
        histograms: Also say of every weight how its values are distributed.
        calibration: Samples: their shapes are those that operations are counted for, and with them `quantization`
            knows what depends on ranges, and what onnxruntime really makes of the quantized graph.
        synthetic_calibration: The same on made-up inputs, where there are no samples.
        target: Where the model would run; ``auto`` is this machine.
        batch: Rows per run of an ``.npz`` of rows, and of made-up inputs; images per run.
        images: How the images of a folder become values of the model's input.
        seed: Of made-up inputs.

    Raises:
        ModelError: It can't be read as an ONNX model.
        UsageError: There is no such target, the samples do not fit, or latency is asked for without groups.
    """
    if latency and not groups:
        raise UsageError("the latency is measured of groups", hint="--groups --latency; onnxcomp bench times a model")
    chosen = get_target(target)
    found = read(model)
    source = Path(model) if isinstance(model, str | os.PathLike) else None
    notes: list[str] = []
    refusal = _refusal(found)
    samples = open_data(found, calibration, batch=batch, images=images)
    check_images_used(images, samples)
    feed = _first(found, samples, notes, batch=batch, seed=seed)
    costs = count_costs(found, feed, notes)
    facts = list(_node_facts(costs))
    external = external_files(found)
    known = [fact.macs for fact in facts if fact.macs is not None]
    verdicts = None
    if quantization:
        made_up = make_up(found, seed=seed, batch=batch) if synthetic_calibration and samples is None else samples
        verdicts = place(found, chosen, feed=feed, calibration=made_up, runs=not refusal)
        if is_quantized(found):
            notes.append(
                "the model is quantized already: what is said is what could be rewritten now; layers between "
                "DequantizeLinear and QuantizeLinear run in int8 as they are"
            )
    ctx = PassContext(chosen, samples=samples, timer=Stopwatch(seed=seed) if latency else None, seed=seed)
    grouping = _grouping(found, ctx, refusal, notes) if groups else None
    stored = size(found) if source is None or is_packed(found) else source.stat().st_size + sum(external.values())
    return Inspection(
        model=str(source) if source else "(in memory)",
        size=stored,
        packed_size=_packed_size(model) if is_packed(found) else None,
        external=external,
        ir_version=found.ir_version,
        opsets=dict(found.opset_imports),
        producer=" ".join(filter(None, (found.producer_name, found.producer_version))),
        inputs=tuple(_tensor(v) for v in found.graph.inputs if v.name not in found.graph.initializers),
        outputs=tuple(_tensor(v) for v in found.graph.outputs),
        parameters=parameter_count(found),
        macs=sum(known) if len(known) == len(facts) else None,
        macs_known=sum(known),
        run_shapes=_shapes_text(feed),
        operators=tuple(_operators(facts)),
        weights=tuple(_weights(found)),
        functions=tuple("::".join(filter(None, key)) for key in found.functions),
        subgraphs=sum(1 for _ in found.graphs()) - 1,
        quantized=is_quantized(found),
        recipe=found.metadata_props.get(METADATA_KEY, ""),
        refusal=refusal,
        notes=tuple(notes),
        nodes=tuple(facts) if nodes else (),
        quantization=verdicts,
        groups=grouping,
        versions=versions(),
        created=now(),
        activations=activation_memory(costs),
        estimates=estimates(found, stored, grouping),
        histograms=tuple(weight_histograms(found)) if histograms else (),
    )


def _packed_size(model: "str | os.PathLike[str] | bytes | ir.Model") -> int | None:
    """Return the bytes of a container."""
    if isinstance(model, bytes):
        return len(model)
    return Path(model).stat().st_size if isinstance(model, str | os.PathLike) else None


def _grouping(model: "ir.Model", ctx: PassContext, refusal: str, notes: list[str]) -> Grouping | None:
    """Ask channel pruning what it could remove; a note says where it can't tell."""
    try:
        if not refusal:
            return pass_class("prune-channels")().groups(model, ctx)
        reason = "onnxruntime refuses the model"
    except (PassError, ModelError, DataError) as err:
        reason = str(err)
    notes.append(f"channel groups can't be told: {reason}")
    return None


def _refusal(model: "ir.Model") -> str:
    """Say why onnxruntime does not load a model; nothing where it does."""
    try:
        load(model)
    except ModelError as err:
        return str(err).removeprefix("onnxruntime refuses the model: ")
    return ""


def _first(model: "ir.Model", samples: Samples | None, notes: list[str], *, batch: int, seed: int) -> Feed:
    """Return the first sample, or a made-up one; an empty one, with a note, where none can be made up."""
    if samples is not None:
        return next(iter(samples.take(1)))
    try:
        return next(iter(make_up(model, seed=seed, batch=batch).take(1)))
    except (DataError, ModelError) as err:
        notes.append(f"{err}: what depends on its shape is unknown; give samples with --calibration")
        return {}


def _node_facts(costs: Costs) -> Iterator[NodeFacts]:
    """Yield each node with its cost; a weight counts with the first node that reads it."""
    seen: set[ir.Value] = set()
    places = _places(costs.model)
    for node in costs.model.graph.all_nodes():
        parameters = 0
        for value in node.inputs:
            if value is not None and value not in seen and (tensor := _weight(value)) is not None:
                seen.add(value)
                parameters += tensor.size
        yield NodeFacts(
            name=node.name or next((str(o.name) for o in node.outputs if o.name), ""),
            op_type=_op_type(node),
            place=places.get(node.graph, ""),
            shapes=tuple(_known(value) for value in node.outputs if value.name),
            parameters=parameters,
            macs=costs.macs[node],
        )


def _places(model: "ir.Model") -> "dict[object, str]":
    """Name each body by the node and attribute that hold it."""
    found: dict[object, str] = {}
    for node in model.graph.all_nodes():
        for attribute in node.attributes.values():
            if attribute.type.name == "GRAPH":
                outer = found.get(node.graph, "")
                found[attribute.as_graph()] = f"{outer}/{node.name}.{attribute.name}".lstrip("/")
    return found


def _weight(value: "ir.Value") -> "ir.TensorProtocol | None":
    """Return the tensor of an initializer or of a Constant node that holds more than 64 elements."""
    producer = value.producer()
    if producer is None:
        return value.const_value
    if producer.op_type != "Constant" or (held := producer.attributes.get("value")) is None:
        return None
    tensor = held.as_tensor()
    return tensor if tensor.size > 64 else None


def _op_type(node: "ir.Node") -> str:
    return node.op_type if node.domain in _DEFAULT_DOMAINS else f"{node.domain}::{node.op_type}"


def _known(value: "ir.Value") -> tuple[int, ...] | None:
    if value.shape is None or not all(isinstance(size, int) for size in value.shape):
        return None
    return tuple(int(size) for size in value.shape)  # type: ignore[arg-type]


def _operators(facts: list[NodeFacts]) -> list[OperatorFacts]:
    types = Counter(fact.op_type for fact in facts)
    rows = []
    for op_type, count in types.items():
        own = [fact for fact in facts if fact.op_type == op_type]
        costs = [fact.macs for fact in own]
        known = sum(cost or 0 for cost in costs)
        rows.append(OperatorFacts(op_type, count, sum(f.parameters for f in own), known, costs.count(None)))
    return sorted(rows, key=lambda row: (-row.macs, -row.parameters, -row.count, row.op_type))


def _weights(model: "ir.Model") -> list[WeightFacts]:
    kinds: dict[str, list[ir.TensorProtocol]] = {}
    for tensor in weights(model):
        kinds.setdefault(type_text(tensor.dtype), []).append(tensor)
    rows = [
        WeightFacts(dtype, len(tensors), sum(t.size for t in tensors), sum(t.nbytes for t in tensors))
        for dtype, tensors in kinds.items()
    ]
    return sorted(rows, key=lambda row: (-row.bytes, row.dtype))


def _tensor(value: "ir.Value") -> TensorFacts:
    shape = None if value.shape is None else tuple(_dimension(size) for size in value.shape)
    return TensorFacts(str(value.name), _type_text(value.type), shape)


def _dimension(size: object) -> int | str | None:
    return size if isinstance(size, int) else getattr(size, "value", None)


def _type_text(kind: "ir.TypeProtocol | None") -> str:
    import onnx_ir as ir

    if kind is None:
        return "unknown type"
    if isinstance(kind, ir.SequenceType):
        return f"sequence of {_type_text(kind.elem_type)}"
    if isinstance(kind, ir.OptionalType):
        return f"optional {_type_text(kind.elem_type)}"
    name = type_text(kind.dtype)
    return f"sparse {name}" if isinstance(kind, ir.SparseTensorType) else name


def _shapes_text(feed: Feed) -> str:
    return ", ".join(f"{name} {'x'.join(map(str, array.shape)) or 'number'}" for name, array in feed.items())
