"""Measuring elsewhere: folders that another machine times, of given models or of those that `optimize` chooses from."""

import os
import tempfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.api.benchmark import MADE_UP, Contender, check_timing, enter, rows_of, timed_feed
from onnxcomp.api.common import Data, check_batch, size_on_disk
from onnxcomp.api.measured import ORIGINAL
from onnxcomp.api.optimization import prepare
from onnxcomp.data import ImageOptions
from onnxcomp.errors import UsageError
from onnxcomp.files import check_folder
from onnxcomp.measure import MEASUREMENTS, check_feed, write_bundle
from onnxcomp.model import load
from onnxcomp.recipe import Recipe
from onnxcomp.report import SCHEMA_VERSION, BenchSettings, BundleReport, now, versions
from onnxcomp.runtime import Provider
from onnxcomp.search import Progress, collect, connected
from onnxcomp.statistics import Statistics
from onnxcomp.target import Budget, Goal, Technique

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["bundle", "bundle_candidates"]

_SECONDS = 60.0
_HALF_WIDTH = 0.01  # 1.00 must be told from 1.02


def bundle(
    *models: "str | os.PathLike[str] | bytes | ir.Model",
    folder: str | os.PathLike[str],
    data: Data | None = None,
    threads: int = 1,
    batch: int = 1,
    images: ImageOptions | None = None,
    provider: Provider = "cpu",
    seconds: float = _SECONDS,
    half_width: float = 0.02,
    confidence: float = 0.95,
    seed: int = 0,
) -> BundleReport:
    """Write a folder of models, one input, and a script that times them on a machine without onnxcomp.

    Args:
        models: Paths, serialized models, or models in memory; the first is what the others are compared with.
        folder: Gets the bundle; it may exist.
        data: Samples, the first run of which is timed; None: made-up inputs.
        threads: Intra-op threads there; 0 is all cores of that machine.
        batch: Rows, or images, per run, where the models take any number.
        images: How the images of a folder become values of the models' input.
        provider: What is to run the models there: ``cpu``, ``cuda`` or ``tensorrt``.
        seconds: For the timing; it ends earlier when all intervals are narrow enough.
        half_width: How narrow the intervals of the ratios are to be, as a share of the ratio.
        confidence: Of the intervals, in (0, 1).
        seed: Of the order of the runs and of made-up inputs.

    Raises:
        UsageError: A setting makes no sense, or the models differ in their inputs.
        DataError: The samples do not fit the models.
        ModelError: A model is invalid.
        OutputError: The folder can't be written.
    """
    if not models:
        raise UsageError("there is no model to bundle", hint="onnxcomp bench --bundle FOLDER MODEL...")
    if threads < 0:
        raise UsageError(f"threads must not be negative, got {threads}")
    check_batch(batch)
    check_timing(provider, seconds=seconds, half_width=half_width, confidence=confidence)
    place = Path(folder)
    check_folder(place, overwrite=True)
    with tempfile.TemporaryDirectory(prefix="onnxcomp.") as temporary:
        entries = [enter(model, number, Path(temporary)) for number, model in enumerate(models, 1)]
        feed, description = timed_feed(entries, data, batch=batch, images=images, seed=seed)
        settings = BenchSettings(description, threads, batch, provider, seconds, half_width, seed, confidence)
        notes = [] if data is not None else [MADE_UP]
        rows = rows_of(feed, batch, notes)
        written = write_bundle(
            place,
            [(name, entry.model, entry.size) for name, entry in zip(_names(entries), entries, strict=True)],
            feed,
            settings=settings,
            rows=rows,
            notes=notes,
            schema_version=SCHEMA_VERSION,
        )
    return BundleReport(
        folder=str(place),
        purpose=f"onnxcomp bench --measurements {place / MEASUREMENTS}",
        settings=settings,
        shapes={name: tuple(np.shape(value)) for name, value in feed.items()},
        models=written,
        notes=tuple(notes),
        versions=versions(),
        created=now(),
    )


