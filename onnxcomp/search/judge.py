"""Judges candidates: their answers on the evaluation samples, against labels and against the original's answers."""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from onnxcomp.data import Samples
from onnxcomp.errors import MetricError, ModelError
from onnxcomp.metrics import Fidelity, Metric, evaluate, score_interval, typical_sqnr
from onnxcomp.runtime import Session
from onnxcomp.search.early import GROUPS, hopeless, looks
from onnxcomp.search.result import Evidence, Miss, Quality
from onnxcomp.search.spool import Spool
from onnxcomp.target import Budget

__all__ = ["Judge", "Task", "hold_out"]

_DEFAULT_SQNR = 20.0  # dB; without labels, below this answers are a matter of luck
_POINT = 0.01  # of a score; a bound that is narrower is missed by points, not by shares of it
_FEWEST_ROWS = 400  # in two halves one answer of 200 is half a point
_FEWEST_RUNS = 20
_SEARCHED = 0.5  # share of the rows that the search judges by
_INTERVAL_SECONDS = 10.0  # for drawing samples again and again


@dataclass(frozen=True, slots=True)
class Task:
    """What answers are judged on.

    Attributes:
        samples: The evaluation samples; where some are held out, those that the search judges by.
        metric: Scores outputs against labels; None: fidelity to the original decides alone.
        metric_name: For reports.
        held_out: Samples of the final verdict that the search does not see; None: it sees all.
        fitted: Whether these are calibration samples too: what was fitted to them looks better than it is.
    """

    samples: Samples
    metric: Metric | None = None
    metric_name: str | None = None
    held_out: Samples | None = None
    fitted: bool = False

    @property
    def final(self) -> "Task":
        """What the final verdict is taken from."""
        return self if self.held_out is None else replace(self, samples=self.held_out, held_out=None)


def hold_out(task: Task, seed: int) -> tuple[Task, str]:
    """Set part of a task's samples aside for the final verdict, where that can be done.

    That needs rows of one file, and enough of them; a run that is a file of its own may be a third of what there is,
    and rows too few to tell a point of the score tell nothing in halves. They are dealt by contiguous blocks.

    Args:
        task: Nothing is held out yet.
        seed: Which blocks are set aside.

    Returns:
        The task, and in words what the final verdict is taken from.
    """
    rows, runs = task.samples.rows, task.samples.length
    if rows is None or runs is None:
        return task, "the same samples: only rows of one .npz file of evaluation samples can be held out"
    if rows < _FEWEST_ROWS or runs < _FEWEST_RUNS:
        return task, f"the same samples: fewer than {_FEWEST_ROWS} rows, or than {_FEWEST_RUNS} runs, are not split"
    searched, held_out = task.samples.split(_SEARCHED, seed)
    unseen = runs - (searched.length or 0)
    return replace(task, samples=searched, held_out=held_out), f"{unseen} of the {runs} runs, unseen by the search"


