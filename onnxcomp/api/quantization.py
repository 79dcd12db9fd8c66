"""``quantize``: one technique by hand, verified by execution and measured."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxcomp.api.calibration import collect
from onnxcomp.api.common import Data, check_threads, open_statistics, unverified, why_unmeasured
from onnxcomp.api.making import Assignment, MadeResult, assign, cleaned, judge_of, measured, race_of, times
from onnxcomp.api.modes import Mode, get_mode
from onnxcomp.data import ImageOptions
from onnxcomp.errors import GateFailed, PassError, UsageError
from onnxcomp.passbase import Need, PassContext
from onnxcomp.pipeline import PassReport, run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.report import QuantizeReport
from onnxcomp.search import Progress, why_nothing
from onnxcomp.statistics import Statistics
from onnxcomp.target import Gates, Target, get_target

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["QuantizeResult", "quantize"]


class QuantizeResult(MadeResult[QuantizeReport]):
    """What `quantize` gives back."""

    __slots__ = ()


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
    unmeasured = _why_no_latency(where, bench=bench)
    if gates.max_latency_ratio is not None and unmeasured:
        raise UsageError(f"max-latency-ratio can't be checked: latency not measured: {unmeasured}")
    given = calibration is not None or synthetic_calibration
    calibrated = _calibrates(chosen, step, samples=given, statistics=statistics is not None)
    known = open_statistics(statistics)
    work = assign(
        model,
        calibration=calibration,
        evaluation=eval,
        metric=metric,
        gates=gates,
        batch=batch,
        images=images,
        seed=seed,
        made_up=calibrated and known is None,
        notes=filter(None, [unmeasured and f"latency not measured: {unmeasured}", unverified(where)]),
    )
    ctx = PassContext(target=where, samples=work.samples if calibrated else None, seed=seed)
    made = _make(work, chosen, step, ctx, known, show=show)
    show("judge", None)
    judge = judge_of(work)
    race = None if unmeasured else race_of(work, threads=threads, show=show)
    found = measured(made.model, judge, race, exact=gates.max_latency_ratio)
    show("look into it", None)
    ranges = ctx.ranges.known if ctx.ranges else {}
    report = QuantizeReport(
        **work.facts(judge, found, made.passes, made.cleanup),
        **times(found, where, threads=threads, batch=batch),
        mode=mode,
        settings=step.settings,
        calibration=known.samples if known else ctx.samples.description if ctx.samples else None,
        statistics=known.created if known else None,
        anatomy=work.anatomy(made.clean, found, histograms=ranges, threads=threads),
    )
    if report.missed:
        raise GateFailed("; ".join(report.missed), report=report)
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
    """A quantized model in memory, what it was made of, and what each pass did to it."""

    model: "ir.Model"
    clean: "ir.Model"
    cleanup: tuple[PassReport, ...]
    passes: tuple[PassReport, ...]


def _make(
    work: Assignment, mode: Mode, step: Step, ctx: PassContext, known: Statistics | None, *, show: Progress
) -> _Made:
    """Clean up and quantize.

    Raises:
        PassError: Nothing could be quantized.
        UsageError: There is no node of an excluded name.
    """
    verifier, clean, clean_up = cleaned(work, ctx, show)
    base, in_front = run_recipe(clean, Recipe(mode.in_front(step)), ctx, verifier)
    units = Step(step.name).make().units(base, ctx)
    ctx.skipped.clear()
    Recipe((step,)).check_excluded(
        dict.fromkeys([*(name for u in units for name in u.nodes), *(str(n.name) for n in base.graph if n.name)])
    )
    if known is not None:
        ctx.ranges = known.store(clean, ctx.samples)
    elif ctx.samples is not None:
        ctx.ranges = collect(
            clean,
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
    return _Made(quantized, clean, tuple(clean_up), passes)


def _why_no_latency(target: Target, *, bench: bool) -> str | None:
    """Say why latency is not measured, or None."""
    if not bench:
        return "it was not asked for"
    return why_unmeasured(target)


def _silent(_stage: str, _share: float | None) -> None:
    pass