def bundle_candidates(
    model: "str | os.PathLike[str] | bytes | ir.Model",
    *,
    folder: str | os.PathLike[str],
    calibration: Data | None = None,
    statistics: str | os.PathLike[str] | Statistics | None = None,
    eval: Data | None = None,  # noqa: A002  (the name of the option)
    metric: str | None = None,
    budget: Budget | None = None,
    goal: Goal = "latency",
    target: str = "auto",
    recipe: Recipe | None = None,
    techniques: Collection[Technique] | None = None,
    synthetic_calibration: bool = False,
    threads: int = 1,
    batch: int = 1,
    images: ImageOptions | None = None,
    seed: int = 0,
    time_budget: float = 300.0,
    jobs: int = 1,
    cluster: str | None = None,
    progress: Progress | None = None,
) -> BundleReport:
    """Write a bundle of the candidates that `optimize` would choose from, to be timed on the machine of the target.

    They are built and judged here, and repaired where they lose too much: the bundle holds the original, and what keeps
    the budget on accuracy. `optimize` with ``measurements`` then delivers the best.

    Args:
        model: As for `optimize`.
        folder: Gets the bundle; it may exist.
        calibration: As for `optimize`, and so are all others.
        statistics: Ranges that were measured before.
        eval: Samples to judge on.
        metric: What makes the score.
        budget: Bounds; those on latency hold for the measurements.
        goal: What will be minimised: for ``latency``, weights alone are not compressed.
        target: Where the model will run.
        recipe: Passes to try instead of the built-in candidates.
        techniques: The only ones to try.
        synthetic_calibration: Calibrate on made-up inputs.
        threads: Intra-op threads there; 0 is all cores of that machine.
        batch: Rows, or images, per run.
        images: How the images of a folder become values of the model's input.
        seed: For every random choice.
        time_budget: Seconds after which nothing more is repaired.
        jobs: Processes of this machine that judge candidates at once.
        cluster: Address of a cluster that judges them instead.
        progress: Called with the stage and the share done.

    Raises:
        OnnxCompError: Of the kind that fits, as for `optimize`.
    """
    place = Path(folder)
    check_folder(place, overwrite=True)
    prepared = prepare(
        model,
        calibration=calibration,
        statistics=statistics,
        eval=eval,
        metric=metric,
        budget=budget,
        goal=goal,
        target=target,
        recipe=recipe,
        techniques=techniques,
        synthetic_calibration=synthetic_calibration,
        threads=threads,
        batch=batch,
        images=images,
        seed=seed,
        time_budget=time_budget,
        elsewhere=True,
    )
    feed = next(iter(prepared.work.task.samples.take(1)))
    check_feed(feed)
    with connected(jobs, cluster) as executor:
        built = collect(prepared.model, replace(prepared.work, timed=False, executor=executor), progress=progress)
    original = load(model)  # once more: passes give names to tensors that they share with the one they start from
    results = [(candidate.model, candidate.result) for candidate in built]
    notes = [*prepared.notes]
    notes += (f"{result.name} is left out: {result.rejected}" for _, result in results if result.rejected is not None)
    kept = [(result.name, model, result.size) for model, result in results if result.rejected is None]
    if not kept:
        notes.append("no candidate keeps the budget on accuracy: the bundle holds the original alone")
    provider = prepared.work.target.provider
    settings = BenchSettings(prepared.settings.evaluation, threads, batch, provider, _SECONDS, _HALF_WIDTH, seed)
    rows = rows_of(feed, batch, [])
    written = write_bundle(
        place,
        [(ORIGINAL, original, size_on_disk(model, original)), *kept],
        feed,
        settings=settings,
        rows=rows,
        notes=(),
        schema_version=SCHEMA_VERSION,
    )
    return BundleReport(
        folder=str(place),
        purpose=f"the same command with --measurements {place / MEASUREMENTS} instead of --bundle",
        settings=settings,
        shapes={name: tuple(np.shape(value)) for name, value in feed.items()},
        models=written,
        notes=tuple(notes),
        versions=versions(),
        created=now(),
    )


def _names(entries: list[Contender]) -> list[str]:
    """Return what the models are called, each once."""
    found: list[str] = []
    for entry in entries:
        again = sum(1 for other in entries[: len(found)] if other.name == entry.name)
        found.append(entry.name if not again else f"{entry.name} ({again + 1})")
    return found
