"""What several verbs do alike: open data, choose a metric, check settings."""

import os
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.data import ImageFolder, ImageOptions, Samples, Source, SyntheticSamples, open_samples, synthetic
from onnxcomp.errors import MetricError, ModelError, UsageError
from onnxcomp.facts import input_bounds, input_specs, is_quantized, unfinite_weights, weights_listed_as_inputs
from onnxcomp.metrics import Metric, load_metric
from onnxcomp.model import is_one_file, open_session, size
from onnxcomp.report.figures import counted
from onnxcomp.search import Task
from onnxcomp.statistics import Statistics
from onnxcomp.target import Target, get_target

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "Data",
    "check_batch",
    "check_images_used",
    "check_metric",
    "check_threads",
    "choose_metric",
    "choose_task",
    "doubt",
    "few",
    "make_up",
    "oddities",
    "open_data",
    "open_statistics",
    "size_on_disk",
    "unverified",
    "why_unmeasured",
]

Data = Source | Samples
_SYNTHETIC_RUNS = 16
_MADE_UP_SHAPES: tuple[dict[str, Any], ...] = (  # the first that fits is taken
    {},
    {"named": True},
    {"batched": False},
    {"size": 1024},
    {"named": True, "size": 256},
)
_FEW = 30  # samples that a verdict should rest on at least
_FIDELITY_RUNS = 64  # of calibration samples, where there is nothing else to judge on
_FEWEST_TO_PART = 32  # runs of calibration samples
_FITTED = 0.75  # of them, where the others judge


def open_data(
    model: "ir.Model", data: Data | None, *, batch: int = 1, images: ImageOptions | None = None
) -> Samples | None:
    """Open samples for a model; None stays None.

    Raises:
        DataError: They can't be read, don't fit the model, or it is nothing that samples can be given as.
    """
    if data is None or isinstance(data, Samples):
        return data
    return open_samples(data, input_specs(model), batch=batch, images=images)


def check_images_used(images: ImageOptions | None, *samples: Samples | None) -> None:
    """Refuse options for images where no samples are images.

    Raises:
        UsageError: There are options and no images.
    """
    if images is not None and images.required and not any(isinstance(some, ImageFolder) for some in samples):
        raise UsageError("options for images are given, but no folder of images", hint="leave them out")


def open_statistics(statistics: "str | os.PathLike[str] | Statistics | None") -> Statistics | None:
    """Return statistics, read from their file where a path is given; None stays None.

    Raises:
        DataError: The file can't be read or is no statistics file.
        UsageError: It is nothing that statistics can be given as.
    """
    if statistics is None or isinstance(statistics, Statistics):
        return statistics
    if not isinstance(statistics, str | os.PathLike):
        raise UsageError(
            f"statistics can't be given as {type(statistics).__name__}",
            hint="pass the path of a file, or onnxcomp.Statistics",
        )
    return Statistics.load(statistics)


def make_up(model: "ir.Model", *, seed: int, batch: int = 1) -> SyntheticSamples:
    """Make up samples for a model: right types and shapes, integers inside the range of the graph's tables.

    The first kind of values that the model runs on, with finite answers, is taken; else the first that it runs on.

    Raises:
        DataError: An input is of a type whose values can't be made up.
        ModelError: The model runs on no kind.
    """
    specs, bounds = input_specs(model), input_bounds(model)
    kinds = [
        synthetic(specs, count=_SYNTHETIC_RUNS, seed=seed, batch=batch, bounds=bounds, positive=positive, **shape)
        for shape, positive in product(_MADE_UP_SHAPES, (False, True))
    ]
    try:
        session = open_session(model, threads=0)
    except ModelError:
        return kinds[0]  # whoever runs it says why it is refused
    ran: list[SyntheticSamples] = []
    failures: list[ModelError] = []
    for samples in kinds:
        try:
            answers = session.run(next(iter(samples.take(1)))).values()
        except ModelError as err:
            failures.append(err)
            continue
        if all(np.isfinite(a).all() for a in answers if isinstance(a, np.ndarray) and a.dtype.kind == "f"):
            return samples
        ran.append(samples)
    if not ran:
        raise ModelError(str(failures[0]), hint="made-up inputs may not fit the model: give samples of your own")
    return ran[0]


def oddities(model: "ir.Model") -> list[str]:
    """Return plain sentences on what is unusual about a model, and what becomes of that."""
    found = []
    if is_quantized(model):
        found.append("the model is quantized already: what it holds in integers is left as it is")
    if unfinite := unfinite_weights(model):
        found.append(f"weights hold NaN or infinity, and stay as they are: {', '.join(unfinite[:3])}")
    if weights_listed_as_inputs(model):
        found.append("the weights are listed as inputs, which slows onnxruntime down: clean-up makes them constants")
    return found


def size_on_disk(source: object, model: "ir.Model") -> int:
    """Return the bytes of a loaded model on disk, external data included; of one in memory, what it would take.

    Args:
        source: What it was loaded from.
        model: As it was loaded.
    """
    if isinstance(source, str | os.PathLike) and is_one_file(model):
        return Path(source).stat().st_size
    return size(model)


def choose_metric(spec: str | None, labels: list[np.ndarray]) -> tuple[str, Metric]:
    """Return the metric that is named, or top1 where labels are class numbers.

    Raises:
        MetricError: It can't be loaded, or none is named and the labels are no class numbers.
    """
    if spec is not None:
        return load_metric(spec)
    if all(np.issubdtype(np.asarray(label).dtype, np.integer) for label in labels):
        return load_metric("top1")
    raise MetricError("the samples have labels that are no class numbers", hint="--metric FILE.py:function")


