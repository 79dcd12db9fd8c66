"""Time contenders side by side: blocks of runs in shuffled rounds, ratios paired by round.

    baseline  |####|      |####|    |####|          a round: every contender once, in a fresh order
    int8           |####| |####|         |####|     a block: runs for 5 ms or more, about alike for all
               round 1     round 2    round 3       ratio of a round: int8's time per run / baseline's

A clock that speeds up, a machine that gets warm or a neighbour that works for a minute changes all blocks of a round
alike and cancels out in their ratio; a neighbour that hits one block alone makes one round an outlier, and the median
over the rounds does not care. The shuffled order keeps "always second" from being a disadvantage.
"""

import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnxcomp.errors import UsageError
from onnxcomp.measure.interval import block_time, median_interval

__all__ = ["Comparison", "Ratio", "Timing", "interleave"]

_NS = 1e9
_BLOCK_NS = 5_000_000  # long against the timer and against refilling the caches, short against drift
_LOW = 0.2  # the quantile of a block that counts; see block_time
_LOW_RUNS = 3  # the fewest runs that have such a quantile: their minimum
_MAX_RUNS = 1000  # of one block; a contender of a microsecond needs no more
_GROWTH = 1.5  # the interval is looked at after min_rounds, and then whenever there are half as many rounds more
_WARM_SHARE = 0.1  # of max_seconds, for all contenders together
_WARM_NS = 10_000_000  # one batch of the warm-up, and at least _LOW_RUNS runs
_TWENTIETHS = tuple((2 * i + 1) / 40 for i in range(20))  # the middle of each
_DRIFT = 0.05  # between the first third of the rounds and the last
_OUTLIER = 1.5  # of the median
_MANY_OUTLIERS = 0.1  # of the rounds
_FEW_ROUNDS = 9  # too few to say anything of the machine
_STABLE = 0.95  # warm when the next batch needs more than this share of the time of the best one before

_Contenders = Mapping[str, Callable[[], object]]
_Clock = Callable[[], int]
_Series = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Timing:
    """What one contender's runs took, in seconds.

    Attributes:
        name: Of the contender.
        median: Of all runs, disturbed or not; ``p90`` and ``p99`` too.
        runs: Their number.
        undisturbed: Of a run that other programs left alone; ratios compare these times.
        quantiles: Times of runs that stand for a twentieth of all each: the 2.5 %, 7.5 %, ... 97.5 % quantiles.
    """

    name: str
    median: float
    p90: float
    p99: float
    runs: int
    undisturbed: float
    quantiles: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Ratio:
    """A contender's time over the baseline's: below 1 is faster.

    After too few rounds for the wanted confidence (six for 95 %), `low` is 0 and `high` infinite.
    """

    ratio: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2.0


@dataclass(frozen=True, slots=True)
class Comparison:
    """One interleaved run: the baseline's timing first, then the contenders' in the order given."""

    timings: tuple[Timing, ...]
    ratios: Mapping[str, Ratio]  # by contender; the baseline itself has none
    rounds: int
    seconds: float  # all of it, warm-up included
    settled: bool  # every interval is as narrow as wanted, after min_rounds at least
    warnings: tuple[str, ...] = ()  # what was odd about the machine meanwhile


@dataclass(frozen=True, slots=True)
class _Settings:
    """The arguments of `interleave` that say when to stop, checked."""

    half_width: float
    confidence: float
    min_rounds: int
    max_seconds: float
    min_seconds: float

    def __post_init__(self) -> None:
        if not 0 < self.half_width < math.inf:
            raise UsageError(f"half_width must be positive, got {self.half_width}")
        if not 0 < self.confidence < 1:
            raise UsageError(f"confidence must be between 0 and 1, got {self.confidence}")
        if self.min_rounds < 1:
            raise UsageError(f"min_rounds must be at least 1, got {self.min_rounds}")
        if not 0 < self.max_seconds < math.inf:
            raise UsageError(f"max_seconds must be positive, got {self.max_seconds}")
        if not 0 <= self.min_seconds <= self.max_seconds:
            raise UsageError(f"min_seconds must be between 0 and {self.max_seconds:g}, got {self.min_seconds}")


