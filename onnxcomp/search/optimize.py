"""The main job, in the order of its steps: clean up, build candidates, time them, judge the best, prove it.

Candidates are timed first, because that is cheap, and judged on the evaluation samples from the fastest down until
one keeps the budget. The winner is then saved, loaded back from disk, judged and timed again, against the original
and alone with it: only what passes that is delivered. When nothing does, the original is.
"""

import hashlib
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from onnxcomp.bench import Comparison, Ratio, interleave
from onnxcomp.data import Feed, Samples
from onnxcomp.errors import GateFailed, ModelError
from onnxcomp.model import feature_outputs, initializers, load, materialized, open_session, save, size
from onnxcomp.passbase import PassContext
from onnxcomp.pipeline import PassReport, Verifier, recipe_of, run_recipe
from onnxcomp.recipe import METADATA_KEY, Recipe
from onnxcomp.runtime import Session
from onnxcomp.search import choose
from onnxcomp.search.candidates import Candidate, cleanup, quantized
from onnxcomp.search.judge import Judge, Task
from onnxcomp.search.rescue import Rescuer
from onnxcomp.search.result import CandidateResult, Outcome
from onnxcomp.statistics import RangeStore
from onnxcomp.target import Budget, Goal, Target

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Progress", "Work", "optimize"]

Progress = Callable[[str, float | None], None]  # stage, share done (None: unknown)

_VERIFY_RUNS = 3
_NOISE_RUNS = 6
_RACE_HALF_WIDTH = 0.05
_RACE_SECONDS = 15.0
_FINAL_HALF_WIDTH = 0.01  # of the original's time; twice that is promised, and 1.00 must be told from 1.02
_FINAL_SECONDS = 20.0
_NO_SLOWER = 1.02


