"""Samples from ``.npz`` files: one file of rows, or a folder with one file per run.

Rows are read from all arrays in lock step, as they are needed, so that memory stays at one batch whatever the size of
the file. Exception: an array in Fortran order keeps its rows interleaved, one row is spread over the whole array. It is
refused in a file of rows (unless it has one row or one axis); in a folder, where an array is read whole, it is fine.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from onnxcomp.data.archive import Member, member_opened, opened, read_members, read_rows, read_whole
from onnxcomp.data.batches import Batches
from onnxcomp.data.checks import check_array, check_finite, check_names, fixed_batch
from onnxcomp.data.samples import LABELS, Feed, InputSpec, Samples
from onnxcomp.errors import DataError

__all__ = ["NpzFolder", "NpzRows"]


class NpzRows(Samples):
    """The rows of one ``.npz`` file, run in batches.

    Args:
        path: The file.
        inputs: Inputs of the model.
        batch: Rows per run, where the inputs don't fix it.

    Raises:
        DataError: The file can't be read or doesn't fit the inputs.
    """

    def __init__(self, path: Path, inputs: Sequence[InputSpec], *, batch: int = 1) -> None:
        self._path = path
        with opened(path) as archive:
            members = read_members(archive, path)
        self._labels = _take_labels(members, inputs)
        self._members = _fitting(members, inputs, str(path), rows=True)
        self._inputs = {spec.name: spec for spec in inputs}
        fixed = fixed_batch(self._inputs[member.name] for member in self._members)
        self._batches = Batches.of(self._count_rows(), batch=batch, fixed=fixed, where=str(path))

    def _count_rows(self) -> int:
        """Number of rows, the same for all arrays."""
        counts = {member.name: member.shape[0] for member in self._members}
        if self._labels is not None:
            if not self._labels.shape:
                raise DataError(f"{self._path}: 'labels' is one value", hint="give one label per row")
            counts[LABELS] = self._labels.shape[0]
        if len(set(counts.values())) > 1:
            raise DataError(
                f"{self._path}: arrays of different lengths: {', '.join(f'{k} {n}' for k, n in counts.items())}",
                hint="the first axis counts samples and must be the same for all arrays, labels too; "
                "where it isn't the samples, use a folder of .npz files, one per run",
            )
        if 0 in counts.values():
            raise DataError(f"{self._path}: there are no samples in it (0 rows)", hint="give at least one sample")
        for member in self._members:
            if member.fortran and len(member.shape) > 1 and member.shape[0] > 1:
                raise DataError(
                    f"{self._path}: the array '{member.name}' is in Fortran order, its rows can't be read one by one",
                    hint="save it as numpy.ascontiguousarray(array)",
                )
        return next(iter(counts.values()))

    def __iter__(self) -> Iterator[Feed]:
        return self.pick(range(self.length))

    def pick(self, runs: Sequence[int]) -> Iterator[Feed]:
        """See `Samples.pick`: rows between are skipped (compressed ones must be unpacked for that)."""
        with ExitStack() as stack:
            archive = stack.enter_context(opened(self._path))
            files = [stack.enter_context(member_opened(archive, self._path, member)) for member in self._members]
            for run in runs:
                if run >= self.length:
                    return
                start, stop = self._batches.bounds(run)
                feed = {}
                for file, member in zip(files, self._members, strict=True):
                    array = read_rows(file, self._path, member, (start, stop))
                    array = _as_spec(array, self._inputs[member.name])
                    check_finite(member.name, array, str(self._path), first_row=start)
                    feed[member.name] = array
                yield feed

    @property
    def length(self) -> int:
        """See `Samples.length`."""
        return len(self._batches)

    @property
    def rows(self) -> int:
        """See `Samples.rows`."""
        return self._batches.rows

    @property
    def description(self) -> str:
        """See `Samples.description`."""
        rows = "row" if self._batches.rows == 1 else "rows"
        return f"{self._path.name}, {self._batches.text(f'{self._batches.rows} {rows}')}"

    def labels(self) -> list[np.ndarray] | None:
        """See `Samples.labels`."""
        if self._labels is None:
            return None
        array = read_whole(self._path, self._labels)
        return [array[slice(*self._batches.bounds(run))] for run in range(self.length)]


class NpzFolder(Samples):
    """A folder of ``.npz`` files in the order of their names, each one run.

    Args:
        path: The folder.
        files: Its ``.npz`` files, sorted.
        inputs: Inputs of the model.

    Raises:
        DataError: A file can't be read or doesn't fit the inputs.
    """

    def __init__(self, path: Path, files: Sequence[Path], inputs: Sequence[InputSpec]) -> None:
        self._path = path
        self._files = files
        self._inputs = inputs
        # every header is looked at now: better than an error after minutes of work
        labelled = [self._look(file)[1] is not None for file in files]
        if any(labelled) and not all(labelled):
            raise DataError(
                f"{files[labelled.index(False)]}: no 'labels', though {sum(labelled)} other files have them",
                hint="label all files or none",
            )
        self._labelled = all(labelled)

    def _look(self, file: Path) -> tuple[list[Member], Member | None]:
        """Headers of one file, checked: arrays for inputs, and the labels."""
        with opened(file) as archive:
            members = read_members(archive, file)
        labels = _take_labels(members, self._inputs)
        return _fitting(members, self._inputs, str(file), rows=False), labels

    def __iter__(self) -> Iterator[Feed]:
        return self.pick(range(len(self._files)))

    def pick(self, runs: Sequence[int]) -> Iterator[Feed]:
        """See `Samples.pick`: only the files that are wanted are read."""
        specs = {spec.name: spec for spec in self._inputs}
        for file in (self._files[run] for run in runs if run < len(self._files)):
            members, _ = self._look(file)
            feed = {member.name: _as_spec(read_whole(file, member), specs[member.name]) for member in members}
            for name, array in feed.items():
                check_finite(name, array, str(file))
            yield feed

    @property
    def length(self) -> int:
        """See `Samples.length`."""
        return len(self._files)

    @property
    def description(self) -> str:
        """See `Samples.description`."""
        return f"{self._path.name or self._path}, {self.length} {'file' if self.length == 1 else 'files'}, one run each"

    def labels(self) -> list[np.ndarray] | None:
        """See `Samples.labels`."""
        if not self._labelled:
            return None
        labels = []
        for file in self._files:
            _, member = self._look(file)
            if member is None:
                raise DataError(f"{file}: 'labels' is gone, the file changed while it was in use")
            labels.append(read_whole(file, member))
        return labels


def _as_spec(array: np.ndarray, spec: InputSpec) -> np.ndarray:
    """Give the nameless bytes of a bfloat16 (or float8, int4) array their type again."""
    return array if spec.dtype is None or array.dtype == spec.dtype else array.view(spec.dtype)


def _take_labels(members: dict[str, Member], inputs: Sequence[InputSpec]) -> Member | None:
    """Take the labels out, unless the model has an input of that name."""
    return None if any(spec.name == LABELS for spec in inputs) else members.pop(LABELS, None)


def _fitting(members: dict[str, Member], inputs: Sequence[InputSpec], where: str, *, rows: bool) -> list[Member]:
    """Check the arrays against the inputs, and put them in the order of the inputs."""
    check_names(members, inputs, where)
    for spec in inputs:
        if spec.name in members:
            check_array(spec, members[spec.name].dtype, members[spec.name].shape, where, rows=rows)
    fitting = [members[spec.name] for spec in inputs if spec.name in members]
    if not fitting:
        raise DataError(f"{where}: there is no array for any input", hint="save one array per model input")
    return fitting
