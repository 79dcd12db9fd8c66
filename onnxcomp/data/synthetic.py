"""Made-up samples, for checking that a model still runs and for timing it; they say nothing about accuracy.

Values by data type: floats are normal with mean 0 and variance 1 (what most models see after normalization); uint8
takes its whole range (it is nearly always an image); other integers are in [0, bound), because most of them index a
table or are a mask, and 2 is the bound where none is known; booleans are even.

Shapes: a dynamic first axis is the batch (the size that other inputs are fixed to, where they are); any other dynamic
dimension is `DYNAMIC_SIZE`. Where that does not fit a model, the names of the dimensions may tell more (a state of
``[2, batch, 128]``, a mask of ``[batch, past + 1]``); all dynamic dimensions may be alike (nodes and edges of a graph)
or larger (a piece of sound), and floats positive (a noise level). Inputs that have a default are left out, so that the
default is used.
"""

from collections.abc import Iterator, Mapping, Sequence
from copy import copy

import numpy as np

from onnxcomp.data.checks import is_float, shape_text
from onnxcomp.data.samples import Feed, InputSpec, Samples
from onnxcomp.errors import DataError

__all__ = ["DYNAMIC_SIZE", "SyntheticSamples"]

DYNAMIC_SIZE = 64  # an image that five halvings leave 2 x 2 of, or a short text
CALIBRATION_HINT = "give samples: --calibration or --eval DATA (bench: --data), or from Python a list of runs"


class SyntheticSamples(Samples):
    """Seeded random samples, the same on each reading.

    Args:
        inputs: Inputs of the model.
        count: Number of runs.
        seed: Seed, 0 or more.
        batch: Size of a first axis that is dynamic.
        bounds: Upper bound (exclusive) of integer inputs, by name.
        batched: Whether a dynamic first axis is a batch; else it is as large as any other dynamic axis.
        named: Whether dimensions of one name are of one size, and so is the second axis of ``[fixed, dynamic, ...]``
            with the batch: it is the state of a recurrent layer.
        size: Of a dynamic axis that is no batch.
        positive: Whether floats are uniform between 0 and 1.

    Raises:
        DataError: Values for an input can't be made up, or a setting makes no sense.
    """

    def __init__(
        self,
        inputs: Sequence[InputSpec],
        *,
        count: int,
        seed: int,
        batch: int,
        bounds: Mapping[str, int],
        batched: bool = True,
        named: bool = False,
        size: int = DYNAMIC_SIZE,
        positive: bool = False,
    ) -> None:
        for name, value in (("count", count), ("batch", batch), *((f"bound of '{k}'", n) for k, n in bounds.items())):
            if value < 1:
                raise DataError(f"synthetic samples: the {name} must be 1 or more, got {value}")
        if seed < 0:
            raise DataError(f"synthetic samples: the seed must be 0 or more, got {seed}")
        wanted = [(spec, *_concrete(spec)) for spec in inputs if not spec.optional]
        if named:
            shapes = _sizes_by_name([(shape, spec.names) for spec, _, shape in wanted], batch, size)
        else:
            fixed = {shape[0] for _, _, shape in wanted if shape and shape[0] is not None}
            first = (fixed.pop() if len(fixed) == 1 else batch) if batched else size
            shapes = [_filled(shape, first, size) for _, _, shape in wanted]
        self._inputs = [(spec.name, dtype, shape) for (spec, dtype, _), shape in zip(wanted, shapes, strict=True)]
        self._positive = positive
        self._runs = count
        self._seed = seed
        self._bounds = dict(bounds)

    def __iter__(self) -> Iterator[Feed]:
        return self.pick(range(self._runs))

    def pick(self, runs: Sequence[int]) -> Iterator[Feed]:
        """See `Samples.pick`: each run has a seed of its own, so that the others need not be made."""
        for run in runs:
            if run >= self._runs:
                return
            rng = np.random.default_rng([self._seed, run])
            yield {name: self._values(name, dtype, shape, rng) for name, dtype, shape in self._inputs}

    def _values(self, name: str, dtype: np.dtype, sizes: Sequence[int], rng: np.random.Generator) -> np.ndarray:
        """Make up the values of one input."""
        try:
            if self._positive and dtype.kind != "c" and is_float(dtype):
                return (1 - rng.random(sizes, dtype=np.float32)).astype(dtype)  # in (0, 1]
            return _random(dtype, sizes, self._bounds.get(name), rng)
        except (MemoryError, ValueError) as err:
            raise DataError(
                f"input '{name}' of shape {shape_text(sizes)} can't be made up: {err}",
                hint="give samples with --calibration, or a smaller --batch",
            ) from err

    def others(self) -> "SyntheticSamples":
        """Return samples of the same kind with other values: what is fitted to these can be judged on them."""
        other = copy(self)
        other._seed += 1
        return other

    @property
    def length(self) -> int:
        """See `Samples.length`."""
        return self._runs

    @property
    def description(self) -> str:
        """See `Samples.description`."""
        return f"synthetic (seed {self._seed}), {self._runs} {'run' if self._runs == 1 else 'runs'}"

    def labels(self) -> list[np.ndarray] | None:
        """Return None: nobody knows the right answer for made-up values."""
        return None