@dataclass(frozen=True, slots=True)
class Work:
    """What `optimize` works on.

    Attributes:
        calibration: Samples for activation ranges; None: no technique that needs them.
        task: What answers are judged on.
        recipe: Tried instead of the built-in candidates.
        budget: Bounds.
        goal: What is minimised.
        target: Where the model will run.
        threads: Intra-op threads of the timed sessions.
        seed: For every random choice.
    """

    task: Task
    target: Target
    calibration: Samples | None = None
    recipe: Recipe | None = None
    budget: Budget = field(default_factory=Budget)
    goal: Goal = "latency"
    threads: int = 1
    seed: int = 0


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
        GateFailed: A bound on size or latency is met by no candidate.
    """
    return _Optimizer(model, work, source, progress or (lambda _stage, _share: None)).run()


@dataclass(slots=True)
class _Built:
    """A candidate in memory."""

    result: CandidateResult
    model: "ir.Model"
    recipe: Recipe = field(default_factory=Recipe)  # without the clean-up
    rescued: bool = False


class _Optimizer:
    def __init__(self, model: "ir.Model", work: Work, source: Path | None, progress: Progress) -> None:
        self._model = model
        self._work = work
        self._source = source
        self._progress = progress
        self._size = source.stat().st_size if source is not None and _alone(model) else size(model)

    def run(self) -> Outcome:
        start = time.perf_counter()
        work = self._work
        self._progress("verify", None)
        verifier = Verifier(self._model, work.task.samples.spread(_VERIFY_RUNS))
        ctx = PassContext(target=work.target, samples=work.calibration, seed=work.seed)
        cleaned, reports = run_recipe(self._model, cleanup(), ctx, verifier, progress=partial(self._stage, "clean up"))
        built = [_Built(self._describe("cleanup", cleaned, ()), cleaned), *self._build(cleaned, ctx, verifier)]
        self._progress("measure the original", None)
        judge = Judge(
            open_session(self._model, threads=0), work.task, work.budget, features=feature_outputs(self._model)
        )
        timing = self._race(built)
        final = self._prove(built, judge, lambda c: self._rescue(c, cleaned, ctx, judge))
        return self._result(final, built, judge, reports, timing, time.perf_counter() - start)

    def _build(self, cleaned: "ir.Model", ctx: PassContext, verifier: Verifier) -> list[_Built]:
        """Make the candidates from the cleaned-up model; equal ones are kept once."""
        work = self._work
        if work.calibration is not None:
            ctx.ranges = RangeStore(
                cleaned, work.calibration, progress=lambda done, of: self._progress("calibrate", of and done / of)
            )
        wanted = [Candidate("recipe", work.recipe)] if work.recipe else quantized(calibrated=ctx.ranges is not None)
        built: list[_Built] = []
        seen = {_digest(cleaned)}
        for candidate in wanted:
            model, reports = run_recipe(
                cleaned, candidate.recipe, ctx, verifier, progress=partial(self._stage, f"build {candidate.name}")
            )
            result = self._describe(candidate.name, model, tuple(reports))
            key = _digest(model)
            if key in seen or not any(report.modified for report in reports):
                continue
            seen.add(key)
            built.append(_Built(result, model, candidate.recipe))
        return built

    def _race(self, built: list[_Built]) -> Comparison:
        """Time all candidates against the original; those that are not better for the goal are rejected."""
        sessions = {c.result.name: open_session(c.model, threads=self._work.threads) for c in built}
        comparison = self._time(sessions, half_width=_RACE_HALF_WIDTH, seconds=_RACE_SECONDS, stage="measure")
        for candidate in built:
            timed = replace(candidate.result, latency=comparison.ratios[candidate.result.name])
            reason = choose.objection(
                timed, self._size, self._work.goal, self._work.budget, fallback=timed.name == "cleanup"
            )
            candidate.result = replace(timed, rejected=reason)
        return comparison

    def _prove(
        self, built: list[_Built], judge: Judge, rescue: Callable[[_Built], "_Built | None"]
    ) -> "tuple[_Built, ir.Model, Comparison] | None":
        """Judge candidates from the best down; the first that passes from disk wins.

        One that loses too much is tried again with its most harmful nodes in float.
        """
        queue = list(built)
        while left := [c for c in queue if c.result.rejected is None]:
            best = choose.ranked([c.result for c in left], self._size, self._work.goal)[0]
            candidate = next(c for c in left if c.result.name == best.name)
            queue.remove(candidate)
            self._progress(f"judge {best.name}", None)
            proven = self._prove_one(candidate, judge)
            if proven is not None:
                return candidate, *proven
            if candidate.result.quality is not None and (rescued := rescue(candidate)) is not None:
                built.append(rescued)
                queue.append(rescued)
        return None

    def _rescue(self, candidate: _Built, cleaned: "ir.Model", ctx: PassContext, judge: Judge) -> _Built | None:
        """Return a timed variant of a candidate that keeps the budget, or None."""
        work, name = self._work, candidate.result.name
        if work.calibration is None or candidate.rescued or not candidate.recipe.steps:
            return None
        rescuer = Rescuer(
            cleaned,
            candidate.recipe,
            ctx,
            Verifier(self._model, work.calibration.spread(_NOISE_RUNS)),
            progress=partial(self._progress, f"find what harms {name}"),
        )
        found = rescuer.rescue(lambda model: judge.objection(judge.quality(open_session(model, threads=0))) is None)
        if found is None:
            return None
        title = f"{name}, {len(found.nodes)} float"
        rescued = _Built(self._describe(title, found.model, found.passes), found.model, candidate.recipe, rescued=True)
        self._race([rescued])
        return rescued

    def _prove_one(self, candidate: _Built, judge: Judge) -> "tuple[ir.Model, Comparison] | None":
        """Save, load back, judge and time one candidate; say in its result why it fails, if it does."""
        with tempfile.TemporaryDirectory(prefix="onnxcomp.") as folder:
            path = Path(folder, "model.onnx")
            save(candidate.model, path)
            try:
                quality = judge.quality(Session(path, threads=0))
            except ModelError as err:
                candidate.result = replace(candidate.result, rejected=str(err))
                return None
            candidate.result = replace(candidate.result, quality=quality, rejected=judge.objection(quality))
            if candidate.result.rejected:
                return None
            name = candidate.result.name
            assert candidate.result.latency is not None
            comparison = self._time(
                {name: Session(path, threads=self._work.threads)},
                half_width=_FINAL_HALF_WIDTH / min(1.0, max(0.25, candidate.result.latency.ratio)),
                seconds=_FINAL_SECONDS,
                stage=f"prove {name}",
            )
            ratio = comparison.ratios[name]
            candidate.result = replace(candidate.result, latency=ratio, rejected=self._final_objection(ratio))
            if candidate.result.rejected:
                return None
            return load(path), comparison

    def _final_objection(self, ratio: Ratio) -> str | None:
        bound = self._work.budget.max_latency_ratio or _NO_SLOWER
        if ratio.high > bound:
            return f"not proven within {bound:g} of the original's time: {ratio.ratio:.3f} [{ratio.low:.3f}, {ratio.high:.3f}]"
        return None

    def _time(self, sessions: dict[str, Session], *, half_width: float, seconds: float, stage: str) -> Comparison:
        feed = self._first_feed()
        contenders = {"original": partial(open_session(self._model, threads=self._work.threads).run, feed)}
        contenders |= {name: partial(session.run, feed) for name, session in sessions.items()}
        for limit in (seconds, 2 * seconds):
            comparison = interleave(
                contenders,
                baseline="original",
                half_width=half_width,
                max_seconds=limit,
                seed=self._work.seed,
                progress=partial(self._progress, stage),
            )
            if comparison.settled:
                break
        return comparison

    def _first_feed(self) -> Feed:
        return next(iter(self._work.task.samples.take(1)))

    def _describe(self, name: str, model: "ir.Model", reports: tuple[PassReport, ...]) -> CandidateResult:
        return CandidateResult(name, recipe_of(model), reports, size(model))

    def _result(
        self,
        final: "tuple[_Built, ir.Model, Comparison] | None",
        built: list[_Built],
        judge: Judge,
        reports: list[PassReport],
        timing: Comparison,
        seconds: float,
    ) -> Outcome:
        original = judge.original
        model, winner, quality, latency, delivered = self._model, None, original, None, self._size
        if final is not None:
            candidate, model, timing = final
            winner, quality = candidate.result.name, candidate.result.quality or original
            latency, delivered = candidate.result.latency, candidate.result.size
        elif self._work.budget.max_latency_ratio is not None or self._work.budget.max_size is not None:
            raise GateFailed(_nearest(built))
        seconds_of = {timing.name: timing.median for timing in timing.timings}
        return Outcome(
            model=model,
            winner=winner,
            original_size=self._size,
            size=delivered,
            original_quality=original,
            quality=quality,
            latency=latency,
            original_seconds=seconds_of["original"],
            seconds_per_run=seconds_of[winner or "original"],
            cleanup=tuple(reports),
            candidates=tuple(candidate.result for candidate in built),
            seconds=seconds,
            source=self._source,
        )

    def _stage(self, stage: str, name: str) -> None:
        self._progress(f"{stage}: {name}", None)


def _nearest(built: list[_Built]) -> str:
    """Say what each candidate misses."""
    misses = "; ".join(f"{c.result.name}: {c.result.rejected}" for c in built)
    return f"no candidate meets the bounds on size and latency ({misses})"


def _digest(model: "ir.Model") -> bytes:
    """Return what two equal models share: the hash of everything but the recipe."""
    bare = model.clone()
    bare.metadata_props.pop(METADATA_KEY, None)
    with materialized(bare) as source:
        return hashlib.sha256(source if isinstance(source, bytes) else source.read_bytes()).digest()


def _alone(model: "ir.Model") -> bool:
    """Whether the model is one file."""
    import onnx_ir as ir

    return not any(isinstance(value.const_value, ir.ExternalTensor) for value in initializers(model))
