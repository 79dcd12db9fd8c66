"""How good outputs are against labels: top-1, top-5, or a function of the user's."""

import math
import numbers
import sys
from collections.abc import Callable
from contextlib import redirect_stdout

import numpy as np

from onnxcomp.errors import MetricError
from onnxcomp.usercode import Kind, load_function

__all__ = ["BUILT_IN", "Metric", "evaluate", "load_metric", "top1", "top5", "top_hits"]

Metric = Callable[[list[dict[str, np.ndarray]], list[np.ndarray]], float]

SIGNATURE = "a metric is score(outputs: list of {name: array}, labels: list of arrays) -> number, higher is better"


def top1(outputs: list[dict[str, np.ndarray]], labels: list[np.ndarray]) -> float:
    """Share of samples whose highest score is at the labelled class.

    Args:
        outputs: Outputs of each run; the first one counts, [batch, classes].
        labels: Class numbers of each run, from 0, [batch].

    Returns:
        A number in [0, 1].

    Raises:
        MetricError: Outputs or labels aren't of that form.
    """
    return _top(outputs, labels, 1)


def top5(outputs: list[dict[str, np.ndarray]], labels: list[np.ndarray]) -> float:
    """Share of samples whose labelled class is among the five with the highest scores.

    Of equal scores the class with the lower number comes first.

    Args:
        outputs: Outputs of each run; the first one counts, [batch, classes].
        labels: Class numbers of each run, from 0, [batch].

    Returns:
        A number in [0, 1].

    Raises:
        MetricError: Outputs or labels aren't of that form.
    """
    return _top(outputs, labels, 5)


BUILT_IN: dict[str, Metric] = {"top1": top1, "top5": top5}

FORMS = f"a metric is {', '.join(BUILT_IN)}, FILE.py, FILE.py:function or module:function"
_KIND = Kind("metric", MetricError, FORMS, SIGNATURE, default="score")


def load_metric(spec: str) -> tuple[str, Metric]:
    """Find a metric.

    Args:
        spec: The name of a built-in metric, ``FILE.py`` (its function ``score``), ``FILE.py:function`` or
            ``module:function``. A file may import modules that lie beside it.

    Returns:
        A short name, and the function.

    Raises:
        MetricError: There is no such metric, or loading it fails.
    """
    if spec in BUILT_IN:
        return spec, BUILT_IN[spec]
    function = load_function(spec, _KIND)
    if function.folder is None:
        return function.name, function.call

    def score(outputs: list[dict[str, np.ndarray]], labels: list[np.ndarray]) -> float:
        with function.running():
            result: float = function.call(outputs, labels)
            return result

    score.__name__ = function.name.rpartition(":")[2]
    return function.name, score


def evaluate(metric: Metric, outputs: list[dict[str, np.ndarray]], labels: list[np.ndarray]) -> float:
    """Call a metric, which may be anybody's code: it gets lists of its own, and what it prints goes to stderr.

    Args:
        metric: The metric.
        outputs: Outputs of each run.
        labels: Labels of each run, in the same order.

    Returns:
        The score, a finite number.

    Raises:
        MetricError: The metric raises, or returns no finite number; runs and labels differ in number.
    """
    if len(outputs) != len(labels):
        raise MetricError(f"{len(outputs)} runs, but labels for {len(labels)}", hint="give each run its labels")
    name = getattr(metric, "__name__", type(metric).__name__)
    try:
        with redirect_stdout(sys.stderr):  # stdout holds the report and nothing else
            result: object = metric([dict(run) for run in outputs], [np.array(label) for label in labels])
    except MetricError:
        raise
    except (Exception, SystemExit) as err:  # a metric that ends the program must not look like success
        raise MetricError(f"the metric '{name}' failed: {type(err).__name__}: {err}", hint=SIGNATURE) from err
    if isinstance(result, np.ndarray) and result.ndim == 0:
        result = result.item()
    if isinstance(result, bool) or not isinstance(result, numbers.Real):
        raise MetricError(f"the metric '{name}' returned {type(result).__name__}, no number", hint=SIGNATURE)
    score = float(result)
    if not math.isfinite(score):
        raise MetricError(
            f"the metric '{name}' returned {score}, a score must be finite",
            hint="check the labels, and that the model gives no NaN for these samples",
        )
    return score


def top_hits(outputs: list[dict[str, np.ndarray]], labels: list[np.ndarray], k: int) -> np.ndarray:
    """Say of each sample whether its labelled class is among the `k` with the highest scores.

    Args:
        outputs: Outputs of each run; the first one counts, [batch, classes].
        labels: Class numbers of each run, from 0, [batch].
        k: How many classes count.

    Returns:
        Booleans, [samples].

    Raises:
        MetricError: Outputs or labels aren't of that form.
    """
    if len(outputs) != len(labels):
        raise MetricError(f"top{k}: {len(outputs)} runs, but labels for {len(labels)}")
    hits = [np.zeros(0, bool)]
    for run, (output, label) in enumerate(zip(outputs, labels, strict=True)):
        scores, wanted = _scores_and_classes(output, label, k, f"top{k}, run {run}")
        best = np.argsort(-scores, axis=-1, kind="stable")[:, :k]  # [batch, k]
        hits.append((best == wanted[:, None]).any(axis=-1) & ~np.isnan(scores).any(axis=-1))
    return np.concatenate(hits)


def _top(outputs: list[dict[str, np.ndarray]], labels: list[np.ndarray], k: int) -> float:
    hits = top_hits(outputs, labels, k)
    if not hits.size:
        raise MetricError(f"top{k}: there are no samples to score")
    return int(np.count_nonzero(hits)) / hits.size


def _scores_and_classes(
    output: dict[str, np.ndarray], label: np.ndarray, k: int, where: str
) -> tuple[np.ndarray, np.ndarray]:
    """Scores [batch, classes] of the first output, and class numbers [batch]; both checked."""
    hint = "for another kind of output or label write a metric of your own: --metric FILE.py:function"
    if not output:
        raise MetricError(f"{where}: the model has no output")
    scores, wanted = np.asarray(next(iter(output.values()))), np.atleast_1d(label)
    shape = list(scores.shape)
    if scores.ndim == 1:
        scores = scores[None]
    elif scores.ndim > 2 and scores.size == math.prod(scores.shape[:2]):
        scores = scores.reshape(scores.shape[:2])  # [batch, classes, 1, 1] of older image models
    if scores.ndim != 2 or scores.dtype.kind in "OUSc":
        raise MetricError(
            f"{where}: the first output is {scores.dtype} {shape}, not scores [batch, classes]", hint=hint
        )
    if scores.shape[1] <= k:
        raise MetricError(f"{where}: with {scores.shape[1]} classes every answer is right", hint=hint)
    if wanted.dtype.kind not in "iu" or wanted.ndim != 1:
        raise MetricError(f"{where}: labels are {wanted.dtype} {list(wanted.shape)}, not class numbers", hint=hint)
    if len(wanted) != len(scores):
        raise MetricError(f"{where}: {len(wanted)} labels for {len(scores)} rows of scores", hint=hint)
    if ((wanted < 0) | (wanted >= scores.shape[1])).any():
        raise MetricError(
            f"{where}: labels from {wanted.min()} to {wanted.max()}, but {scores.shape[1]} classes",
            hint="class numbers count from 0, in the order of the model's scores",
        )
    return scores.astype(np.float64), wanted
