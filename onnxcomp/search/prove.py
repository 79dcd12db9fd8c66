"""Judges candidates while the search goes on, and proves the one that is to be delivered: from disk, once more."""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.errors import MetricError, ModelError
from onnxcomp.facts import feature_outputs
from onnxcomp.measure import Comparison
from onnxcomp.model import fingerprint, is_one_file, load, open_session, save, serialized
from onnxcomp.pipeline import Verifier
from onnxcomp.runtime import Session
from onnxcomp.search.build import Built
from onnxcomp.search.executor import Judging, sendable
from onnxcomp.search.judge import Judge
from onnxcomp.search.race import Race, slowness
from onnxcomp.search.result import Evidence, Miss, Quality
from onnxcomp.search.sensitivity import noise_runs
from onnxcomp.search.work import Progress, Work

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Proof", "Prover"]

_ONE_BIT = 20 * math.log10(2)  # dB: noise of twice the amplitude
_QUIET = 10.0  # dB; calibration samples may differ from others, but noise of a tenth of the power is no small matter


@dataclass(frozen=True, slots=True)
class Proof:
    """A candidate that passed from disk."""

    candidate: Built
    model: "ir.Model"
    timing: Comparison | None  # None: nothing is timed
    quality: Quality
    evidence: Evidence


class Prover:
    """Judges models on what the search may see, and at last on what it may not.

    Args:
        original: The model that all are compared with.
        work: Samples and bounds.
        race: Times the winner.
        progress: Told what is going on.

    Raises:
        ModelError: The original does not run on the samples.
        MetricError: The metric fails on its outputs.
    """

    def __init__(self, original: "ir.Model", work: Work, race: Race, progress: Progress) -> None:
        self._model = original
        self._work = work
        session, features = self._session(original), feature_outputs(original)
        self._race = race
        self._progress = progress
        self._found: dict[str, Quality | str | None] = {}  # by the fingerprint of what was judged ahead
        self._searching = Judge(session, work.task, work.budget, features=features)
        self._held_out = work.task.held_out is not None
        self._final = (
            Judge(session, work.task.final, work.budget, features=features) if self._held_out else self._searching
        )

    @property
    def searched(self) -> Quality:
        """Of the original, on the samples that the search judges by."""
        return self._searching.original

    @property
    def original(self) -> Quality:
        """Of the original, on the samples of the final verdict."""
        return self._final.original

    @cached_property
    def noise(self) -> Verifier | None:
        """Compares models with the original on calibration samples; None where there are none."""
        samples = self._work.calibration
        if samples is None:
            return None
        return Verifier(self._model, samples.spread(noise_runs(self._model, self._race.feed)))

    def _session(self, model: "ir.Model") -> Session:
        """Open a model where it is judged: what float16 rounds differs between a GPU and the CPU."""
        return open_session(model, threads=0, provider=self._work.provider)

    @cached_property
    def _judging(self) -> Judging:
        return sendable(
            serialized(self._model), self._work.task, self._work.budget, frozenset(feature_outputs(self._model))
        )

    def ahead(self, candidates: Sequence[Built]) -> None:
        """Judge the next candidates at once, where there is an executor: `judge` then takes what was found.

        An answer from where the original scores differently is not taken.
        """
        executor = self._work.executor
        if executor is None or not candidates or fingerprint(candidates[0].model) in self._found:
            return
        models = {fingerprint(one.model): one.model for one in candidates}
        fresh = ((key, model) for key, model in models.items() if key not in self._found)
        sent = dict(islice(fresh, executor.lanes))
        self._progress(f"judge {len(sent)} candidates", None)
        answers = executor.judge(self._judging, [serialized(model) for model in sent.values()])
        for key, answer in zip(sent, answers, strict=True):
            self._found[key] = answer.found if answer.original == self.searched else None

    def judge(self, candidate: Built, *, boldest: bool = False) -> None:
        """Fill in a candidate's quality, and why it is rejected for that, if it is.

        Args:
            candidate: What is judged.
            boldest: Whether the boldest of many is looked for: it must keep the bounds by a margin.
        """
        result = candidate.result
        self._progress(f"judge {result.name}", None)
        try:
            result.quality = self._quality(self._searching, candidate, "searched", early=True)
            result.rejected = self._searching.objection(result.quality)
            if boldest and result.rejected is None:
                result.rejected = self._searching.luck(result.quality)
        except (MetricError, ModelError) as err:  # the original's answers were fine: this model's are not
            result.rejected = str(err)

    def final_quality(self, candidate: Built) -> Quality | None:
        """Return a candidate's quality on the samples of the final verdict; None where it fails."""
        known = candidate.result.quality
        if not self._held_out and known is not None and known.share == 1:
            return known
        self._progress(f"judge {candidate.result.name}", None)
        try:
            return self._quality(self._final, candidate, "final")
        except (MetricError, ModelError):
            return None

    def _quality(self, judge: Judge, candidate: Built, part: str, *, early: bool = False) -> Quality:
        def measure() -> Quality:
            found = self._found.get(fingerprint(candidate.model)) if self._found and early else None
            if isinstance(found, str):
                raise ModelError(found)
            if found is not None:
                return found
            return judge.quality(self._session(candidate.model), early=early)

        what = f"quality of {candidate.result.name}"
        key = partial(_key, "quality", part, candidate.model)
        return self._work.memory.recall(what, key, Quality, measure)

    def misses(self, quality: Quality) -> list[Miss]:
        """List the bounds on accuracy and fidelity that a quality on the samples of the verdict does not keep."""
        return self._final.misses(quality)

    def prove(self, candidate: Built) -> Proof | None:
        """Save and load back a candidate, judge and time it; its result says why it fails, if it does.

        Where samples are held out for the verdict, it must pass on both parts.
        """
        result = candidate.result
        if self._held_out and result.quality is None:
            self.judge(candidate)
        if result.rejected is not None:
            return None
        with tempfile.TemporaryDirectory(prefix="onnxcomp.") as folder:
            path = Path(folder, "model.onnx")
            save(candidate.model, path)
            loaded = load(path)
            verdict = self._verdict(candidate, loaded)
            if verdict is None:
                return None
            comparison = None
            if result.latency is not None:
                comparison = self._race.exact(result.name, path, result.latency.ratio, model=loaded)
                result.latency = comparison.ratios[result.name]
                result.rejected = slowness(result.latency, self._work.budget.max_latency_ratio)
            if result.rejected:
                return None
            # The tensors of a very large model stay on disk, where they are about to be removed
            return Proof(candidate, loaded if is_one_file(loaded) else candidate.model, comparison, *verdict)

    def _verdict(self, candidate: Built, loaded: "ir.Model") -> tuple[Quality, Evidence] | None:
        result = candidate.result
        self._progress(f"judge {result.name} from disk", None)

        def measure() -> tuple[Quality, Evidence]:
            rng = np.random.default_rng(self._work.seed)
            session = self._session(loaded)
            quality, evidence = self._final.verdict(session, rng, held_out=self._held_out)
            expected = self.noise.typical_sqnr(session) if self.noise else None
            return quality, replace(evidence, expected_sqnr=expected)

        key = partial(_key, "verdict", "final", loaded)
        try:
            quality, evidence = self._work.memory.recall(
                f"verdict on {result.name}", key, tuple[Quality, Evidence], measure
            )
            if not self._held_out:
                result.quality = quality
            result.rejected = self._final.objection(quality) or _doubt(evidence)
        except (MetricError, ModelError) as err:
            result.rejected = str(err)
        if result.rejected is None:
            return quality, evidence
        if self._held_out:
            result.rejected = f"on samples that the search did not see: {result.rejected}"
            candidate.failed_verdict = True
        return None


def _doubt(evidence: Evidence) -> str | None:
    """Say why a score inside the budget may be luck: typical outputs are noisier than calibration let expect."""
    typical, expected = evidence.typical_sqnr, evidence.expected_sqnr
    if typical is None or expected is None or typical >= min(expected - _ONE_BIT, _QUIET):
        return None
    return (
        f"the score may be luck: half of the runs have an SQNR under {typical:.1f} dB, over 6 dB worse than the "
        f"{expected:.1f} dB on calibration samples"
    )


def _key(kind: str, part: str, model: "ir.Model") -> list[str]:
    return [kind, part, fingerprint(model)]
