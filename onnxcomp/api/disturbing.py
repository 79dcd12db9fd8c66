"""What disturbances of the inputs do to two models, inside a time budget."""

import time
from collections.abc import Iterator, Sequence

import numpy as np

from onnxcomp.api.pairs import Outputs, Pair
from onnxcomp.data import PERTURBATIONS, Feed, Samples, can_perturb, fitting, perturbed, spread_runs
from onnxcomp.errors import UsageError
from onnxcomp.metrics import Fidelity, top_hits
from onnxcomp.report import Robustness
from onnxcomp.search import Progress

__all__ = ["check_disturbances", "disturb"]

_ALL = "all"  # kinds of disturbance that suit the inputs
_GROWTH = 4  # from one round of runs to the next, while the time that one takes is being learnt

_Wanted = tuple[str, float, int | None]  # kind, strength, severity
_Hits = list[tuple[np.ndarray, np.ndarray]]  # which answers of either model are right, of each run


class _Tally:
    """What one disturbance did so far."""

    def __init__(self, wanted: _Wanted, features: frozenset[str]) -> None:
        self.wanted = wanted
        self.between, self.reference, self.candidate = (Fidelity(features=features) for _ in range(3))
        self.hits: _Hits = []

    def result(self, undisturbed: "_Hits") -> Robustness:
        kind, strength, severity = self.wanted
        kept = self.reference.agreement, self.candidate.agreement
        return Robustness(
            kind, strength, self.between.agreement, *kept, *_scores(self.hits), severity, *_scores(undisturbed)
        )


def disturb(
    pair: Pair,
    samples: Samples,
    wanted: Sequence[_Wanted],
    *,
    top: int | None,
    features: frozenset[str],
    seed: int,
    seconds: float,
    progress: Progress,
) -> tuple[tuple[Robustness, ...], str | None]:
    """Run both models on disturbed inputs: of all runs, or of as many as the time allows, spread over all.

    What a disturbance makes of a run depends on the seed and the number of the run alone.

    Args:
        pair: Both models.
        samples: What is disturbed; with labels where there is a score.
        wanted: Kinds, strengths and severities.
        top: The score is the share of labels among so many highest values; None: there is none.
        features: Names of outputs that are vectors to compare.
        seed: For noise and places.
        seconds: After which no further run is begun; one is done in any case.
        progress: Called with the stage and the share done.

    Returns:
        One entry per disturbance, and a sentence where runs were left out.

    Raises:
        ModelError: A model fails on disturbed inputs.
        DataError: The samples do not fit.
    """
    if not wanted:
        return (), None
    tallies = [_Tally(one, features) for one in wanted]
    labels = samples.labels() if top is not None else None
    undisturbed: _Hits = []
    start, total, done = time.perf_counter(), samples.count(), 0
    for number, feed in _affordable(samples, total, start=start, seconds=seconds):
        clean = pair.run(feed)
        if top is not None and labels is not None:
            undisturbed.append(_right(clean, labels[number], top))
        for place, tally in enumerate(tallies):
            share = max((time.perf_counter() - start) / seconds, (done + place / len(tallies)) / total)
            progress("disturb", min(share, 1.0))
            kind, strength, _ = tally.wanted
            answers = pair.run(perturbed(feed, kind, strength, np.random.default_rng([seed, place, number])))
            tally.between.add(*answers)
            tally.reference.add(clean[0], answers[0])
            tally.candidate.add(clean[1], answers[1])
            if top is not None and labels is not None:
                tally.hits.append(_right(answers, labels[number], top))
        done += 1
    note = f"disturbed: {done} of {total} runs, spread over all; no more fit into {seconds:g} s (--time-budget)"
    return tuple(tally.result(undisturbed) for tally in tallies), note if done < total else None


def _right(answers: tuple[Outputs, Outputs], label: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    reference, candidate = (top_hits([outputs], [label], top) for outputs in answers)
    return reference, candidate


def _scores(hits: _Hits) -> tuple[float | None, float | None]:
    """Return the share of right answers of both models."""
    reference, candidate = (
        (float(np.concatenate(side).mean()) for side in zip(*hits, strict=True)) if hits else (None, None)
    )
    return reference, candidate


def _affordable(samples: Samples, total: int, *, start: float, seconds: float) -> Iterator[tuple[int, Feed]]:
    """Yield runs and their numbers until all are done or the time is up: some spread over all, then some between them.

    Each round is as large as the time of those before it lets one expect, and no more than that grows fourfold.
    """
    done = set[int]()
    count = 1
    while True:
        chosen = range(total) if count == total else spread_runs(total, count - len(done))
        numbers = [number for number in chosen if number not in done]
        for number, feed in zip(numbers, samples.pick(numbers), strict=False):  # a stream may end early
            if done and time.perf_counter() - start > seconds:
                return
            yield number, feed
            done.add(number)
        spent = time.perf_counter() - start
        count = min(total, _GROWTH * len(done), int(len(done) * seconds / spent))
        if not numbers or count <= len(done):
            return


def check_disturbances(perturb: Sequence[str], samples: Samples | None = None) -> list[_Wanted]:
    """Return kind, strength and severity of each disturbance that is asked for; without samples only read them.

    Raises:
        UsageError: One is none, or none of the inputs can be disturbed by it.
    """
    if isinstance(perturb, str):
        raise UsageError("perturb is a list of disturbances, not one text", hint=f"pass [{perturb!r}]")
    asked = [_parse(text) for text in perturb]
    if samples is None or not asked:
        return []
    feed = next(iter(samples.take(1)))
    found: list[_Wanted] = []
    for kind, strength in asked:
        for one in fitting(feed) if kind == _ALL else (kind,):
            if not any(can_perturb(value, one) for value in feed.values()):
                what = "an image" if PERTURBATIONS[one].images else "of floats or uint8"
                raise UsageError(f"no input can be disturbed by {one}: none is {what}", hint="leave out --perturb")
            severities = enumerate(PERTURBATIONS[one].severities, 1)
            found += (
                [(one, value, level) for level, value in severities] if strength is None else [(one, strength, None)]
            )
    return found


def _parse(text: str) -> tuple[str, float | None]:
    """Read ``noise=0.05``; ``noise`` alone, and ``all``, have no strength."""
    kind, given, strength = text.partition("=")
    if not given and (kind == _ALL or kind in PERTURBATIONS):
        return kind, None
    try:
        value = float(strength)
    except ValueError:
        value = float("nan")
    if kind not in PERTURBATIONS or not 0 < value < float("inf"):
        kinds = ", ".join(PERTURBATIONS)
        raise UsageError(
            f"not a disturbance: {text!r}",
            hint=f"write KIND=STRENGTH, as in noise=0.05, KIND for its five severities, or all; kinds are {kinds}",
        )
    return kind, value
