"""``quantize``: one technique by hand, verified by execution and measured."""

import dataclasses
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxcomp.api.calibration import collect
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
    unverified,
    why_unmeasured,
)
from onnxcomp.api.modes import Mode, get_mode
from onnxcomp.data import Feed, ImageOptions
from onnxcomp.errors import GateFailed, PassError, UsageError
from onnxcomp.facts import feature_outputs, is_quantized, opset, parameter_count
from onnxcomp.measure import Comparison
from onnxcomp.model import is_one_file, load, open_session, save, size
from onnxcomp.passbase import Need, PassContext
from onnxcomp.pipeline import PassReport, Verifier, recipe_of, run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.report import QuantizeReport, Written, machine, now, versions
from onnxcomp.runtime import Session
from onnxcomp.search import Judge, Progress, Quality, Race, Task, cleanup, slowness, why_nothing
from onnxcomp.statistics import Statistics
from onnxcomp.target import Budget, Gates, Target, get_target

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["QuantizeResult", "quantize"]

_VERIFY_RUNS = 3
_NAME = "quantized"


@dataclass(frozen=True, slots=True)
class QuantizeResult:
    """What `quantize` gives back.

    Attributes:
        model: The quantized model, as it was loaded back from disk.
        report: What was done and measured.
    """

    model: "ir.Model"
    report: QuantizeReport

    def save(self, path: str | os.PathLike[str]) -> QuantizeReport:
        """Write the model atomically; return the report, which now also says what was written where.

        Raises:
            OutputError: The path can't be written.
        """
        save(self.model, path)
        return dataclasses.replace(self.report, output=Written.at(path))


