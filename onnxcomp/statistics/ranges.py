"""Statistics of activations, collected on demand: one run over the samples for all tensors that are asked for at once.

Whatever a method of ``thresholds.METHODS`` needs is in what that run leaves, so a second method costs no second run.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from onnxcomp.data import Samples
from onnxcomp.errors import PassError
from onnxcomp.statistics.channels import ChannelRange, collect_channels
from onnxcomp.statistics.histograms import collect_histograms
from onnxcomp.statistics.tap import inner_values
from onnxcomp.thresholds import Grid, Histogram, Range, solve

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["RangeStore"]


class RangeStore:
    """Collects histograms on demand and keeps them: a tensor is measured once, whoever asks.

    Args:
        model: The model whose tensors are measured, by name. It is not changed.
        samples: What the model is run on; None: only what is known can be asked for.
        threads: Intra-op threads; 0 is all cores.
        progress: Called with the number of samples done and the total, where that is known.
        known: What was measured before, by tensor.
    """

    def __init__(
        self,
        model: "ir.Model",
        samples: Samples | None,
        *,
        threads: int = 0,
        progress: Callable[[int, int | None], None] | None = None,
        known: Mapping[str, Histogram] | None = None,
    ) -> None:
        self._model = model
        self._samples = samples
        self._threads = threads
        self._progress = progress
        self._known = dict(known or {})
        self._channels: dict[tuple[str, int], ChannelRange] = {}

    @property
    def known(self) -> dict[str, Histogram]:
        """All that was measured so far, by tensor."""
        return dict(self._known)

    def histograms(self, names: Iterable[str], model: "ir.Model | None" = None) -> dict[str, Histogram]:
        """Return the distribution of every named float tensor; those not measured yet cost one run over the samples.

        Args:
            names: Of tensors of the main graph.
            model: Measured for tensors that the store's own model lacks: an equal one, written differently.

        Raises:
            ModelError: A tensor takes a NaN, or the model does not run.
            DataError: The samples are none, or do not fit.
            PassError: A tensor is not known, and there are no samples to measure it on.
            KeyError: The model has no such tensor.
        """
        wanted = tuple(dict.fromkeys(names))
        missing = [name for name in wanted if name not in self._known]
        for origin, group in self._origins(missing, model):
            self._known |= collect_histograms(
                origin, self._samples_for(group), group, threads=self._threads, progress=self._progress
            )
        return {name: self._known[name] for name in wanted}

    def channels(self, axes: Mapping[str, int], model: "ir.Model | None" = None) -> dict[str, ChannelRange]:
        """Return the extremes of every channel of the named float tensors; those not measured yet cost one run.

        Args:
            axes: By name of a tensor of the main graph: the axis of its channels.
            model: As for ``histograms``.

        Raises:
            ModelError: A tensor takes a NaN or has no such axis, or the model does not run.
            DataError: The samples are none, or do not fit.
            PassError: A tensor was not measured by channel, and there are no samples to measure it on.
            KeyError: The model has no such tensor.
        """
        missing = [name for name, axis in axes.items() if (name, axis) not in self._channels]
        for origin, group in self._origins(missing, model):
            wanted = {name: axes[name] for name in group}
            found = collect_channels(
                origin, self._samples_for(group), wanted, threads=self._threads, progress=self._progress
            )
            self._channels |= {(name, axes[name]): extremes for name, extremes in found.items()}
        return {name: self._channels[name, axis] for name, axis in axes.items()}

    def get(self, names: Iterable[str], model: "ir.Model | None" = None) -> dict[str, Range]:
        """Return the smallest and largest value of every named tensor; see ``histograms``.

        A bound may be infinite: attention masks are.
        """
        return {name: found.extremes for name, found in self.histograms(names, model).items()}

    def clipped(
        self,
        names: Iterable[str],
        method: str,
        model: "ir.Model | None" = None,
        *,
        grid: Grid | None = None,
        share: float | None = None,
    ) -> dict[str, Range]:
        """Return the range that a method of ``thresholds.METHODS`` chooses for every named tensor.

        Args:
            names: Of tensors of the main graph.
            method: See ``thresholds.solve``.
            model: See ``histograms``.
            grid: The quantizer; the default is 8 bits, asymmetric.
            share: See ``thresholds.solve``.

        Raises:
            ModelError: As ``histograms``.
            KeyError: There is no such tensor or method.
            ValueError: A tensor takes infinite values, and the method is not ``minmax``.
        """
        found = self.histograms(names, model)
        if method == "minmax":
            return {name: histogram.extremes for name, histogram in found.items()}
        if infinite := [name for name, histogram in found.items() if not histogram.extremes.finite]:
            raise ValueError(f"tensor {infinite[0]} takes infinite values")
        return {name: solve(method, histogram, grid or Grid(), share=share) for name, histogram in found.items()}

    def _samples_for(self, names: list[str]) -> Samples:
        if self._samples is None:
            raise PassError(
                f"the statistics lack tensor {names[0]}, and there are no samples to measure it on",
                hint="give the samples too: --calibration DATA",
            )
        return self._samples

    def _origins(self, names: list[str], model: "ir.Model | None") -> "list[tuple[ir.Model, list[str]]]":
        """Say which tensors are measured on which model."""
        own = inner_values(self._model)
        here = [name for name in names if name in own or model is None]
        there = [name for name in names if name not in own and model is not None]
        return [(origin, group) for origin, group in ((self._model, here), (model, there)) if origin and group]
