"""What verbs that make one model in a named way do alike: open data, clean up, judge, time, hold against gates."""

import dataclasses
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from onnxcomp.api.anatomy import anatomy
from onnxcomp.api.common import (
    Data,
    check_images_used,
    check_metric,
    choose_task,
    doubt,
    make_up,
    oddities,
    open_data,
    size_on_disk,
)
from onnxcomp.data import ImageOptions, Samples
from onnxcomp.errors import UsageError
from onnxcomp.facts import feature_outputs, opset, parameter_count
from onnxcomp.measure import Comparison, Timing
from onnxcomp.model import load, open_session, save, size
from onnxcomp.passbase import PassContext
from onnxcomp.pipeline import PassReport, Verifier, recipe_of, run_recipe
from onnxcomp.report import Written, machine, now, versions
from onnxcomp.report.anatomy import Anatomy
from onnxcomp.report.made import MadeReport
from onnxcomp.runtime import Session
from onnxcomp.search import Judge, Progress, Quality, Race, Task, cleanup, slowness
from onnxcomp.target import Budget, Gates, Target
from onnxcomp.thresholds import Histogram

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Assignment", "MadeResult", "Measured", "assign", "cleaned", "judge_of", "measured", "missed", "race_of",
           "timed", "times"]  # fmt: skip

_VERIFY_RUNS = 3
_ORIGINAL, _MADE = "original", "result"  # names of the contenders
R = TypeVar("R", bound=MadeReport)


@dataclass(frozen=True, slots=True)
class MadeResult(Generic[R]):
    """What a verb that makes a model gives back.

    Attributes:
        model: The model, as it was loaded back from disk.
        report: What was done and measured.
    """

    model: "ir.Model"
    report: R

    def save(self, path: str | os.PathLike[str]) -> R:
        """Write the model atomically; return the report, which now also says what was written where.

        Raises:
            OutputError: The path can't be written.
        """
        save(self.model, path)
        return dataclasses.replace(self.report, output=Written.at(path))


@dataclass(frozen=True, slots=True)
class Measured:
    """A model that was made, loaded back from disk, and what was measured on it."""

    model: "ir.Model"
    size: int
    quality: Quality
    timing: Comparison | None = None

    @property
    def timings(self) -> tuple[Timing, ...]:
        """Of the original and of the result; empty: not measured."""
        return self.timing.timings if self.timing else ()

    def seconds(self, name: str) -> float | None:
        """Return the time of one run of the ``original`` or the ``result``; None: not measured."""
        return next((timing.undisturbed for timing in self.timings if timing.name == name), None)


@dataclass(frozen=True, slots=True)
class Assignment:
    """A model that something is to be made of, and what the result is judged on.

    Attributes:
        source: Where the model came from, for people.
        model: As it was loaded.
        size: Bytes of it.
        samples: Calibration samples; made-up ones, where that was asked for.
        task: What answers are judged on.
        gates: Bounds for the result.
        seed: For every random choice.
        notes: What the reader should know.
        start: When the work began, by `time.perf_counter`.
    """

    source: str
    model: "ir.Model"
    size: int
    samples: Samples | None
    task: Task
    gates: Gates
    seed: int
    notes: list[str]
    start: float

    def facts(self, judge: Judge, made: Measured, done: Sequence[PassReport], clean_up: Sequence[PassReport]) -> Any:
        """Return what `MadeReport` says of every verb, by field.

        Args:
            judge: Knows the original's score.
            made: The result.
            done: What the verb's passes did.
            clean_up: What clean-up did before them.
        """
        return {
            "model": self.source,
            "evaluation": self.task.samples.description,
            "metric": self.task.metric_name,
            "gates": self.gates,
            "missed": tuple(missed(self.gates, judge, made, self.size)),
            "seed": self.seed,
            "parameters": parameter_count(self.model),
            "opset": opset(self.model),
            "original_size": self.size,
            "size": made.size,
            "original_quality": judge.original,
            "quality": made.quality,
            "cleanup": tuple(clean_up),
            "passes": tuple(done),
            "recipe": recipe_of(made.model).to_toml(),
            "notes": tuple(filter(None, [*self.notes, doubt(judge.original.score, self.task)])),
            "seconds": time.perf_counter() - self.start,
            "versions": versions(),
            "created": now(),
        }

    def anatomy(
        self, clean: "ir.Model", made: Measured, *, histograms: Mapping[str, Histogram] | None = None, threads: int = 1
    ) -> Anatomy:
        """Return what the original and the result are made of; the time of parts, where that of the whole is known.

        Args:
            clean: The original, cleaned up.
            made: The result.
            histograms: Of activations, by the name of the tensor.
            threads: Intra-op threads of the profile.
        """
        return anatomy(
            self.model,
            clean,
            made.model,
            next(iter(self.task.samples.take(1))),
            histograms=histograms or {},
            seconds=made.seconds(_ORIGINAL),
            threads=threads,
        )


