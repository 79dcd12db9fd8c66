"""What `optimize` would do: everything is checked, nothing is built, timed or written."""

import dataclasses
import os
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from onnxcomp.api.common import Data
from onnxcomp.api.disturbing import check_disturbances
from onnxcomp.api.optimization import Prepared, prepare
from onnxcomp.data import ImageOptions
from onnxcomp.facts import opset, parameter_count
from onnxcomp.model import open_session, size
from onnxcomp.recipe import Recipe
from onnxcomp.report import now, versions
from onnxcomp.report.plan import Plan, PlannedCandidate
from onnxcomp.search import Judge, cleanup, wanted
from onnxcomp.statistics import Statistics
from onnxcomp.target import Budget, Goal, Technique

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["plan"]

_RUNS = 32  # that the metric is tried on


def plan(
    model: "str | os.PathLike[str] | bytes | ir.Model",
    *,
    calibration: Data | None = None,
    statistics: str | os.PathLike[str] | Statistics | None = None,
    eval: Data | None = None,  # noqa: A002  (the name of the option)
    metric: str | None = None,
    budget: Budget | None = None,
    goal: Goal = "latency",
    target: str = "auto",
    recipe: Recipe | None = None,
    techniques: Collection[Technique] | None = None,
    synthetic_calibration: bool = False,
    threads: int = 1,
    batch: int = 1,
    images: ImageOptions | None = None,
    seed: int = 0,
    time_budget: float = 300.0,
    perturb: Sequence[str] = (),
) -> Plan:
    """Say what `optimize` would do with the same arguments: everything is checked, nothing is built or timed.

    The original alone is run, on some of the samples, so that a metric that fails does so now.

    Raises:
        OnnxCompError: As `optimize` would before its work begins, and where the original can't be scored.
    """
    check_disturbances(perturb)
    prepared = prepare(
        model,
        calibration=calibration,
        statistics=statistics,
        eval=eval,
        metric=metric,
        budget=budget,
        goal=goal,
        target=target,
        recipe=recipe,
        techniques=techniques,
        synthetic_calibration=synthetic_calibration,
        threads=threads,
        batch=batch,
        images=images,
        seed=seed,
        time_budget=time_budget,
    )
    check_disturbances(perturb, prepared.work.task.samples)
    _try_metric(prepared)
    calibrated = prepared.work.calibration is not None or prepared.work.statistics is not None
    work = prepared.work
    candidates = wanted(recipe, work.target, calibrated=calibrated, techniques=work.techniques, goal=work.goal)
    return Plan(
        settings=prepared.settings,
        size=size(prepared.model) if prepared.source is None else prepared.source.stat().st_size,
        parameters=parameter_count(prepared.model),
        opset=opset(prepared.model),
        cleanup=tuple(step.name for step in cleanup().steps),
        candidates=tuple(PlannedCandidate(c.name, c.recipe.to_toml()) for c in candidates),
        notes=prepared.notes,
        versions=versions(),
        created=now(),
    )


def _try_metric(prepared: Prepared) -> None:
    """Score the original on some of the samples.

    Raises:
        MetricError: The metric fails, or can't make anything of outputs and labels.
        ModelError: The original fails while it runs.
        DataError: A sample does not fit it.
    """
    task = prepared.work.task
    if task.metric is not None:
        some = dataclasses.replace(task, samples=task.samples.spread(_RUNS))
        Judge(open_session(prepared.model, threads=0), some, prepared.work.budget)
