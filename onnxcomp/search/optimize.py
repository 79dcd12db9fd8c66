"""The main job, in the order of its steps: clean up, build candidates, time them, judge the best, prove it.

Candidates are timed first, because that is cheap, and judged on the evaluation samples from the best down until one
keeps the budget. One that loses too much is tried again with its most harmful nodes in float. The winner is then saved,
loaded back from disk, judged and timed again beside the original: only what passes that is delivered. When nothing
does, the original is.
"""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from onnxcomp.facts import all_nodes
from onnxcomp.measure import Comparison
from onnxcomp.model import is_one_file, size
from onnxcomp.passbase import PassContext
from onnxcomp.pipeline import PassReport, Verifier, recipe_of, run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.search import choose
from onnxcomp.search.build import Builder, Built, loss, taken
from onnxcomp.search.candidates import cleanup, wanted
from onnxcomp.search.front import explore
from onnxcomp.search.nearest import nearest_misses, told
from onnxcomp.search.prove import Proof, Prover
from onnxcomp.search.pruning import may_prune, prune
from onnxcomp.search.race import Race
from onnxcomp.search.result import CandidateResult, FrontModel, Outcome
from onnxcomp.search.work import Progress, Work
from onnxcomp.statistics import RangeStore

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["collect", "optimize"]

_VERIFY_RUNS = 3
_CORRECTING = 0.1  # of the time budget: what correcting biases may take
_OPTIONAL_SHARE = 0.6  # of the time budget; the rest is for finishing what was begun, and for the proof
_PATIENCE = 3.0  # times that share: from then on no other candidate is proven after one that failed


def optimize(model: "ir.Model", work: Work, *, source: Path | None = None, progress: Progress | None = None) -> Outcome:
    """Find the best model inside the budget and prove it.

    Args:
        model: A loaded model; not changed.
        work: Samples, budget and goal.
        source: The file it came from, where an unimproved model is to be delivered byte for byte.
        progress: Told what is going on.

    Raises:
        ModelError: The model does not run on the samples.
        DataError: The samples do not fit the model.
        MetricError: The metric fails on the original's outputs.
    """
    return _Optimizer(model, work, source, progress or (lambda _stage, _share: None)).run()


def collect(model: "ir.Model", work: Work, *, progress: Progress | None = None) -> list[Built]:
    """Build and judge candidates that another machine is to time: those that are not rejected keep the budget.

    Args:
        model: A loaded model; not changed.
        work: As for `optimize`; ``timed`` must be False.
        progress: Told what is going on.

    Raises:
        ModelError: The model does not run on the samples.
        DataError: The samples do not fit the model.
        MetricError: The metric fails on the original's outputs.
    """
    return _Optimizer(model, work, None, progress or (lambda _stage, _share: None)).collect()


@dataclass(frozen=True, slots=True)
class _Start:
    """What a run begins with: the cleaned-up model, what cleaned it, and the first candidates."""

    cleaned: "ir.Model"
    reports: list[PassReport]
    ctx: PassContext
    builder: Builder
    built: list[Built]


