import gc
import math
import random
import re
from collections.abc import Callable, Iterator

import pytest

from onnxcomp.errors import UsageError
from onnxcomp.measure import Comparison, interleave

pytestmark = pytest.mark.untraced

MS = 1_000_000


class Machine:
    """A clock that only its own contenders move; they are noisy in the ways that real machines are.

    Args:
        seed: Of the noise.
        sigma: Spread of each run (lognormal).
        spikes: Share of runs that take up to many times as long.
        drift: How much slower everything gets and recovers, in waves of two seconds.
        bursts: How much slower everything is while a neighbour works, a fifth of the time.
    """

    def __init__(
        self, seed: int = 0, *, sigma: float = 0.0, spikes: float = 0.0, drift: float = 0.0, bursts: float = 0.0
    ) -> None:
        self.now = 0
        self.order: list[str] = []
        self._rng = random.Random(seed)
        self._noise = (sigma, spikes, drift, bursts)
        self._switch = (0.0, False)

    def clock(self) -> int:
        return self.now

    def contender(self, name: str, run_ns: float) -> Callable[[], None]:
        def run() -> None:
            self.order.append(name)
            self.now += round(run_ns * self._slowdown())

        return run

    def _slowdown(self) -> float:
        sigma, spikes, drift, bursts = self._noise
        until, busy = self._switch
        if self.now >= until:
            busy = not busy
            self._switch = (self.now + self._rng.expovariate(1 / (30 * MS if busy else 120 * MS)), busy)
        slow = self._rng.lognormvariate(0, sigma) if sigma else 1.0
        slow *= 1 + drift * (1 + math.sin(self.now * math.tau / (2000 * MS)))
        if spikes and self._rng.random() < spikes:
            slow *= self._rng.paretovariate(1.5)
        return slow * (1 + bursts if busy else 1)


def compare(machine: Machine, times: dict[str, float], **settings: object) -> Comparison:
    contenders = {name: machine.contender(name, ns) for name, ns in times.items()}
    arguments = {"baseline": "base", "seed": 0, "clock": machine.clock, **settings}
    return interleave(contenders, **arguments)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _collector_is_left_on() -> Iterator[None]:
    assert gc.isenabled()
    yield
    assert gc.isenabled()


def test_known_speeds_are_recovered():
    result = compare(Machine(), {"fast": 0.5 * MS, "base": 1.0 * MS, "slow": 20.0 * MS})

    assert list(result.ratios) == ["fast", "slow"]
    assert result.ratios["fast"].ratio == pytest.approx(0.5)
    assert result.ratios["slow"].ratio == pytest.approx(20.0)
    assert result.ratios["fast"].half_width == pytest.approx(0.0)
    assert [timing.name for timing in result.timings] == ["base", "fast", "slow"]
    assert [timing.median for timing in result.timings] == pytest.approx([0.001, 0.0005, 0.02])
    assert result.settled
    assert result.rounds == 15


def test_it_goes_on_for_as_long_as_asked():
    result = compare(Machine(), {"base": MS, "other": MS}, min_seconds=2.0)
    assert 2.0 <= result.seconds < 4.0
    assert result.settled


def test_percentiles_count_every_run():
    machine = Machine()
    calls = iter(range(10**9))

    def sometimes_slow() -> None:
        machine.now += 10 * MS if next(calls) % 20 == 0 else MS

    result = interleave({"base": sometimes_slow}, baseline="base", seed=0, clock=machine.clock)

    (timing,) = result.timings
    assert (timing.median, timing.p90, timing.p99) == pytest.approx((0.001, 0.001, 0.01))
    assert timing.runs == 15 * 5


def test_what_is_shown_agrees_with_the_ratio_on_a_crowded_machine():
    """Most runs of the baseline are interrupted: their median would tell of the neighbours alone."""
    machine = Machine()
    calls = iter(range(10**9))

    def crowded() -> None:
        machine.now += MS if next(calls) % 5 < 2 else 20 * MS

    def calm() -> None:
        machine.now += 0.5 * MS

    result = interleave({"base": crowded, "calm": calm}, baseline="base", seed=0, clock=machine.clock)
    base, other = result.timings
    assert base.median == pytest.approx(0.02)
    assert base.undisturbed == pytest.approx(0.001)
    assert other.undisturbed / base.undisturbed == pytest.approx(result.ratios["calm"].ratio)


