"""``compare``: what one model's answers are worth beside another's."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.api.common import (
    Data,
    check_batch,
    check_images_used,
    check_metric,
    choose_metric,
    doubt,
    make_up,
    open_data,
    size_on_disk,
)
from onnxcomp.api.disturbing import check_disturbances, disturb
from onnxcomp.api.layers import layer_fidelity
from onnxcomp.api.pairs import Outputs, Pair, pair_by_name, pair_by_position
from onnxcomp.data import ImageOptions, Samples
from onnxcomp.errors import GateFailed, MetricError, UsageError
from onnxcomp.facts import feature_outputs
from onnxcomp.metrics import (
    NEWCOMBE,
    TOP,
    Fidelity,
    Metric,
    bootstrapped,
    evaluate,
    hit_difference,
    mcnemar,
    top_hits,
)
from onnxcomp.model import load, open_session
from onnxcomp.report import CompareReport, ScoreChange, machine, now, versions
from onnxcomp.search import Progress, Task
from onnxcomp.search.spool import Spool
from onnxcomp.target import Gates

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["compare"]

_BOOTSTRAP_SECONDS = 30.0


def compare(
    reference: "str | os.PathLike[str] | bytes | ir.Model",
    candidate: "str | os.PathLike[str] | bytes | ir.Model",
    *,
    eval: Data | None = None,  # noqa: A002  (the name of the option)
    metric: str | None = None,
    gates: Gates | None = None,
    perturb: Sequence[str] = (),
    layers: bool = False,
    by_position: bool = False,
    batch: int = 1,
    images: ImageOptions | None = None,
    seed: int = 0,
    time_budget: float = 300.0,
    progress: Progress | None = None,
) -> CompareReport:
    """Run two models on the same inputs, and compare their answers with each other and with labels.

    The difference of top1 and top5 comes with Newcombe's interval for paired shares, that of other metrics with a
    paired bootstrap (`onnxcomp.metrics.paired` names the sources).

    Args:
        reference: A path, a serialized model, or a model in memory. It is not changed.
        candidate: The model that is held against it, in the same forms.
        eval: Labelled samples for the metric, or unlabelled ones for fidelity alone; None: made-up inputs.
        metric: ``top1``, ``top5``, ``FILE.py:function`` or ``module:function``; top1 where labels are class numbers.
        gates: Bounds that the candidate must keep.
        perturb: Disturbances to compare both under, as in ``noise=0.05``: a kind of `onnxcomp.data.PERTURBATIONS` and
            a strength in its unit; ``noise`` alone: its severities 1 to 5; ``all``: those of every kind that suits the
            inputs.
        layers: Also compare the inner tensors that have the same name in both: where does the error start?
        by_position: Pair inputs and outputs by their order, where names differ.
        batch: Rows per run of an ``.npz`` of rows; images per run.
        images: How the images of a folder become values of the model's input.
        seed: For made-up inputs, disturbances and the bootstrap.
        time_budget: Seconds that disturbances may take: where all runs would take longer, some are disturbed, spread
            over all.
        progress: Called with the stage and the share done.

    Returns:
        What was found.

    Raises:
        GateFailed: A gate is missed; it carries the report.
        UsageError: A setting makes no sense, or the models' inputs or outputs differ.
        DataError: The samples do not fit the models.
        MetricError: The metric can't be loaded, has no labels, or fails.
        ModelError: A model is invalid, or fails while it runs.
    """
    gates = gates or Gates()
    check_disturbances(perturb)
    check_metric(metric)
    check_batch(batch)
    if not time_budget > 0:
        raise UsageError(f"time-budget must be positive, got {time_budget}")
    tell = progress or (lambda _stage, _share: None)
    tell("load", None)
    first, second = load(reference), load(candidate)
    names = _name(reference, "the reference"), _name(candidate, "the candidate")
    inputs, outputs = pair_by_position(first, second) if by_position else pair_by_name(first, second, names)
    pair = Pair(open_session(first, threads=0), open_session(second, threads=0), inputs, outputs)
    samples = open_data(first, eval, batch=batch, images=images) or make_up(first, seed=seed, batch=batch)
    check_images_used(images, samples)
    notes = [] if eval is not None else ["made-up inputs: real data may tell otherwise"]
    labels = samples.labels()
    if labels is None and (metric is not None or gates.max_drop is not None):
        what = "a metric" if metric is not None else "the gate max-drop"
        raise MetricError(f"{what} needs labels, and {samples.description} has none", hint="--eval DATA")
    chosen = None if labels is None else choose_metric(metric, labels)
    wanted = check_disturbances(perturb, samples)
    features = feature_outputs(first)
    work = _Work(pair, samples, labels, chosen, features)
    work.run(tell)
    score = work.score(np.random.default_rng(seed), notes)
    if chosen is not None and score is not None:
        task = Task(samples, chosen[1], chosen[0])
        notes += filter(None, [doubt(score.reference, task)])
    robustness, partly = disturb(
        pair,
        samples,
        wanted,
        top=TOP.get(chosen[0]) if chosen else None,
        features=features,
        seed=seed,
        seconds=time_budget,
        progress=tell,
    )
    notes += filter(None, [partly])
    if layers:
        tell("compare layers", None)
    compared = layer_fidelity(first, second, samples) if layers else ()
    if layers and not compared:
        notes.append("no inner tensor has the same name in both models: nothing can be said of layers")
    found = work.fidelity
    sizes = size_on_disk(reference, first), size_on_disk(candidate, second)
    drop = None if score is None else score.reference - score.candidate
    missed = gates.missed(drop=drop, agreement=found.agreement, sqnr=found.sqnr, size=sizes[1], original_size=sizes[0])
    reaches = None if score is None or score.low is None else -score.low
    if (
        drop is not None
        and reaches is not None
        and gates.max_drop is not None
        and drop - 1e-9 <= gates.max_drop < reaches
    ):
        notes.append(f"the interval of the difference reaches beyond the allowed drop of {gates.max_drop:g}")
    report = CompareReport(
        reference=names[0],
        candidate=names[1],
        reference_size=sizes[0],
        candidate_size=sizes[1],
        evaluation=samples.description,
        runs=work.runs,
        seed=seed,
        by_position=by_position,
        gates=gates,
        missed=tuple(missed),
        agreement=found.agreement,
        sqnr=found.sqnr,
        outputs=found.outputs,
        score=score,
        robustness=robustness,
        layers=compared,
        notes=tuple(notes),
        versions=versions(),
        machine=machine(),
        created=now(),
    )
    if missed:
        raise GateFailed("; ".join(missed), report=report)
    return report


class _Work:
    """Runs both models over the samples once, and keeps what the report needs."""

    def __init__(
        self,
        pair: Pair,
        samples: Samples,
        labels: list[np.ndarray] | None,
        metric: tuple[str, Metric] | None,
        features: frozenset[str],
    ) -> None:
        self._pair = pair
        self._samples = samples
        self._labels = labels
        self._metric = metric
        self._top = TOP.get(metric[0]) if metric else None
        self._new_fidelity = partial(Fidelity, features=features)
        self._hits: list[tuple[np.ndarray, np.ndarray]] = []
        self._answers = (Spool(), Spool())
        self.fidelity = self._new_fidelity()
        self.runs = 0

    def run(self, progress: Progress) -> None:
        """Run both models on everything."""
        total = self._samples.length
        for feed in self._samples:
            clean = self._pair.run(feed)
            self.fidelity.add(*clean)
            self._keep(clean)
            self.runs += 1
            progress("compare", self.runs / total if total else None)

    def _keep(self, answers: tuple[Outputs, Outputs]) -> None:
        """Keep what the score needs: right or wrong where that is enough, else the outputs, on disk."""
        if self._top is not None:
            self._hits.append(self._right(answers))
        elif self._metric is not None:
            for spool, outputs in zip(self._answers, answers, strict=True):
                spool.append(outputs)

    def _right(self, answers: tuple[Outputs, Outputs]) -> tuple[np.ndarray, np.ndarray]:
        assert self._labels is not None
        assert self._top is not None
        labels = [self._labels[self.runs]]
        reference, candidate = (top_hits([outputs], labels, self._top) for outputs in answers)
        return reference, candidate

    def score(self, rng: np.random.Generator, notes: list[str]) -> ScoreChange | None:
        """Return the score of both, and how far apart they are; None without labels."""
        if self._metric is None:
            return None
        name, metric = self._metric
        if self._top is not None:
            reference, candidate = (np.concatenate(side) for side in zip(*self._hits, strict=True))
            scores = float(reference.mean()), float(candidate.mean())
            difference, test = hit_difference(reference, candidate), mcnemar(reference, candidate)
            return ScoreChange(
                name, *scores, *difference, NEWCOMBE, reference.size, test.gained, test.lost, test.p_value
            )
        assert self._labels is not None
        return _bootstrapped(name, metric, self._answers, self._labels, rng=rng, notes=notes)


def _bootstrapped(
    name: str,
    metric: Metric,
    answers: tuple[Spool, Spool],
    labels: list[np.ndarray],
    *,
    rng: np.random.Generator,
    notes: list[str],
) -> ScoreChange:
    """Score both models by any metric, with a bootstrap interval where that can be had."""
    outputs = list(answers[0]), list(answers[1])
    reference, candidate = (evaluate(metric, side, labels) for side in outputs)
    found, method = bootstrapped(metric, outputs, labels, rng=rng, seconds=_BOOTSTRAP_SECONDS)
    if found is None:
        notes.append(f"no interval of the difference: {method}")
        method = "no interval"
    low, high = (found.low, found.high) if found else (None, None)
    return ScoreChange(name, reference, candidate, candidate - reference, low, high, method, len(labels))


def _name(model: object, otherwise: str) -> str:
    return str(Path(model)) if isinstance(model, str | os.PathLike) else otherwise
