"""``optimize``: the best model inside a budget, proven by measurement."""

import dataclasses
import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from onnxcomp.api.anatomy import anatomy
from onnxcomp.api.common import (
    Data,
    check_images_used,
    check_metric,
    check_threads,
    choose_task,
    doubt,
    few,
    make_up,
    oddities,
    open_data,
    open_statistics,
    unverified,
)
from onnxcomp.api.devices import check_alone, fallen_back, times_hint, whose_times, why_untimed
from onnxcomp.api.disturbing import check_disturbances, disturb
from onnxcomp.api.measured import read_measured
from onnxcomp.api.pairs import Pair
from onnxcomp.api.resume import open_memory
from onnxcomp.data import ImageOptions
from onnxcomp.errors import GateFailed, UsageError
from onnxcomp.facts import feature_outputs
from onnxcomp.files import check_folder
from onnxcomp.metrics import TOP
from onnxcomp.model import load, open_session
from onnxcomp.recipe import Recipe
from onnxcomp.report import Report, Robustness, Settings, Written, make_report
from onnxcomp.report.figures import counted
from onnxcomp.search import Outcome, Progress, Work, connected, hold_out
from onnxcomp.search import optimize as _search
from onnxcomp.statistics import Statistics
from onnxcomp.target import Budget, Goal, Target, Technique, get_target

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Prepared", "Result", "optimize", "prepare"]

_DISTURBED = 0.2  # of the time budget: what comparing on disturbed inputs may take, after the search


@dataclass(frozen=True, slots=True, repr=False)
class Result:
    """What `optimize` gives back; as a text, and in a notebook, the report.

    Attributes:
        model: The delivered model, as it was loaded back from disk.
        report: Everything that was measured.
    """

    model: "ir.Model"
    report: Report
    _outcome: Outcome

    def save(self, path: str | os.PathLike[str]) -> Report:
        """Write the model atomically, over what is there; return the report, which now also says what was written.

        Raises:
            OutputError: The path can't be written.
        """
        self._outcome.save(Path(path))
        return dataclasses.replace(self.report, output=Written.at(path))

    def __str__(self) -> str:
        return str(self.report)

    def __repr__(self) -> str:
        outcome = self.report.outcome
        return f"<Result: {outcome.winner or 'the original'}, {outcome.size} of {outcome.original_size} bytes>"

    def _repr_html_(self) -> str:
        return self.report._repr_html_()


