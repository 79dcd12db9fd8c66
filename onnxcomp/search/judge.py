"""Judges candidates: their answers on the evaluation samples, against labels and against the original's answers."""

from dataclasses import dataclass

from onnxcomp.data import Samples
from onnxcomp.metrics import Fidelity, Metric, evaluate
from onnxcomp.runtime import Session
from onnxcomp.search.result import Quality
from onnxcomp.search.spool import Spool
from onnxcomp.target import Budget

__all__ = ["Judge", "Task"]

_DEFAULT_SQNR = 20.0  # dB; without labels, below this answers are a matter of luck


@dataclass(frozen=True, slots=True)
class Task:
    """What answers are judged on.

    Attributes:
        samples: The evaluation samples.
        metric: Scores outputs against labels; None: fidelity to the original decides alone.
        metric_name: For reports.
    """

    samples: Samples
    metric: Metric | None = None
    metric_name: str | None = None


class Judge:
    """Runs models on the samples of one task. The original's answers are kept: every candidate is compared with them.

    Args:
        original: A session of the original model.
        task: Samples and metric.
        budget: The bounds.
        features: Outputs that are vectors, not scores (``facts.feature_outputs``).
    """

    def __init__(
        self, original: Session, task: Task, budget: Budget, *, features: frozenset[str] = frozenset()
    ) -> None:
        self._features = features
        self._task = task
        self._budget = budget
        self._labels = task.samples.labels() if task.metric else None
        self._reference = Spool()
        for feed in task.samples:
            self._reference.append(original.run(feed))
        self.original = Quality(self._score(self._reference), agreement=1.0, sqnr=float("inf"))

    def quality(self, session: Session) -> Quality:
        """Run a candidate on all samples.

        Raises:
            ModelError: It fails while it runs.
            MetricError: The metric raises, or gives no finite number.
        """
        fidelity = Fidelity(features=self._features)
        outputs = Spool()
        for feed, reference in zip(self._task.samples, self._reference, strict=True):
            answer = session.run(feed)
            fidelity.add(reference, answer)
            if self._task.metric:
                outputs.append(answer)
        return Quality(self._score(outputs), fidelity.agreement, fidelity.sqnr)

    def objection(self, quality: Quality) -> str | None:
        """Say which bound of the budget a candidate misses, or None."""
        budget = self._budget
        if quality.score is not None and self.original.score is not None:
            drop = self.original.score - quality.score
            if drop > budget.max_drop + 1e-9:  # scores are ratios of counts: their difference is rounded
                return f"{self._task.metric_name} drops by {drop:.4f}, the budget is {budget.max_drop:g}"
        if quality.agreement < budget.agreement_bound:
            return f"agreement with the original {quality.agreement:.4f} is under {budget.agreement_bound:g}"
        least = budget.min_sqnr if budget.min_sqnr is not None else None if self._task.metric else _DEFAULT_SQNR
        if least is not None and not quality.sqnr >= least:
            return f"SQNR {quality.sqnr:.1f} dB is under {least:g} dB"
        return None

    def _score(self, outputs: Spool) -> float | None:
        if self._task.metric is None:
            return None
        assert self._labels is not None
        return evaluate(self._task.metric, list(outputs), self._labels)
