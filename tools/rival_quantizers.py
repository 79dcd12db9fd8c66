"""onnxruntime's own quantizers at their strongest, as rivals of `optimize`; onnxruntime is asked for nothing else."""

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType
from onnxruntime.quantization import quantize_dynamic as ort_quantize_dynamic
from onnxruntime.quantization import quantize_static as ort_quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from onnxcomp.data import Feed, open_samples
from onnxcomp.errors import UsageError
from onnxcomp.facts import input_specs
from onnxcomp.model import load

__all__ = ["RIVALS", "Reader", "preprocess"]

# Those of onnxruntime's dynamic defaults that are not slower than float: without ConvInteger
_DYNAMIC_OPS = ("MatMul", "Gemm", "LSTM", "Gather")


class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is untyped here
    """Hands samples to onnxruntime's calibration one by one."""

    def __init__(self, feeds: Iterator[Feed]) -> None:
        self._feeds = feeds

    def get_next(self) -> dict[str, np.ndarray] | None:
        """Return the next sample, None at the end."""
        feed = next(self._feeds, None)
        return None if feed is None else dict(feed)


def preprocess(model: Path, output: Path) -> None:
    """Prepare a model for static quantization as onnxruntime advises.

    Where the symbolic shape inference fails, it goes without, as the error message advises.
    """
    source, target = str(model.resolve()), str(output.resolve())
    # It leaves files in the current folder
    with tempfile.TemporaryDirectory(prefix="onnxcomp.") as folder, contextlib.chdir(folder):
        try:
            quant_pre_process(source, target)
        except Exception:  # it raises bare Exception
            quant_pre_process(source, target, skip_symbolic_shape=True)


def static_expert(model: Path, output: Path, calibration: Path | None, samples: int) -> None:
    """Quantize statically: preprocessed, QDQ, uint8 activations, int8 weights per channel, MinMax."""
    if calibration is None:
        raise UsageError("static quantization needs calibration samples")
    with tempfile.TemporaryDirectory(prefix="onnxcomp.") as folder:
        prepared = Path(folder, "prepared.onnx")
        preprocess(model, prepared)
        feeds = open_samples(calibration, input_specs(load(model))).take(samples)
        ort_quantize_static(
            str(prepared),
            str(output),
            Reader(iter(feeds)),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=CalibrationMethod.MinMax,
        )


def dynamic_expert(model: Path, output: Path, _calibration: Path | None, _samples: int) -> None:
    """Quantize dynamically: matrix products, LSTM and embeddings, int8 weights."""
    ort_quantize_dynamic(str(model), str(output), op_types_to_quantize=list(_DYNAMIC_OPS), weight_type=QuantType.QInt8)


RIVALS: Mapping[str, Callable[[Path, Path, Path | None, int], Any]] = {
    "ort static, expert": static_expert,
    "ort dynamic, no Conv": dynamic_expert,
}