def test_blocks_take_about_as_long_for_every_contender():
    result = compare(Machine(), {"base": 4 * MS, "fast": 0.1 * MS})
    base, fast = result.timings
    assert base.runs == 15 * 3
    assert fast.runs == 15 * 120


NOISE = [
    {"sigma": 0.05},
    {"sigma": 0.05, "spikes": 0.15},
    {"sigma": 0.03, "drift": 0.3},
    {"sigma": 0.05, "spikes": 0.05, "drift": 0.1, "bursts": 0.6},
]


@pytest.mark.parametrize("noise", NOISE, ids="+".join)
@pytest.mark.parametrize(("run_ns", "truth"), [(0.5 * MS, 0.9), (8.0 * MS, 0.35)])
def test_interval_covers_the_truth_under_noise(noise: dict[str, float], run_ns: float, truth: float):
    results = [
        compare(Machine(seed, **noise), {"base": run_ns, "other": run_ns * truth}, seed=seed) for seed in range(13)
    ]
    covered = [r.ratios["other"].low <= truth <= r.ratios["other"].high for r in results]
    # 95 % are expected: fewer than 10 of 13 have a chance of 0.3 %, and the seeds are fixed
    assert sum(covered) >= 10
    assert all(r.settled for r in results)


def test_order_is_shuffled_by_the_seed():
    times = {"base": 6 * MS, "a": 6 * MS, "b": 6 * MS}

    def rounds(seed: int) -> list[tuple[str, ...]]:
        machine = Machine()
        result = compare(machine, times, seed=seed, min_rounds=60)
        blocks = machine.order[-result.rounds * 9 :: 3]
        return [tuple(blocks[i : i + 3]) for i in range(0, len(blocks), 3)]

    assert all(sorted(order) == ["a", "b", "base"] for order in rounds(1))
    assert len(set(rounds(1))) == 6
    assert rounds(1) == rounds(1)
    assert rounds(1) != rounds(2)


def test_noisy_contenders_take_more_rounds_and_then_stop():
    quiet = compare(Machine(sigma=0.01), {"base": MS, "other": MS})
    noisy = compare(Machine(sigma=0.15), {"base": MS, "other": MS})

    assert quiet.rounds == 15
    assert noisy.rounds > 15
    assert noisy.settled
    assert noisy.ratios["other"].half_width <= 0.02 * noisy.ratios["other"].ratio
    assert noisy.seconds < 30.0


def test_interval_is_looked_at_only_at_growing_numbers_of_rounds():
    looks = [15]
    while looks[-1] < 2000:
        looks.append(math.ceil(looks[-1] * 1.5))
    rounds = {compare(Machine(seed, sigma=0.1), {"base": MS, "other": MS}).rounds for seed in range(10)}
    assert rounds <= set(looks)


def test_time_limit_is_respected():
    result = compare(Machine(sigma=0.5), {"base": 5 * MS, "other": 5 * MS}, half_width=1e-6, max_seconds=2.0)

    assert not result.settled
    assert result.seconds <= 2.0 + 0.1
    assert result.rounds >= 15
    assert result.ratios["other"].low < 1.0 < result.ratios["other"].high


def test_min_rounds_may_take_up_to_twice_the_time():
    result = compare(Machine(), {"base": 60 * MS, "other": 60 * MS}, max_seconds=1.0)
    assert (result.rounds, result.settled) == (15, True)
    assert 1.0 < result.seconds <= 2.0


def test_very_slow_contenders_give_a_wide_interval():
    result = compare(Machine(), {"base": 400 * MS, "other": 400 * MS}, max_seconds=1.0)

    assert result.rounds >= 1
    assert not result.settled
    assert (result.ratios["other"].low, result.ratios["other"].high) == (0.0, math.inf)
    assert result.ratios["other"].ratio == pytest.approx(1.0)
    assert result.ratios["other"].half_width == math.inf


def test_one_round_is_made_whatever_it_takes():
    result = compare(Machine(), {"base": 60_000 * MS, "other": 30_000 * MS}, max_seconds=1.0)
    assert result.rounds == 1
    assert result.ratios["other"].ratio == pytest.approx(0.5)


def test_short_blocks_are_not_biased_for_the_fast_one():
    # one run of the slow contender beside ten of the fast one: a low quantile would favour the fast one
    ratios = [
        compare(Machine(seed, sigma=0.1), {"base": 900 * MS, "fast": 90 * MS}).ratios["fast"].ratio
        for seed in range(40)
    ]
    assert sum(ratios) / len(ratios) == pytest.approx(0.1, rel=0.02)