def _concrete(spec: InputSpec) -> tuple[np.dtype, tuple[int | None, ...]]:
    """Data type and shape of an input that values can be made up for."""
    if spec.dtype is None:
        raise DataError(
            f"input '{spec.name}' is no numeric tensor (text, a sequence, an optional or a map): it can't be made up",
            hint=CALIBRATION_HINT,
        )
    if spec.shape is None:
        raise DataError(f"input '{spec.name}' has no known rank: it can't be made up", hint=CALIBRATION_HINT)
    if not (is_float(spec.dtype) or spec.dtype.kind == "b" or _is_integer(spec.dtype)):
        raise DataError(f"input '{spec.name}' is {spec.dtype.name}: it can't be made up", hint=CALIBRATION_HINT)
    return spec.dtype, spec.shape


def _filled(shape: Sequence[int | None], first: int, other: int) -> list[int]:
    """Put sizes in the place of dynamic dimensions: one in that of the first, another in that of the others."""
    return [(first if axis == 0 else other) if known is None else known for axis, known in enumerate(shape)]


def _sizes_by_name(
    inputs: Sequence[tuple[tuple[int | None, ...], tuple[str | None, ...]]], batch: int, size: int
) -> list[list[int]]:
    """Put sizes in the place of dynamic dimensions, alike where their names are; a name may be a sum of others."""
    known: dict[str, int] = {}
    for shape, names in inputs:
        if names and names[0] and shape[0] is None:
            known[names[0]] = batch

    def term(name: str) -> int:
        return int(name) if name.isdecimal() else known.get(name, size)

    found = []
    for shape, names in inputs:
        sizes = _filled(shape, batch, size)
        for axis, name in enumerate(names):
            if name and shape[axis] is None:
                sizes[axis] = known[name] if name in known else sum(term(part.strip()) for part in name.split("+"))
        if len(shape) > 2 and shape[0] is not None and shape[1] is None and not (names and names[1]):
            sizes[1] = batch
        found.append(sizes)
    return found


def _random(dtype: np.dtype, shape: Sequence[int], bound: int | None, rng: np.random.Generator) -> np.ndarray:
    """Make up values of a data type; see the top of the module."""
    if dtype.kind == "c":
        values: np.ndarray = rng.standard_normal(shape) + 1j * rng.standard_normal(shape)
    elif is_float(dtype):
        # made as float32, so that the values of float16 and float32 models need no room twice over
        values = rng.standard_normal(shape, dtype=np.float64 if dtype == np.float64 else np.float32)
    elif dtype.kind == "b":
        values = rng.integers(0, 2, shape, dtype=np.uint8)
    elif bound is None and dtype == np.uint8:
        values = rng.integers(0, 256, shape, dtype=np.uint8)
    else:
        largest = np.iinfo(dtype).max if dtype.kind in "iu" else 1  # the 4-bit and 2-bit integers of ml_dtypes
        values = rng.integers(0, min((bound or 2) - 1, int(largest)), shape, dtype=np.uint64, endpoint=True)
    return values.astype(dtype, copy=False)


def _is_integer(dtype: np.dtype) -> bool:
    return dtype.kind in "iu" or (dtype.kind == "V" and dtype.name.startswith(("int", "uint")))
