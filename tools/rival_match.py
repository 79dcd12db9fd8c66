"""The measurement of `rivals`: times and judges several models of one task, in one process."""

import dataclasses
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from zoo_tables import without_infinity

from onnxcomp.data import Feed, Samples, open_samples, synthetic
from onnxcomp.errors import ModelError
from onnxcomp.facts import input_bounds, input_specs
from onnxcomp.measure import Ratio, interleave
from onnxcomp.metrics import load_metric
from onnxcomp.model import load
from onnxcomp.runtime import Session
from onnxcomp.search import Quality, Task
from onnxcomp.search.judge import Judge
from onnxcomp.target import Budget

__all__ = ["match"]

_HALF_WIDTH = 0.01
_SYNTHETIC_RUNS = 16
_ORIGINAL = "original"


def match(job: dict[str, Any]) -> dict[str, Any]:
    """Measure all contenders of one model.

    Args:
        job: ``model``, ``contenders`` (path by name), ``ours`` (the name to compare with the best other),
            ``evaluation``, ``metric``, ``max_drop``, ``threads``, ``seed``, ``seconds``.

    Returns:
        ``score`` of the original; ``contenders``: size, latency, score, agreement and eligibility by name; ``errors``
        of those that do not load or run; ``best_rival`` and ``against``, the ratio to it, or None.
    """
    model = Path(job["model"])
    samples = _samples(model, job["evaluation"])
    name, metric = load_metric(job["metric"]) if job["metric"] else (None, None)
    judge = Judge(Session(model, threads=0), Task(samples, metric, name), Budget())
    qualities, errors = {}, {}
    for contender, path in job["contenders"].items():
        try:
            qualities[contender] = judge.quality(Session(Path(path), threads=0))
        except ModelError as err:
            errors[contender] = str(err)
    paths = {_ORIGINAL: model, **{contender: Path(job["contenders"][contender]) for contender in qualities}}
    sessions = {contender: Session(path, threads=job["threads"]) for contender, path in paths.items()}
    feed = next(iter(samples.take(1)))
    ratios = _time(sessions, feed, job, baseline=_ORIGINAL)
    found = {
        contender: {
            "size": _size(paths[contender]) / _size(model),
            **without_infinity(dataclasses.asdict(ratios[contender])),
            "score": quality.score,
            "agreement": quality.agreement,
            "eligible": _eligible(quality, judge.original, job["max_drop"]),
        }
        for contender, quality in qualities.items()
    }
    best = _best_rival(found, job["ours"])
    against = None
    if job["ours"] in found:
        pair = {contender: sessions[contender] for contender in (best, job["ours"])}
        against = _time(pair, feed, job, baseline=best)[job["ours"]]
    return {
        "score": judge.original.score,
        "contenders": found,
        "errors": errors,
        "best_rival": best,
        "against": without_infinity(dataclasses.asdict(against)) if against else None,
    }


def _samples(model: Path, evaluation: str) -> Samples:
    loaded = load(model)
    if evaluation:
        return open_samples(evaluation, input_specs(loaded))
    return synthetic(input_specs(loaded), count=_SYNTHETIC_RUNS, seed=0, bounds=input_bounds(loaded))


def _time(sessions: Mapping[str, Session], feed: Feed, job: dict[str, Any], *, baseline: str) -> Mapping[str, Ratio]:
    comparison = interleave(
        {name: partial(session.run, feed) for name, session in sessions.items()},
        baseline=baseline,
        half_width=_HALF_WIDTH,
        max_seconds=job["seconds"],
        seed=job["seed"],
    )
    return comparison.ratios


def _eligible(quality: Quality, original: Quality, max_drop: float) -> bool:
    if quality.score is None or original.score is None:
        return quality.agreement >= 1 - max_drop
    return original.score - quality.score <= max_drop + 1e-9  # scores are ratios of counts: the difference is rounded


def _best_rival(found: Mapping[str, Mapping[str, Any]], ours: str) -> str:
    """Name the fastest eligible contender that is not ours; the original, where none is faster."""
    rivals = {name: values["ratio"] for name, values in found.items() if name != ours and values["eligible"]}
    rivals[_ORIGINAL] = 1.0
    return min(rivals, key=lambda name: rivals[name])


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path, Path(f"{path}.data")) if file.exists())
