"""The measurement of `calibration_bench`, taken inside a process that does nothing else."""

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from onnxruntime.quantization import CalibrationMethod
from onnxruntime.quantization.calibrate import create_calibrator
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry
from rival_quantizers import Reader, preprocess
from statistics_probe import Repeated, peak, prepared, resident

from onnxcomp.data import Samples, open_samples
from onnxcomp.facts import input_specs
from onnxcomp.model import load
from onnxcomp.passbase import PassContext
from onnxcomp.recipe import Step
from onnxcomp.statistics import RangeStore
from onnxcomp.target import get_target
from onnxcomp.thresholds import solve_all

__all__ = ["CONTENDERS", "measure"]

_Collect = Callable[[], dict[str, float]]


def ours(model: Path, samples: Samples) -> _Collect:
    """Prepare to collect statistics and solve all methods, of the tensors that static INT8 asks for."""
    cleaned = prepared(model, samples)
    names = _wanted(cleaned, samples)

    def collect() -> dict[str, float]:
        start = time.perf_counter()
        found = RangeStore(cleaned, samples).histograms(names)
        collected = time.perf_counter()
        for histogram in found.values():
            solve_all(histogram)
        solved = time.perf_counter()
        return {"tensors": len(found), "collecting": collected - start, "solving": solved - collected}

    return collect


def _wanted(model: Any, samples: Samples) -> list[str]:
    """Return the tensors that the pass asks for."""
    few = samples.take(1)
    ranges = RangeStore(model, few)
    ctx = PassContext(target=get_target("auto"), samples=few, ranges=ranges)
    Step("quantize-static").make().run(model.clone(), ctx)
    return list(ranges.known)


def theirs(method: CalibrationMethod) -> Callable[[Path, Samples], _Collect]:
    """Return the calibration of onnxruntime by one method, as its `quantize_static` sets it up."""

    def prepare(model: Path, samples: Samples) -> _Collect:
        folder = tempfile.TemporaryDirectory(prefix="onnxcomp.")
        source = Path(folder.name, "prepared.onnx")
        preprocess(model, source)
        types = list({*QLinearOpsRegistry, *QDQRegistry})

        def collect() -> dict[str, float]:
            with folder, contextlib.redirect_stdout(sys.stderr):
                augmented = str(Path(folder.name, "augmented.onnx"))
                calibrator = create_calibrator(source, types, augmented_model_path=augmented, calibrate_method=method)
                calibrator.collect_data(Reader(iter(samples)))
                return {"tensors": len(calibrator.compute_data().data)}

        return collect

    return prepare


CONTENDERS: Mapping[str, Callable[[Path, Samples], _Collect]] = {
    "onnxcomp, all methods": ours,
    "onnxruntime MinMax": theirs(CalibrationMethod.MinMax),
    "onnxruntime Percentile": theirs(CalibrationMethod.Percentile),
    "onnxruntime Entropy": theirs(CalibrationMethod.Entropy),
}


def measure(contender: str, model: Path, data: Path, count: int) -> dict[str, float]:
    """Return seconds, processor seconds and the peak above what was loaded before, in bytes.

    Args:
        contender: One of ``CONTENDERS``.
        model: The ONNX file.
        data: Calibration samples.
        count: How many of them to run, repeated where there are fewer.
    """
    samples = Repeated(open_samples(data, input_specs(load(model))), count)
    collect = CONTENDERS[contender](model, samples)
    next(iter(samples))  # the file is read once before
    baseline = resident()
    start, start_cpu = time.perf_counter(), time.process_time()
    found = collect()
    seconds, cpu = time.perf_counter() - start, time.process_time() - start_cpu
    return {"seconds": seconds, "cpu_seconds": cpu, "above": peak() - baseline, **found}
