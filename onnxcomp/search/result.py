"""What `optimize` found out: one value per candidate, and the one that was delivered."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from onnxcomp.files import copy_file
from onnxcomp.measure import Ratio, Timing
from onnxcomp.model import PACKED_SUFFIX, save
from onnxcomp.pipeline import PassReport
from onnxcomp.recipe import Recipe
from onnxcomp.thresholds import Histogram

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["CandidateResult", "Evidence", "FrontModel", "Miss", "NearMiss", "Outcome", "Quality"]


@dataclass(frozen=True, slots=True)
class Quality:
    """How good a model's answers are.

    Attributes:
        score: The metric's value; None without labels.
        agreement: Share of answers that equal the original's.
        sqnr: Signal-to-noise ratio of the worst float output against the original's, dB.
        share: Of the evaluation runs that these figures are from; under 1: they already showed that it is no use.
    """

    score: float | None
    agreement: float
    sqnr: float
    share: float = 1.0

    @property
    def loss(self) -> float:
        """How much was lost, to compare candidates by: the score where there is one, else disagreement."""
        return 1 - self.agreement if self.score is None else -self.score


@dataclass(frozen=True, slots=True)
class Miss:
    """A bound that a model does not keep.

    Attributes:
        text: Which, and by how much, in words.
        excess: By how much, as a share of the bound.
    """

    text: str
    excess: float


@dataclass(frozen=True, slots=True)
class NearMiss:
    """A candidate that comes near to the bounds where nothing keeps them all.

    Attributes:
        name: Of the candidate.
        misses: What it misses, in words.
    """

    name: str
    misses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FrontModel:
    """A candidate that no other one equals or beats in size, latency and score at once.

    Attributes:
        name: Of the candidate.
        recipe: TOML of what made it from the cleaned-up model.
        size: Bytes on disk.
        latency: Time over the original's, timed beside the others of the front; None: not timed.
        quality: On the samples of the final verdict.
        missed: Bounds of the budget that it does not keep; empty: it is inside the budget.
        options: Under which `optimize` delivers it when it is given the recipe; empty: under those of this run.
        model_file: Name of the model's file in the folder of the front.
        recipe_file: Name of the recipe's.
    """

    name: str
    recipe: str
    size: int
    latency: Ratio | None
    quality: Quality
    missed: tuple[str, ...]
    options: str
    model_file: str
    recipe_file: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the final judgement of a model rests on.

    Attributes:
        samples: Labels that were answered; runs, where the score is no share of right answers or there are no labels.
        held_out: Whether the search did not see these samples.
        low: Lower end of the 95 % interval of the score's difference from the original's; None: there is no interval.
        high: Upper end of it.
        method: How the interval was computed, or why there is none.
        typical_sqnr: Median of the runs' SQNR, dB; None: there is no score that it might call in question.
        expected_sqnr: The same on calibration samples; None: there are none.
    """

    samples: int
    held_out: bool
    low: float | None = None
    high: float | None = None
    method: str = "no labels"
    typical_sqnr: float | None = None
    expected_sqnr: float | None = None


@dataclass(slots=True)
class CandidateResult:
    """One candidate: how it was made, what it is, why it is out. Filled in while it is measured.

    Attributes:
        name: As in ``search.candidates``.
        recipe: Everything that made it, cleanup included.
        passes: What each of its own passes did.
        size: Bytes on disk.
        quality: On the samples that the search judges by.
        latency: Time over the original's time; None: not timed.
        rejected: Why it was not delivered; None: it could have been, or was.
    """

    name: str
    recipe: Recipe
    passes: tuple[PassReport, ...]
    size: int
    quality: Quality | None = None
    latency: Ratio | None = None
    rejected: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of `optimize`.

    Attributes:
        model: The delivered model: the winner as re-loaded from disk, or the original.
        winner: Name of the candidate; None: the original is delivered as it is.
        original_size: Bytes of the input.
        size: Bytes of the delivered model.
        original_quality: Of the input, on the samples of the final verdict; its score is the reference.
        quality: Of the delivered model, on the same samples.
        searched_quality: Of the input, on the samples that the search judges by.
        evidence: What the verdict on the delivered model rests on; None: the original is delivered.
        latency: Delivered over original, from the final interleaved run; None: the original is delivered, or nothing
            was timed.
        original_seconds: Median time of one run of the original; None: not timed.
        seconds_per_run: Median time of one run of the delivered model; None: not timed.
        cleanup: What each cleanup pass did.
        candidates: All that were tried.
        missed: Why neither a candidate nor the original keeps a bound that the user named; None: one does.
        nearest: Candidates that come nearest to the bounds, where one is missed.
        front: What was written to the folder of the front; None: none was asked for.
        seconds: Wall-clock time of the whole run.
        cut_short: Whether the time budget kept optional steps from being begun or finished.
        timings: Of the original and the delivered model, from the final interleaved run; empty: nothing was timed.
        source: The file that the original came from.
        cleaned: The original after clean-up, that candidates start from.
        histograms: How the values of activations are distributed on the calibration samples, by tensor.
    """

    model: "ir.Model"
    winner: str | None
    original_size: int
    size: int
    original_quality: Quality
    quality: Quality
    searched_quality: Quality
    evidence: Evidence | None
    latency: Ratio | None
    original_seconds: float | None
    seconds_per_run: float | None
    cleanup: tuple[PassReport, ...]
    candidates: tuple[CandidateResult, ...]
    missed: str | None = None
    nearest: tuple[NearMiss, ...] = ()
    front: tuple[FrontModel, ...] | None = None
    seconds: float = 0.0
    cut_short: bool = False
    timings: tuple[Timing, ...] = ()
    source: Path | None = None
    cleaned: "ir.Model | None" = None
    histograms: Mapping[str, Histogram] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write the delivered model atomically; an original that was not improved is copied byte for byte.

        Where the path ends with ``.onnxz``, it is packed in any case.

        Raises:
            OutputError: The path can't be written.
        """
        unchanged = self.winner is None and self.source is not None and path.suffix != PACKED_SUFFIX
        if unchanged and self.source is not None and self.source.stat().st_size == self.original_size:
            copy_file(self.source, path)
        else:
            save(self.model, path)
