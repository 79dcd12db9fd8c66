"""What several verbs do alike: open data, choose a metric, check settings."""

import os
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.data import Samples, Source, open_samples, synthetic
from onnxcomp.errors import MetricError, UsageError
from onnxcomp.facts import input_bounds, input_specs
from onnxcomp.metrics import Metric, load_metric
from onnxcomp.target import Target, get_target

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Data", "check_threads", "choose_metric", "make_up", "measurable_target", "open_data"]

Data = Source | Samples
_SYNTHETIC_RUNS = 16


def open_data(model: "ir.Model", data: Data | None, *, batch: int = 1) -> Samples | None:
    """Open samples for a model; None stays None.

    Raises:
        DataError: They can't be read, don't fit the model, or it is nothing that samples can be given as.
    """
    if data is None or isinstance(data, Samples):
        return data
    return open_samples(data, input_specs(model), batch=batch)


def make_up(model: "ir.Model", *, seed: int, batch: int = 1) -> Samples:
    """Make up samples for a model: right types and shapes, integers inside the range of the graph's tables.

    Raises:
        DataError: An input is of a type whose values can't be made up.
    """
    return synthetic(input_specs(model), count=_SYNTHETIC_RUNS, seed=seed, batch=batch, bounds=input_bounds(model))


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


def check_threads(threads: int) -> None:
    """Refuse a number of threads that makes no sense on this machine.

    Raises:
        UsageError: It is negative, or more than there are cores.
    """
    if threads < 0:
        raise UsageError(f"threads must not be negative, got {threads}")
    if threads > (cores := os.cpu_count() or 1):
        raise UsageError(f"threads must be at most {cores}, the cores of this machine, got {threads}", hint="0 is all")


def measurable_target(name: str) -> Target:
    """Return the target of that name, which must be this machine.

    Raises:
        UsageError: There is no such target, or it can't be measured here.
    """
    chosen, here = get_target(name), get_target("auto")
    if chosen.name != here.name:
        raise UsageError(
            f"target {chosen.name} can't be measured on this machine ({here.name})",
            hint="run onnxcomp on a machine of that kind",
        )
    return chosen
