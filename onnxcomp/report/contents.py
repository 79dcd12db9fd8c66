"""What `inspect` says of weights and of the tensors in between, as values, and its text."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from onnxcomp.report.figures import bytes_text

__all__ = [
    "ActivationMemory",
    "Estimates",
    "WeightHistogram",
    "activation_line",
    "estimate_lines",
    "histogram_rows",
]

_GAIN = 0.98  # of the bytes: what saves less is not worth a word
_BARS = ".:-=+*#%@"  # a terminal may have no other signs


@dataclass(frozen=True, slots=True)
class ActivationMemory:
    """What inputs, outputs and the tensors in between take at the most.

    Attributes:
        peak: Bytes that are alive at the same time, each tensor counted for itself.
        node: While this one runs.
        measured: Whether the shapes are those of a run; else they are inferred.
        unknown: Tensors whose size is not known, which are missing from the peak.
    """

    peak: int
    node: str
    measured: bool
    unknown: int


@dataclass(frozen=True, slots=True)
class WeightHistogram:
    """How the values of one weight are distributed.

    Attributes:
        name: Of the initializer, or of what a Constant node makes.
        dtype: As it is stored.
        shape: Of the tensor.
        least: Smallest finite value.
        most: Largest finite value.
        mean: Of the finite values.
        std: Standard deviation of the finite values.
        zeros: Share of values that are 0.
        outliers: Share further than four standard deviations from the mean: 0.006 % of a normal distribution are.
        broken: How many are NaN or infinite.
        counts: Of equal bins from the smallest to the largest; one bin where all are the same.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    least: float
    most: float
    mean: float
    std: float
    zeros: float
    outliers: float
    broken: int
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Estimates:
    """What could be gained, by counting alone: nothing was tried, and what accuracy allows is not known.

    Attributes:
        float16: Bytes with all float weights in float16.
        int8: Bytes with all float weights of two dimensions or more in int8, with a scale for each channel.
        prunable: Share of the parameters in groups of channels that could be made narrower; None: not asked for.
    """

    float16: int
    int8: int
    prunable: float | None


def activation_line(found: ActivationMemory) -> str:
    """Return the line of the head that says what tensors in between take."""
    how = "shapes of a run" if found.measured else "inferred shapes"
    missing = f", {found.unknown} of unknown size left out" if found.unknown else ""
    at = f", at {found.node}" if found.node else ""
    return f" live    {bytes_text(found.peak)} of inputs, outputs and tensors in between at once{at} ({how}{missing})"


def estimate_lines(found: Estimates, size: int) -> Iterator[str]:
    """Yield the line of what smaller data types would take."""
    forms = (("int8 weights", found.int8), ("float16", found.float16))
    gains = [f"{bytes_text(bytes_)} with {form}" for form, bytes_ in forms if bytes_ <= _GAIN * size]
    prunable = "" if found.prunable is None else f"{found.prunable:.0%} of the parameters are in prunable groups"
    if gains or prunable:
        yield f" gains   by counting, not tried: {'; '.join(filter(None, [', '.join(gains), prunable]))}"


def histogram_rows(found: Iterable[WeightHistogram]) -> Iterator[tuple[str, ...]]:
    """Yield heads and rows; the distribution is on a logarithmic scale, so that single values far out are seen."""
    yield "weight", "type", "shape", "smallest", "largest", "std", "zeros", "beyond 4 std", "distribution"
    for one in found:
        yield (
            one.name,
            one.dtype,
            "x".join(map(str, one.shape)),
            f"{one.least:.4g}",
            f"{one.most:.4g}",
            f"{one.std:.3g}",
            f"{one.zeros:.1%}",
            f"{one.outliers:.3%}",
            _bars(one.counts) + (f" {one.broken} NaN or infinite" if one.broken else ""),
        )


def _bars(counts: Sequence[int]) -> str:
    """Write every two bins as one sign, the darker the more."""
    pairs = [sum(counts[index : index + 2]) for index in range(0, len(counts), 2)]
    most = math.log1p(max(pairs))
    return "".join(_BARS[round((len(_BARS) - 1) * math.log1p(count) / most)] if count else " " for count in pairs)
