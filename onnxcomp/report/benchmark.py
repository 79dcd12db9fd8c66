"""What `bench` returns: how fast models are, alone and against the first, and what they need."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

from onnxcomp.measure import Fallback, Memory, NodeTime, OperatorTime, Ratio, Timing
from onnxcomp.report.document import Document
from onnxcomp.report.figures import bytes_text, counted, seconds_text, table
from onnxcomp.report.sweep import SweepPoint, Throughput, interval_cells, stream_table, sweep_table
from onnxcomp.runtime import Provider

__all__ = ["BenchReport", "BenchSettings", "ModelBenchmark", "claim"]

_TOP = 10  # types of operators that the text shows
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
_COPIES = ", copies of inputs and outputs from and to the host included"
_BOUND = ", inputs and outputs in the memory of its device"


@dataclass(frozen=True, slots=True)
class BenchSettings:
    """What a `bench` was asked for.

    Attributes:
        data: What the models ran on.
        threads: Intra-op threads; 0 is all cores.
        batch: Rows per run that were asked for.
        provider: What ran the models.
        seconds: For the timing.
        half_width: How narrow the intervals were to be, as a share of the ratio.
        seed: Of the order of the runs and of made-up inputs.
        confidence: Of the intervals.
        copies: Whether runs on another device than the CPU include copying inputs and outputs from and to the host.
    """

    data: str
    threads: int
    batch: int
    provider: Provider
    seconds: float
    half_width: float
    seed: int
    confidence: float = 0.95
    copies: bool = True


@dataclass(frozen=True, slots=True)
class ModelBenchmark:
    """One model's figures.

    Attributes:
        model: Its path.
        size: Bytes on disk.
        latency: Of single runs, seconds.
        throughput: Rows per second: `rows` over the median latency.
        load_seconds: Median time to create a session, the file being in the system's cache.
        memory: In a process of its own; None: not known.
        ratio: Time per run over the first model's, paired, with its interval; None: it is the first.
        operators: Time by type of operator, the slowest first, from a run with onnxruntime's profiler, which slows it
            down; empty where that was not asked for.
        fingerprint: Of graph and weights: models that share it are equal.
        nodes: Time of each node, the slowest first, from the same run with the profiler.
        fallback: What ran on the CPU instead of the provider that was asked for; None: that is the CPU, or not known.
    """

    model: str
    size: int
    latency: Timing
    throughput: float
    load_seconds: float
    memory: Memory | None
    ratio: Ratio | None
    operators: tuple[OperatorTime, ...]
    fingerprint: str = ""
    nodes: tuple[NodeTime, ...] = ()
    fallback: Fallback | None = None


@dataclass(frozen=True, slots=True)
class BenchReport(Document):
    """Everything that one `bench` measured.

    Attributes:
        settings: What was asked for.
        shapes: Of the inputs that were timed, by name.
        rows: Rows in a run: the first axis of all inputs, where that is the batch asked for, else 1.
        models: In the order given.
        rounds: How often each model had its turn.
        settled: Whether all intervals are as narrow as was asked for.
        seconds: That the timing took.
        notes: What the reader should know.
        versions: Of the packages involved.
        machine: Processor, operating system and Python.
        created: UTC, ISO 8601.
        sweep: The models at other sizes, where that was asked for.
        streams: Their throughput with several streams, where that was asked for.
    """

    kind: ClassVar[str] = "bench"

    settings: BenchSettings
    shapes: dict[str, tuple[int, ...]]
    rows: int
    models: tuple[ModelBenchmark, ...]
    rounds: int
    settled: bool
    seconds: float
    notes: tuple[str, ...]
    versions: dict[str, str]
    machine: dict[str, str]
    created: str
    sweep: tuple[SweepPoint, ...] = ()
    streams: Throughput | None = None

    def render(self, *, verbose: bool = False) -> str:
        """Return the text for a terminal; `verbose`: every node and type of operator, not the slowest ten."""
        confidence = self.settings.confidence
        lines = [*self._head(), "", *table([*self._rows()]), ""]
        if self.sweep:
            lines += [*table([*sweep_table(self.sweep, confidence)]), ""]
        if self.streams is not None:
            lines += [*table([*stream_table(self.streams, confidence)]), ""]
        for found in self.models:
            if found.operators:
                lines += [f" {found.model}, by operator:", *table([*_operators(found, verbose=verbose)]), ""]
            if found.nodes:
                lines += [f" {found.model}, by node:", *table([*_nodes(found, verbose=verbose)]), ""]
                lines += _quantizers(found)
            if found.fallback is not None:
                lines += [f" {fallback_text(found.model, found.fallback)}", ""]
        lines += [f" note    {note}" for note in self.notes]
        lines += [f" result  {line}" for line in self._verdict()]
        return "\n".join(lines) + "\n"

    def _head(self) -> Iterable[str]:
        asked = self.settings
        inputs = ", ".join(f"{name} {list(shape)}" for name, shape in self.shapes.items())
        yield f" input   {asked.data}: {inputs}"
        threads = counted(asked.threads, "thread") if asked.threads else "all threads"
        copies = "" if asked.provider == "cpu" else _COPIES if asked.copies else _BOUND
        took = f"{counted(self.rounds, 'round')} in {self.seconds:.0f} s"
        yield f" target  {asked.provider} provider{copies}, {threads}; {took}"
        runtime = next((self.versions[name] for name in _RUNTIMES if name in self.versions), "?")
        places = (self.machine.get("device"), self.machine.get("processor", "?"), self.machine.get("system", "?"))
        yield f" machine {', '.join(filter(None, places))}, onnxruntime {runtime}"

    def _rows(self) -> Iterable[list[str]]:
        yield [
            "model",
            "size",
            "median",
            "p90",
            "p99",
            "rows/s",
            "load",
            "memory",
            "time / first",
            f"{100 * self.settings.confidence:g} % interval",
        ]
        for found in self.models:
            times = (found.latency.median, found.latency.p90, found.latency.p99)
            yield [
                found.model,
                bytes_text(found.size),
                *map(seconds_text, times),
                f"{found.throughput:.1f}",
                seconds_text(found.load_seconds),
                _memory(found.memory),
                *interval_cells(found.ratio),
            ]

    def _verdict(self) -> Iterable[str]:
        for found in self.models:
            if found.ratio is not None:
                yield f"{found.model} is {_speed(found.ratio, self.settings.half_width)}"
        if not self.settled and len(self.models) > 1:
            wanted = f"{100 * self.settings.half_width:g} %"
            yield (
                f"not known to {wanted}, as was asked for: the machine is too busy, or --seconds "
                f"{self.settings.seconds:g} is too short"
            )


def claim(ratio: Ratio, least: float) -> Literal["faster", "slower"] | None:
    """Return what is proven; less than `least` counts as nothing: two sessions of one file may differ by a percent."""
    if ratio.high < 1 - least:
        return "faster"
    return "slower" if ratio.low > 1 + least else None


def _speed(ratio: Ratio, least: float) -> str:
    claimed = claim(ratio, least)
    if claimed == "faster":
        return f"{1 / ratio.ratio:.2f}x faster than the first [{1 / ratio.high:.2f}, {1 / ratio.low:.2f}]"
    if claimed == "slower":
        return f"{ratio.ratio:.2f}x slower than the first [{ratio.low:.2f}, {ratio.high:.2f}]"
    return f"not proven more than {100 * least:g} % faster or slower than the first"


def _memory(memory: Memory | None) -> str:
    if memory is None:
        return "-"
    device = "" if memory.device is None else f", GPU {bytes_text(memory.device)}"
    return f"{bytes_text(memory.peak)} (+{bytes_text(memory.peak - memory.before)}){device}"


def _operators(found: ModelBenchmark, *, verbose: bool) -> Iterable[list[str]]:
    total = sum(operator.seconds for operator in found.operators) or 1.0
    yield ["operator", "nodes", "time", "share"]
    for operator in found.operators if verbose else found.operators[:_TOP]:
        share = f"{100 * operator.seconds / total:.1f} %"
        yield [operator.op_type, str(operator.nodes), seconds_text(operator.seconds), share]


def _nodes(found: ModelBenchmark, *, verbose: bool) -> Iterable[list[str]]:
    total = sum(node.seconds for node in found.nodes) or 1.0
    shown = found.nodes if verbose else found.nodes[:_TOP]
    yield ["node", "operator", "ran on", "time", "share"]
    for node in shown:
        place = node.provider.removesuffix("ExecutionProvider")
        yield [node.name, node.op_type, place, seconds_text(node.seconds), f"{100 * node.seconds / total:.1f} %"]
    if rest := found.nodes[len(shown) :]:
        seconds = sum(node.seconds for node in rest)
        name = f"{counted(len(rest), 'other')} (--verbose)"
        yield [name, "", "", seconds_text(seconds), f"{100 * seconds / total:.1f} %"]


def _quantizers(found: ModelBenchmark) -> Iterable[str]:
    """Say what the Q/DQ nodes that onnxruntime left as they are cost."""
    left = [node for node in found.nodes if node.op_type in _QUANTIZERS]
    if left:
        total = sum(node.seconds for node in found.nodes) or 1.0
        share = sum(node.seconds for node in left) / total
        kinds = " and ".join(f"{sum(n.op_type == kind for n in left)} {kind}" for kind in _QUANTIZERS)
        yield f" not fused: {kinds}, with {100 * share:.1f} % of the time"
        yield ""


def fallback_text(model: str, fallen: Fallback) -> str:
    """Say how much of a model ran on the CPU, though another provider was asked for."""
    if not fallen.nodes:
        return f"{model}: no node fell back to the CPU"
    share = f"{100 * fallen.nodes_share:.1f} % of the nodes, {100 * fallen.time_share:.1f} % of their time"
    return f"{model}: {counted(fallen.nodes, 'node')} ran on the CPU ({share}): {', '.join(fallen.op_types)}"
