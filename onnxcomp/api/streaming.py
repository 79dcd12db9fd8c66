"""The throughput of `bench`: several threads share a session, and the models take turns by windows of time."""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np

from onnxcomp.data import Feed
from onnxcomp.measure import Ratio, Streams, interleave, median_interval
from onnxcomp.report import BenchSettings, StreamRate, Throughput
from onnxcomp.report.figures import counted

__all__ = ["alike", "share_out"]


def alike(feeds: Sequence[Feed], count: int) -> list[Feed]:
    """Return so many feeds of the shapes of the first one, each as different from the others as there are."""
    shapes = {name: np.shape(value) for name, value in feeds[0].items()}
    fitting = [feed for feed in feeds if {name: np.shape(value) for name, value in feed.items()} == shapes]
    return [fitting[index % len(fitting)] for index in range(count)]


def share_out(
    models: Sequence[tuple[str, Callable[[Feed], object]]],
    feeds: Sequence[Feed],
    asked: BenchSettings,
    *,
    rows: int,
    notes: list[str],
    progress: Callable[[float], None],
) -> Throughput:
    """Measure how many rows a second all streams do together; windows of the models are interleaved.

    Args:
        models: What each is called, and what runs its session; the first is what the others are compared with.
        feeds: One for each stream.
        asked: How long, how sure.
        rows: In a run.
        notes: Gets what is odd about the machine.
        progress: Called with the share done.

    Raises:
        ModelError: A model fails while it runs.
    """
    with ExitStack() as stack:
        # a number makes names unique: one file may be given twice
        windows = {f"{i} {name}": stack.enter_context(Streams(run, feeds)) for i, (name, run) in enumerate(models)}
        # what is compared is the time of a run: a window of a fast model has more of them
        found = interleave(
            windows,
            baseline=next(iter(windows)),
            half_width=asked.half_width,
            confidence=asked.confidence,
            max_seconds=asked.seconds,
            seed=asked.seed,
            progress=progress,
        )
    notes += (f"with {counted(len(feeds), 'stream')}: {warning}" for warning in found.warnings)
    first = next(iter(windows.values())).runs
    rates = []
    for (name, _), (key, streams), timing in zip(models, windows.items(), found.timings, strict=True):
        kept = [rate * rows for rate in streams.rates[-timing.runs :]]  # those before warmed up
        median, low, high = median_interval(kept, confidence=asked.confidence)
        ratio = found.ratios.get(key)
        more = None if ratio is None else _rate(ratio, streams.runs / first)
        rates.append(StreamRate(name, median, max(0.0, low), high, len(kept), more))
    return Throughput(len(feeds), rows, tuple(rates), found.settled, found.seconds)


def _rate(ratio: Ratio, runs: float) -> Ratio:
    """Turn the ratio of two windows' times into that of the rates; `runs`: those of a window over the first's."""
    return Ratio(runs / ratio.ratio, runs / ratio.high, runs / ratio.low if ratio.low > 0 else math.inf)