def interleave(
    contenders: _Contenders,
    *,
    baseline: str,
    half_width: float = 0.02,
    confidence: float = 0.95,
    min_rounds: int = 15,
    max_seconds: float = 30.0,
    min_seconds: float = 0.0,
    seed: int,
    progress: Callable[[float], None] | None = None,
    clock: _Clock = time.perf_counter_ns,
) -> Comparison:
    """Time `contenders` against each other until every ratio to the baseline is known well enough.

    The ratio is the median of the rounds' ratios, with the distribution-free interval of `median_interval`. Looking at
    the interval after every round and stopping at the first narrow one would make it cover less than it claims
    (Chow and Robbins, "On the Asymptotic Theory of Fixed-Width Sequential Confidence Intervals", 1965), so it is
    looked at only each time the number of rounds has grown by half.

    The garbage collector is off meanwhile, and an exception of a contender or an interrupt passes through.

    Args:
        contenders: What to run, by name; each call is one run.
        baseline: The name of the contender that the others are compared with. Alone, it is timed until its own time
            per run is known to `half_width`.
        half_width: How narrow an interval must be, as a share of its ratio.
        confidence: The coverage of each interval.
        min_rounds: Rounds made in any case, unless they would take more than twice `max_seconds`.
        max_seconds: Stop then, settled or not.
        min_seconds: Go on so long, settled or not: a neighbour on a shared machine may work for a second or two.
        seed: Of the order within the rounds.
        progress: Called after every round with the share of `max_seconds` used, and with 1 at the end.
        clock: Nanoseconds, never going back.

    Raises:
        UsageError: A setting is out of range, or `baseline` is not a contender.
    """
    settings = _Settings(half_width, confidence, min_rounds, max_seconds, min_seconds)
    if baseline not in contenders:
        raise UsageError(f"baseline {baseline!r} is not one of the contenders: {', '.join(contenders) or 'none'}")
    report = progress if progress is not None else _no_progress
    with _no_collection():
        run = _Run({baseline: contenders[baseline], **contenders}, settings, clock)
        rng = random.Random(seed)
        look = min_rounds
        while run.time_left():
            run.round(rng)
            report(min(1.0, run.elapsed() / max_seconds))
            if run.rounds == look:
                if run.settled():
                    break
                look = math.ceil(look * _GROWTH)
    report(1.0)
    return run.comparison()


class _Run:
    """The state of one comparison: block lengths, every run's time, every block's time.

    Args:
        contenders: The baseline first.
        settings: When to stop.
        clock: Nanoseconds.
    """

    def __init__(self, contenders: _Contenders, settings: _Settings, clock: _Clock) -> None:
        self._contenders = contenders
        self._settings = settings
        self._clock = clock
        self._start = clock()
        limit = settings.max_seconds * _NS * _WARM_SHARE / len(contenders)
        typical = {name: _warm_up(function, clock, limit) for name, function in contenders.items()}
        self._lengths = _block_lengths(typical, settings)
        # with a block too short for the low quantile, only the median means the same in short and long blocks
        self._level = _LOW if min(self._lengths.values()) >= _LOW_RUNS else 0.5
        self._times: dict[str, list[_Series]] = {name: [] for name in contenders}
        self._blocks: dict[str, list[float]] = {name: [] for name in contenders}
        self._first = clock()
        self.rounds = 0

    def round(self, rng: random.Random) -> None:
        """Run a block of every contender, in an order that `rng` shuffles."""
        order = list(self._contenders)
        rng.shuffle(order)
        for name in order:
            times = _block(self._contenders[name], self._lengths[name], self._clock)
            self._times[name].append(times)
            self._blocks[name].append(block_time(times, level=self._level))
        self.rounds += 1

    def elapsed(self) -> float:
        """Return the seconds since the start."""
        return (self._clock() - self._start) / _NS

    def time_left(self) -> bool:
        """Say whether another round fits; the first one always does."""
        if self.rounds == 0:
            return True
        must = self.rounds < self._settings.min_rounds
        limit = self._settings.max_seconds * (2.0 if must else 1.0)
        per_round = (self._clock() - self._first) / _NS / self.rounds
        return self.elapsed() + per_round <= limit

    def settled(self) -> bool:
        """Say whether every interval is narrow enough, after enough rounds."""
        intervals = list(self._ratios().values())
        if not intervals:  # the baseline alone
            intervals = [self._interval(np.array(next(iter(self._blocks.values()))))]
        narrow = all(interval.half_width <= self._settings.half_width * interval.ratio for interval in intervals)
        enough = self.rounds >= self._settings.min_rounds and self.elapsed() >= self._settings.min_seconds
        return narrow and enough

    def comparison(self) -> Comparison:
        """Return what is known by now."""
        return Comparison(
            timings=tuple(
                _timing(name, np.concatenate(times), self._blocks[name]) for name, times in self._times.items()
            ),
            ratios=self._ratios(),
            rounds=self.rounds,
            seconds=self.elapsed(),
            settled=self.settled(),
            warnings=_warnings(np.array(next(iter(self._blocks.values())))),
        )

    def _ratios(self) -> dict[str, Ratio]:
        """Compare the contenders with the baseline, round by round."""
        baseline, *others = self._blocks
        base = np.array(self._blocks[baseline])
        return {name: self._interval(np.array(self._blocks[name]) / base) for name in others}

    def _interval(self, values: _Series) -> Ratio:
        """Estimate the median of positive values."""
        median, low, high = median_interval(values, confidence=self._settings.confidence)
        return Ratio(median, max(0.0, low), high)


