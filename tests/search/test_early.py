from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from onnxcomp.errors import MetricError
from onnxcomp.runtime import Session
from onnxcomp.search.early import GROUPS, hopeless, looks
from onnxcomp.search.judge import Judge, Task
from onnxcomp.target import Budget

Parse = Callable[..., onnx.ModelProto]
RUNS = 240


@pytest.mark.parametrize("runs", [1, 19, 39, 40, 79, 80, 119, 120, 150, 160, 161, 1000, 9999])
def test_looks_share_out_all_runs(runs: int) -> None:
    found = looks(runs)
    assert sorted(run for look in found for run in look) == list(range(runs))
    assert all(look == sorted(look) for look in found)
    for look in found[:-1]:
        assert len(look) >= 2 * GROUPS
    if runs >= 160:
        shares = np.cumsum([len(look) for look in found]) / runs
        assert shares == pytest.approx([1 / 8, 1 / 3, 1], abs=0.01)


def test_looks_have_no_rhythm() -> None:
    for period in range(2, 20):
        assert len({run % period for run in looks(1000)[0]}) == period


def test_few_runs_are_looked_at_once() -> None:
    assert len(looks(39)) == 1
    assert len(looks(40)) == 2


@pytest.mark.parametrize(
    ("misses", "expected"),
    [
        ([0.5] * 10, True),
        ([-0.01] * 10, False),
        ([0.0] * 10, False),
        ([0.5, -0.5] * 5, False),
        ([0.1] * 9 + [np.inf], True),  # a broken value in one group breaks the whole
        ([0.1] * 9 + [-np.inf], False),
        ([0.1] * 9 + [np.nan], False),
    ],
)
def test_hopeless(misses: list[float], *, expected: bool) -> None:
    assert hopeless(misses, 0.125) is expected


def test_a_candidate_at_the_bound_is_hardly_ever_given_up() -> None:
    """Lost answers of a candidate that loses exactly what it may: 2 % of 400, wherever they are."""
    rng = np.random.default_rng(0)
    given_up = 0
    for _ in range(4000):
        lost = np.zeros(400)
        lost[rng.choice(400, 8, replace=False)] = 1
        seen: list[int] = []
        for look in looks(400)[:-1]:
            seen += look
            groups = [lost[seen[group::GROUPS]].mean() - 0.02 for group in range(GROUPS)]
            given_up += hopeless(groups, len(seen) / 400)
    assert given_up <= 4  # of 8000 looks


class Counted:
    """A session that counts its runs."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.runs = 0

    def run(self, feed: Any) -> Any:
        self.runs += 1
        return self._session.run(feed)


def top1(outputs: Any, labels: Any) -> float:
    return float(np.mean([run["y"].argmax() == label[0] for run, label in zip(outputs, labels, strict=True)]))


def needs_all_classes(outputs: Any, labels: Any) -> float:
    if len(labels) < RUNS:
        raise MetricError("classes are missing")
    return top1(outputs, labels)


@pytest.fixture
def linear(parse: Parse) -> Callable[[np.ndarray], Any]:
    text = "g (float[N, 4] x) => (float[N, 4] y) { y = MatMul(x, w) }"
    return lambda weight: Counted(Session(parse(text, {"w": weight}).SerializeToString()))


@pytest.fixture
def judge(linear: Any, samples: Any) -> Callable[..., Judge]:
    feeds = [{"x": np.eye(4, dtype=np.float32)[[i * 7 % 4]]} for i in range(RUNS)]
    labels = [np.array([i * 7 % 4 if i % 10 else 3 - i * 7 % 4]) for i in range(RUNS)]  # the original scores 0.9

    def make(metric: Any = top1, **budget: Any) -> Judge:
        task = Task(samples(feeds), None) if metric is None else Task(samples(feeds, labels), metric, "top1")
        return Judge(linear(np.eye(4)), task, Budget(**budget))

    return make


WRONG = np.eye(4)[[1, 0, 2, 3]]  # two of four classes are taken for each other


def test_a_clearly_bad_candidate_is_given_up_early(judge: Any, linear: Any) -> None:
    made, session = judge(), linear(WRONG)
    found = made.quality(session, early=True)
    assert session.runs <= RUNS / 3 + 1
    assert found.share == session.runs / RUNS
    assert found.score == pytest.approx(made.quality(linear(WRONG)).score, abs=0.15)
    assert made.objection(found).endswith(f"clear after {found.share:.0%} of the runs")


def test_a_good_one_is_judged_on_all(judge: Any, linear: Any) -> None:
    made, session = judge(), linear(np.eye(4) * 1.1)
    found = made.quality(session, early=True)
    assert (session.runs, found.share) == (RUNS, 1.0)
    assert found == made.quality(linear(np.eye(4) * 1.1))
    assert made.objection(found) is None


def test_a_verdict_takes_all(judge: Any, linear: Any) -> None:
    session = linear(WRONG)
    quality, _ = judge().verdict(session, np.random.default_rng(0), held_out=False)
    assert (session.runs, quality.share) == (RUNS, 1.0)


def test_a_metric_that_needs_all_answers_is_left_for_the_end(judge: Any, linear: Any) -> None:
    session = linear(WRONG)
    found = judge(needs_all_classes).quality(session, early=True)
    assert (session.runs, found.share) == (RUNS, 1.0)


def test_without_labels_fidelity_decides(judge: Any, linear: Any) -> None:
    session = linear(np.eye(4) * 1.9)  # 0.9 dB
    found = judge(None).quality(session, early=True)
    assert found.share < 1
    assert found.score is None
