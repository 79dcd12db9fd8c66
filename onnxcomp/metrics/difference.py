"""The interval of two models' scores on the same runs, by the method that fits the metric."""

import time
from collections.abc import Sequence
from contextlib import suppress

import numpy as np

from onnxcomp.errors import MetricError
from onnxcomp.metrics.paired import Interval, bootstrap_difference, hit_difference
from onnxcomp.metrics.score import Metric, evaluate, top_hits

__all__ = ["NEWCOMBE", "TOP", "bootstrapped", "score_interval"]

TOP = {"top1": 1, "top5": 5}  # metrics that are shares of right answers
NEWCOMBE = "Newcombe's interval for paired shares"
_RESAMPLES = 1000
_FEWEST_RESAMPLES = 100
_FEWEST_RUNS = 20

_Answers = list[dict[str, np.ndarray]]


def score_interval(
    name: str,
    metric: Metric,
    answers: tuple[_Answers, _Answers],
    labels: list[np.ndarray],
    *,
    rng: np.random.Generator,
    seconds: float,
) -> tuple[Interval | None, str, int]:
    """Return the 95 % interval of the candidate's score minus the reference's.

    Args:
        name: Of the metric; top1 and top5 have an interval of their own, others are drawn again and again.
        metric: The metric.
        answers: Outputs of each run, the reference's and the candidate's.
        labels: Of each run.
        rng: Draws runs.
        seconds: That drawing may take.

    Returns:
        The interval, and its method; or None and why there is none. Last, how many samples it is from.

    Raises:
        MetricError: The metric fails on the answers.
    """
    if (top := TOP.get(name)) is not None:
        reference, candidate = (top_hits(side, labels, top) for side in answers)
        return hit_difference(reference, candidate), NEWCOMBE, reference.size
    return *bootstrapped(metric, answers, labels, rng=rng, seconds=seconds), len(labels)


def bootstrapped(
    metric: Metric,
    answers: tuple[_Answers, _Answers],
    labels: Sequence[np.ndarray],
    *,
    rng: np.random.Generator,
    seconds: float,
) -> tuple[Interval | None, str]:
    """Return the interval of any metric by drawing runs with replacement, and the method; or None and why not.

    Args:
        metric: The metric.
        answers: Outputs of each run, the reference's and the candidate's.
        labels: Of each run.
        rng: Draws runs.
        seconds: That this may take.

    Raises:
        MetricError: The metric fails on all runs together.
    """
    if len(labels) < _FEWEST_RUNS:
        return None, f"too few runs, {len(labels)}; {_FEWEST_RUNS} would do"

    def difference(runs: np.ndarray) -> float:
        drawn = [labels[i] for i in runs]
        first, second = (evaluate(metric, [side[i] for i in runs], drawn) for side in answers)
        return second - first

    begin = time.perf_counter()
    difference(np.arange(len(labels)))
    resamples = min(_RESAMPLES, int(seconds / max(time.perf_counter() - begin, 1e-9)))
    if resamples < _FEWEST_RESAMPLES:
        return None, "the metric is too slow to be computed a hundred times"
    with suppress(MetricError):  # it may need what a draw lacks, such as both classes
        found = bootstrap_difference(difference, len(labels), resamples=resamples, rng=rng)
        return found, f"paired bootstrap of runs, {resamples} draws"
    return None, "the metric fails on samples drawn with replacement"
