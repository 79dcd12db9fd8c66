"""Samples from a function of the user's, which returns an iterable of runs: dictionaries of one array per model input.

The function is called anew for each reading, and only one run is held at a time. A loader that shuffles or augments
would show other samples to each model and put labels to the wrong answers: therefore a checksum of every run is
compared with that of the first reading.
"""

import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from types import GeneratorType

import numpy as np

from onnxcomp.data.checks import check_array, check_finite, check_names
from onnxcomp.data.samples import LABELS, Feed, InputSpec, Samples
from onnxcomp.errors import DataError
from onnxcomp.usercode import Kind, UserFunction

__all__ = ["LOADER", "LoaderSamples", "as_loader"]

LOADER = Kind(
    "loader",
    DataError,
    "a loader is FILE.py:function or module:function",
    "a loader is load() -> iterable of {input name: array, first axis = batch}, with or without 'labels'",
)
_END = object()


class LoaderSamples(Samples):
    """What a function returns, each item one run that is given to the model unchanged.

    Args:
        function: Called without arguments, once for each reading.
        inputs: Inputs of the model.

    Raises:
        DataError: The function fails, gives nothing, or its first item doesn't fit the inputs. Also while reading.
    """

    def __init__(self, function: UserFunction, inputs: Sequence[InputSpec]) -> None:
        self._function = function
        self._inputs = inputs
        self._has_labels = False
        self._labels: list[np.ndarray] = []
        self._sums: list[int] = []  # of the runs that were read so far
        self._length: int | None = None
        with closing(self._read()) as runs:
            next(runs)

    def __iter__(self) -> Iterator[Feed]:
        return self._read()

    def _read(self) -> Generator[Feed, None, None]:
        count = 0
        with closing(self._items()) as items:
            for run, item in enumerate(items):
                yield self._checked(item, run)
                count = run + 1
        if not count:
            raise DataError(f"the loader {self._function.name} gives no samples", hint=LOADER.signature)
        if self._length is not None and count != self._length:
            raise self._changed(f"it gave {self._length} runs at first and {count} now")
        self._length = count

    def _items(self) -> Generator[object, None, None]:
        """What the function's iterable yields; whatever goes wrong in it is an error of ours."""
        with self._running():
            iterator = iter(self._function.call())
        try:
            while True:
                with self._running():
                    item = next(iterator, _END)
                if item is _END:
                    return
                yield item
        finally:
            if isinstance(iterator, GeneratorType):  # what it does at its end is guarded, too
                with self._running():
                    iterator.close()

    @contextmanager
    def _running(self) -> Iterator[None]:
        try:
            with self._function.running():
                yield
        except (Exception, SystemExit) as err:  # a loader that ends the program must not look like success
            raise DataError(
                f"the loader {self._function.name} failed: {type(err).__name__}: {err}", hint=LOADER.signature
            ) from err

    def _checked(self, item: object, run: int) -> Feed:
        """Check an item against the inputs, and against what the loader gave in its place before."""
        where = f"{self._function.name}, run {run}"
        if not isinstance(item, Mapping):
            names = ", ".join(f"'{spec.name}': ..." for spec in self._inputs)
            raise DataError(
                f"{where}: the loader gives {type(item).__name__}, no dictionary",
                hint=f"for each run pass {{{names}}}, and 'labels' where there are some",
            )
        arrays = {str(name): self._array(value, f"{where}: '{name}'") for name, value in item.items()}
        labels = None if any(spec.name == LABELS for spec in self._inputs) else arrays.pop(LABELS, None)
        check_names(arrays, self._inputs, where)
        feed = {spec.name: arrays[spec.name] for spec in self._inputs if spec.name in arrays}
        for spec in self._inputs:
            if spec.name in feed:
                check_array(spec, feed[spec.name].dtype, feed[spec.name].shape, where)
                check_finite(spec.name, feed[spec.name], where)
        self._compare(run, feed, labels)
        return feed

    def _array(self, value: object, where: str) -> np.ndarray:
        """Return a value as an array of its own, which the loader can't change later, in C order."""
        with self._running():
            array = np.array(value, order="C")
        if array.dtype.hasobject or array.dtype.fields is not None:
            raise DataError(f"{where} is no array of numbers or text", hint="give numpy arrays; text as dtype=str")
        return array.astype(array.dtype.newbyteorder("="), copy=False)

    def _compare(self, run: int, feed: Feed, labels: np.ndarray | None) -> None:
        """Remember a run that is read for the first time; another reading must give the same."""
        checksum = 0
        for name, array in (*feed.items(), (LABELS, labels)):
            if array is not None:
                checksum = zlib.crc32(f"{name} {array.dtype} {array.shape}".encode(), checksum)
                checksum = zlib.crc32(array.reshape(-1).view(np.uint8).data, checksum)
        if run < len(self._sums):
            if checksum != self._sums[run]:
                raise self._changed(f"run {run} is another one now")
            return
        if run == 0:
            self._has_labels = labels is not None
        elif self._has_labels != (labels is not None):
            has, before = ("no 'labels'", "had them") if self._has_labels else ("'labels'", "had none")
            raise DataError(
                f"{self._function.name}, run {run}: {has}, though the runs before {before}", hint="label all or none"
            )
        self._sums.append(checksum)
        if labels is not None:
            self._labels.append(labels)

    def _changed(self, what: str) -> DataError:
        return DataError(
            f"the loader {self._function.name} doesn't give the same samples each time that it is called: {what}",
            hint="don't shuffle or augment, or fix the seed inside of the function; return a new iterable on each call",
        )

    @property
    def length(self) -> int | None:
        """See `Samples.length`: known once all was read."""
        return self._length

    @property
    def description(self) -> str:
        """See `Samples.description`."""
        runs = "" if self._length is None else f", {self._length} {'run' if self._length == 1 else 'runs'}"
        return f"{self._function.name}{runs}"

    def labels(self) -> list[np.ndarray] | None:
        """See `Samples.labels`: reads everything, the first time."""
        if not self._has_labels:
            return None
        if self._length is None:
            for _ in self:
                pass
        return list(self._labels)


def as_loader(data: Callable[[], object] | Iterable[object]) -> UserFunction:
    """Take a function, or something that can be iterated again and again, for a loader.

    Args:
        data: Callable without arguments, or an iterable such as a list of runs or a data loader.

    Raises:
        DataError: It is neither, or can be read only once.
    """
    if callable(data):
        return UserFunction(getattr(data, "__qualname__", type(data).__name__), data)
    if not isinstance(data, Iterable) or isinstance(data, Iterator | Mapping | str | bytes):
        raise DataError(
            f"samples can't be given as {type(data).__name__}",
            hint="pass a path, a function that returns an iterable of runs, or a list of runs "
            "(dictionaries of one array per model input)",
        )
    return UserFunction(type(data).__name__, lambda: data)
