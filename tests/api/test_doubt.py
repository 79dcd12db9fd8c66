"""What is said when the original itself scores no better than chance: labels are then more often wrong than models."""

from typing import Any

import numpy as np
import pytest

from onnxcomp.api.common import doubt, few
from onnxcomp.metrics import load_metric
from onnxcomp.search import Task


def task(samples: Any, labels: list[int], metric: str = "top1") -> Task:
    data = samples([{"x": np.zeros((1, 1), np.float32)} for _ in labels], labels=[np.array([n]) for n in labels])
    return Task(data, load_metric(metric)[1], metric)


@pytest.mark.parametrize(
    ("labels", "score", "doubtful"),
    [
        ([0, 1, 2, 3], 0.0, True),
        ([0, 1, 2, 3], 0.25, True),  # always the same answer gets as much
        ([0, 1, 2, 3], 0.5, False),
        ([0, 0, 0, 1], 0.75, True),
        ([2, 2, 2], 1.0, False),  # one class tells nothing
        ([2, 2, 2], 0.0, True),
    ],
)
def test_a_score_no_better_than_a_constant_answer(
    samples: Any, labels: list[int], score: float, doubtful: bool
) -> None:
    found = doubt(score, task(samples, labels))
    assert (found is not None) == doubtful
    if found:
        assert "order of the classes" in found


def test_other_metrics_are_doubted_at_zero_only(samples: Any) -> None:
    found = task(samples, [0, 0, 1])
    named = Task(found.samples, found.metric, "metric.py:score")
    assert doubt(0.1, named) is None
    assert doubt(0.0, named) is not None


def test_nothing_is_said_without_labels(samples: Any) -> None:
    assert doubt(None, Task(samples([{"x": np.zeros((1, 1), np.float32)}]))) is None


@pytest.mark.parametrize(("count", "said"), [(1, "judged on 1 sample: each is 100%"), (20, "20 samples: each is 5%")])
def test_few_samples_are_named(count: int, said: str) -> None:
    assert said in str(few(count))
    assert few(30) is None
