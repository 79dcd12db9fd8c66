"""What `bench` measured beyond single runs of one shape: sweeps over sizes, and the throughput of several streams."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from onnxcomp.measure import Ratio, Timing
from onnxcomp.report.figures import seconds_text

__all__ = [
    "StreamRate",
    "SweepPoint",
    "SweepTiming",
    "Throughput",
    "interval_cells",
    "stream_table",
    "sweep_notes",
    "sweep_table",
]

_FEW = 2  # points whose warnings are told one by one


@dataclass(frozen=True, slots=True)
class SweepTiming:
    """One model at one point of a sweep.

    Attributes:
        model: Its path.
        latency: Of single runs, seconds.
        per_row: Seconds: the median latency over the rows.
        throughput: Rows per second, runs being made one after the other.
        ratio: Time per run over the first model's, paired, with its interval; None: it is the first.
    """

    model: str
    latency: Timing
    per_row: float
    throughput: float
    ratio: Ratio | None


@dataclass(frozen=True, slots=True)
class SweepPoint:
    """All models at one combination of sizes.

    Attributes:
        sizes: Of the swept dimensions, by name.
        shapes: Of the inputs, by name.
        rows: In a run: the first axis of all inputs where that is swept.
        models: In the order given.
        rounds: How often each model had its turn.
        settled: Whether all intervals are as narrow as was asked for.
        seconds: That the timing took.
        warnings: What was odd about the machine meanwhile.
    """

    sizes: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    rows: int
    models: tuple[SweepTiming, ...]
    rounds: int
    settled: bool
    seconds: float
    warnings: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """What the point is called."""
        return ", ".join(f"{dimension} {size}" for dimension, size in self.sizes.items())


@dataclass(frozen=True, slots=True)
class StreamRate:
    """What one model does with several streams.

    Attributes:
        model: Its path.
        rate: Rows per second of all streams together: the median over the windows.
        low: Of the interval of that median; 0: too few windows.
        high: The same; infinite: too few windows.
        windows: How many were measured.
        ratio: Rate over the first model's, paired by window, with its interval: above 1 is more; None: it is the first.
    """

    model: str
    rate: float
    low: float
    high: float
    windows: int
    ratio: Ratio | None


@dataclass(frozen=True, slots=True)
class Throughput:
    """Several threads that share a session, each with inputs of its own.

    Attributes:
        streams: How many threads.
        rows: In a run.
        models: In the order given.
        settled: Whether all intervals of the ratios are as narrow as was asked for.
        seconds: That it took.
    """

    streams: int
    rows: int
    models: tuple[StreamRate, ...]
    settled: bool
    seconds: float


def interval_cells(ratio: Ratio | None) -> tuple[str, str]:
    """Return the cells of a ratio to the first and of its interval."""
    return ("1", "") if ratio is None else (f"{ratio.ratio:.3f}", f"[{ratio.low:.3f}, {ratio.high:.3f}]")


def sweep_table(points: Sequence[SweepPoint], confidence: float) -> Iterable[list[str]]:
    """Yield heads and rows: a row for each model at each point."""
    heads = ("run", "per row", "rows/s", "time / first", f"{100 * confidence:g} % interval")
    yield ["model", *points[0].sizes, *heads]
    for point in points:
        for found in point.models:
            yield [
                found.model,
                *map(str, point.sizes.values()),
                seconds_text(found.latency.median),
                seconds_text(found.per_row),
                f"{found.throughput:.1f}",
                *interval_cells(found.ratio),
            ]


def sweep_notes(points: Sequence[SweepPoint]) -> Iterable[str]:
    """Yield what was odd about the machine: of a few points in full, else in one sentence."""
    odd = [point for point in points if point.warnings]
    if len(odd) > _FEW:
        yield (
            f"at {len(odd)} of the {len(points)} sizes the machine was not steady: ratios are paired by round and "
            "hold, times do less"
        )
        return
    for point in odd:
        yield from (f"at {point.name}: {warning}" for warning in point.warnings)


def stream_table(found: Throughput, confidence: float) -> Iterable[list[str]]:
    """Yield heads and rows: a row for each model."""
    interval = f"{100 * confidence:g} % interval"
    yield [f"{found.streams} stream{'' if found.streams == 1 else 's'}", "rows/s", interval, "rate / first", interval]
    for one in found.models:
        yield [one.model, f"{one.rate:.1f}", f"[{one.low:.1f}, {one.high:.1f}]", *interval_cells(one.ratio)]
