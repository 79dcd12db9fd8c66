"""``sensitivity``: what each unit of a recipe's lossy passes harms, against what it saves. One at a time and together.

Cheap first: the noise that each unit alone adds to the outputs on calibration samples, from one simulated session where
the pass offers one, and the time and the bytes that it saves, from a profile of the model before and after. Exact where
it decides: the evaluation samples judge the first units of the order, each alone, and as many of them left out together
as the bisection asks for. Order and bisection are those by which ``optimize`` repairs a candidate.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

from onnxcomp.data import Samples
from onnxcomp.errors import MetricError, ModelError, PassError, UsageError
from onnxcomp.facts import feature_outputs, is_quantized
from onnxcomp.model import open_session, size
from onnxcomp.passbase import PassContext, Unit
from onnxcomp.pipeline import PassReport, Verifier, recipe_of
from onnxcomp.recipe import Recipe
from onnxcomp.search.judge import Judge, Task
from onnxcomp.search.rescue import fewest, grouped
from onnxcomp.search.result import Quality
from onnxcomp.search.savings import Savings, measure_savings
from onnxcomp.search.sensitivity import Harm, by_harm, everywhere, noise_runs
from onnxcomp.search.variants import Switch, Variant, Variants
from onnxcomp.target import Budget, Goal

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["LeftOut", "Study", "UnitHarm", "study", "why_nothing"]

_MOST_GROUPS = 256
_MOST_EXACT = 8  # units that are judged alone
_SHARE_OF_ORDERING = 0.5  # of the time; the rest is for the evaluation samples


@dataclass(frozen=True, slots=True)
class UnitHarm:
    """What one unit costs and saves; in a large model, neighbours that are switched together.

    Attributes:
        step: The pass.
        name: Of its first node.
        op_type: Of its first node.
        nodes: All names that a recipe's ``exclude`` takes to leave it out.
        noise: Noise power over signal power at the outputs when it alone is rewritten; null: not finite any more.
        sqnr: The same, dB; null: no noise, or nothing else.
        seconds: That it saves per run, by onnxruntime's profile; below 0: it takes longer.
        seconds_before: That its nodes take per run when they are left as they are.
        bytes: Of constants that it saves.
        harm: Noise over what it saves (ms, MB, or percent of both, as the goal is); null: it saves nothing.
        quality: On the evaluation samples, when it alone is rewritten; None: not judged.
    """

    step: str
    name: str
    op_type: str
    nodes: tuple[str, ...]
    noise: float
    sqnr: float
    seconds: float
    seconds_before: float
    bytes: int
    harm: float
    quality: Quality | None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What is left of harm and savings when the first units are left as they are.

    Attributes:
        units: How many of the most harmful are left out.
        last: The name of the last of them; empty where there is none.
        sqnr: On calibration samples, dB, simulated; None: there is no simulation, or no time was left for it.
        seconds: That the others save per run.
        bytes: That the others save.
        size: Of the model in bytes; None: it was not built.
        quality: On the evaluation samples; None: not judged.
        objection: What it misses of the budget; None: nothing, or not judged.
    """

    units: int
    last: str
    sqnr: float | None
    seconds: float
    bytes: int
    size: int | None = None
    quality: Quality | None = None
    objection: str | None = None


@dataclass(frozen=True, slots=True)
class Study:
    """The outcome of `study`.

    Attributes:
        units: Those of the most harm per saving first; of those that save nothing, the most harmful first.
        together: From nothing left out to everything, in the order that takes most noise away per saving.
        exclude: Names of the nodes that must be left as they are to keep the budget; None: that is not enough.
        recipe: That leaves them out; the whole recipe where nothing has to be, or nothing helps.
        original_quality: Of the model before.
        seconds_before: Of one run, the sum of the profile.
        seconds_after: With all units rewritten.
        size: Bytes with all units rewritten.
        cut_short: Whether time ran out.
    """

    units: tuple[UnitHarm, ...]
    together: tuple[LeftOut, ...]
    exclude: tuple[str, ...] | None
    recipe: Recipe
    original_quality: Quality
    seconds_before: float
    seconds_after: float
    size: int
    cut_short: bool


