"""Checks an optimized model without trusting what made it: loads, runs and times it with onnxruntime alone."""

import filecmp
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from zoo_folder import ZooModel

from onnxcomp.data import Feed, open_samples, synthetic
from onnxcomp.facts import input_bounds, input_specs
from onnxcomp.measure import interleave
from onnxcomp.model import load

__all__ = ["CheckFailedError", "Recheck", "recheck"]

_SILENT = 4  # log severity "fatal"
_FEEDS = 8


class CheckFailedError(Exception):
    """An optimized model is not what it should be."""


@dataclass(frozen=True, slots=True)
class Recheck:
    """What was found.

    Attributes:
        identical: Whether the output is the input, byte for byte; then there is nothing to time.
        feeds: On how many samples both were run.
        bytes: Size of the output on disk.
        ratio: Output's time over the input's; low and high bound it with 95 % confidence.
        settled: Whether the interval became as narrow as wanted in the time allowed.
    """

    identical: bool
    feeds: int
    bytes: int
    ratio: float
    low: float
    high: float
    settled: bool


def recheck(entry: ZooModel, output: Path, *, threads: int, half_width: float, seconds: float, seed: int) -> Recheck:
    """Compare an output with the model it was made from.

    Args:
        entry: The model.
        output: What `optimize` made of it.
        threads: Intra-op threads.
        half_width: How narrow the interval of the ratio shall be, as a share of it.
        seconds: Time allowed for that.
        seed: Of the order of timing.

    Raises:
        CheckFailedError: The output does not load or run, its outputs have other names, types or shapes than the
            original's, or are not finite where the original's are.
    """
    feeds = _first_feeds(entry)
    original, optimized = _session(entry.model, threads), _session(output, threads)
    for index, feed in enumerate(feeds):
        _compare(_run(original, feed), _run(optimized, feed), index)
    total = sum(path.stat().st_size for path in (output, Path(f"{output}.data")) if path.exists())
    if filecmp.cmp(entry.model, output, shallow=False):
        return Recheck(True, len(feeds), total, 1.0, 1.0, 1.0, True)
    comparison = interleave(
        {name: partial(s.run, None, feeds[0]) for name, s in (("original", original), ("optimized", optimized))},
        baseline="original",
        half_width=half_width,
        max_seconds=seconds,
        min_seconds=0.2 * seconds,
        seed=seed,
    )
    found = comparison.ratios["optimized"]
    return Recheck(False, len(feeds), total, found.ratio, found.low, found.high, comparison.settled)


def _first_feeds(entry: ZooModel) -> list[Feed]:
    model = load(entry.model)
    data = entry.evaluation or entry.calibration
    if data is not None:
        return list(islice(open_samples(data, input_specs(model)), _FEEDS))
    return list(synthetic(input_specs(model), count=_FEEDS, seed=0, bounds=input_bounds(model)))


def _session(path: Path, threads: int) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _SILENT
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as err:  # onnxruntime's exceptions share no base class but this one
        raise CheckFailedError(f"{path.name} does not load: {err}") from err


def _run(session: Any, feed: Feed) -> dict[str, Any]:
    names = [output.name for output in session.get_outputs()]
    try:
        return dict(zip(names, session.run(names, dict(feed)), strict=True))
    except Exception as err:  # as above
        raise CheckFailedError(f"the model does not run: {err}") from err


def _compare(expected: Mapping[str, Any], outputs: Mapping[str, Any], index: int) -> None:
    if list(outputs) != list(expected):
        raise CheckFailedError(f"the outputs changed from {list(expected)} to {list(outputs)}")
    for name, value in outputs.items():
        reference = expected[name]
        if not isinstance(reference, np.ndarray):
            continue
        where = f"output {name} of sample {index}"
        if not isinstance(value, np.ndarray) or (value.dtype, value.shape) != (reference.dtype, reference.shape):
            raise CheckFailedError(f"{where} changed its type or shape")
        if reference.dtype.kind == "f" and not np.isfinite(value[np.isfinite(reference)]).all():
            raise CheckFailedError(f"{where} is not finite where the original's is")
