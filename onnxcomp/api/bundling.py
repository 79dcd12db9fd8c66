"""Measuring elsewhere: a folder that another machine times, and what it has found out there."""

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.api.benchmark import MADE_UP, Contender, check_timing, enter, rows_of, timed_feed
from onnxcomp.api.common import Data, check_batch
from onnxcomp.data import ImageOptions
from onnxcomp.errors import UsageError
from onnxcomp.files import check_folder
from onnxcomp.measure import MEASUREMENTS, write_bundle
from onnxcomp.report import SCHEMA_VERSION, BenchReport, BenchSettings, BundleReport, now, read_document, versions
from onnxcomp.runtime import Provider

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["bundle", "read_measurements"]

_HINT = "python measure.py, in the folder that onnxcomp bench --bundle wrote, makes one"


def bundle(
    *models: "str | os.PathLike[str] | bytes | ir.Model",
    folder: str | os.PathLike[str],
    data: Data | None = None,
    threads: int = 1,
    batch: int = 1,
    images: ImageOptions | None = None,
    provider: Provider = "cpu",
    seconds: float = 60.0,
    half_width: float = 0.02,
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
        half_width: How narrow the 95 % intervals of the ratios are to be, as a share of the ratio.
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
    check_timing(provider, seconds=seconds, half_width=half_width)
    place = Path(folder)
    check_folder(place, overwrite=True)
    with tempfile.TemporaryDirectory(prefix="onnxcomp.") as temporary:
        entries = [enter(model, number, Path(temporary)) for number, model in enumerate(models, 1)]
        feed, description = timed_feed(entries, data, batch=batch, images=images, seed=seed)
        settings = BenchSettings(description, threads, batch, provider, seconds, half_width, seed)
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


def read_measurements(path: str | os.PathLike[str]) -> BenchReport:
    """Read what a bundle's script, or `bench` on another machine, has written.

    Raises:
        DataError: The file can't be read, or is no such document.
    """
    return read_document(path, BenchReport, what="file of measurements", hint=_HINT)


def _names(entries: list[Contender]) -> list[str]:
    """Return what the models are called, each once."""
    found: list[str] = []
    for entry in entries:
        again = sum(1 for other in entries[: len(found)] if other.name == entry.name)
        found.append(entry.name if not again else f"{entry.name} ({again + 1})")
    return found