def quantize(
    model: "str | os.PathLike[str] | bytes | ir.Model",
    *,
    mode: str,
    calibration: Data | None = None,
    statistics: str | os.PathLike[str] | Statistics | None = None,
    eval: Data | None = None,  # noqa: A002  (the name of the option)
    metric: str | None = None,
    method: str | None = None,
    per_tensor: bool = False,
    weights: str | None = None,
    bits: int | None = None,
    block_size: int | None = None,
    symmetric: bool = False,
    form: str | None = None,
    ops: Sequence[str] | None = None,
    exclude: Sequence[str] = (),
    target: str = "auto",
    synthetic_calibration: bool = False,
    gates: Gates | None = None,
    bench: bool = True,
    threads: int = 1,
    batch: int = 1,
    images: ImageOptions | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> QuantizeResult:
    """Clean up and quantize a model in one named way, verify it by execution, and measure what that changed.

    Args:
        model: A path, a serialized model, or a model in memory. It is not changed.
        mode: ``static`` (needs calibration or statistics), ``dynamic``, ``weight-only`` or ``float16``
            (see ``form``).
        calibration: Samples for activation ranges.
        statistics: What `calibrate` measured, as a value or as its file: then no sample is run to find ranges.
        eval: Labelled samples for the metric, or unlabelled ones for fidelity to the original.
        metric: ``top1``, ``top5``, ``FILE.py:function`` or ``module:function``; top1 where labels are class numbers.
        method: How ranges become thresholds, of ``onnxcomp.thresholds.METHODS``; None: the pass's default.
        per_tensor: One scale per weight instead of one per output channel.
        weights: How scales of weights are chosen: ``minmax`` or ``mmse``; None: the pass's default.
        bits: Of a weight, 8 or 4 (weight-only); None: 8.
        block_size: Weights that share a scale: 16, 32, 64, 128, or 0 for a channel (weight-only); None: 128.
        symmetric: No zero points beside the scales (weight-only).
        form: How weights are written: ``auto``, ``nbits``, ``fold`` or ``dequantize`` (weight-only). Of float16:
            ``store`` (weights in float16, computed in float32), ``compute`` (in float16, with calibration knowing what
            would overflow) or ``auto``: ``compute`` where that is faster on the target.
        ops: Operator types to quantize; None: all that the mode knows.
        exclude: Names of nodes that stay float.
        target: Where the model will run; ``auto`` is this machine. The latency of another is not measured.
        synthetic_calibration: Calibrate on made-up inputs, where there are no samples.
        gates: Bounds that the result must keep; None: it is returned as it is.
        bench: Whether the latency is measured, in turns with the original.
        threads: Intra-op threads while timing; 0 is all cores.
        batch: Rows per run of an ``.npz`` of rows; images per run.
        images: How the images of a folder become values of the model's input.
        seed: For every random choice.
        progress: Called with the stage and the share done.

    Raises:
        GateFailed: A gate is missed; it carries the report.
        PassError: Nothing could be quantized, or the quantized model fails.
        OnnxCompError: Of the kind that fits: UsageError and its kinds, ModelError, EnvironmentUnavailable.
    """
    start = time.perf_counter()
    show = progress or _silent
    where, gates = get_target(target), gates or Gates()
    chosen, form = get_mode(mode).formed(form, where)
    step = chosen.step(
        {
            "method": method,
            "per-tensor": per_tensor,
            "weights": weights,
            "bits": bits,
            "block-size": block_size,
            "symmetric": symmetric,
            "form": form,
        },
        ops=ops,
        exclude=exclude,
    )
    check_threads(threads)
    check_metric(metric)
    unmeasured = _why_no_latency(where, bench=bench)
    if gates.max_latency_ratio is not None and unmeasured:
        raise UsageError(f"max-latency-ratio can't be checked: latency not measured: {unmeasured}")
    given = calibration is not None or synthetic_calibration
    calibrated = _calibrates(chosen, step, samples=given, statistics=statistics is not None)
    source = Path(model) if isinstance(model, str | os.PathLike) else None
    known = open_statistics(statistics)
    loaded = load(model)
    notes = [f"latency not measured: {unmeasured}"] if unmeasured else []
    notes += filter(None, [unverified(where)])
    if is_quantized(loaded):
        notes.append("the model is quantized already: what it holds in integers is left as it is")
    samples, evaluation = (open_data(loaded, data, batch=batch, images=images) for data in (calibration, eval))
    check_images_used(images, samples, evaluation)
    made_up = None
    unknown = calibrated and known is None
    if samples is None and (unknown or evaluation is None):
        made_up = make_up(loaded, seed=seed, batch=batch)
    if samples is None and unknown:
        notes.append("calibrated on made-up inputs: expect a worse model than with real samples")
        samples = made_up
    task = choose_task(samples, evaluation, made_up, metric, max_drop=gates.max_drop, notes=notes)
    if gates.max_drop is not None and task.metric is None:
        raise UsageError(f"max-drop needs labels, and {task.samples.description} has none", hint="--eval DATA")

    ctx = PassContext(target=where, samples=samples if calibrated else None, seed=seed)
    made = _make(loaded, chosen, step, ctx, known, task=task, show=show)
    exact = gates.max_latency_ratio
    race = None if unmeasured else Race(loaded, _first(task), threads=threads, seed=seed, progress=show)
    found = _measure(loaded, made.model, task, race, show, exact=exact)
    seconds = {timing.name: timing.undisturbed for timing in found.timing.timings} if found.timing else {}
    drop = None
    if found.before.score is not None and found.after.score is not None:
        drop = found.before.score - found.after.score
    original_size = source.stat().st_size if source and is_one_file(loaded) else size(loaded)
    missed = gates.missed(
        drop=drop,
        agreement=found.after.agreement,
        sqnr=found.after.sqnr,
        size=found.size,
        original_size=original_size,
    )
    latency = found.timing.ratios[_NAME] if found.timing else None
    if exact is not None and latency is not None and (slow := slowness(latency, exact)):
        missed.append(slow)
    report = QuantizeReport(
        model=str(source) if source else "(in memory)",
        mode=mode,
        settings=step.settings,
        target=where.name,
        calibration=known.samples if known else ctx.samples.description if ctx.samples else None,
        statistics=known.created if known else None,
        evaluation=task.samples.description,
        metric=task.metric_name,
        gates=gates,
        missed=tuple(missed),
        threads=threads,
        batch=batch,
        seed=seed,
        parameters=parameter_count(loaded),
        opset=opset(loaded),
        original_size=original_size,
        size=found.size,
        original_quality=found.before,
        quality=found.after,
        latency=latency,
        original_seconds=seconds.get("original"),
        seconds_per_run=seconds.get(_NAME),
        cleanup=made.cleanup,
        passes=made.passes,
        recipe=recipe_of(found.model).to_toml(),
        notes=tuple(filter(None, [*notes, doubt(found.before.score, task)])),
        seconds=time.perf_counter() - start,
        versions=versions(),
        machine=machine(),
        created=now(),
    )
    if missed:
        raise GateFailed("; ".join(missed), report=report)
    return QuantizeResult(found.model, report)


def _calibrates(mode: Mode, step: Step, *, samples: bool, statistics: bool) -> bool:
    """Say whether ranges of activations are used, of those that are given.

    Raises:
        UsageError: None are given and the mode needs them, or it has no use for those that are.
    """
    work = step.make()
    needed = Need.CALIBRATION in work.needs
    used = needed or (Need.CALIBRATION in work.wants and (samples or statistics))
    if statistics and not used:
        raise UsageError(f"mode {mode.name} uses no statistics")
    if needed and not samples and not statistics:
        raise UsageError(
            f"mode {mode.name} needs calibration samples",
            hint="--calibration DATA, --statistics FILE, or --synthetic for made-up ones",
        )
    return used


@dataclass(frozen=True, slots=True)
class _Made:
    """A quantized model in memory, and what each pass did to it."""

    model: "ir.Model"
    cleanup: tuple[PassReport, ...]
    passes: tuple[PassReport, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """A quantized model loaded back from disk, and what was measured on it."""

    model: "ir.Model"
    size: int
    before: Quality
    after: Quality
    timing: Comparison | None


def _make(
    model: "ir.Model", mode: Mode, step: Step, ctx: PassContext, known: Statistics | None, *, task: Task, show: Progress
) -> _Made:
    """Clean up and quantize.

    Raises:
        PassError: Nothing could be quantized.
        UsageError: There is no node of an excluded name.
    """
    show("verify", None)
    verifier = Verifier(model, task.samples.spread(_VERIFY_RUNS))
    cleaned, clean_up = run_recipe(
        model, cleanup(), ctx, verifier, progress=lambda name: show(f"clean up: {name}", None)
    )
    base, in_front = run_recipe(cleaned, Recipe(mode.in_front(step)), ctx, verifier)
    units = Step(step.name).make().units(base, ctx)
    ctx.skipped.clear()
    Recipe((step,)).check_excluded(
        dict.fromkeys([*(name for u in units for name in u.nodes), *(str(n.name) for n in base.graph if n.name)])
    )
    if known is not None:
        ctx.ranges = known.store(cleaned, ctx.samples)
    elif ctx.samples is not None:
        ctx.ranges = collect(
            cleaned,
            ctx.samples,
            ctx,
            verifier,
            progress=lambda done, of: show("calibrate", done / of if of else None),
        )
    show("quantize", None)
    quantized, (done,) = run_recipe(base, Recipe((step,)), ctx, verifier)
    passes = (*(report for report in in_front if report.modified or report.failure), done)
    if not done.modified:
        why = why_nothing(base, passes)
        raise PassError(
            f"nothing could be quantized in mode {mode.name}: {why}",
            hint=f"the modes differ in what they quantize: onnxcomp passes {step.name}",
        )
    return _Made(quantized, tuple(clean_up), passes)


def _measure(
    original: "ir.Model", quantized: "ir.Model", task: Task, race: Race | None, show: Progress, *, exact: float | None
) -> _Found:
    """Save, load back, judge and time a quantized model.

    Args:
        original: What it was made of.
        quantized: In memory.
        task: What it is judged on.
        race: Times it; None: it is not timed.
        show: Told what is going on.
        exact: The latency ratio that must be told from others; None: a rough one will do.
    """
    with tempfile.TemporaryDirectory(prefix="onnxcomp.") as folder:
        path = Path(folder, "model.onnx")
        save(quantized, path)
        loaded = load(path)
        show("judge", None)
        judge = Judge(open_session(original, threads=0), task, Budget(), features=feature_outputs(original))
        quality = judge.quality(Session(path, threads=0))
        timing = None
        if race is not None and exact is None:
            timing = race.rough({_NAME: loaded})
        elif race is not None and exact is not None:
            timing = race.exact(_NAME, Session(path, threads=race.threads), exact)
    return _Found(loaded, size(loaded), judge.original, quality, timing)


def _why_no_latency(target: Target, *, bench: bool) -> str | None:
    """Say why latency is not measured, or None."""
    if not bench:
        return "it was not asked for"
    return why_unmeasured(target)


def _first(task: Task) -> Feed:
    return next(iter(task.samples.take(1)))


def _silent(_stage: str, _share: float | None) -> None:
    pass
