"""Several streams: threads that share one session and run it at the same time, each on inputs of its own."""

import itertools
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from onnxcomp.data import Feed

__all__ = ["Streams"]

_WINDOW_NS = 100_000_000
_LEAST_RUNS = 4  # of each stream in a window: at its end, streams wait for the last one
_MOST_RUNS = 100_000


class Streams:
    """A window of runs that streams share out among themselves; each call is one, and is timed.

    A stream takes the next run as soon as it has done one, so that at the end of a window none waits for longer than
    one run takes.

    Args:
        run: Runs the shared session on a feed.
        feeds: Of each stream, at least one.

    Attributes:
        runs: In a window: so many that it takes a tenth of a second, and four for each stream at least.
        rates: Runs per second in each window so far.
    """

    def __init__(self, run: Callable[[Feed], object], feeds: Sequence[Feed]) -> None:
        self._run = run
        self._feeds = feeds
        self._pool = ThreadPoolExecutor(len(feeds), thread_name_prefix="stream")
        self.runs = _LEAST_RUNS * len(feeds)
        self.rates: list[float] = []
        self()  # memory for as many runs at a time is taken in the first one
        self()
        self.runs = min(_MOST_RUNS, max(self.runs, math.ceil(self.rates[-1] * _WINDOW_NS / 1e9)))
        self.rates.clear()

    def __call__(self) -> None:
        """Run one window; an exception of a run passes through."""
        turns = itertools.count()
        begin = time.perf_counter_ns()
        for done in [self._pool.submit(self._stream, feed, turns) for feed in self._feeds]:
            done.result()
        self.rates.append(self.runs * 1e9 / max(1, time.perf_counter_ns() - begin))

    def _stream(self, feed: Feed, turns: "itertools.count[int]") -> None:
        while next(turns) < self.runs:
            self._run(feed)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown()
