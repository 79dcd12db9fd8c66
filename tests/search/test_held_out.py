"""Samples that the search does not see: which they are, and that the final verdict is taken from them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxcomp
from onnxcomp.data import InputSpec, Samples, open_samples
from onnxcomp.metrics import top1
from onnxcomp.runtime import Session
from onnxcomp.search import Task, hold_out
from onnxcomp.search.judge import Judge
from onnxcomp.search.prove import Prover
from onnxcomp.target import Budget

SPECS = [InputSpec("x", np.dtype(np.float32), (None, 8))]


def rows(path: Path, x: np.ndarray, **others: np.ndarray) -> Samples:
    np.savez(path, x=x, **others)
    return open_samples(path, SPECS)


def numbers(samples: Samples) -> set[float]:
    return {float(feed["x"][0, 0]) for feed in samples}


def counted(count: int) -> np.ndarray:
    return np.repeat(np.arange(count, dtype=np.float32)[:, None], 8, axis=1)


def test_rows_of_one_file_are_split_by_blocks(tmp_path: Path) -> None:
    task, words = hold_out(Task(rows(tmp_path / "r.npz", counted(400))), 0)
    assert task.held_out is not None
    searched, unseen = numbers(task.samples), numbers(task.held_out)
    assert len(searched) == len(unseen) == 200
    assert not searched & unseen
    neighbours_apart = sum((i in searched) != (i + 1 in searched) for i in range(399))
    assert neighbours_apart <= 9  # between ten blocks
    assert numbers(task.final.samples) == unseen
    assert words == "200 of the 400 runs, unseen by the search"


def test_what_is_not_split(tmp_path: Path) -> None:
    few, words = hold_out(Task(rows(tmp_path / "few.npz", counted(399))), 0)
    assert few.held_out is None
    assert few.final == few
    assert "fewer than 400 rows" in words
    batched = open_samples(tmp_path / "few.npz", SPECS, batch=100)
    np.savez(tmp_path / "many.npz", x=counted(500))
    batched = open_samples(tmp_path / "many.npz", SPECS, batch=50)
    assert hold_out(Task(batched), 0)[0].held_out is None  # ten runs
    folder = tmp_path / "runs"
    folder.mkdir()
    for i in range(401):
        np.savez(folder / f"{i:03}.npz", x=counted(1))
    whole, words = hold_out(Task(open_samples(folder, SPECS)), 0)
    assert whole.held_out is None
    assert "only rows of one .npz file" in words


@pytest.fixture
def clipped(parse: Callable[..., Any], tmp_path: Path) -> dict[str, Any]:
    """A model and rows of which those that are held out lie far outside the range of the calibration samples."""
    rng = np.random.default_rng(0)
    text = "g (float[N, 8] x) => (float[N, 8] y) { h = MatMul(x, a)  y = MatMul(h, b) }"
    inner = np.linalg.qr(rng.normal(size=(256, 8)))[0]
    weights = {"a": inner.T, "b": inner}
    model = tmp_path / "m.onnx"
    model.write_bytes(parse(text, weights).SerializeToString())
    x = rng.uniform(-1, 1, (600, 8)).astype(np.float32)
    np.savez(tmp_path / "calibration.npz", x=x[:200])
    evaluation = rows(tmp_path / "e.npz", counted(400))
    held_out = hold_out(Task(evaluation), 0)[0].held_out
    assert held_out is not None
    x = x[200:]
    x[sorted(map(int, numbers(held_out)))] *= 50
    labels = Session(model).run({"x": x})["y"].argmax(1)
    np.savez(tmp_path / "e.npz", x=x, labels=labels)
    return {"model": model, "calibration": tmp_path / "calibration.npz", "eval": tmp_path / "e.npz"}


def test_the_next_candidate_is_tried_where_the_verdict_rejects_the_best(clipped: Any, times: Any) -> None:
    times(static=0.4, dynamic=0.6, cleanup=1.0)
    report = onnxcomp.optimize(**clipped, metric="top1").report
    outcome = report.outcome
    fates = {candidate.name: candidate for candidate in outcome.candidates}
    assert fates["static"].quality is not None
    assert fates["static"].quality.score > 0.95  # the search saw nothing wrong
    assert str(fates["static"].rejected).startswith("on samples that the search did not see: top1 drops")
    assert outcome.winner == "dynamic"
    assert outcome.evidence is not None
    assert (outcome.evidence.samples, outcome.evidence.held_out) == (200, True)
    assert outcome.evidence.low is not None
    assert outcome.evidence.low <= outcome.quality.score - outcome.original_quality.score <= outcome.evidence.high
    for text in (str(report), report.markdown()):
        assert "200 samples, unseen by the search; 95 % interval" in text
    assert "200 of the 400 runs" in str(report)
    assert report.to_dict()["evidence"]["samples"] == 200


def test_a_score_inside_the_budget_is_not_trusted_where_outputs_are_noisier_than_calibration_showed(
    clipped: Any, times: Any
) -> None:
    times(static=0.4, dynamic=0.6, cleanup=1.0)
    outcome = onnxcomp.optimize(**clipped, metric="top1", budget=Budget(max_drop=1, min_agreement=0)).report.outcome
    fates = {candidate.name: str(candidate.rejected) for candidate in outcome.candidates}
    assert "the score may be luck" in fates["static"]
    assert outcome.winner == "dynamic"
    assert outcome.evidence is not None
    assert outcome.evidence.typical_sqnr is not None
    assert outcome.evidence.typical_sqnr > 20


def test_a_rescued_model_that_fails_the_verdict_gets_more_float_nodes(
    chain: Callable[..., Any], times: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = chain(1, 3, 5)
    rng = np.random.default_rng(1)
    x = rng.normal(size=(600, 64)).astype(np.float32)
    np.savez(tmp_path / "c.npz", r0=x[:200])
    np.savez(tmp_path / "e.npz", r0=x[200:])
    times(cleanup=1.0)
    proving: list[str] = []
    prove, objection = Prover._verdict, Judge.objection

    def strict_at_first(self: Prover, candidate: Any, loaded: Any) -> Any:
        with monkeypatch.context() as patched:
            if not proving:
                patched.setattr(Judge, "objection", lambda judge, quality: objection(judge, quality) or "made up")
            proving.append(candidate.result.name)
            return prove(self, candidate, loaded)

    monkeypatch.setattr(Prover, "_verdict", strict_at_first)
    made = onnxcomp.optimize(planted.model, calibration=tmp_path / "c.npz", eval=tmp_path / "e.npz")
    first, second = proving
    kept = [int(name.split(", ")[-1].split()[0]) for name in proving]
    assert made.report.outcome.winner == second
    assert kept[1] > kept[0]
    rejected = {c.name: c.rejected for c in made.report.outcome.candidates}
    assert rejected[first] == "on samples that the search did not see: made up"


def test_the_interval_of_a_metric_of_the_users_own(parse: Any, samples: Any) -> None:
    feeds = [{"x": np.eye(4, dtype=np.float32)[[i % 4]]} for i in range(40)]
    labels = [np.array([i % 4]) for i in range(40)]

    def session(weight: np.ndarray) -> Session:
        text = "g (float[N, 4] x) => (float[N, 4] y) { y = MatMul(x, w) }"
        return Session(parse(text, {"w": weight}).SerializeToString())

    judge = Judge(session(np.eye(4)), Task(samples(feeds, labels), top1, "mine"), Budget(max_drop=1))
    quality, evidence = judge.verdict(session(np.eye(4)[[1, 0, 2, 3]]), np.random.default_rng(0), held_out=False)
    assert quality.score == 0.5
    assert evidence.samples == 40
    assert "bootstrap" in evidence.method
    assert evidence.low is not None
    assert -0.75 < evidence.low < -0.5 < evidence.high < -0.25  # two binomial deviations: 0.16
    strict = Judge(session(np.eye(4)), Task(samples(feeds, labels), top1, "mine"), Budget())
    _, evidence = strict.verdict(session(np.eye(4)[[1, 0, 2, 3]]), np.random.default_rng(0), held_out=True)
    assert evidence.low is None  # not worth it: the budget is missed
