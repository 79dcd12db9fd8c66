"""What `inspect` found in a model, as values, and its text."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from onnxcomp.passbase import Grouping
from onnxcomp.report.contents import (
    ActivationMemory,
    Estimates,
    WeightHistogram,
    activation_line,
    estimate_lines,
    histogram_rows,
)
from onnxcomp.report.document import Document
from onnxcomp.report.figures import bytes_text, count_text, counted

__all__ = ["Inspection", "NodeFacts", "OperatorFacts", "Placement", "TensorFacts", "Verdict", "WeightFacts"]

_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """An input or output: its name, type and shape as the file declares them (a name or None: any size)."""

    name: str
    type: str
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True, slots=True)
class OperatorFacts:
    """All nodes of one type.

    Attributes:
        op_type: With its domain, where that is not the default one.
        count: Nodes of this type.
        parameters: Elements of the weights that they are the first to read.
        macs: Multiply-accumulate operations of those nodes for which they can be told.
        unknown: Nodes for which they can't.
    """

    op_type: str
    count: int
    parameters: int
    macs: int
    unknown: int


@dataclass(frozen=True, slots=True)
class WeightFacts:
    """All weights of one data type."""

    dtype: str
    tensors: int
    elements: int
    bytes: int


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node: its place (empty: the main graph), the shapes that it makes (None: not known), and what it costs."""

    name: str
    op_type: str
    place: str
    shapes: tuple[tuple[int, ...] | None, ...]
    parameters: int
    macs: int | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a node would run in int8, static and dynamic, and why (not)."""

    name: str
    op_type: str
    static: bool
    static_reason: str
    dynamic: bool
    dynamic_reason: str
    macs: int | None


@dataclass(frozen=True, slots=True)
class Placement:
    """What quantization would do to every node.

    Attributes:
        target: Where the model would run.
        checked: What the verdicts rest on.
        nodes: One verdict for each node of the cleaned-up graph, and for each that clean-up takes away.
    """

    target: str
    checked: str
    nodes: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class Inspection(Document):
    """What a model is and what could be done with it.

    Attributes:
        model: The file, or "(in memory)".
        size: Bytes, external data included; of a model in a container, unpacked.
        packed_size: Bytes of the container that holds it; None: it is in none.
        external: Bytes of each file beside the model's own that holds weights of it.
        ir_version: Of the file format.
        opsets: Version of each operator set that the model imports, by domain ("" is the default one).
        producer: What wrote the model, and its version.
        inputs: Of the main graph.
        outputs: Of the main graph.
        parameters: Elements of all weights.
        macs: Multiply-accumulate operations of one run; None: they can't be told for every node.
        macs_known: Of the nodes for which they can be told.
        run_shapes: The input shapes that they are counted for.
        operators: By type, the most expensive first; functions are inlined.
        weights: By data type.
        functions: The model's own functions.
        subgraphs: Bodies of If, Loop and Scan.
        quantized: Whether there are integer operators already.
        recipe: TOML of the recipe that made the model; empty where it carries none.
        refusal: Why onnxruntime does not load it; empty: it does.
        notes: What the reader should know.
        nodes: Every node, where that was asked for.
        quantization: Verdicts, where they were asked for.
        groups: What structured pruning could remove, where that was asked for.
        versions: Of the packages involved.
        created: UTC, ISO 8601.
        activations: What tensors in between take at the most; None: not looked at.
        estimates: What smaller data types and narrower layers could gain; None: not looked at.
        histograms: How the values of each weight are distributed, where that was asked for.
    """

    kind: ClassVar[str] = "inspect"

    model: str
    size: int
    packed_size: int | None
    external: Mapping[str, int]
    ir_version: int
    opsets: Mapping[str, int]
    producer: str
    inputs: tuple[TensorFacts, ...]
    outputs: tuple[TensorFacts, ...]
    parameters: int
    macs: int | None
    macs_known: int
    run_shapes: str
    operators: tuple[OperatorFacts, ...]
    weights: tuple[WeightFacts, ...]
    functions: tuple[str, ...]
    subgraphs: int
    quantized: bool
    recipe: str
    refusal: str
    notes: tuple[str, ...]
    nodes: tuple[NodeFacts, ...]
    quantization: Placement | None
    groups: Grouping | None
    versions: Mapping[str, str]
    created: str
    activations: ActivationMemory | None = None
    estimates: Estimates | None = None
    histograms: tuple[WeightHistogram, ...] = ()

    def render(self, *, verbose: bool = False) -> str:
        """Return the text; `verbose`: also the recipe that made the model, and every weight type and operator."""
        lines = [*_head(self), "", *_operators(self), "", *_weights(self)]
        if self.histograms:
            head, *rows = histogram_rows(self.histograms)
            lines += ["", *_aligned(head, rows)]
        if self.nodes:
            lines += ["", *_nodes(self.nodes)]
        if self.quantization is not None:
            lines += ["", *_placement(self.quantization)]
        if self.groups is not None:
            lines += ["", *_groups(self.groups, self.parameters)]
        if verbose and self.recipe:
            lines += ["", " made by this recipe:", *(f"   {line}" for line in self.recipe.splitlines())]
        lines += [""] if self.notes else []
        return "\n".join(line.rstrip() for line in [*lines, *(f" note    {note}" for note in self.notes)]) + "\n"


def _head(found: Inspection) -> Iterator[str]:
    parameters = f"{count_text(found.parameters)} parameters"
    file = bytes_text(found.size)
    if found.packed_size is not None:
        file = f"{bytes_text(found.packed_size)}, unpacked {file}"
    yield f" model   {found.model}  {file}  {parameters}  {_total(found)} MACs"
    for name, size in found.external.items():
        yield f"         {bytes_text(size)} of it in {name}"
    opsets = ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in found.opsets.items())
    yield f" format  IR {found.ir_version}, opset {opsets or 'none'}" + (
        f", by {found.producer}" if found.producer else ""
    )
    for title, tensors in (("input", found.inputs), ("output", found.outputs)):
        for tensor in tensors:
            yield f" {title:7} {tensor.name}  {_declared(tensor)}"
    if found.run_shapes:
        yield f" run     MACs are counted for {found.run_shapes}"
    if found.activations is not None:
        yield activation_line(found.activations)
    if found.estimates is not None:
        yield from estimate_lines(found.estimates, found.size)
    if found.functions or found.subgraphs:
        yield f" parts   {counted(len(found.functions), 'function')}; bodies of If, Loop or Scan: {found.subgraphs}"
    yield f" state   {'holds integer operators already' if found.quantized else 'not quantized'}" + (
        "; made by onnxcomp, see --verbose" if found.recipe else ""
    )
    yield f" runtime {'onnxruntime refuses it: ' + found.refusal if found.refusal else 'onnxruntime loads it'}"


def _declared(tensor: TensorFacts) -> str:
    if tensor.shape is None:
        return f"{tensor.type}, any shape"
    return f"{tensor.type}[{', '.join('?' if size is None else str(size) for size in tensor.shape)}]"


def _total(found: Inspection) -> str:
    if found.macs is not None:
        return count_text(found.macs)
    return f"at least {count_text(found.macs_known)}" if found.macs_known else _UNKNOWN


def _operators(found: Inspection) -> Iterator[str]:
    width = max((len(o.op_type) for o in found.operators), default=8)
    yield f" {'operator':{width}} {'count':>6} {'parameters':>12} {'MACs':>12}"
    for o in found.operators:
        macs = count_text(o.macs) if o.macs or not o.unknown else ""
        unknown = "" if not o.unknown else _UNKNOWN if o.unknown == o.count else f"{counted(o.unknown, 'node')} unknown"
        row = f" {o.op_type:{width}} {o.count:6} {count_text(o.parameters):>12} {macs:>12}"
        yield f"{row}  {unknown}" if unknown else row


def _weights(found: Inspection) -> Iterator[str]:
    if not found.weights:
        return
    yield f" {'weights':10} {'tensors':>8} {'elements':>12} {'bytes':>10}"
    for w in found.weights:
        yield f" {w.dtype:10} {w.tensors:8} {count_text(w.elements):>12} {bytes_text(w.bytes):>10}"


def _nodes(nodes: Iterable[NodeFacts]) -> Iterator[str]:
    yield from _aligned(
        ("node", "operator", "makes", "parameters", "MACs"),
        (
            (
                f"{n.place}/{n.name}" if n.place else n.name,
                n.op_type,
                " ".join("?" if s is None else "x".join(map(str, s)) or "number" for s in n.shapes),
                count_text(n.parameters),
                _UNKNOWN if n.macs is None else count_text(n.macs),
            )
            for n in nodes
        ),
    )


def _placement(found: Placement) -> Iterator[str]:
    yield f" int8 on {found.target} ({found.checked})"
    total = sum(v.macs or 0 for v in found.nodes)
    for kind in ("static", "dynamic"):
        chosen = [v for v in found.nodes if getattr(v, kind)]
        share = f", {sum(v.macs or 0 for v in chosen) / total:.0%} of the known MACs" if total else ""
        yield f" {kind:8} {len(chosen)} of {counted(len(found.nodes), 'node')}{share}"
        reasons = Counter(getattr(v, f"{kind}_reason") for v in found.nodes if not getattr(v, kind))
        yield from (f"   {count:5} not: {reason}" for reason, count in reasons.most_common())
    yield ""
    yield from _aligned(
        ("node", "operator", "static", "dynamic"),
        ((v.name, v.op_type, _verdict(v.static, v.static_reason), _verdict(v.dynamic, v.dynamic_reason))
         for v in found.nodes),
    )  # fmt: skip


def _groups(found: Grouping, parameters: int) -> Iterator[str]:
    share = f"{found.parameters / parameters:.0%} of the parameters" if parameters else "no parameters"
    yield f" groups  {len(found.groups)} of channels that can be pruned, with {share}"
    if found.groups:
        timed = any(g.time is not None for g in found.groups)
        yield ""
        yield from _aligned(
            ("group", "kind", "channels", "parameters", "MACs", *(["time"] if timed else []), "made by", "read by"),
            (
                (
                    g.name,
                    g.kind,
                    str(g.channels),
                    count_text(g.parameters),
                    _UNKNOWN if g.macs is None else count_text(g.macs),
                    *([_UNKNOWN if g.time is None else f"{g.time:.1%}"] if timed else []),
                    ", ".join(g.makers),
                    ", ".join(g.readers),
                )
                for g in found.groups
            ),
        )
    if found.frozen:
        yield ""
        yield from _aligned(
            ("layer", "operator", "why its channels stay"),
            ((skip.node, skip.op_type, skip.reason) for skip in found.frozen),
        )


def _verdict(integer: bool, reason: str) -> str:
    return f"int8 ({reason})" if integer and reason else "int8" if integer else f"no: {reason}"


def _aligned(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    table = [head, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    for row in table:
        yield " " + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
