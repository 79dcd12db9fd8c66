"""Extremes of activations by channel, from one run over the samples: what a range of the whole tensor hides."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from onnxcomp.data import Samples
from onnxcomp.errors import DataError, ModelError
from onnxcomp.statistics.tap import runs

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["ChannelRange", "collect_channels"]


@dataclass(frozen=True, slots=True)
class ChannelRange:
    """Smallest and largest value of every channel of a tensor.

    Attributes:
        low: [channels], float64; 0 where there was no value.
        high: [channels], float64; 0 where there was no value.
    """

    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @property
    def largest(self) -> NDArray[np.float64]:
        """Return the largest magnitude of every channel: [channels]."""
        return np.maximum(np.abs(self.low), np.abs(self.high))

    @property
    def finite(self) -> bool:
        """Whether no value was infinite."""
        return bool(np.isfinite(self.largest).all())


def collect_channels(
    model: "ir.Model",
    samples: Samples,
    axes: Mapping[str, int],
    *,
    threads: int = 0,
    progress: Callable[[int, int | None], None] | None = None,
) -> dict[str, ChannelRange]:
    """Run a model once over all samples and find the extremes of every channel of the named tensors.

    Memory is one run's activations and two numbers per channel, however many samples there are.

    Args:
        model: Not changed.
        samples: What it is run on.
        axes: By name of a float tensor of the main graph: the axis of its channels.
        threads: Intra-op threads; 0 is all cores.
        progress: Called with the number of samples done and the total, where that is known.

    Raises:
        ModelError: A tensor takes a NaN or has no such axis, its number of channels changes, or the model does not run.
        DataError: There are no samples, or they do not fit.
        KeyError: The graph has no such tensor.
    """
    found: dict[str, ChannelRange] = {}
    index = -1
    for index, values in enumerate(runs(model, samples, axes, threads=threads)):
        for name, axis in axes.items():
            try:
                new = _extremes(np.asarray(values[name]), axis)
                found[name] = _joined(found[name], new) if name in found else new
            except ValueError as err:
                raise ModelError(f"tensor {name}: {err}, on calibration sample {index}") from err
        if progress:
            progress(index + 1, samples.length)
    if index < 0:
        raise DataError(f"{samples.description}: no samples to calibrate on")
    return {name: _without_gaps(extremes) for name, extremes in found.items()}


def _extremes(values: np.ndarray, axis: int) -> ChannelRange:
    """Return the extremes of one run; the wrong way round where it has no values.

    Raises:
        ValueError: A value is not a number, or there is no such axis.
    """
    if not -values.ndim <= axis < values.ndim:
        raise ValueError(f"it has {values.ndim} axes and no axis {axis}")
    others = tuple(a for a in range(values.ndim) if a != axis % values.ndim)
    low = values.min(axis=others, initial=math.inf).astype(np.float64)
    high = values.max(axis=others, initial=-math.inf).astype(np.float64)
    if np.isnan(low).any():
        raise ValueError("a value is not a number (NaN)")
    return ChannelRange(low, high)


def _joined(one: ChannelRange, other: ChannelRange) -> ChannelRange:
    if one.low.shape != other.low.shape:
        raise ValueError(f"it had {len(one.low)} channels and has {len(other.low)}")
    return ChannelRange(np.minimum(one.low, other.low), np.maximum(one.high, other.high))


def _without_gaps(found: ChannelRange) -> ChannelRange:
    empty = found.low > found.high
    return ChannelRange(np.where(empty, 0.0, found.low), np.where(empty, 0.0, found.high))
