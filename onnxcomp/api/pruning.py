"""``prune``: remove channels, hidden units and attention heads, verify by execution, measure what that changed."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.api.common import Data, check_threads, unverified, why_unmeasured
from onnxcomp.api.granularities import RECOVERIES, get_granularity
from onnxcomp.api.making import Assignment, MadeResult, assign, cleaned, judge_of, measured, race_of, times
from onnxcomp.api.shapes import count_costs
from onnxcomp.data import ImageOptions
from onnxcomp.errors import GateFailed, PassError, UsageError
from onnxcomp.facts import parameter_count, weights
from onnxcomp.measure import Stopwatch
from onnxcomp.passbase import Grouping, PassContext
from onnxcomp.pipeline import PassReport, Verifier, run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.report.pruning import PrunedGroup, PruneReport
from onnxcomp.search import Progress, why_nothing
from onnxcomp.statistics import RangeStore
from onnxcomp.target import Gates, get_target

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["PruneResult", "prune"]


_TARGETS = ("ratio", "macs", "params", "latency")
_ZEROS = (
    "zeros make no run faster on onnxruntime's CPU kernels: they pay in a packed file (onnxcomp pack), patterns of N:M "
    "in TensorRT"
)


class PruneResult(MadeResult[PruneReport]):
    """What `prune` gives back."""

    __slots__ = ()


def prune(
    model: "str | os.PathLike[str] | bytes | ir.Model",
    *,
    ratio: float | None = None,
    macs: float | None = None,
    params: float | None = None,
    latency: float | None = None,
    granularity: str = "channel",
    criterion: str | None = None,
    allocation: str | None = None,
    round: int | None = None,  # noqa: A002  (the name of the option)
    streams: bool = True,
    recovery: str | None = None,
    steps: int = 1,
    ignore: Sequence[str] = (),
    calibration: Data | None = None,
    eval: Data | None = None,  # noqa: A002  (the name of the option)
    metric: str | None = None,
    target: str = "auto",
    synthetic_calibration: bool = False,
    gates: Gates | None = None,
    bench: bool = True,
    threads: int = 1,
    batch: int = 1,
    images: ImageOptions | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> PruneResult:
    """Clean up a model, remove what matters least of it, verify by execution, and measure what that changed.

    Args:
        model: A path, a serialized model, or a model in memory. It is not changed.
        ratio: Share of the channels of each group, or of the weights of each layer, that is removed; None: 0.3 of
            channels where no other target is named, the pass's default of weights.
        macs: Share of the multiply-accumulate operations that stays.
        params: Share of the parameters that stays.
        latency: Share of the latency that stays, as measured on this machine.
        granularity: What goes: ``channel`` (channels, hidden units, whole heads of attention), ``dim`` (the same, but
            dimensions of all heads alike), ``block`` (whole residual blocks), ``weight`` (single weights become 0), or
            N of M weights, as in ``2:4``.
        criterion: What tells how much a channel or weight matters; None: measured with samples, where there are some.
        allocation: With ``macs``, ``params`` and ``latency``, ``global``: from where least is lost, or
            ``uniform``: all alike; None: ``global``.
        round: Channels that a layer keeps are a multiple of this; 1: any number; None: what suits the target.
        streams: Whether channels go that a normalization takes its statistics over, as those of a transformer between
            its layers.
        recovery: How what is left makes up for what went, by the calibration samples: ``least-squares`` (weights,
            layer by layer), ``distill`` (the same, then all together by descent), ``affine`` (scale and shift of each
            output), ``bias``, or ``none``; None: least squares with samples, else none.
        steps: Rounds in which the target is reached; each removes the same share of what is left of a group.
        ignore: Patterns of names of layers whose channels stay.
        calibration: Samples.
        eval: Labelled samples for the metric, or unlabelled ones for fidelity to the original.
        metric: ``top1``, ``top5``, ``FILE.py:function`` or ``module:function``; top1 where labels are class numbers.
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
        PassError: Nothing could be pruned, or the pruned model fails.
        OnnxCompError: Of the kind that fits: UsageError and its kinds, ModelError, EnvironmentUnavailable.
    """
    show = progress or (lambda _stage, _share: None)
    where, gates = get_target(target), gates or Gates()
    if isinstance(ignore, str):
        raise UsageError("ignore is a list of patterns, not one text", hint="pass ['pattern']")
    if steps < 1:
        raise UsageError(f"steps must be 1 or more, got {steps}")
    given = calibration is not None or synthetic_calibration
    if recovery not in (None, *RECOVERIES):
        raise UsageError(f"unknown recovery {recovery!r}", hint=f"one of: {', '.join(RECOVERIES)}")
    how = recovery or ("least-squares" if given else "none")
    if not given and (criterion in ("obs", "sparsegpt") or how != "none"):
        what = f"recovery {how}" if how != "none" else f"criterion {criterion}"
        raise UsageError(f"{what} needs samples", hint="--calibration DATA, or --synthetic for made-up ones")
    options = {
        "ratio": ratio,
        "macs": macs,
        "params": params,
        "latency": latency,
        "criterion": criterion,
        "allocation": allocation,
        "round": round,
        "streams": None if streams else False,
        "ignore": list(ignore),
        "seed": seed,
    }
    kind = get_granularity(granularity)
    step = kind.step(options, recovery=how, steps=steps)
    check_threads(threads)
    if latency is not None and (why := why_unmeasured(where)):
        raise UsageError(f"a share of the latency can't be aimed at: {why}", hint="--macs, and measure there")
    unmeasured = why_unmeasured(where) if bench else "it was not asked for"
    if gates.max_latency_ratio is not None and unmeasured:
        raise UsageError(f"max-latency-ratio can't be checked: latency not measured: {unmeasured}")
    work = assign(
        model,
        calibration=calibration,
        evaluation=eval,
        metric=metric,
        gates=gates,
        batch=batch,
        images=images,
        seed=seed,
        made_up=synthetic_calibration,
        notes=filter(None, [unmeasured and f"latency not measured: {unmeasured}", unverified(where)]),
    )
    work.notes.extend([_ZEROS] if kind.recovers else [])
    timer = Stopwatch(threads=threads, seed=seed)
    ctx = PassContext(target=where, samples=work.samples, timer=timer, seed=seed)
    verifier, base, clean_up = cleaned(work, ctx, show)
    ctx.ranges = None if work.samples is None else RangeStore(base, work.samples)
    maker = _Maker(base, ctx, verifier, kind.after(how), show)
    pruned, done = maker.pruned(step) if steps == 1 or kind.recovers else maker.in_steps(step, steps)
    show("judge", None)
    judge = judge_of(work)
    race = None if unmeasured else race_of(work, threads=threads, show=show)
    found = measured(pruned, judge, race, exact=gates.max_latency_ratio)
    show("look into it", None)
    report = PruneReport(
        **work.facts(judge, found, done, clean_up),
        **times(found, where, threads=threads, batch=batch),
        granularity=granularity,
        recovery=how,
        steps=steps,
        settings=step.settings,
        calibration=work.samples.description if work.samples else None,
        pruned_parameters=parameter_count(found.model),
        macs=_macs(work, work.model),
        pruned_macs=_macs(work, found.model),
        zeros=_zeros(work.model),
        pruned_zeros=_zeros(found.model),
        groups=tuple(_compared(*(_groups(one, step, ctx) for one in (base, found.model)))),
        anatomy=work.anatomy(base, found, threads=threads),
    )
    if report.missed:
        raise GateFailed("; ".join(report.missed), report=report)
    return PruneResult(found.model, report)


@dataclass(frozen=True, slots=True)
class _Maker:
    """Prunes a model that was cleaned up."""

    base: "ir.Model"
    ctx: PassContext
    verifier: Verifier
    recovery: tuple[Step, ...]
    show: Progress

    def pruned(self, *steps: Step, recover: bool = True) -> "tuple[ir.Model, list[PassReport]]":
        """Return the pruned model, and what each step did.

        Args:
            steps: What is removed, step by step.
            recover: Whether each is followed by recovery.

        Raises:
            PassError: Nothing could be pruned.
        """
        behind = self.recovery if recover else ()
        recipe = Recipe(tuple(one for step in steps for one in (step, *behind)))
        stage = "prune"

        def tell(name: str) -> None:
            nonlocal stage
            stage = name
            self.show(stage, None)

        self.ctx.progress = lambda done, of: self.show(stage, done / of if of else None)
        model, done = run_recipe(self.base, recipe, self.ctx, self.verifier, progress=tell)
        if not any(one.modified for one in done):
            removals = {step.name for step in steps}
            why = why_nothing(self.base, [one for one in done if one.name in removals])
            raise PassError(f"nothing could be pruned: {why}", hint="onnxcomp inspect MODEL --groups")
        return model, done

    def in_steps(self, step: Step, count: int) -> "tuple[ir.Model, list[PassReport]]":
        """Find out what a step leaves of each group, and get there in several."""
        model, (once,) = self.pruned(step, recover=False)
        groups = list(_compared(*(_groups(each, step, self.ctx) for each in (self.base, model))))
        settings = {name: value for name, value in step.settings.items() if name not in _TARGETS}
        schedule = [
            Step(step.name, settings | {"keep": {one.name: one.left_after(part / count) for one in groups}})
            for part in range(1, count + 1)
        ]
        model, done = self.pruned(*schedule)
        return model, [replace(each, skipped=once.skipped if each.name == step.name else each.skipped) for each in done]


def _macs(work: Assignment, model: "ir.Model") -> int | None:
    """Count the operations of one run on the first sample; None: they can't all be told."""
    costs = count_costs(model, next(iter(work.task.samples.take(1)))).macs.values()
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None


def _groups(model: "ir.Model", step: Step, ctx: PassContext) -> Grouping | None:
    return step.make().groups(model, PassContext(ctx.target, samples=ctx.samples, seed=ctx.seed))


def _zeros(model: "ir.Model") -> int:
    """Count the weights that are zero."""
    return sum(int(tensor.size - np.count_nonzero(tensor.numpy())) for tensor in weights(model))


def _compared(before: Grouping | None, after: Grouping | None) -> Iterator[PrunedGroup]:
    """Yield each group with the channels that it had and has; one channel alone is no group any more."""
    if before is None or after is None:
        return
    left = {group.name: group.channels for group in after.groups}
    for group in before.groups:
        yield PrunedGroup(group.name, group.kind, group.channels, left.get(group.name, 1))