def _warm_up(function: Callable[[], object], clock: _Clock, limit: float) -> float:
    """Run until the next batch is hardly faster than the best before, or for `limit` ns; return ns per run."""
    start = clock()
    best = math.inf
    while True:
        times: list[float] = []
        begin = clock()
        while len(times) < _LOW_RUNS or clock() - begin < _WARM_NS:
            times.append(float(_block(function, 1, clock)[0]))
            if clock() - start >= limit or len(times) >= _MAX_RUNS:
                break
        # the fastest run: a disturbed guess here would make the blocks of all contenders too long
        typical = min(times)
        if typical >= _STABLE * best or clock() - start >= limit:
            return min(best, typical)
        best = typical


def _block_lengths(typical: Mapping[str, float], settings: _Settings) -> dict[str, int]:
    """Choose how many runs a block has, so that all blocks take about as long as the slowest contender's.

    Args:
        typical: Nanoseconds per run.
        settings: When runs are so slow that `min_rounds` would use up half of `max_seconds`, blocks get shorter.
    """
    slowest = max(typical.values())
    affordable = settings.max_seconds * _NS / 2.0 / (settings.min_rounds * len(typical) * slowest)
    block = max(_BLOCK_NS, slowest * max(1, min(_LOW_RUNS, int(affordable))))
    return {name: max(1, min(_MAX_RUNS, round(block / ns))) for name, ns in typical.items()}


def _block(function: Callable[[], object], runs: int, clock: _Clock) -> _Series:
    """Return the nanoseconds of each of `runs` runs."""
    times = np.empty(runs)
    for i in range(runs):
        begin = clock()
        function()
        times[i] = clock() - begin
    # a coarse clock may not have moved; a time of zero has no ratio
    return np.maximum(times, 1.0)


def _warnings(blocks: _Series) -> tuple[str, ...]:
    """Say what the baseline's time in each round shows of the machine: heat, a clock that changes, other programs."""
    if blocks.size < _FEW_ROUNDS:
        return ()
    found = []
    first, *_, last = (float(np.median(part)) for part in np.array_split(blocks, 3))
    if abs(last / first - 1) > _DRIFT:
        how = f"{100 * abs(last / first - 1):.0f} % {'slower' if last > first else 'faster'}"
        found.append(f"the machine got {how} in the course of it: ratios are paired by round and hold, times do less")
    share = float(np.mean(blocks > _OUTLIER * np.median(blocks)))
    if share > _MANY_OUTLIERS:
        found.append(
            f"in {100 * share:.0f} % of the rounds the first took over {_OUTLIER:g} times as long: others worked, too"
        )
    return tuple(found)


def _timing(name: str, times: _Series, blocks: list[float]) -> Timing:
    """Summarise all runs of a contender."""
    median, p90, p99 = np.quantile(times, [0.5, 0.9, 0.99]) / _NS
    undisturbed = float(np.median(blocks)) / _NS
    quantiles = tuple((np.quantile(times, _TWENTIETHS) / _NS).tolist())
    return Timing(name, float(median), float(p90), float(p99), times.size, undisturbed, quantiles)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep the garbage collector off, and leave it as it was found."""
    was_on = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _no_progress(_share: float) -> None:
    """Ignore the progress."""
