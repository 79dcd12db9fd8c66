"""How close a model's outputs are to the original's: SQNR, cosine and agreement, added up run by run.

Where the reference holds NaN there is nothing to compare with: the place is left out. Where it is infinite, the same
infinity is left out and anything else is broken. A NaN or infinity of the candidate where the reference is finite is
broken. One broken value makes the SQNR minus infinity and the cosine -1, and its row disagrees.

Sums of squares are float64: values of a size under 1e-150 or over 1e150 are outside what they can tell.
"""

import math
import statistics
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxcomp.errors import MetricError
from onnxcomp.metrics.tables import as_arrays

__all__ = ["Fidelity", "OutputFidelity", "Outputs", "agreement", "cosine", "sqnr", "typical_sqnr"]

Outputs = Mapping[str, Any]

CHUNK = 1 << 17  # values turned into float64 at once: as many as the processor's cache holds
SAME_DIRECTION = 0.95  # cosine; noise of a tenth of a feature vector's energy gives about this
FEW_ROWS = 0.1  # of the rows of the output that has most


@dataclass(frozen=True, slots=True)
class OutputFidelity:
    """How close one output is to the original's, over all runs."""

    sqnr: float | None  # dB; None: not a float output
    cosine: float | None  # None: not a float output
    agreement: float  # share of the rows with the same answer
    rows: int  # rows that have an answer
    max_error: float | None = None  # largest difference of two values; None: not a float output


