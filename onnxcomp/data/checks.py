"""Do arrays fit the inputs of a model? Told from names, data types and shapes before values are read."""

from collections.abc import Iterable, Sequence

import numpy as np

from onnxcomp.data.samples import InputSpec
from onnxcomp.errors import DataError

__all__ = ["check_array", "check_finite", "check_names", "fixed_batch", "is_float", "shape_text"]

FOLDER_HINT = "use a folder of .npz files, one per run: each is given to the model unchanged"


def check_names(names: Iterable[str], inputs: Sequence[InputSpec], where: str) -> None:
    """Refuse arrays that the model has no input for, and inputs without an array.

    Args:
        names: Names of the arrays, labels left out.
        inputs: Inputs of the model.
        where: Where the arrays come from, for the message.

    Raises:
        DataError: Names don't fit.
    """
    given = set(names)
    known = [spec.name for spec in inputs]
    missing = [spec.name for spec in inputs if spec.name not in given and not spec.optional]
    unknown = sorted(given - set(known))
    hint = f"the model's inputs are {_quoted(known)}; arrays of the same names are needed"
    if missing:
        beside = f" (it has {_quoted(sorted(given))})" if given else ""
        raise DataError(f"{where}: no array for the input {_quoted(missing)}{beside}", hint=hint)
    if unknown:
        raise DataError(f"{where}: the model has no input {_quoted(unknown)}", hint=hint)


def check_array(spec: InputSpec, dtype: np.dtype, shape: tuple[int, ...], where: str, *, rows: bool = False) -> None:
    """Refuse an array that doesn't fit an input, by data type, rank or fixed dimensions.

    Args:
        spec: The input.
        dtype: Data type of the array; byte order makes no difference.
        shape: Shape of the array.
        where: Where the array comes from, for the message.
        rows: The first axis counts samples, however many a run takes.

    Raises:
        DataError: The array doesn't fit.
    """
    if spec.dtype is not None and not _same_dtype(dtype, spec.dtype):
        raise DataError(
            f"{where}: input '{spec.name}' takes {spec.dtype.name}, the array is {dtype.name}",
            hint=f"save it as array.astype('{spec.dtype.name}'), scaled as the model needs (no silent conversion)",
        )
    if rows:
        _check_has_rows(spec, shape, where)
    if spec.shape is None:
        return
    first = 1 if rows else 0
    fits = len(shape) == len(spec.shape) and _dims_fit(shape[first:], spec.shape[first:])
    if not fits:
        what = "dimensions" if len(shape) == len(spec.shape) else "axes"
        raise DataError(
            f"{where}: input '{spec.name}' takes {shape_text(spec.shape)}, the array is {shape_text(shape)}",
            hint=f"save the array with the {what} that the model takes ('?' is any size)",
        )


def check_finite(name: str, array: np.ndarray, where: str, *, first_row: int | None = None) -> None:
    """Refuse NaN and infinity: they spoil every statistic that they enter.

    Args:
        name: Name of the input.
        array: What goes into it.
        where: Where the array comes from, for the message.
        first_row: Number of the array's first row where rows have numbers.

    Raises:
        DataError: Something is not finite.
    """
    if not is_float(array.dtype):
        return
    finite = np.isfinite(array)
    if finite.all():
        return
    place = np.unravel_index(int(np.argmin(finite)), array.shape)
    row = "" if first_row is None else f", row {first_row + int(place[0])}"
    value = "NaN" if np.isnan(array[place]) else "infinity"
    raise DataError(f"{where}{row}: input '{name}' holds {value}", hint="leave the sample out, or mend what made it")


def fixed_batch(inputs: Iterable[InputSpec]) -> int | None:
    """Return the batch size that the inputs are fixed to, None where they take any.

    Args:
        inputs: Inputs whose first axis is the batch.

    Raises:
        DataError: Two inputs are fixed to different sizes, so that the first axis isn't the batch.
    """
    fixed = {spec.name: spec.shape[0] for spec in inputs if spec.shape and spec.shape[0] is not None}
    if len(set(fixed.values())) > 1:
        sizes = ", ".join(f"'{name}' {size}" for name, size in fixed.items())
        raise DataError(f"the first axes of the inputs are fixed to different sizes: {sizes}", hint=FOLDER_HINT)
    return next(iter(fixed.values()), None)


def is_float(dtype: np.dtype) -> bool:
    """Tell whether values may be NaN: floats and complex numbers, also bfloat16 and the 8-bit floats of ml_dtypes."""
    return dtype.kind in "fc" or (dtype.kind == "V" and dtype.name.startswith(("bfloat", "float")))


def shape_text(shape: Sequence[int | None]) -> str:
    """Write a shape like ``[?, 3, 224, 224]``."""
    return f"[{', '.join('?' if size is None else str(size) for size in shape)}]"


def _check_has_rows(spec: InputSpec, shape: tuple[int, ...], where: str) -> None:
    """Refuse an array, or an input, that has no axis for samples."""
    if not shape:
        raise DataError(f"{where}: the array '{spec.name}' has no axis that counts samples", hint=FOLDER_HINT)
    if spec.shape is None:
        return
    whole = len(shape) == len(spec.shape) + 1 and _dims_fit(shape[1:], spec.shape)
    if not spec.shape or whole:
        raise DataError(
            f"{where}: input '{spec.name}' takes {shape_text(spec.shape)}, which has no axis for samples",
            hint=FOLDER_HINT,
        )


def _dims_fit(shape: Sequence[int], wanted: Sequence[int | None]) -> bool:
    return all(size in (None, got) for got, size in zip(shape, wanted, strict=True))


def _same_dtype(got: np.dtype, wanted: np.dtype) -> bool:
    if got.newbyteorder("=") == wanted.newbyteorder("="):
        return True
    # numpy saves the types of ml_dtypes (bfloat16, float8, int4) as nameless bytes of the same size
    return wanted.kind == got.kind == "V" and got.fields is None and got.itemsize == wanted.itemsize


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