def optimize(
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
    pareto: str | os.PathLike[str] | None = None,
    work_dir: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    cluster: str | None = None,
    measurements: str | os.PathLike[str] | None = None,
    perturb: Sequence[str] = (),
    progress: Progress | None = None,
) -> Result:
    """Find the best model inside a budget, and prove it by measurement.

    Args:
        model: A path, a serialized model, or a model in memory. It is not changed.
        calibration: Samples for activation ranges; without them only what needs none is tried.
        statistics: What `calibrate` measured, as a value or as its file: static INT8 then needs no samples.
        eval: Labelled samples for the metric, or unlabelled ones for fidelity to the original.
        metric: ``top1``, ``top5``, ``FILE.py:function`` or ``module:function``; top1 where labels are class numbers.
        budget: Bounds on accuracy, size and latency.
        goal: What to minimise: ``latency``, ``size``, or ``balanced`` (the product of both ratios).
        target: Where the model will run; ``auto`` is this machine.
        recipe: Passes to try instead of the built-in candidates.
        techniques: ``prune``, ``static``, ``dynamic``, ``weights``, ``float16``: the only ones to try; None: all that
            data and target allow.
        synthetic_calibration: Calibrate on made-up inputs, where there are no samples.
        threads: Intra-op threads while timing; 0 is all cores.
        batch: Rows per run of an ``.npz`` of rows; images per run.
        images: How the images of a folder become values of the model's input.
        seed: For every random choice.
        time_budget: Seconds after which no optional step is begun; the final proof times once then, not three
            times. Disturbances (`perturb`) may take a fifth of it on top.
        pareto: Folder that gets, as a model and a recipe each, the candidates that no other one equals or beats in
            size, latency and score at once but for a tie, those outside the budget too; it may exist.
        work_dir: Folder that keeps what was built, judged and timed: a run that was killed goes on where it was when
            it is started again with the same arguments. It may be missing.
        jobs: Processes of this machine that judge candidates at once; 1: each is judged when it is its turn, on all
            cores. What is found is the same. Nothing is judged while something is timed.
        cluster: Address of a Dask scheduler (``tcp://host:8786``, extra ``dask``) or a Ray cluster
            (``ray://host:10001``, extra ``ray``) that judges candidates instead. All timing stays on this machine.
        measurements: What the bundle of `bundle_candidates` has written on another machine, in the folder of that
            bundle: its candidates are chosen from, by these times. Nothing is timed here.
        perturb: Disturbances of the inputs that the delivered model is compared with the original under, as those of
            `compare`; they decide nothing.
        progress: Called with the stage and the share done.

    Raises:
        OnnxCompError: Of the kind that fits: UsageError and its kinds, ModelError, EnvironmentUnavailable, GateFailed.
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
        elsewhere=measurements is not None,
        measurements=measurements,
    )
    work = prepared.work
    check_disturbances(perturb, work.task.samples)
    measured_note = None
    if measurements is not None:
        measured, measured_note = read_measured(measurements, prepared.model)
        work = dataclasses.replace(work, measured=measured)
    if pareto is not None:
        check_folder(Path(pareto), overwrite=True)
        work = dataclasses.replace(work, pareto=Path(pareto))
    if work_dir is not None:
        tell = progress or (lambda _stage, _share: None)
        memory = open_memory(Path(work_dir), prepared.model, work, metric=metric, progress=tell)
        work = dataclasses.replace(work, memory=memory)
    check_alone(work, jobs=jobs, cluster=cluster)
    with connected(jobs, cluster) as executor:
        work = dataclasses.replace(work, executor=executor)
        outcome = _search(prepared.model, work, source=prepared.source, progress=progress)
    ran = {"the original": prepared.model} | ({} if outcome.winner is None else {outcome.winner: outcome.model})
    found = [*prepared.notes, measured_note, *fallen_back(ran, work)]
    found.append(doubt(outcome.original_quality.score, prepared.work.task.final))
    if outcome.evidence is not None and (eval is not None or calibration is not None):
        found.append(few(outcome.evidence.samples))
    if work.memory.known:
        found.append(f"{counted(work.memory.known, 'result')} known from an earlier start, taken from the work folder")
    if cluster is not None:
        found.append(f"candidates were judged on the cluster at {cluster}; the winner once more, and all timed, here")
    if outcome.cut_short:
        found.append("the time budget ended the search early: a longer --time-budget may find more")
    parts = None
    if outcome.winner is not None and outcome.cleaned is not None:
        parts = anatomy(
            prepared.model,
            outcome.cleaned,
            outcome.model,
            next(iter(work.task.samples.take(1))),
            histograms=outcome.histograms,
            seconds=outcome.original_seconds if work.provider == "cpu" else None,  # its profile is the CPU's
            threads=threads,
        )
    disturbed: tuple[Robustness, ...] = ()
    if perturb and outcome.winner is None:
        found.append("nothing is compared on disturbed inputs: the original is delivered")
    elif perturb:
        final = work.task.final
        disturbed, partly = disturb(
            Pair(open_session(prepared.model, threads=0), open_session(outcome.model, threads=0)),
            final.samples,
            check_disturbances(perturb, final.samples),
            top=TOP.get(final.metric_name or ""),
            features=feature_outputs(prepared.model),
            seed=seed,
            seconds=_DISTURBED * time_budget,
            progress=progress or (lambda _stage, _share: None),
        )
        found.append(partly)
    notes = tuple(filter(None, found))
    report = make_report(
        prepared.model,
        outcome,
        prepared.settings,
        notes=notes,
        anatomy=parts,
        robustness=disturbed,
        provider=work.provider,
    )
    if outcome.missed is not None:
        raise GateFailed(outcome.missed, report=report)
    return Result(outcome.model, report, outcome)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A checked order: the loaded model, where it came from, the work, and what the report says of it."""

    model: "ir.Model"
    source: Path | None
    work: Work
    settings: Settings
    notes: tuple[str, ...]