class _Optimizer:
    """One run. Holds what its steps share."""

    def __init__(self, model: "ir.Model", work: Work, source: Path | None, progress: Progress) -> None:
        self._model = model
        self._work = work
        self._start = time.perf_counter()
        self._cut_short = False
        self._collecting = False
        self._source = source if is_one_file(model) else None
        self._progress = progress
        self._size = size(model) if self._source is None else self._source.stat().st_size
        feed = next(iter(work.task.samples.take(1)))
        self._race = Race(
            model,
            feed,
            threads=work.threads,
            seed=work.seed,
            progress=progress,
            provider=work.provider,
            memory=work.memory,
            measured=work.measured.comparison if work.measured is not None else None,
            late=partial(self._late, 1 / _OPTIONAL_SHARE),
        )

    def collect(self) -> list[Built]:
        """Return all candidates, judged and where they lose too much repaired, as far as the time allows."""
        self._collecting = True
        start = self._begin()
        prover = Prover(self._model, self._work, self._race, self._progress)
        waiting, found = list(start.built), []
        while waiting:
            prover.ahead([candidate for candidate in waiting if candidate.result.rejected is None])
            found.append(candidate := waiting.pop(0))
            if candidate.result.rejected is None:
                prover.judge(candidate)
                if candidate.result.rejected is not None:
                    found += self._repair(candidate, prover, start.builder)
        return found

    def _begin(self) -> "_Start":
        """Clean up and build the first candidates, or take those that another machine has timed."""
        work = self._work
        self._progress("verify", None)
        verifier = Verifier(self._model, work.task.samples.spread(_VERIFY_RUNS))
        if work.timed:
            self._race.meet()
        ctx = PassContext(target=work.target, samples=work.calibration, seed=work.seed, progress=self._calibrating)
        cleaned, reports = run_recipe(self._model, cleanup(), ctx, verifier, progress=self._cleaning)
        recipe = work.recipe and _without_cleanup(work.recipe, cleaned)
        if recipe:
            recipe.check_excluded(self._node_names(cleaned, recipe, ctx))
        if work.statistics is not None:
            ctx.ranges = work.statistics.store(cleaned, work.calibration, progress=self._calibrating)
        elif work.calibration is not None:
            known = work.memory.histograms()
            ctx.ranges = RangeStore(cleaned, work.calibration, progress=self._calibrating, known=known)
        builder = Builder(cleaned, ctx, verifier, self._progress, work.memory, late=self._late)
        calibrated = ctx.ranges is not None
        first = wanted(recipe, work.target, calibrated=calibrated, techniques=work.techniques, goal=work.goal)
        if work.measured is not None:
            return _Start(cleaned, reports, ctx, builder, [taken(*named) for named in work.measured.models.items()])
        built = [builder.cleanup(), *builder.build(first, whole=recipe is not None)]
        if not any(report.modified for report in reports):
            built[0].result.rejected = "there is nothing to clean up"
        return _Start(cleaned, reports, ctx, builder, built)

    def run(self) -> Outcome:
        work, start = self._work, self._begin()
        built, builder, ctx = start.built, start.builder, start.ctx
        timing = self._measure(built)
        for improve in (builder.attend, builder.polish):
            if (improved := self._improved(built, improve)) is not None:
                built.append(improved)
        self._progress("judge the original", None)
        prover = Prover(self._model, work, self._race, self._progress)
        proof = self._prove(built, prover, builder)
        front = None
        if work.pareto is not None:
            front = explore(built, prover, work, self._race, original_size=self._size, late=self._late)
        outcome = self._outcome(proof, built, prover, timing=timing, reports=start.reports, front=front)
        return replace(outcome, cleaned=start.cleaned, histograms=ctx.ranges.known if ctx.ranges else {})

    def _node_names(self, cleaned: "ir.Model", recipe: Recipe, ctx: PassContext) -> Collection[str]:
        """Return what nodes are called, those first that can be left out: before and after cleanup, and in passes."""
        units = [unit for step in recipe.steps for unit in Step(step.name).make().units(cleaned, ctx)]
        ctx.skipped.clear()
        others = (str(node.name) for model in (self._model, cleaned) for node in all_nodes(model) if node.name)
        return dict.fromkeys([*(name for unit in units for name in unit.nodes), *others])

    def _measure(self, built: list[Built]) -> Comparison | None:
        """Time candidates roughly, where times count; those that are not better for the goal are rejected."""
        if self._collecting:
            return None
        for candidate in built:
            candidate.result.rejected = candidate.result.rejected or self._race.why_not(candidate.model)
        sound = [candidate for candidate in built if candidate.result.rejected is None]
        comparison = self._race.rough({c.result.name: c.model for c in sound}) if self._work.timed else None
        for result in (candidate.result for candidate in sound):
            result.latency = comparison.ratios[result.name] if comparison else None
            self._weigh(result)
        return comparison

    def _weigh(self, result: CandidateResult) -> bool:
        """Say whether a candidate's size and latency, as measured last, are good enough; reject it where not."""
        fallback, budget = result.name == "cleanup", self._work.budget
        result.rejected = choose.objection(result, self._size, self._work.goal, budget, fallback=fallback)
        return result.rejected is None

    def _improved(self, built: list[Built], improve: Callable[[Built, Race], Built | None]) -> Built | None:
        """Return a faster variant of the best candidate, timed, or None."""
        ranked = self._ranked(built)
        if self._given or self._work.goal == "size" or not ranked or self._late():
            return None
        improved = improve(ranked[0], self._race)
        if improved is not None:
            self._measure([improved])
            if improved.result.rejected is None:
                ranked[0].result.rejected = f"slower than {improved.result.name}, side by side"
        return improved

    def _prove(self, built: list[Built], prover: Prover, builder: Builder) -> Proof | None:
        """Judge candidates from the best down to the first that keeps the budget; rescue the better ones that did not.

        The best of what then keeps the budget wins, if it passes from disk.
        """
        failed, kept = [], []
        ranked = self._ranked(built)
        for place, candidate in enumerate(ranked):
            prover.ahead(ranked[place:])
            prover.judge(candidate)
            if candidate.result.rejected is None:
                kept.append(candidate)
                break
            failed.append(candidate)
        # The least harmed first: it needs the fewest nodes in float
        failed.sort(key=loss)
        for candidate in failed:
            results = [other.result for other in kept]
            if not choose.worth_saving(candidate.result, results, self._size, self._work.goal):
                continue
            repaired = self._repair(candidate, prover, builder)
            built += repaired
            kept += [variant for variant in repaired if variant.result.rejected is None]
        slim = self._prune(kept, built, prover, builder)
        rest = [c for c in self._ranked(built) if c not in failed and c not in kept and c not in slim]
        queue = slim + self._ranked(kept) + rest
        tried = 0
        while queue and not (tried and self._late(_PATIENCE)):
            candidate, tried = queue.pop(0), tried + 1
            if (proof := prover.prove(candidate)) is not None and self._weigh(candidate.result):
                return proof
            if candidate.failed_verdict and (milder := builder.milder(candidate)) is not None:
                built.append(milder)
                self._measure([milder])
                queue[:0] = [milder] if milder.result.rejected is None else []
        return None

    @property
    def _given(self) -> bool:
        """Whether candidates are taken as they are: by the user's own recipe, or timed elsewhere."""
        return self._work.recipe is not None or self._work.measured is not None

    def _prune(self, kept: list[Built], built: list[Built], prover: Prover, builder: Builder) -> list[Built]:
        """Return at most one candidate: with fewer channels, timed, and better than all that are kept."""
        if self._given or not may_prune(self._work) or self._late():
            return []
        best = next(iter(self._ranked(kept)), None)
        tried, found = prune(best, builder, partial(prover.judge, boldest=True), goal=self._work.goal, late=self._late)
        built += tried
        for candidate in tried:
            if candidate is not found and candidate.result.rejected is None:
                candidate.result.rejected = "tried to see how much can go"
        if found is None:
            return []
        self._measure([found])
        if found.result.rejected is None and best is not None and not self._gains(found, best):
            found.result.rejected = f"no better than {best.result.name}, side by side"
        return [found] if found.result.rejected is None else []

    def _gains(self, candidate: Built, best: Built) -> bool:
        """Whether a candidate is clearly better for the goal than another, which loses less.

        A neighbour on the machine can hide or feign a gain for a while: it must be there beside the original, too.
        """
        if not choose.worth_saving(candidate.result, [best.result], self._size, self._work.goal):
            return False
        if self._work.goal == "size" or not self._work.timed:
            return True
        models = {"as it was": best.model, "pruned": candidate.model}
        return self._race.among(models, f"time {candidate.result.name}").ratios["pruned"].high < choose.FASTER

    def _ranked(self, built: list[Built]) -> list[Built]:
        """Order the candidates that nothing speaks against, best first."""
        left = {candidate.result.name: candidate for candidate in built if candidate.result.rejected is None}
        ranked = choose.ranked([candidate.result for candidate in left.values()], self._size, self._work.goal)
        return [left[result.name] for result in ranked]

    def _repair(self, candidate: Built, prover: Prover, builder: Builder) -> list[Built]:
        """Return timed variants of a candidate that lost too much: other thresholds, or nodes kept float."""
        if self._given or self._late():
            return []
        retuned = builder.retune(candidate)
        for place, variant in enumerate(retuned):
            prover.ahead([other for other in retuned[place:] if other.result.rejected is None])
            variant.result.latency = candidate.result.latency
            if variant.result.rejected is None:
                prover.judge(variant)
        sound = [variant for variant in retuned if variant.result.rejected is None]
        if sound:
            self._measure(sound)
            return retuned
        best = min([candidate, *retuned], key=loss)
        corrected = None if self._late() else builder.correct(best, self._race, _CORRECTING * self._work.time_budget)
        if corrected is not None:
            retuned.append(corrected)
            prover.judge(corrected)
            if corrected.result.rejected is None:
                self._measure([corrected])
                return retuned
        rescued = self._rescue(best, prover, builder)
        return retuned if rescued is None else [*retuned, rescued]

    def _rescue(self, candidate: Built, prover: Prover, builder: Builder) -> Built | None:
        """Return a timed variant of a candidate that lost too much, or None."""
        noise = prover.noise
        if noise is None or candidate.result.quality is None or self._late():
            return None

        def acceptable(model: "ir.Model") -> bool:
            trial = Built(CandidateResult("trial", Recipe(), (), 0), model)
            prover.judge(trial)
            return trial.result.rejected is None

        rescued = builder.rescue(candidate, acceptable, noise, self._race, self._late)
        if rescued is None:
            return None
        for improve in (builder.attend, builder.polish) if self._work.timed and self._work.goal != "size" else ():
            improved = improve(rescued, self._race)
            if improved is not None and acceptable(improved.model):
                rescued = improved
        self._measure([rescued])
        return rescued

    def _seconds(self) -> float:
        """Return the seconds since the start, and those that what is known had taken."""
        return time.perf_counter() - self._start + self._work.memory.spent

    def _late(self, share: float = 1.0) -> bool:
        """Whether a share of the time is used up that optional steps may take."""
        late = self._seconds() > share * _OPTIONAL_SHARE * self._work.time_budget
        self._cut_short |= late
        return late

    def _outcome(
        self,
        proof: Proof | None,
        built: list[Built],
        prover: Prover,
        *,
        timing: Comparison | None,
        reports: list[PassReport],
        front: tuple[FrontModel, ...] | None,
    ) -> Outcome:
        missed = None if proof else self._missed()
        nearest = nearest_misses(built, prover, self._size, self._work.budget) if missed else ()
        delivered = None if proof is None else proof.candidate.result
        timing = proof.timing if proof else timing
        shown = ("original", delivered.name if delivered else "original")
        seconds_of = {t.name: t.undisturbed for t in timing.timings} if timing else {}
        return Outcome(
            model=proof.model if proof else self._model,
            winner=delivered.name if delivered else None,
            original_size=self._size,
            size=delivered.size if delivered else self._size,
            original_quality=prover.original,
            quality=proof.quality if proof else prover.original,
            searched_quality=prover.searched,
            evidence=proof.evidence if proof else None,
            latency=delivered.latency if delivered else None,
            original_seconds=seconds_of.get("original"),
            seconds_per_run=seconds_of.get(shown[-1]),
            cleanup=tuple(reports),
            candidates=tuple(candidate.result for candidate in built),
            missed=None if missed is None else told(missed, nearest),
            nearest=nearest,
            front=front,
            seconds=self._seconds(),
            cut_short=self._cut_short,
            timings=tuple(t for t in timing.timings if t.name in shown) if timing else (),
            source=self._source,
        )

    def _missed(self) -> str | None:
        """Say why the original can't be delivered either, where it misses a bound that the user named."""
        budget = self._work.budget
        too_large = budget.max_size is not None and self._size > budget.max_size
        too_slow = budget.max_latency_ratio is not None and budget.max_latency_ratio < 1
        text = "no candidate keeps the budget, and the original does not either"
        return text if too_large or too_slow else None

    def _cleaning(self, name: str) -> None:
        self._progress(f"clean up: {name}", None)

    def _calibrating(self, done: int, of: int | None) -> None:
        self._progress("calibrate", done / of if of else None)


def _without_cleanup(recipe: Recipe, cleaned: "ir.Model") -> Recipe:
    """Return a recipe without the clean-up that a report's begins with: it has been done."""
    done = recipe_of(cleaned).steps
    return Recipe(recipe.steps[len(done) :]) if recipe.steps[: len(done)] == done else recipe