@dataclass(slots=True)
class _Sums:
    """Running sums over pairs of numeric arrays."""

    signal: float = 0.0  # sum of reference^2
    noise: float = 0.0  # sum of (reference - candidate)^2
    power: float = 0.0  # sum of candidate^2
    product: float = 0.0  # sum of reference * candidate
    largest: float = 0.0  # |reference - candidate|
    broken: bool = False

    def add(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        reference, candidate = reference.reshape(-1), candidate.reshape(-1)
        for start in range(0, reference.size, CHUNK):
            part = slice(start, start + CHUNK)
            left, right = (array[part].astype(np.float64, copy=False) for array in (reference, candidate))
            self._add_part(left, right)

    def _add_part(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        with np.errstate(over="ignore"):  # to infinity, which the results take for broken
            signal, power = float(reference @ reference), float(candidate @ candidate)
            if not math.isfinite(signal + power):  # dearer to look for value by value
                self.broken = self.broken or bool(_broken(reference, candidate).any())
                finite = np.isfinite(reference) & np.isfinite(candidate)
                reference, candidate = reference[finite], candidate[finite]
                signal, power = float(reference @ reference), float(candidate @ candidate)
            difference = reference - candidate
            self.signal += signal
            self.noise += float(difference @ difference)
            self.power += power
            self.product += float(reference @ candidate)
            self.largest = max(self.largest, float(np.abs(difference).max(initial=0.0)))

    def sqnr(self) -> float:
        if self.broken:
            return -math.inf
        if self.noise == 0:
            return math.inf
        if not self.signal or math.isinf(self.noise):
            return -math.inf
        return 10 * (math.log10(self.signal) - math.log10(self.noise))  # the quotient itself may underflow

    def max_error(self) -> float:
        return math.inf if self.broken else self.largest

    def cosine(self) -> float:
        if self.broken or math.isinf(self.noise):
            return -1.0
        if self.noise == 0:
            return 1.0
        if not (self.signal and self.power):
            return 0.0
        return min(max(self.product / (math.sqrt(self.signal) * math.sqrt(self.power)), -1.0), 1.0)


@dataclass(slots=True)
class _Answers:
    """Running counts of rows with the same answer.

    Whether a lone number is a probability or a logit shows only when all of it is seen: a logit of one run may well lie
    in [0, 1]. So both are counted until the end.
    """

    rows: int = 0
    same: int = 0
    lone_rows: int = 0  # rows of one number
    lone_same_half: int = 0  # the same side of 0.5
    lone_same_sign: int = 0
    probabilities: bool = True  # all lone numbers of the reference so far lie in [0, 1]

    def add(self, reference: np.ndarray, candidate: np.ndarray, *, features: bool = False) -> None:
        if not _is_float(reference):
            self.rows += reference.size
            self.same += int(np.count_nonzero(reference == candidate))
        elif features and reference.ndim and reference.shape[-1] > 1:
            self._add_directions(reference, candidate)
        elif reference.ndim > 1 and reference.shape[-1] > 1:
            self._add_argmax(reference, candidate)
        else:
            self._add_lone(reference.reshape(-1), candidate.reshape(-1))

    def _add_argmax(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        if not reference.size:
            return
        answered = ~np.isnan(reference).any(axis=-1)
        same = (reference.argmax(axis=-1) == candidate.argmax(axis=-1)) & ~_broken(reference, candidate).any(axis=-1)
        self.rows += int(np.count_nonzero(answered))
        self.same += int(np.count_nonzero(answered & same))

    def _add_directions(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        width = reference.shape[-1]
        left, right = (np.nan_to_num(a.reshape(-1, width).astype(np.float64)) for a in (reference, candidate))
        lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        same = ((left * right).sum(axis=1) >= SAME_DIRECTION * lengths) & ~_broken(reference, candidate).reshape(
            -1, width
        ).any(axis=1)
        self.rows += len(left)
        self.same += int(np.count_nonzero(same))

    def _add_lone(self, reference: np.ndarray, candidate: np.ndarray) -> None:
        answered = ~np.isnan(reference)
        sound = answered & ~_broken(reference, candidate)
        self.lone_rows += int(np.count_nonzero(answered))
        self.lone_same_half += int(np.count_nonzero(sound & ((reference >= 0.5) == (candidate >= 0.5))))
        self.lone_same_sign += int(np.count_nonzero(sound & ((reference > 0) == (candidate > 0))))
        values = reference[answered]
        self.probabilities = self.probabilities and bool(((values >= 0) & (values <= 1)).all())

    def total(self) -> int:
        return self.rows + self.lone_rows

    def agreement(self) -> float:
        lone_same = self.lone_same_half if self.probabilities else self.lone_same_sign
        return (self.same + lone_same) / self.total() if self.total() else 1.0


@dataclass(slots=True)
class _Tally:
    """What is kept of one output."""

    sums: _Sums | None  # None: not a float output
    answers: _Answers = field(default_factory=_Answers)


class Fidelity:
    """How close a candidate's outputs are to the reference's, over any number of runs; only sums are kept.

    Args:
        features: Names of outputs that are vectors to compare (embeddings, states), not scores to choose from: two of
            their rows agree where their cosine is 0.95 or more, wherever the highest value lies.
    """

    def __init__(self, *, features: Collection[str] = ()) -> None:
        self._features = features
        self._tallies: dict[str, _Tally] = {}

    def add(self, reference: Outputs, candidate: Outputs) -> None:
        """Add the outputs of one run of both models; what is no tensor is taken apart by `as_arrays`.

        Args:
            reference: Outputs of the original.
            candidate: Outputs of the other model, of the same names and shapes.

        Raises:
            MetricError: Names, shapes or kinds of the outputs differ.
        """
        reference, candidate = as_arrays(reference), as_arrays(candidate)
        if reference.keys() != candidate.keys():
            raise MetricError(f"the models' outputs have different names: {sorted(reference)} and {sorted(candidate)}")
        pairs = {name: _pair(reference[name], candidate[name], f"output '{name}'") for name in reference}
        for name, (wanted, got) in pairs.items():
            if name not in self._tallies:
                self._tallies[name] = _Tally(_Sums() if _is_float(wanted) else None)
            tally = self._tallies[name]
            if tally.sums is not None:
                tally.sums.add(wanted, got)
            tally.answers.add(wanted, got, features=name in self._features)

    @property
    def outputs(self) -> dict[str, OutputFidelity]:
        """How close each output is."""
        return {
            name: OutputFidelity(
                sqnr=None if tally.sums is None else tally.sums.sqnr(),
                cosine=None if tally.sums is None else tally.sums.cosine(),
                agreement=tally.answers.agreement(),
                rows=tally.answers.total(),
                max_error=None if tally.sums is None else tally.sums.max_error(),
            )
            for name, tally in self._tallies.items()
        }

    @property
    def sqnr(self) -> float:
        """SQNR in dB of the worst float output; infinity where there is none."""
        return min((output.sqnr for output in self._results() if output.sqnr is not None), default=math.inf)

    @property
    def noise(self) -> float:
        """Noise power over signal power, summed over the float outputs that have enough rows to be a statistic."""
        return sum(10 ** (-output.sqnr / 10) for output in self._with_enough_rows() if output.sqnr is not None)

    @property
    def cosine(self) -> float:
        """Cosine of the worst float output; 1 where there is none."""
        return min((output.cosine for output in self._results() if output.cosine is not None), default=1.0)

    @property
    def agreement(self) -> float:
        """Agreement of the worst output: a large output must not outvote a smaller one.

        Outputs with less than a tenth of the rows of the largest (a last state) are no statistic and are left out.
        """
        return min((output.agreement for output in self._with_enough_rows()), default=1.0)

    def _with_enough_rows(self) -> list[OutputFidelity]:
        results = self._results()
        enough = FEW_ROWS * max((output.rows for output in results), default=0)
        return [output for output in results if output.rows >= enough]

    def _results(self) -> list[OutputFidelity]:
        if not self._tallies:
            raise MetricError("no outputs were compared", hint="give at least one sample")
        return list(self.outputs.values())


def sqnr(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Signal to quantization noise ratio.

    10 log10(sum(reference^2) / sum((reference - candidate)^2)), over all values, in float64. Source: Lin, Talathi,
    Annapureddy, "Fixed Point Quantization of Deep Convolutional Networks", ICML 2016.

    Args:
        reference: Values of the original; numbers or booleans.
        candidate: Values of the other model, the same shape.

    Returns:
        dB; infinity where both are equal, minus infinity where only the reference is all zeros or the candidate is
        broken (see the top of the module).

    Raises:
        MetricError: Shapes differ, or values are no numbers.
    """
    return _sums(reference, candidate).sqnr()


def cosine(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Cosine of the angle between both, taken as vectors of all values, in float64.

    Args:
        reference: Values of the original; numbers or booleans.
        candidate: Values of the other model, the same shape.

    Returns:
        A number in [-1, 1]; 1 where both are equal, 0 where only one is all zeros, -1 where the candidate is broken
        (see the top of the module).

    Raises:
        MetricError: Shapes differ, or values are no numbers.
    """
    return _sums(reference, candidate).cosine()


def typical_sqnr(runs: Iterable[tuple[Outputs, Outputs]]) -> float:
    """Median over runs of the SQNR of the worst float output, dB: one bad run, which decides the sum, does not count.

    Args:
        runs: Outputs of the original and of the other model, of each run.

    Raises:
        MetricError: There are no runs, or names, shapes or kinds of the outputs differ.
    """
    found = []
    for reference, candidate in runs:
        fidelity = Fidelity()
        fidelity.add(reference, candidate)
        found.append(fidelity.sqnr)
    if not found:
        raise MetricError("no outputs were compared", hint="give at least one sample")
    return statistics.median_high(found)  # never between infinities


def agreement(reference: np.ndarray, candidate: np.ndarray) -> float:
    """Share of the rows whose answer is the same.

    Floats with two or more axes and two or more values in the last: a row is all axes but the last, its answer is the
    place of the highest value. Other floats, a vector of probabilities among them: each value is an answer, "at least
    0.5" where the whole reference lies in [0, 1], else "above 0". Integers, booleans and strings: each value is one.

    Args:
        reference: Values of the original.
        candidate: Values of the other model, the same shape.

    Returns:
        A number in [0, 1]; 1 where there are no rows. Rows with NaN in the reference have no answer and don't count.

    Raises:
        MetricError: Shapes differ, or one holds numbers and the other doesn't.
    """
    answers = _Answers()
    answers.add(*_pair(reference, candidate, "arrays"))
    return answers.agreement()


def _sums(reference: np.ndarray, candidate: np.ndarray) -> _Sums:
    reference, candidate = _pair(reference, candidate, "arrays")
    if not _is_numeric(reference):
        raise MetricError(f"arrays of {reference.dtype} hold no real numbers to compare")
    sums = _Sums()
    sums.add(reference, candidate)
    return sums


def _pair(reference: np.ndarray, candidate: np.ndarray, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays that can be compared."""
    reference, candidate = np.asarray(reference), np.asarray(candidate)
    if reference.shape != candidate.shape:
        raise MetricError(f"{what}: shapes differ: {list(reference.shape)} and {list(candidate.shape)}")
    if _is_numeric(reference) != _is_numeric(candidate):
        raise MetricError(f"{what}: {reference.dtype} can't be compared with {candidate.dtype}")
    return reference, candidate


def _broken(reference: np.ndarray, candidate: np.ndarray) -> np.ndarray:
    """Places where the candidate isn't what the reference is: finite, or a certain infinity."""
    odd = ~(np.isfinite(reference) & np.isfinite(candidate))
    broken: np.ndarray = odd & ~np.isnan(reference) & (reference != candidate)
    return broken


def _is_float(array: np.ndarray) -> bool:
    # bfloat16 and the 8-bit floats of ml_dtypes are of kind V
    return array.dtype.kind == "f" or (array.dtype.kind == "V" and array.dtype.name.startswith(("bfloat", "float")))


def _is_numeric(array: np.ndarray) -> bool:
    return _is_float(array) or array.dtype.kind in "biu"