def study(
    original: "ir.Model",
    cleaned: "ir.Model",
    recipe: Recipe,
    ctx: PassContext,
    *,
    task: Task,
    calibration: Samples,
    budget: Budget,
    goal: Goal,
    threads: int,
    time_budget: float,
    progress: Callable[[str, float | None], None],
) -> Study:
    """Measure what the units of a recipe harm and save.

    Args:
        original: What answers are compared with.
        cleaned: What the recipe starts from.
        recipe: At least one of its passes has units.
        ctx: For the passes.
        task: The evaluation samples.
        calibration: Samples that noise is measured on.
        budget: That the answers are to keep.
        goal: What a saving is: ``latency``, ``size``, or ``balanced``.
        threads: Intra-op threads of the profiled sessions.
        time_budget: Seconds after which nothing more is ordered or judged.
        progress: Told what is going on.

    Raises:
        UsageError: No pass of the recipe has units.
        PassError: The recipe changes nothing on this model.
        ModelError: The model does not run.
        MetricError: The metric fails on the original's answers.
    """
    feed = next(iter(calibration.take(1)))
    progress("build", None)
    noise = Verifier(original, calibration.spread(noise_runs(original, feed)))
    variants = Variants(cleaned, recipe, ctx, noise)
    units = variants.units()
    whole = variants.build(())
    if not whole.modified:
        raise PassError(
            f"nothing could be rewritten: {why_nothing(variants.base, whole.passes)}",
            hint="onnxcomp inspect --quantization says of every node why it stays float",
        )
    if not any(units):
        names = ", ".join(variants.names)
        raise UsageError(f"no pass has units to compare: {names}", hint="onnxcomp passes lists the lossy ones")
    progress("profile", None)
    saved = measure_savings(variants.base, whole.model, feed, threads=threads)
    progress("judge the original", None)
    judge = Judge(open_session(original, threads=0), task, budget, features=feature_outputs(original))
    return _Study(variants, units, whole, saved, judge, goal=goal, time_budget=time_budget, progress=progress).run()


def why_nothing(model: "ir.Model", passes: Iterable[PassReport]) -> str:
    """Say why passes changed nothing."""
    reasons = ["the model is quantized already"] if is_quantized(model) else []
    for report in passes:
        reasons += [f"{report.name}: {report.failure}"] if report.failure else []
        reasons += [f"{n} {reason}" for reason, n in Counter(skip.reason for skip in report.skipped).most_common(3)]
    return "; ".join(reasons) or "the model has no such operators"