def prepare(
    model: "str | os.PathLike[str] | bytes | ir.Model",
    *,
    calibration: Data | None,
    statistics: str | os.PathLike[str] | Statistics | None,
    eval: Data | None,  # noqa: A002  (the name of the option)
    metric: str | None,
    budget: Budget | None,
    goal: Goal,
    target: str,
    recipe: Recipe | None,
    techniques: Collection[Technique] | None,
    synthetic_calibration: bool,
    threads: int,
    batch: int,
    images: ImageOptions | None,
    seed: int,
    time_budget: float,
    elsewhere: bool = False,
    measurements: str | os.PathLike[str] | None = None,
) -> Prepared:
    """Check the settings, load the model, open the samples.

    Args are those of `optimize`, and:
        elsewhere: Whether times are taken on another machine: any target will do then.
        measurements: The file of them, where that was done.

    Raises:
        OnnxCompError: As `optimize` would before its work begins.
    """
    if not time_budget > 0:
        raise UsageError(f"time-budget must be positive, got {time_budget}")
    check_threads(threads)
    if goal not in get_args(Goal):
        raise UsageError(f"unknown goal {goal!r}", hint=f"one of: {', '.join(get_args(Goal))}")
    _check_techniques(techniques, recipe)
    check_metric(metric)
    chosen = get_target(target)
    unmeasured = None if elsewhere else why_untimed(chosen)
    if unmeasured and (goal != "size" or (budget is not None and budget.max_latency_ratio is not None)):
        raise UsageError(f"latency on {chosen.name} can't be measured: {unmeasured}", hint=times_hint(chosen))
    calibrated = calibration is not None or statistics is not None or synthetic_calibration
    if recipe is not None and not calibrated and recipe.needs_calibration:
        raise UsageError("the recipe needs calibration samples", hint="--calibration DATA or --statistics FILE")
    _check_needs(techniques or (), chosen, samples=calibration is not None or synthetic_calibration, ranges=calibrated)
    budget = budget or Budget()
    source = Path(model) if isinstance(model, str | os.PathLike) else None
    known = open_statistics(statistics)
    loaded = load(model)
    notes = [note for note in (unverified(chosen),) if note is not None]
    notes += oddities(loaded)
    calibration_samples = open_data(loaded, calibration, batch=batch, images=images)
    evaluation = open_data(loaded, eval, batch=batch, images=images)
    check_images_used(images, calibration_samples, evaluation)
    made_up = None
    if calibration_samples is None and (synthetic_calibration or evaluation is None):
        made_up = make_up(loaded, seed=seed, batch=batch)
        if synthetic_calibration and known is None:
            unpruned = ", and nothing is pruned" if techniques is None and recipe is None else ""
            notes.append(f"calibrated on made-up inputs: expect a worse model than with real samples{unpruned}")
            calibration_samples = made_up.others()
    if not calibrated and recipe is None and techniques is None and measurements is None:
        notes.append("no calibration samples (--calibration DATA): static INT8, often the fastest, was not tried")
    if known is not None and calibration is not None:
        notes.append("ranges come from the statistics file; the calibration samples tell what harms, and are judged on")
    task, calibration_samples = choose_task(
        calibration_samples, evaluation, made_up, metric, max_drop=budget.max_drop, seed=seed, notes=notes
    )
    evaluated = task.samples.description
    task, verdict = hold_out(task, seed)
    work = Work(
        task=task,
        target=chosen,
        calibration=calibration_samples,
        statistics=known,
        recipe=recipe,
        techniques=None if techniques is None else tuple(techniques),
        budget=budget,
        goal=goal,
        threads=threads,
        timed=unmeasured is None,
        seed=seed,
        time_budget=time_budget,
    )
    if not elsewhere:
        notes += filter(None, [whose_times(work)])
    settings = Settings(
        model=str(source) if source else "(in memory)",
        calibration=known.samples if known else calibration_samples.description if calibration_samples else None,
        evaluation=evaluated,
        verdict=verdict,
        metric=task.metric_name,
        goal=goal,
        target=chosen.name,
        techniques=work.techniques,
        unmeasured=unmeasured,
        budget=budget,
        threads=threads,
        batch=batch,
        seed=seed,
        measurements=None if measurements is None else os.fspath(measurements),
    )
    return Prepared(loaded, source, work, settings, tuple(notes))


def _check_techniques(techniques: Collection[str] | None, recipe: object) -> None:
    if recipe is not None and not isinstance(recipe, Recipe):
        raise UsageError(f"a recipe can't be given as {type(recipe).__name__}", hint="pass onnxcomp.Recipe.read(path)")
    if techniques is None:
        return
    if recipe is not None:
        raise UsageError("a recipe says itself which techniques it uses", hint="leave out --technique or --recipe")
    known = get_args(Technique)
    if unknown := [name for name in techniques if name not in known] or ([] if techniques else ["(none)"]):
        raise UsageError(f"unknown technique {unknown[0]!r}", hint=f"one or more of: {', '.join(known)}")


def _check_needs(techniques: Collection[str], target: Target, *, samples: bool, ranges: bool) -> None:
    """Refuse techniques that were named and can't be used.

    Args:
        techniques: That were named.
        target: Where the model will run.
        samples: Whether there are calibration samples.
        ranges: Whether there are those, or statistics of them.
    """
    if "static" in techniques and not ranges:
        raise UsageError("static INT8 needs calibration samples", hint="--calibration DATA or --statistics FILE")
    if "prune" in techniques and not samples:
        raise UsageError("pruning needs calibration samples", hint="--calibration DATA")
    if "float16" in techniques and not target.float16:
        raise UsageError(f"computing in float16 is not faster on {target.name}", hint="--technique weights stores it")
