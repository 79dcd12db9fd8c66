"""Ranges of activations: extremes reduced inside the session, so that memory does not grow with samples or activations.

Each wanted tensor gets a ReduceMin, a ReduceMax and a ReduceL1 of its own; only those scalars leave onnxruntime. The
last is there for NaN, which minimum and maximum pass over, and a sum of magnitudes does not.
"""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from onnxcomp.data import Samples
from onnxcomp.errors import DataError, ModelError
from onnxcomp.model import open_session
from onnxcomp.statistics.histograms import Histogram, Range, collect_histograms
from onnxcomp.statistics.tap import inner_values
from onnxcomp.thresholds import solve

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["RangeStore"]

_REDUCTIONS = {"min": "ReduceMin", "max": "ReduceMax", "l1": "ReduceL1"}
_EMPTY = Range(math.inf, -math.inf)  # minimum and maximum of no values


class RangeStore:
    """Collects ranges on demand and keeps them: a tensor is measured once, whoever asks.

    Args:
        model: The model whose tensors are measured, by name. It is not changed.
        samples: What the model is run on.
        threads: Intra-op threads; 0 is all cores.
        progress: Called with the number of samples done and the total, where that is known.
    """

    def __init__(
        self,
        model: "ir.Model",
        samples: Samples,
        *,
        threads: int = 0,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> None:
        self._model = model
        self._samples = samples
        self._threads = threads
        self._progress = progress
        self._ranges: dict[str, Range] = {}
        self._histograms: dict[str, Histogram] = {}

    def get(self, names: Iterable[str], model: "ir.Model | None" = None) -> dict[str, Range]:
        """Return the range of every named float tensor; those not measured yet cost one run over the samples.

        Args:
            names: Of tensors of the main graph.
            model: Measured for tensors that the store's own model lacks: an equal one, written differently.

        A bound may be infinite: attention masks are.

        Raises:
            ModelError: A tensor takes a NaN, or the model does not run.
            DataError: There are no samples, or they do not fit.
            KeyError: The model has no such tensor.
        """
        wanted = tuple(dict.fromkeys(names))
        missing = [name for name in wanted if name not in self._ranges]
        for origin, group in self._origins(missing, model):
            self._ranges.update(self._collect(origin, group))
        return {name: self._ranges[name] for name in wanted}

    def clipped(self, names: Iterable[str], method: str, model: "ir.Model | None" = None) -> dict[str, Range]:
        """Return the range that a method of ``thresholds.METHODS`` chooses for every named tensor.

        ``minmax`` needs the extremes alone; the others cost one more run over the samples, once for all of them.

        Raises:
            ModelError: As ``get``.
            KeyError: There is no such tensor or method.
            ValueError: A tensor takes infinite values.
        """
        extremes = self.get(names, model)
        if method == "minmax":
            return extremes
        if infinite := [name for name, found in extremes.items() if not found.finite]:
            raise ValueError(f"tensor {infinite[0]} takes infinite values")
        missing = [name for name in extremes if name not in self._histograms]
        for origin, group in self._origins(missing, model):
            measured = {name: extremes[name] for name in group}
            self._histograms |= collect_histograms(origin, self._samples, measured, threads=self._threads)
        histograms = {name: self._histograms[name] for name in extremes}
        return {name: Range(*solve(method, h.centers, h.counts)) for name, h in histograms.items()}

    def _origins(self, names: list[str], model: "ir.Model | None") -> "list[tuple[ir.Model, list[str]]]":
        """Say which tensors are measured on which model."""
        own = inner_values(self._model)
        here = [name for name in names if name in own or model is None]
        there = [name for name in names if name not in own and model is not None]
        return [(origin, group) for origin, group in ((self._model, here), (model, there)) if origin and group]

    def _collect(self, model: "ir.Model", names: list[str]) -> dict[str, Range]:
        session = open_session(_with_reductions(model, names), threads=self._threads)
        taps = [_tap(name, kind) for name in names for kind in _REDUCTIONS]
        found: dict[str, Range] = {}
        index = -1
        for index, feed in enumerate(self._samples):
            values = session.run(feed, taps)
            for name in names:
                new = Range(float(values[_tap(name, "min")]), float(values[_tap(name, "max")]))
                if new == _EMPTY:
                    continue
                if math.isnan(float(values[_tap(name, "l1")])):  # infinite is fine: large values add up
                    raise ModelError(f"tensor {name} is not a number (NaN) on calibration sample {index}")
                found[name] = new | found[name] if name in found else new
            if self._progress:
                self._progress(index + 1, self._samples.length)
        if index < 0:
            raise DataError(f"{self._samples.description}: no samples to calibrate on")
        return {name: found.get(name, Range(0.0, 0.0)) for name in names}  # a tensor that was always empty gets none


def _with_reductions(model: "ir.Model", names: list[str]) -> "ir.Model":
    """Return a copy of the model whose only outputs are the reductions of each named tensor."""
    import onnx_ir as ir

    reduced = model.clone()
    values = inner_values(reduced)
    reduced.graph.outputs.clear()
    for name in names:
        for kind, op in _REDUCTIONS.items():
            node = ir.node(op, [values[name]], attributes={"keepdims": 0})
            node.outputs[0].name = _tap(name, kind)
            node.outputs[0].type = ir.TensorType(values[name].dtype or ir.DataType.FLOAT)
            node.outputs[0].shape = ir.Shape(())
            reduced.graph.append(node)
            reduced.graph.outputs.append(node.outputs[0])
    return reduced


def _tap(name: str, kind: str) -> str:
    return f"{name}/onnxcomp.{kind}"
