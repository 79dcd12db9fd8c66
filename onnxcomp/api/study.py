"""``sensitivity``: what each node or block costs when a technique rewrites it, against what that saves."""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from onnxcomp import registry
from onnxcomp.api.common import (
    Data,
    check_images_used,
    check_metric,
    check_threads,
    choose_task,
    doubt,
    make_up,
    open_data,
    open_statistics,
    size_on_disk,
    why_unmeasured,
)
from onnxcomp.api.modes import MODES, Mode
from onnxcomp.data import ImageOptions
from onnxcomp.errors import UsageError
from onnxcomp.facts import opset
from onnxcomp.model import load
from onnxcomp.passbase import PassContext
from onnxcomp.pipeline import Verifier, run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.report import SensitivityReport, machine, now, versions
from onnxcomp.search import Progress, cleanup, study
from onnxcomp.statistics import RangeStore, Statistics
from onnxcomp.target import Budget, Goal, get_target

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["sensitivity"]

_VERIFY_RUNS = 3


def sensitivity(
    model: "str | os.PathLike[str] | bytes | ir.Model",
    *,
    mode: str | None = None,
    recipe: Recipe | None = None,
    method: str | None = None,
    exclude: Sequence[str] = (),
    calibration: Data | None = None,
    statistics: str | os.PathLike[str] | Statistics | None = None,
    eval: Data | None = None,  # noqa: A002  (the name of the option)
    metric: str | None = None,
    budget: Budget | None = None,
    goal: Goal = "latency",
    target: str = "auto",
    synthetic_calibration: bool = False,
    threads: int = 1,
    batch: int = 1,
    images: ImageOptions | None = None,
    seed: int = 0,
    time_budget: float = 300.0,
    progress: Progress | None = None,
) -> SensitivityReport:
    """Measure what each unit of a technique harms and saves, alone and together, and which to leave out.

    A unit is what the technique's pass switches as one: a node, a block, a channel group. Noise at the outputs and the
    time in onnxruntime's profile are measured for all; the evaluation samples judge what decides.

    Args:
        model: A path, a serialized model, or a model in memory. It is not changed.
        mode: As for `quantize`, or the name of a lossy pass; None: ``static`` where there are ranges, else ``dynamic``.
        recipe: Passes whose units are compared, instead of a mode.
        method: How ranges become thresholds; None: the pass's default.
        exclude: Names of nodes that are left out in any case.
        calibration: Samples for activation ranges, and to measure noise on.
        statistics: What `calibrate` measured, as a value or as its file: ranges are taken from there.
        eval: Labelled samples for the metric, or unlabelled ones for fidelity to the original.
        metric: ``top1``, ``top5``, ``FILE.py:function`` or ``module:function``; top1 where labels are class numbers.
        budget: Bounds on the answers; those on size and latency have no meaning here.
        goal: What harm is weighed against: ``latency``, ``size``, or ``balanced`` (the share of both).
        target: Where the model will run; ``auto`` is this machine, and no other can be measured.
        synthetic_calibration: Calibrate on made-up inputs, where there are no samples.
        threads: Intra-op threads while timing; 0 is all cores.
        batch: Rows per run of an ``.npz`` of rows; images per run.
        images: How the images of a folder become values of the model's input.
        seed: For every random choice.
        time_budget: Seconds after which nothing more is put in order or judged.
        progress: Called with the stage and the share done.

    Raises:
        PassError: Nothing could be rewritten.
        OnnxCompError: Of the kind that fits: UsageError and its kinds, ModelError, EnvironmentUnavailable.
    """
    start = time.perf_counter()
    show = progress or (lambda _stage, _share: None)
    budget = budget or Budget()
    if budget.max_size is not None or budget.max_latency_ratio is not None:
        raise UsageError("bounds on size and latency have no meaning here", hint="optimize keeps them")
    if not time_budget > 0:
        raise UsageError(f"time-budget must be positive, got {time_budget}")
    if goal not in get_args(Goal):
        raise UsageError(f"unknown goal {goal!r}", hint=f"one of: {', '.join(get_args(Goal))}")
    check_threads(threads)
    check_metric(metric)
    where = get_target(target)
    if unmeasured := why_unmeasured(where):
        raise UsageError(
            f"what a unit saves on {where.name} can't be measured: {unmeasured}",
            hint="leave out --target, or run it on a machine of that kind",
        )
    calibrated = calibration is not None or statistics is not None or synthetic_calibration
    technique = _technique(mode, recipe, method=method, exclude=exclude, calibrated=calibrated)
    if technique.needs_calibration and not calibrated:
        raise UsageError(
            "this technique needs calibration samples",
            hint="--calibration DATA, --statistics FILE, or --synthetic for made-up ones",
        )
    known = open_statistics(statistics)
    loaded = load(model)
    notes: list[str] = []
    samples, evaluation = (open_data(loaded, data, batch=batch, images=images) for data in (calibration, eval))
    check_images_used(images, samples, evaluation)
    made_up = None
    if samples is None and (synthetic_calibration or evaluation is None):
        made_up = make_up(loaded, seed=seed, batch=batch)
        if synthetic_calibration and known is None:
            notes.append("calibrated on made-up inputs: real ones may be harmed elsewhere")
            samples = made_up.others()
    task, samples = choose_task(samples, evaluation, made_up, metric, max_drop=budget.max_drop, seed=seed, notes=notes)
    if samples is None and evaluation is not None:
        notes.append("no calibration samples: noise was measured on the evaluation samples, which judge as well")

    show("verify", None)
    verifier = Verifier(loaded, task.samples.spread(_VERIFY_RUNS))
    ctx = PassContext(target=where, samples=samples, seed=seed)
    cleaned, _ = run_recipe(loaded, cleanup(), ctx, verifier, progress=lambda name: show(f"clean up: {name}", None))
    _check_excluded(technique, cleaned, ctx)

    def calibrating(done: int, of: int | None) -> None:
        show("calibrate", done / of if of else None)

    if known is not None:
        ctx.ranges = known.store(cleaned, samples, progress=calibrating)
    elif samples is not None:
        ctx.ranges = RangeStore(cleaned, samples, progress=calibrating)
    found = study(
        loaded,
        cleaned,
        technique,
        ctx,
        task=task,
        calibration=samples or task.samples,
        budget=budget,
        goal=goal,
        threads=threads,
        time_budget=time_budget,
        progress=show,
    )
    notes += filter(None, [doubt(found.original_quality.score, task)])
    if found.cut_short:
        notes.append(f"the time budget of {time_budget:g} s ended before all was ordered and judged (--time-budget)")
    return SensitivityReport(
        model=str(Path(model)) if isinstance(model, str | os.PathLike) else "(in memory)",
        technique=technique.to_toml(),
        goal=goal,
        target=where.name,
        calibration=known.samples if known else samples.description if samples else None,
        statistics=known.created if known else None,
        noise_samples=(samples or task.samples).description,
        evaluation=task.samples.description,
        metric=task.metric_name,
        budget=budget,
        threads=threads,
        batch=batch,
        seed=seed,
        opset=opset(loaded),
        original_size=size_on_disk(model, loaded),
        size=found.size,
        seconds_before=found.seconds_before,
        seconds_after=found.seconds_after,
        original_quality=found.original_quality,
        units=found.units,
        together=found.together,
        exclude=found.exclude,
        recipe=found.recipe.to_toml(),
        cut_short=found.cut_short,
        notes=tuple(notes),
        seconds=time.perf_counter() - start,
        versions=versions(),
        machine=machine(),
        created=now(),
    )