def assign(
    model: "str | os.PathLike[str] | bytes | ir.Model",
    *,
    calibration: Data | None,
    evaluation: Data | None,
    metric: str | None,
    gates: Gates,
    batch: int,
    images: ImageOptions | None,
    seed: int,
    made_up: bool = False,
    notes: Iterable[str] = (),
) -> Assignment:
    """Open what a verb is given.

    Args:
        model: A path, a serialized model, or a model in memory. It is not changed.
        calibration: Calibration samples.
        evaluation: Samples to judge on.
        metric: As the user named it.
        gates: Bounds for the result.
        batch: Rows per run.
        images: How images become inputs.
        seed: For every random choice.
        made_up: Whether calibration samples are made up where none are given.
        notes: What is known already.

    Raises:
        OnnxCompError: Of the kind that fits: UsageError and its kinds, ModelError, EnvironmentUnavailable.
    """
    start = time.perf_counter()
    check_metric(metric)
    loaded = load(model)
    found = list(notes)
    found += oddities(loaded)
    samples, judged_on = (open_data(loaded, data, batch=batch, images=images) for data in (calibration, evaluation))
    check_images_used(images, samples, judged_on)
    invented = None
    if samples is None and (made_up or judged_on is None):
        invented = make_up(loaded, seed=seed, batch=batch)
        if made_up:
            found.append("calibrated on made-up inputs: expect a worse model than with real samples")
            samples = invented.others()
    task, samples = choose_task(samples, judged_on, invented, metric, max_drop=gates.max_drop, seed=seed, notes=found)
    if gates.max_drop is not None and task.metric is None:
        raise UsageError(f"max-drop needs labels, and {task.samples.description} has none", hint="--eval DATA")
    return Assignment(
        source=str(Path(model)) if isinstance(model, str | os.PathLike) else "(in memory)",
        model=loaded,
        size=size_on_disk(model, loaded),
        samples=samples,
        task=task,
        gates=gates,
        seed=seed,
        notes=found,
        start=start,
    )


def cleaned(work: Assignment, ctx: PassContext, show: Progress) -> "tuple[Verifier, ir.Model, list[PassReport]]":
    """Clean a model up: return what verifies later changes, the clean model, and what was done."""
    show("verify", None)
    verifier = Verifier(work.model, work.task.samples.spread(_VERIFY_RUNS))
    model, done = run_recipe(
        work.model, cleanup(), ctx, verifier, progress=lambda name: show(f"clean up: {name}", None)
    )
    return verifier, model, done


def judge_of(work: Assignment) -> Judge:
    """Return what judges models made of this one."""
    return Judge(open_session(work.model, threads=0), work.task, Budget(), features=feature_outputs(work.model))


def race_of(work: Assignment, *, threads: int, show: Progress) -> Race:
    """Return what times models made of this one."""
    feed = next(iter(work.task.samples.take(1)))
    race = Race(work.model, feed, threads=threads, seed=work.seed, progress=show)
    race.meet()
    return race


def measured(changed: "ir.Model", judge: Judge, race: Race | None = None, *, exact: float | None = None) -> Measured:
    """Save a model, load it back, judge and time it.

    Args:
        changed: In memory.
        judge: Of the original.
        race: Times it; None: it is not timed.
        exact: The latency ratio that must be told from others; None: a rough one will do.
    """
    with tempfile.TemporaryDirectory(prefix="onnxcomp.") as folder:
        path = Path(folder, "model.onnx")
        save(changed, path)
        loaded = load(path)
        quality = judge.quality(Session(path, threads=0))
    found = Measured(loaded, size(loaded), quality)
    return found if race is None else timed(found, race, exact=exact)


def timed(made: Measured, race: Race, *, exact: float | None = None) -> Measured:
    """Time a model that was measured.

    Args:
        made: The model.
        race: Times it.
        exact: The latency ratio that must be told from others; None: a rough one will do.
    """
    if exact is None:
        return dataclasses.replace(made, timing=race.rough({_MADE: made.model}))
    return dataclasses.replace(made, timing=race.exact(_MADE, made.model, exact))


def missed(gates: Gates, judge: Judge, made: Measured, original_size: int = 0) -> list[str]:
    """Say which bounds a model misses."""
    before, after = judge.original.score, made.quality.score
    found = gates.missed(
        drop=None if before is None or after is None else before - after,
        agreement=made.quality.agreement,
        sqnr=made.quality.sqnr,
        size=made.size,
        original_size=original_size,
    )
    if gates.max_latency_ratio is not None and made.timing is not None:
        found += filter(None, [slowness(made.timing.ratios[_MADE], gates.max_latency_ratio)])
    return found


def times(made: Measured, target: Target, *, threads: int, batch: int) -> Any:
    """Return what `TimedReport` adds, by field."""
    return {
        "target": target.name,
        "threads": threads,
        "batch": batch,
        "latency": made.timing.ratios[_MADE] if made.timing else None,
        "original_seconds": made.seconds(_ORIGINAL),
        "seconds_per_run": made.seconds(_MADE),
        "machine": machine(),
        "timings": made.timings,
    }