def test_baseline_alone_is_timed_until_it_is_known():
    quiet = compare(Machine(), {"base": MS})
    noisy = compare(Machine(sigma=0.4), {"base": 3 * MS})

    assert (quiet.ratios, quiet.rounds, quiet.settled) == ({}, 15, True)
    assert (noisy.ratios, noisy.settled) == ({}, True)
    assert noisy.rounds > 15


def test_warm_up_waits_for_a_slow_start_and_is_not_counted():
    machine = Machine()
    calls = iter(range(10**9))

    def starts_cold() -> None:
        machine.now += round(MS * max(1.0, 50.0 * 0.8 ** next(calls)))

    contenders = {"base": machine.contender("base", MS), "cold": starts_cold}
    result = interleave(contenders, baseline="base", seed=0, clock=machine.clock)
    assert result.ratios["cold"].ratio == pytest.approx(1.0)
    assert result.timings[1].p99 == pytest.approx(0.001)


def test_contenders_too_fast_for_the_clock_do_not_divide_by_zero():
    machine = Machine()
    contenders = {"base": machine.contender("base", MS), "nothing": lambda: None}
    ticks = iter(range(10**12))
    result = interleave(contenders, baseline="base", seed=0, clock=lambda: machine.now + next(ticks) // 1000)
    assert 0 < result.ratios["nothing"].ratio < 1e-3


def test_progress_rises_to_one():
    shares: list[float] = []
    compare(Machine(), {"base": 50 * MS}, max_seconds=10.0, progress=shares.append)
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] == 1.0


@pytest.mark.parametrize("error", [ValueError("broken"), KeyboardInterrupt()], ids=["error", "interrupt"])
@pytest.mark.parametrize("after", [1, 40])
def test_exceptions_pass_through_and_the_collector_is_back(error: BaseException, after: int):
    machine = Machine()
    calls = iter(range(10**9))

    def breaks() -> None:
        assert not gc.isenabled()
        machine.now += MS
        if next(calls) >= after:
            raise error

    contenders = {"base": machine.contender("base", MS), "broken": breaks}
    with pytest.raises(type(error)) as caught:
        interleave(contenders, baseline="base", seed=0, clock=machine.clock)
    assert caught.value is error


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    try:
        compare(Machine(), {"base": MS})
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"baseline": "absent"}, "absent"),
        ({"half_width": 0.0}, "half_width"),
        ({"min_seconds": 31.0}, "min_seconds"),
        ({"half_width": math.nan}, "half_width"),
        ({"confidence": 1.0}, "confidence"),
        ({"confidence": 0.0}, "confidence"),
        ({"min_rounds": 0}, "min_rounds"),
        ({"max_seconds": 0.0}, "max_seconds"),
        ({"max_seconds": math.inf}, "max_seconds"),
    ],
)
def test_bad_arguments_are_usage_errors(settings: dict[str, object], word: str):
    with pytest.raises(UsageError, match=word):
        compare(Machine(), {"base": MS, "other": MS}, **settings)


def test_no_contenders_is_a_usage_error():
    with pytest.raises(UsageError, match="none"):
        interleave({}, baseline="base", seed=0)


class Changing(Machine):
    """A machine whose speed depends on how much time went by: `slowdown` of the seconds."""

    def __init__(self, slowdown: Callable[[float], float]) -> None:
        super().__init__()
        self._of = slowdown

    def _slowdown(self) -> float:
        return self._of(self.now / 1e9)


@pytest.mark.parametrize(
    ("slowdown", "says"),
    [
        (lambda seconds: 1 + 0.1 * seconds, "got .* % slower"),
        (lambda seconds: 2 - 0.1 * seconds, "got .* % faster"),
        (lambda seconds: 3 if int(10 * seconds) % 2 else 1, "others worked, too"),
    ],
)
def test_an_unsteady_machine_is_told(slowdown: Callable[[float], float], says: str):
    found = compare(Changing(slowdown), {"base": MS, "other": MS}, min_rounds=200, max_seconds=5.0)
    assert [warning for warning in found.warnings if re.search(says, warning)]
    assert found.ratios["other"].ratio == pytest.approx(1, abs=0.05)


def test_a_steady_machine_gets_no_warning():
    assert compare(Machine(sigma=0.02), {"base": MS, "other": MS}).warnings == ()