def _check_excluded(technique: Recipe, cleaned: "ir.Model", ctx: PassContext) -> None:
    """Refuse names of nodes to leave out that no node has; those of units are proposed first.

    Raises:
        RecipeError: There is no such node.
    """
    bare = [Step(step.name, {k: v for k, v in step.settings.items() if k != "exclude"}) for step in technique.steps]
    units = [unit for step in bare for unit in step.make().units(cleaned, ctx)]
    ctx.skipped.clear()
    technique.check_excluded(
        dict.fromkeys([*(name for unit in units for name in unit.nodes), *(str(n.name) for n in cleaned.graph)])
    )


def _technique(
    mode: str | None, recipe: Recipe | None, *, method: str | None, exclude: Sequence[str], calibrated: bool
) -> Recipe:
    """Return the recipe whose units are compared.

    Raises:
        UsageError: Two techniques are named, or one that is none.
        RecipeError: A setting is wrong.
    """
    if recipe is not None:
        if mode is not None or method is not None or exclude:
            raise UsageError(
                "a recipe says itself what mode, method and exclude are", hint="leave them out, or write them in it"
            )
        if all(step.make().exact for step in recipe.steps):
            raise UsageError("the recipe has no lossy pass to compare", hint="onnxcomp passes lists the lossy ones")
        return recipe
    name = mode or ("static" if calibrated else "dynamic")
    lossy = [name for name in registry.names() if not registry.pass_class(name).exact]
    if name not in MODES and name not in lossy:
        raise UsageError(f"unknown mode {name!r}", hint=f"one of: {', '.join([*MODES, *lossy])}")
    chosen = MODES.get(name) or Mode(name, name)
    step = chosen.step({"method": method}, ops=None, exclude=exclude)
    return Recipe((*chosen.in_front(step), step))