class Judge:
    """Runs models on the samples of one task. The original's answers are kept: every candidate is compared with them.

    Args:
        original: A session of the original model.
        task: Samples and metric.
        budget: The bounds.
        features: Outputs that are vectors, not scores (``facts.feature_outputs``).

    Raises:
        ModelError: The original fails while it runs, or gives nothing but NaN.
        MetricError: The metric raises, or gives no finite number.
    """

    def __init__(
        self, original: Session, task: Task, budget: Budget, *, features: frozenset[str] = frozenset()
    ) -> None:
        self._features = features
        self._task = task
        self._budget = budget
        self._labels = task.samples.labels() if task.metric else None
        self._reference = Spool()
        answered = False
        for feed in task.samples:
            answers = original.run(feed)
            answered = answered or not all(map(_is_nan, answers.values()))
            self._reference.append(answers)
        if not answered and len(self._reference):
            raise ModelError(
                "the original gives nothing but NaN for all evaluation samples: there is nothing to judge a change by",
                hint="`onnxcomp inspect` says whether weights hold NaN; else check how the inputs are scaled",
            )
        self.original = Quality(self._score(self._reference), agreement=1.0, sqnr=float("inf"))

    def quality(self, session: Session, *, early: bool = False) -> Quality:
        """Run a candidate on all samples.

        Args:
            session: Of the candidate.
            early: Whether a part of them is enough where it shows that the candidate misses a bound.

        Raises:
            ModelError: It fails while it runs.
            MetricError: The metric raises, or gives no finite number.
        """
        return self._run(session, early=early)[0]

    def verdict(self, session: Session, rng: np.random.Generator, *, held_out: bool) -> tuple[Quality, Evidence]:
        """Run a candidate on all samples, and say how sure its score is.

        Args:
            session: Of the candidate.
            rng: For the interval.
            held_out: Whether the search did not see these samples.

        Raises:
            ModelError: It fails while it runs.
            MetricError: The metric raises, or gives no finite number.
        """
        quality, outputs = self._run(session)
        if self._task.metric is None or self.objection(quality) is not None:
            return quality, Evidence(len(self._reference), held_out)
        assert self._labels is not None
        assert self._task.metric_name is not None
        interval, method, samples = score_interval(
            self._task.metric_name,
            self._task.metric,
            (list(self._reference), list(outputs)),
            self._labels,
            rng=rng,
            seconds=_INTERVAL_SECONDS,
        )
        low, high = (None, None) if interval is None else (interval.low, interval.high)
        typical = typical_sqnr(zip(self._reference, outputs, strict=True))
        return quality, Evidence(samples, held_out, low, high, method, typical_sqnr=typical)

    def _run(self, session: Session, *, early: bool = False) -> tuple[Quality, Spool]:
        """Return the quality, and the outputs where there is a metric."""
        total = len(self._reference)
        fidelity, outputs = Fidelity(features=self._features), Spool()
        groups = [_Group(Fidelity(features=self._features)) for _ in range(GROUPS)]
        seen = 0
        for look in looks(total) if early else [list(range(total))]:
            for run, feed in zip(look, self._task.samples.pick(look), strict=True):
                answer, reference = session.run(feed), self._reference[run]
                fidelity.add(reference, answer)
                if early:
                    groups[seen % GROUPS].add(run, reference, answer)
                if self._task.metric:
                    outputs[run] = answer
                seen += 1
            if seen < total:
                with suppress(MetricError):  # a part may lack what the metric needs, such as both classes
                    quality = self._so_far(fidelity, outputs, seen / total)
                    if self.misses(quality) and self._is_hopeless(groups, outputs, quality.share):
                        return quality, outputs
        return self._so_far(fidelity, outputs, 1.0), outputs

    def _so_far(self, fidelity: Fidelity, outputs: Spool, share: float) -> Quality:
        return Quality(self._score(outputs), fidelity.agreement, fidelity.sqnr, share)

    def _is_hopeless(self, groups: "list[_Group]", outputs: Spool, seen: float) -> bool:
        """Whether the groups' answers show that one bound is missed, whatever the other runs bring."""
        drops: list[float] = []
        if (metric := self._task.metric) is not None:
            with suppress(MetricError):
                drops = [
                    self._evaluated(metric, self._reference, group.runs) - self._evaluated(metric, outputs, group.runs)
                    for group in groups
                ]
        per_bound = [
            [drop - self._budget.max_drop for drop in drops],
            [self._budget.agreement_bound - group.fidelity.agreement for group in groups],
            [self._least_sqnr - group.fidelity.sqnr for group in groups],
        ]
        return any(hopeless(misses, seen) for misses in per_bound if misses)

    def objection(self, quality: Quality) -> str | None:
        """Say which bound of the budget a candidate misses, or None."""
        on = "" if quality.share == 1 else f", clear after {quality.share:.0%} of the runs"
        return next((f"{miss.text}{on}" for miss in self.misses(quality)), None)

    def luck(self, quality: Quality, budget: Budget | None = None) -> str | None:
        """Say what other samples might well show of a candidate that is the boldest of many that were tried, or None.

        The best of many is in part the luckiest. So it must keep the bounds by one standard error more: that of the
        difference of two paired shares, at its largest for the share of answers that differ (McNemar 1947).

        Args:
            quality: Of the candidate.
            budget: Other bounds than the judge's.
        """
        budget = budget or self._budget
        if self._labels is None or quality.score is None or self.original.score is None:
            return None
        answers = max(sum(np.asarray(label).size for label in self._labels), 1)
        differ = max(0.0, 1 - quality.agreement)
        error = math.sqrt(differ / answers)
        drop, bound = self.original.score - quality.score, budget.agreement_bound
        if drop + error > budget.max_drop + 1e-9:
            return f"{self._task.metric_name} drops by {drop:.4f}, give or take {error:.4f}: too near to the budget"
        if quality.agreement - error < bound - 1e-9:
            return f"agreement {quality.agreement:.4f}, give or take {error:.4f}: too near to the bound of {bound:g}"
        return None

    def misses(self, quality: Quality) -> list[Miss]:
        """List the bounds of the budget that a candidate does not keep."""
        budget, found = self._budget, []
        if quality.score is not None and self.original.score is not None:
            drop = self.original.score - quality.score
            if drop > budget.max_drop + 1e-9:  # scores are ratios of counts: their difference is rounded
                text = f"{self._task.metric_name} drops by {drop:.4f}, the budget is {budget.max_drop:g}"
                found.append(Miss(text, (drop - budget.max_drop) / max(budget.max_drop, _POINT)))
        if quality.agreement < (bound := budget.agreement_bound):
            text = f"agreement with the original {quality.agreement:.4f} is under {bound:g}"
            found.append(Miss(text, (bound - quality.agreement) / max(1 - bound, _POINT)))
        least = self._least_sqnr
        if not quality.sqnr >= least:
            text = f"SQNR {quality.sqnr:.1f} dB is under {least:g} dB"
            short = least - quality.sqnr if math.isfinite(quality.sqnr) else math.inf
            found.append(Miss(text, short / max(abs(least), 1.0)))
        return found

    @property
    def _least_sqnr(self) -> float:
        if self._budget.min_sqnr is not None:
            return self._budget.min_sqnr
        return -math.inf if self._task.metric else _DEFAULT_SQNR

    def _score(self, outputs: Spool) -> float | None:
        """Return the score, estimated from the difference to the original's where these are not all runs."""
        if (metric := self._task.metric) is None:
            return None
        found = self._evaluated(metric, outputs, outputs.runs)
        if len(outputs) == len(self._reference):
            return found
        assert self.original.score is not None
        return self.original.score + found - self._evaluated(metric, self._reference, outputs.runs)

    def _evaluated(self, metric: Metric, outputs: Spool, runs: Sequence[int]) -> float:
        assert self._labels is not None
        return evaluate(metric, [outputs[run] for run in runs], [self._labels[run] for run in runs])


def _is_nan(answer: Any) -> bool:
    return (
        isinstance(answer, np.ndarray) and answer.size > 0 and answer.dtype.kind == "f" and bool(np.isnan(answer).all())
    )


@dataclass(slots=True)
class _Group:
    """Some of the runs that were seen."""

    fidelity: Fidelity
    runs: list[int] = field(default_factory=list)

    def add(self, run: int, reference: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        self.runs.append(run)
        self.fidelity.add(reference, answer)
