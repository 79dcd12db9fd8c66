"""What another machine has measured, read back: to be shown, and to choose candidates by."""

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from onnxcomp.errors import DataError, UsageError
from onnxcomp.measure import Comparison, Ratio, Timing, read_plan
from onnxcomp.model import fingerprint, load
from onnxcomp.report import BenchReport, read_document
from onnxcomp.search import Measured

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["ORIGINAL", "read_measured", "read_measurements"]

ORIGINAL = "original"
_HINT = "python measure.py, in the folder that --bundle wrote, makes one"


def read_measurements(path: str | os.PathLike[str]) -> BenchReport:
    """Read what a bundle's script, or `bench` on another machine, has written.

    Raises:
        DataError: The file can't be read, or is no such document.
    """
    found = read_document(path, BenchReport, what="file of measurements", hint=_HINT)
    for model in found.models:
        if model.ratio is not None and not _sound(model.ratio):
            raise DataError(f"{os.fspath(path)} is damaged: {model.model} has a ratio of {model.ratio}", hint=_HINT)
    return found


def read_measured(path: str | os.PathLike[str], model: "ir.Model") -> tuple[Measured, str]:
    """Return the candidates of a bundle with the times that another machine took, and a sentence that says so.

    Args:
        path: Of the measurements, in the folder of the bundle.
        model: The original.

    Raises:
        DataError: The measurements or the bundle can't be read, or do not belong together.
        UsageError: They are of another original.
        ModelError: A model of the bundle is damaged.
    """
    report, folder = read_measurements(path), Path(path).parent
    first, *others = read_plan(folder)
    if first.fingerprint != fingerprint(model):
        raise UsageError(f"{path} is of another model than this", hint="name the model that the bundle was made of")
    measured = {found.model: found for found in report.models}
    if first.model not in measured or measured[first.model].fingerprint != first.fingerprint:
        raise DataError(f"{path} was not measured with the bundle in {folder}", hint=_HINT)
    models, ratios = {}, {}
    for entry in others:
        if entry.model not in measured:
            continue  # it does not run there
        ratio = measured[entry.model].ratio
        candidate = load(folder / entry.file)
        prints = {fingerprint(candidate), entry.fingerprint, measured[entry.model].fingerprint}
        if len(prints) > 1 or ratio is None:
            raise DataError(
                f"{path}: {entry.model} is not the model that was measured", hint="measure the bundle again, as it is"
            )
        models[entry.model], ratios[entry.model] = candidate, ratio
    if not models:
        raise DataError(f"{path} has no times of candidates: none of them runs there", hint=_HINT)
    timings = tuple(_renamed(found.latency, found.model, first.model) for found in report.models)
    comparison = Comparison(timings, ratios, report.rounds, report.seconds, report.settled)
    machine, asked = report.machine, report.settings
    threads = f"{asked.threads or 'all'} thread{'' if asked.threads == 1 else 's'}"
    note = (
        f"times are from {path}: {machine.get('processor', '?')}, {machine.get('system', '?')}, onnxruntime "
        f"{report.versions.get('onnxruntime', '?')}, {asked.provider} provider, {threads}"
    )
    return Measured(models, comparison), note


def _renamed(timing: Timing, name: str, original: str) -> Timing:
    return replace(timing, name=ORIGINAL if name == original else name)


def _sound(ratio: Ratio) -> bool:
    return 0 <= ratio.low <= ratio.ratio <= ratio.high and 0 < ratio.ratio < math.inf
