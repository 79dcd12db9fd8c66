"""``calibrate``: collect the statistics of a model's activations once, for any method and any number of tries."""

import dataclasses
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxcomp.api.common import Data, check_images_used, make_up, open_data
from onnxcomp.data import ImageOptions, Samples
from onnxcomp.errors import UsageError
from onnxcomp.model import fingerprint, load
from onnxcomp.passbase import PassContext
from onnxcomp.pipeline import Verifier, run_recipe
from onnxcomp.report import CalibrateReport, Written, machine, now, versions
from onnxcomp.report.figures import counted
from onnxcomp.search import Progress, cleanup, prepared
from onnxcomp.statistics import RangeStore, Statistics, float_tensors
from onnxcomp.target import get_target

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["CalibrateResult", "calibrate", "collect"]

_VERIFY_RUNS = 3


@dataclass(frozen=True, slots=True)
class CalibrateResult:
    """What `calibrate` gives back.

    Attributes:
        statistics: What `quantize` and `optimize` take.
        report: What was measured on what.
    """

    statistics: Statistics
    report: CalibrateReport

    def save(self, path: str | os.PathLike[str]) -> CalibrateReport:
        """Write the statistics atomically, as a file that ``--statistics`` takes.

        Returns the report, which now also says what was written where.

        Raises:
            OutputError: The path can't be written.
        """
        self.statistics.save(path)
        return dataclasses.replace(self.report, output=Written.at(path))


def calibrate(
    model: "str | os.PathLike[str] | bytes | ir.Model",
    *,
    calibration: Data | None = None,
    synthetic_calibration: bool = False,
    batch: int = 1,
    images: ImageOptions | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> CalibrateResult:
    """Run the cleaned-up model over samples, and keep the distribution of every float tensor.

    Args:
        model: A path, a serialized model, or a model in memory. It is not changed.
        calibration: The samples.
        synthetic_calibration: Take made-up inputs, where there are no samples.
        batch: Rows per run of an ``.npz`` of rows; images per run.
        images: How the images of a folder become values of the model's input.
        seed: Of the made-up inputs.
        progress: Called with the stage and the share done.

    Raises:
        ModelError: A tensor takes a NaN; the message names it.
        OnnxCompError: Of the kind that fits: UsageError and its kinds, EnvironmentUnavailable.
    """
    start = time.perf_counter()
    show = progress or (lambda _stage, _share: None)
    if calibration is None and not synthetic_calibration:
        raise UsageError("there are no samples to measure", hint="--calibration DATA, or --synthetic for made-up ones")
    loaded = load(model)
    notes = []
    samples = open_data(loaded, calibration, batch=batch, images=images)
    check_images_used(images, samples)
    if samples is None:
        samples = make_up(loaded, seed=seed, batch=batch).others()  # as the other commands: compare judges on the first
        notes.append("made-up inputs: expect worse models than with real samples")
    show("verify", None)
    verifier = Verifier(loaded, samples.spread(_VERIFY_RUNS))
    ctx = PassContext(target=get_target("auto"), seed=seed)
    cleaned, _ = run_recipe(loaded, cleanup(), ctx, verifier, progress=lambda name: show(f"clean up: {name}", None))
    runs = 0

    def measured(done: int, of: int | None) -> None:
        nonlocal runs
        runs = done
        show("calibrate", done / of if of else None)

    store = collect(cleaned, samples, ctx, verifier, progress=measured)
    extremes = {name: found.extremes for name, found in store.known.items()}
    infinite = tuple(name for name, found in extremes.items() if not found.finite)
    if infinite:
        notes.append(f"infinite values in {counted(len(infinite), 'tensor')}: the nodes around will stay float")
    statistics = Statistics(
        model=fingerprint(cleaned),
        samples=samples.description,
        runs=runs,
        histograms=store.known,
        versions=versions(),
        created=now(),
    )
    report = CalibrateReport(
        model=str(Path(model)) if isinstance(model, str | os.PathLike) else "(in memory)",
        fingerprint=statistics.model,
        samples=samples.description,
        runs=statistics.runs,
        tensors=extremes,
        infinite=infinite,
        notes=tuple(notes),
        seconds=time.perf_counter() - start,
        versions=statistics.versions,
        machine=machine(),
        created=statistics.created,
    )
    return CalibrateResult(statistics, report)


def collect(
    cleaned: "ir.Model",
    samples: Samples,
    ctx: PassContext,
    verifier: Verifier,
    *,
    progress: Callable[[int, int | None], None],
) -> RangeStore:
    """Measure every float tensor of a cleaned-up model, and those that the rewrites before quantization add.

    All at once, whatever is needed later: onnxruntime fuses less where more tensors are read, and rounds otherwise.
    Statistics from a file are then equal to the last bit to those that are collected on the spot.

    Args:
        cleaned: The cleaned-up model.
        samples: What it is run on.
        ctx: For the rewrites.
        verifier: Compares each rewrite with the original.
        progress: Called with the number of samples done and the total, where that is known.

    Raises:
        ModelError: A tensor takes a NaN.
        DataError: There are no samples, or they don't fit.
    """
    store = RangeStore(cleaned, samples, progress=progress)
    for model in (cleaned, run_recipe(cleaned, prepared(), ctx, verifier)[0]):
        store.histograms(float_tensors(model), model)
    return store