def doubt(score: float | None, task: Task) -> str | None:
    """Say what is suspicious about the original's own score, or None.

    Args:
        score: Of the original.
        task: What it was scored on.
    """
    labels = task.samples.labels() if score is not None and task.metric is not None else None
    if score is None or labels is None:
        return None
    answers = np.concatenate([np.asarray(label).reshape(-1) for label in labels])
    classes, counts = np.unique(answers, return_counts=True)
    constant = float(counts.max() / counts.sum()) if task.metric_name in ("top1", "top5") and len(classes) > 1 else 0.0
    if score > constant:
        return None
    hint = "and --mean and --std" if isinstance(task.samples, ImageFolder) else "and how the inputs are scaled"
    return (
        f"the original itself scores {score:.4f} here, no more than one and the same answer to everything would: check "
        f"the order of the classes, {hint}"
    )


def few(samples: int) -> str | None:
    """Say that a verdict rests on very few samples, or None.

    Args:
        samples: That it rests on.
    """
    if samples >= _FEW:
        return None
    which = counted(samples, "sample")
    return f"judged on {which}: each is {1 / samples:.0%} of the verdict, and rarer faults don't show; more tell more"


def choose_task(
    calibration: Samples | None,
    evaluation: Samples | None,
    made_up: Samples | None,
    metric: str | None,
    *,
    max_drop: float | None = None,
    seed: int,
    notes: list[str],
) -> tuple[Task, Samples | None]:
    """Decide what answers are judged on, and say so where it is less than labels.

    Where there is nothing else, a quarter of the calibration samples is set aside to judge on; see `_apart`.

    Args:
        calibration: Calibration samples, made-up ones among them.
        evaluation: Evaluation samples.
        made_up: Made-up samples to judge on, other than those of calibration; needed where neither is given.
        metric: As the user named it.
        max_drop: Largest accepted drop of the score; None: none is too large.
        seed: Which of the calibration samples are set aside.
        notes: Gets plain sentences for the reader.

    Returns:
        The task, and the calibration samples that are left to fit to.

    Raises:
        MetricError: The metric can't be loaded, or has no labels to work on.
    """
    if evaluation is not None:
        labels = evaluation.labels()
        if labels is not None:
            name, function = choose_metric(metric, labels)
            answers = sum(np.asarray(label).size for label in labels)
            if max_drop is not None and answers * max_drop < 1:
                notes.append(
                    f"{counted(answers, 'label')}: one answer is worth more than the whole budget of {max_drop:g}"
                )
            return Task(evaluation, function, name), calibration
        if metric is not None:
            how = "a sub-folder per class" if isinstance(evaluation, ImageFolder) else "save them as the array 'labels'"
            raise MetricError(
                f"a metric needs labels, and {evaluation.description.partition(',')[0]} has none",
                hint=f"{how}, or leave the metric out",
            )
        notes.append("no labels: fidelity to the original decides")
        return Task(evaluation), calibration
    if metric is not None:
        raise MetricError("a metric needs labelled samples", hint="--eval DATA")
    if made_up is None and calibration is not None:
        return _apart(calibration, seed, notes)
    assert made_up is not None
    notes.append("no samples: judged by fidelity on made-up inputs, which real data may not resemble")
    return Task(made_up), calibration


def _apart(calibration: Samples, seed: int, notes: list[str]) -> tuple[Task, Samples]:
    """Part calibration samples into some to judge on and some to fit to, where there are enough."""
    how = "no evaluation samples (--eval DATA): judged by fidelity on"
    if (calibration.length or 0) < _FEWEST_TO_PART:
        notes.append(
            f"{how} the calibration samples, too few to part: what is fitted to them may look better than it is"
        )
        return Task(calibration.spread(_FIDELITY_RUNS), fitted=True), calibration
    notes.append(f"{how} a quarter of the calibration samples, which nothing is fitted to")
    fitted, aside = calibration.split(_FITTED, seed)
    return Task(aside.spread(_FIDELITY_RUNS)), fitted


def check_metric(spec: str | None) -> None:
    """Refuse a metric that is not named by text.

    Raises:
        UsageError: It is of another type.
    """
    if not (spec is None or isinstance(spec, str)):
        raise UsageError(f"a metric can't be given as {type(spec).__name__}", hint="pass FILE.py:function as text")


def check_batch(batch: int) -> None:
    """Refuse a number of rows per run that makes no sense.

    Raises:
        UsageError: It is below 1.
    """
    if batch < 1:
        raise UsageError(f"batch must be 1 or more, got {batch}", hint="leave out --batch: it is 1 then")


def check_threads(threads: int) -> None:
    """Refuse a number of threads that makes no sense on this machine.

    Raises:
        UsageError: It is negative, or more than there are cores.
    """
    if threads < 0:
        raise UsageError(f"threads must not be negative, got {threads}")
    if threads > (cores := os.cpu_count() or 1):
        raise UsageError(f"threads must be at most {cores}, the cores of this machine, got {threads}", hint="0 is all")


def why_unmeasured(target: Target) -> str | None:
    """Say why no time that is taken on this machine counts for a target, or None."""
    here = get_target("auto")
    return None if target.name == here.name else f"this machine is {here.name}, not {target.name}"


def unverified(target: Target) -> str | None:
    """Return the sentence for reports on a target whose facts this project has not measured, or None."""
    if target.verified:
        return None
    return f"what is said of {target.name} comes from documentation, this project has not verified it: measure there"
