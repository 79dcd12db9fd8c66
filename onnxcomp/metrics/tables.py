"""Outputs that are no tensors, as arrays that can be compared: sequences, maps, optional values."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

__all__ = ["as_arrays"]


def as_arrays(outputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Take a run's outputs apart into arrays.

    A tensor stays what it is. A sequence of maps with the same keys (what classifiers of ``ai.onnx.ml`` give: class to
    probability) is one table [maps, keys]; any other sequence ``s`` becomes ``s[0]``, ``s[1]`` and so on, and ``s`` its
    length; a map is a table of one row; an optional value that is not there is an array of no booleans.

    Args:
        outputs: What `Session.run` returns.
    """
    return {name: array for output, value in outputs.items() for name, array in _taken_apart(output, value)}


def _taken_apart(name: str, value: Any) -> Iterator[tuple[str, np.ndarray]]:
    rows = [value] if isinstance(value, Mapping) else value
    if value is None:
        yield name, np.zeros(0, np.bool_)
    elif not isinstance(rows, list):
        yield name, np.asarray(value)
    elif rows and all(isinstance(row, Mapping) and row.keys() == rows[0].keys() for row in rows):
        keys = sorted(rows[0])
        yield name, np.array([[row[key] for key in keys] for row in rows])
    else:
        yield name, np.array(len(rows))
        for index, element in enumerate(rows):
            yield from _taken_apart(f"{name}[{index}]", element)
