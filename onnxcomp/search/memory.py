"""What a run has found out, kept in a folder: a run that was killed goes on by asking for it again.

The search is deterministic, given what was built, judged and timed. Each such result is a file, named by a hash of
what it depends on and written at once or not at all; models, data, options and versions are the same for all files of a
folder, which whoever opens it must see to. A file costs what it cost to make: the time budget of a run that goes on has
been used up by as much.
"""

import dataclasses
import hashlib
import json
import time
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from onnxcomp.errors import ModelError
from onnxcomp.files import replacing
from onnxcomp.model import load, save
from onnxcomp.pipeline import PassReport
from onnxcomp.statistics import Statistics
from onnxcomp.thresholds import Histogram

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Key", "Memory"]

T = TypeVar("T")
Key = Callable[[], list[str]]  # asked for only where there is a folder
_STATISTICS = "statistics.npz"


class Memory:
    """Results of earlier runs.

    Args:
        folder: Where they are; None: nothing is kept.
        tell: Told what was known.

    Attributes:
        known: How many results were read instead of made.
        spent: Seconds that making them had taken.
    """

    def __init__(self, folder: Path | None = None, tell: Callable[[str], None] = lambda _: None) -> None:
        self._folder = folder
        self._tell = tell
        self._counted = 0
        self.known = 0
        self.spent = 0.0

    def recall(self, what: str, key: Key, kind: Any, make: Callable[[], T]) -> T:
        """Return a result: as it was kept, or made now and kept.

        Args:
            what: For people.
            key: All that it depends on and that differs within the folder.
            kind: Its type: dataclasses, tuples, mappings of texts, numbers, texts.
            make: Makes it.

        Raises:
            OutputError: It can't be written.
        """
        if self._folder is None:
            return make()
        path = self._path(key)
        if (kept := self._read(path)) is not None:
            self._count(what, kept["seconds"])
            value: T = _decoded(kept["value"], kind)
            return value
        begin = time.perf_counter()
        value = make()
        self._write(path, value, time.perf_counter() - begin)
        return value

    def recall_model(
        self, what: str, key: Key, make: "Callable[[], tuple[ir.Model, tuple[PassReport, ...]]]"
    ) -> "tuple[ir.Model, tuple[PassReport, ...]]":
        """Return a model and what its passes did, as `recall` does.

        Raises:
            OutputError: It can't be written.
        """
        if self._folder is None:
            return make()
        path = self._path(key)
        if (kept := self._read(path)) is not None and (known := _whole(path.with_suffix(".onnx"))) is not None:
            self._count(what, kept["seconds"])
            return known, _decoded(kept["value"], tuple[PassReport, ...])
        begin = time.perf_counter()
        model, reports = make()
        save(model, path.with_suffix(".onnx"))  # before the file that says that it is there
        self._write(path, reports, time.perf_counter() - begin)
        return model, reports

    def histograms(self) -> dict[str, Histogram]:
        """Return the statistics that were kept."""
        if self._folder is None or not (path := self._folder / _STATISTICS).is_file():
            return {}
        found = dict(Statistics.load(path).histograms)
        self._counted = len(found)
        return found

    def keep_histograms(self, found: Mapping[str, Histogram]) -> None:
        """Keep the statistics measured so far.

        Raises:
            OutputError: They can't be written.
        """
        if self._folder is None or len(found) == self._counted:
            return
        Statistics("", "", 0, found, {}, "").save(self._folder / _STATISTICS)
        self._counted = len(found)

    def _path(self, key: Key) -> Path:
        assert self._folder is not None
        kind, *rest = key()
        return self._folder / f"{kind}-{hashlib.sha256(json.dumps(rest).encode()).hexdigest()[:24]}.json"

    def _read(self, path: Path) -> dict[str, Any] | None:
        if not path.is_file():
            return None
        try:
            kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:  # it was damaged: it is made again
            return None
        return kept

    def _write(self, path: Path, value: object, seconds: float) -> None:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"seconds": seconds, "value": _encoded(value)}), encoding="utf-8")

    def _count(self, what: str, seconds: float) -> None:
        self.known += 1
        self.spent += seconds
        self._tell(f"{what} is known")


def _whole(path: Path) -> "ir.Model | None":
    try:
        return load(path)
    except ModelError:  # it was damaged: it is made again
        return None


def _encoded(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _encoded(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _encoded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_encoded(one) for one in value]
    return value


def _decoded(value: Any, kind: Any) -> Any:
    """Turn what JSON holds back into a value of a type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _decoded(value, next(one for one in arguments if one is not types.NoneType))
    if dataclasses.is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        assert isinstance(kind, type)
        return kind(**{name: _decoded(one, hints[name]) for name, one in value.items()})
    if origin is tuple:
        kinds = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        return tuple(_decoded(one, of) for one, of in zip(value, kinds, strict=True))
    if origin is not None and issubclass(origin, Mapping):
        return {key: _decoded(one, arguments[1]) for key, one in value.items()}
    return value
