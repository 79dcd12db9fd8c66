from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from onnxcomp.errors import MetricError, ModelError
from onnxcomp.runtime import Session
from onnxcomp.search.judge import Judge, Task
from onnxcomp.search.result import Quality
from onnxcomp.target import Budget

Parse = Callable[..., onnx.ModelProto]
ROWS = [np.eye(4, dtype=np.float32)[[i % 4]] for i in range(20)]
FEEDS = [{"x": row} for row in ROWS]
LABELS = [np.array([i % 4]) for i in range(20)]


def top1(outputs: Any, labels: Any) -> float:
    hits = [bool((run["y"].argmax(1) == label).all()) for run, label in zip(outputs, labels, strict=True)]
    return sum(hits) / len(hits)


@pytest.fixture
def linear(parse: Parse) -> Callable[[np.ndarray], Session]:
    text = "g (float[N, 4] x) => (float[N, 4] y) { y = MatMul(x, w) }"
    return lambda weight: Session(parse(text, {"w": weight}).SerializeToString())


@pytest.fixture
def judge(linear: Any, samples: Any) -> Callable[..., Judge]:
    def make(*, labels: bool = True, metric: Any = top1, **budget: Any) -> Judge:
        task = Task(samples(FEEDS, LABELS), metric, "top1") if labels else Task(samples(FEEDS))
        return Judge(linear(np.eye(4)), task, Budget(**budget))

    return make


def test_measures_the_original_and_candidates(judge: Any, linear: Any) -> None:
    made = judge()
    assert made.original == Quality(1.0, 1.0, float("inf"))
    assert made.quality(linear(np.eye(4))) == made.original
    wrong = np.eye(4)[[1, 0, 2, 3]]  # two of four classes are taken for each other
    found = made.quality(linear(wrong))
    assert (found.score, found.agreement) == (0.5, 0.5)
    assert found.sqnr == pytest.approx(0, abs=0.01)
    noisy = made.quality(linear(np.eye(4) * 1.1))
    assert (noisy.score, noisy.agreement) == (1.0, 1.0)
    assert noisy.sqnr == pytest.approx(20, abs=0.01)


def test_without_labels_there_is_no_score(judge: Any, linear: Any) -> None:
    made = judge(labels=False)
    assert made.original.score is None
    assert made.quality(linear(np.eye(4) * 1.1)).score is None


def test_nan_is_broken(judge: Any, linear: Any) -> None:
    made = judge(labels=False)
    found = made.quality(linear(np.full((4, 4), np.nan)))
    assert found.sqnr == float("-inf")
    assert found.agreement == 0
    assert made.objection(found) is not None


@pytest.mark.parametrize(
    ("quality", "budget", "reason"),
    [
        (Quality(1.0, 1.0, 40), {}, None),
        (Quality(0.99, 1.0, 40), {}, None),  # exactly the budget
        (Quality(0.9899, 1.0, 40), {}, "top1 drops by 0.0101"),
        (Quality(0.9, 0.9, 40), {"max_drop": 0.1}, None),
        (Quality(1.0, 0.97, 40), {}, None),
        (Quality(1.0, 0.96, 40), {}, "agreement"),
        (Quality(1.0, 0.96, 40), {"min_agreement": 0.9}, None),
        (Quality(1.0, 0.999, 40), {"min_agreement": 1.0}, "agreement"),
        (Quality(1.0, 1.0, 3), {}, None),  # with labels the score decides
        (Quality(1.0, 1.0, 19), {"min_sqnr": 20}, "SQNR 19.0 dB"),
        (Quality(1.0, 1.0, float("-inf")), {"min_sqnr": 0}, "SQNR"),
        (Quality(1.0, 1.0, float("nan")), {"min_sqnr": 0}, "SQNR"),
        (Quality(1.2, 1.0, 40), {"max_drop": 0}, None),  # better is no drop
    ],
)
def test_bounds_with_labels(judge: Any, quality: Quality, budget: dict[str, float], reason: str | None) -> None:
    found = judge(**budget).objection(quality)
    assert (found is None) == (reason is None), found
    assert reason is None or reason in found


@pytest.mark.parametrize(
    ("quality", "answers", "reason"),
    [
        (Quality(1.0, 1.0, 40), 10, None),  # no answer is another: nothing is left to luck
        (Quality(0.99, 1.0, 40), 10, None),
        (Quality(0.995, 0.98, 40), 1000, None),  # 20 of 1000 differ: give or take sqrt(20) / 1000 = 0.0045
        (Quality(0.995, 0.98, 40), 500, "drops by 0.0050, give or take 0.0063"),
        (Quality(1.0, 0.971, 40), 1000, "agreement 0.9710, give or take 0.0054"),
        (Quality(1.0, 0.971, 40), 10**6, None),
    ],
)
def test_the_boldest_of_many_keeps_a_margin(
    linear: Any, samples: Any, quality: Quality, answers: int, reason: str | None
) -> None:
    feed = {"x": np.eye(4, dtype=np.float32)[:1]}
    labels = [np.zeros(answers, np.int64)]
    task = Task(samples([feed], labels), lambda *_: 1.0, "top1")
    found = Judge(linear(np.eye(4)), task, Budget()).luck(quality)
    assert (found is None) == (reason is None), found
    assert reason is None or reason in found


@pytest.mark.parametrize(
    ("quality", "budget", "reason"),
    [
        (Quality(None, 1.0, 20), {}, None),
        (Quality(None, 1.0, 19.9), {}, "SQNR"),
        (Quality(None, 1.0, 10), {"min_sqnr": 10}, None),
        (Quality(None, 0.96, 40), {}, "agreement"),
        (Quality(None, 0.96, 40), {"max_drop": 0.02}, None),
    ],
)
def test_bounds_without_labels(judge: Any, quality: Quality, budget: dict[str, float], reason: str | None) -> None:
    found = judge(labels=False, **budget).objection(quality)
    assert (found is None) == (reason is None), found
    assert reason is None or reason in found


def test_a_metric_that_fails(judge: Any) -> None:
    def failing(outputs: Any, labels: Any) -> float:
        raise ZeroDivisionError

    with pytest.raises(MetricError):
        judge(metric=failing)
    with pytest.raises(MetricError):
        judge(metric=lambda outputs, labels: float("nan"))


def test_an_original_that_gives_nothing_but_nan_judges_nothing(linear: Any, samples: Any) -> None:
    with pytest.raises(ModelError, match="nothing but NaN for all evaluation samples"):
        Judge(linear(np.full((4, 4), np.nan)), Task(samples(FEEDS)), Budget())
    some = np.eye(4)
    some[0, 0] = np.nan
    assert Judge(linear(some), Task(samples(FEEDS)), Budget()).quality(linear(some)).agreement == 1


def test_an_original_that_gives_no_rows_is_not_one_of_nan(linear: Any, samples: Any) -> None:
    feeds = [{"x": np.zeros((0, 4), np.float32)}]
    assert Judge(linear(np.eye(4)), Task(samples(feeds)), Budget()).quality(linear(np.eye(4))).agreement == 1