class _Study:
    """One run. Holds what its steps share."""

    def __init__(
        self,
        variants: Variants,
        units: list[list[Unit]],
        whole: Variant,
        saved: Savings,
        judge: Judge,
        *,
        goal: Goal,
        time_budget: float,
        progress: Callable[[str, float | None], None],
    ) -> None:
        self._variants = variants
        self._units = {unit.nodes: unit for found in units for unit in found}
        self._groups = grouped(units, _MOST_GROUPS)
        self._steps = len(units)
        self._whole = whole
        self._saved = saved
        self._judge = judge
        self._goal = goal
        self._progress = progress
        self._end = time.perf_counter() + time_budget
        self._budget = time_budget
        self._cut_short = False
        self._judged: dict[int, tuple[int, Quality | None, str | None]] = {}

    def run(self) -> Study:
        harm = by_harm(
            self._variants,
            self._groups,
            self._steps,
            cost=self._saving,
            progress=partial(self._progress, "measure the harm"),
            late=partial(self._late, _SHARE_OF_ORDERING),
            all_alone=True,
        )
        found, exclude = self._enough(harm.order)
        alone = {}
        for index, group in enumerate(harm.order[:_MOST_EXACT]):
            self._progress("judge units alone", index / _MOST_EXACT)
            if self._late():
                break
            alone[group] = self._judge_alone(group)
        units = [self._unit(group, harm.alone[group], alone.get(group)) for group in harm.order]
        units.sort(key=lambda unit: (-unit.harm, -unit.noise))
        return Study(
            units=tuple(units),
            together=tuple(self._together(harm)),
            exclude=exclude,
            recipe=recipe_of(found.model),
            original_quality=self._judge.original,
            seconds_before=sum(self._saved.seconds_before.values()),
            seconds_after=sum(self._saved.seconds_after.values()),
            size=size(self._whole.model),
            cut_short=self._cut_short,
        )

    def _saving(self, group: Switch) -> float:
        """Return what a group saves: milliseconds, megabytes, or the percent of both."""
        milliseconds = 1e3 * self._saved.seconds(group.touched)
        megabytes = self._saved.bytes(group.touched) / 1e6
        match self._goal:
            case "latency":
                return milliseconds
            case "size":
                return megabytes
            case _:
                return 100 * (milliseconds / self._all[0] + megabytes / self._all[1])

    @cached_property
    def _all(self) -> tuple[float, float]:
        """Milliseconds and megabytes of the model before."""
        return (
            1e3 * sum(self._saved.seconds_before.values()) or 1.0,
            sum(self._saved.bytes_before.values()) / 1e6 or 1.0,
        )

    def _enough(self, order: list[Switch]) -> tuple[Variant, tuple[str, ...] | None]:
        """Return the variant that leaves out the fewest of the first groups and keeps the budget, and their nodes."""
        if self._attempt([], self._whole) is not None:
            return self._whole, ()
        found = fewest(order, self._steps, self._attempt, self._late)
        if found is None:
            return self._whole, None
        variant, groups = found
        return variant, tuple(dict.fromkeys(name for group in groups for name in group.nodes))

    def _attempt(self, groups: list[Switch], variant: Variant | None = None) -> Variant | None:
        """Judge the variant that leaves groups out; return it where it keeps the budget."""
        count = len({group.nodes for group in groups})
        self._progress(f"judge without {count} of {len(self._groups)} units", None)
        variant = variant or self._variants.build(groups)
        if not variant.modified:
            return None
        quality, objection = self._quality(variant, early=True)
        self._judged[count] = size(variant.model), quality, objection
        return variant if objection is None else None

    def _judge_alone(self, group: Switch) -> Quality | None:
        others = [other for other in self._groups if other is not group]
        variant = self._variants.build(switch for other in others for switch in everywhere(other, self._steps))
        return self._quality(variant)[0] if variant.modified else None

    def _quality(self, variant: Variant, *, early: bool = False) -> tuple[Quality | None, str | None]:
        try:
            quality = self._judge.quality(open_session(variant.model, threads=0), early=early)
        except (MetricError, ModelError) as err:  # the original's answers were fine: this model's are not
            return None, str(err)
        return quality, self._judge.objection(quality)

    def _unit(self, group: Switch, noise: float, quality: Quality | None) -> UnitHarm:
        saving = self._saving(group)
        first = self._units.get(group.nodes) or next(u for u in self._units.values() if u.nodes[0] == group.nodes[0])
        return UnitHarm(
            step=self._variants.names[group.step],
            name=first.name,
            op_type=first.op_type,
            nodes=group.nodes,
            noise=noise,
            sqnr=_decibels(noise),
            seconds=self._saved.seconds(group.touched),
            seconds_before=sum(self._saved.seconds_before.get(name, 0.0) for name in group.touched),
            bytes=self._saved.bytes(group.touched),
            harm=noise / saving if saving > 0 else math.inf,
            quality=quality,
        )

    def _together(self, harm: Harm) -> Iterable[LeftOut]:
        """Yield what is left after each group of the order, from none to all."""
        for count in range(len(harm.order) + 1):
            out, rest = harm.order[:count], harm.order[count:]
            self._progress("measure together", count / (len(harm.order) + 1))
            bytes_built, quality, objection = self._judged.get(count, (None, None, None))
            yield LeftOut(
                units=count,
                last=out[-1].nodes[0] if out else "",
                sqnr=_decibels(harm.simulated(out)) if harm.simulated and not (rest and out and self._late()) else None,
                seconds=sum(self._saved.seconds(group.touched) for group in rest),
                bytes=sum(self._saved.bytes(group.touched) for group in rest),
                size=bytes_built,
                quality=quality,
                objection=objection,
            )

    def _late(self, share: float = 1.0) -> bool:
        late = time.perf_counter() > self._end - (1 - share) * self._budget
        self._cut_short |= late
        return late


def _decibels(noise: float) -> float:
    return math.inf if noise <= 0 else -10 * math.log10(noise) if math.isfinite(noise) else -math.inf
