"""Keeps the outputs of many runs on disk: a text recogniser's answers to 150 lines take 600 MB."""

import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

__all__ = ["Spool"]


class Spool:
    """Outputs of runs by number. Numeric arrays live in an unnamed temporary file and are mapped when they are read."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  (lives as long as the spool)
        self._runs: dict[int, dict[str, Any]] = {}

    def append(self, outputs: Mapping[str, Any]) -> None:
        """Add the outputs of the next run."""
        self[len(self._runs)] = outputs

    @property
    def runs(self) -> list[int]:
        """Numbers of the runs, ascending."""
        return sorted(self._runs)

    def __setitem__(self, run: int, outputs: Mapping[str, Any]) -> None:
        self._runs[run] = {name: self._store(value) for name, value in outputs.items()}

    def __getitem__(self, run: int) -> dict[str, Any]:
        self._file.flush()
        return {name: v.open(self._file) if isinstance(v, _Stored) else v for name, v in self._runs[run].items()}

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (self[run] for run in self.runs)

    def _store(self, value: Any) -> Any:
        if not isinstance(value, np.ndarray) or value.dtype.hasobject or value.size == 0:
            return value
        offset = self._file.seek(0, 2)
        value.tofile(self._file)
        return _Stored(offset, value.dtype, value.shape)


class _Stored:
    """Where an array lies in the file."""

    def __init__(self, offset: int, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._offset, self._dtype, self._shape = offset, dtype, shape

    def open(self, file: Any) -> np.ndarray:
        return np.memmap(file, self._dtype, "r", self._offset, self._shape)
