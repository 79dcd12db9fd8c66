"""Statistics of a model's activations as a value, and as a file: collected once, used by any method of calibration.

The file is an ``.npz`` that holds no Python objects: ``header`` (JSON as bytes: schema version, fingerprint of the
model, where the samples came from, names of the tensors); ``extremes`` and ``averages`` [tensors, 2]; ``bins``
[tensors, 2], left edge of the first and width; ``lengths`` [tensors], the number of bins; and ``counts``, those of all
tensors one after the other. What a header claims is compared with the real sizes before anything is read.
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.data import Samples
from onnxcomp.data.archive import Member, opened, read_members, read_whole
from onnxcomp.errors import DataError
from onnxcomp.files import replacing
from onnxcomp.model import fingerprint
from onnxcomp.statistics.histograms import BINS
from onnxcomp.statistics.ranges import RangeStore
from onnxcomp.thresholds import Histogram, Range

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Statistics"]

_SCHEMA_VERSION = 1
_KIND = "onnxcomp.statistics"
_ARRAYS = {"header", "extremes", "averages", "bins", "lengths", "counts"}
_HINT = "make it with onnxcomp calibrate"
_MOST_TENSORS = 10_000  # at most 1.3 GB of counts
_LONGEST_HEADER = 1 << 24
_MOST_COUNTED = 1 << 48  # values in one bin: sums of all bins stay inside 64 bits
_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, slots=True)
class Statistics:
    """Distributions of a model's tensors, and where they come from.

    Attributes:
        model: Fingerprint of the cleaned-up model that they were measured on.
        samples: What the samples were, for people.
        runs: How many runs of the model were measured.
        histograms: By tensor name; extremes may be infinite.
        versions: Of the packages that were involved.
        created: UTC, ISO 8601.
    """

    model: str
    samples: str
    runs: int
    histograms: Mapping[str, Histogram]
    versions: Mapping[str, str]
    created: str

    def store(
        self,
        model: "ir.Model",
        samples: Samples | None = None,
        *,
        progress: Callable[[int, int | None], None] | None = None,
    ) -> RangeStore:
        """Return a store that knows these statistics.

        Args:
            model: The cleaned-up model that they were measured on.
            samples: For tensors that they lack; None: those can't be asked for.
            progress: Called with the number of samples done and the total, where that is known.

        Raises:
            DataError: It is another model.
        """
        if fingerprint(model) != self.model:
            raise DataError(
                f"the statistics are of another model, or of one cleaned up in another way (made {self.created} by "
                f"onnxcomp {self.versions.get('onnxcomp', '?')} from {self.samples})",
                hint="collect them again: onnxcomp calibrate MODEL --calibration DATA",
            )
        return RangeStore(model, samples, progress=progress, known=self.histograms)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the file so that the path holds either all of it or what was there before.

        Raises:
            OutputError: The path can't be written.
        """
        header = {
            "kind": _KIND,
            "schema_version": _SCHEMA_VERSION,
            "model": self.model,
            "samples": self.samples,
            "runs": self.runs,
            "versions": dict(self.versions),
            "created": self.created,
            "tensors": list(self.histograms),
        }
        found = list(self.histograms.values())
        arrays = {
            "header": np.frombuffer(json.dumps(header).encode(), np.uint8),
            "extremes": np.array([(h.extremes.low, h.extremes.high) for h in found], np.float64).reshape(-1, 2),
            "averages": np.array([(h.average.low, h.average.high) for h in found], np.float64).reshape(-1, 2),
            "bins": np.array([(h.start, h.width) for h in found], np.float64).reshape(-1, 2),
            "lengths": np.array([len(h.counts) for h in found], np.int64),
            "counts": np.concatenate([np.zeros(0, np.int64), *(h.counts for h in found)]),
        }
        with replacing(Path(path)) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)  # type: ignore[arg-type]

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Statistics":
        """Read a file, which may be anybody's.

        Raises:
            DataError: It can't be read, or is no statistics file of a version that this program knows.
        """
        path = Path(path)
        with opened(path) as archive:
            members = read_members(archive, path)
        if set(members) != _ARRAYS:
            raise DataError(f"{path}: this is no statistics file", hint=_HINT)
        header = _read_header(path, members["header"])
        names = header["tensors"]
        pairs = {
            name: _read(path, members[name], np.float64, (len(names), 2)) for name in ("extremes", "averages", "bins")
        }
        lengths = _read(path, members["lengths"], np.int64, (len(names),))
        if lengths.size and not (lengths.min() >= 1 and lengths.max() <= BINS):
            raise DataError(f"{path}: a number of bins is out of range", hint=_HINT)
        counts = _read(path, members["counts"], np.int64, (int(lengths.sum()),))
        histograms = {}
        parts = np.split(counts, np.cumsum(lengths)[:-1]) if names else []
        for index, (name, part) in enumerate(zip(names, parts, strict=True)):
            extremes, average = (Range(*map(float, pairs[kind][index])) for kind in ("extremes", "averages"))
            start, width = map(float, pairs["bins"][index])
            histograms[name] = Histogram(part, start, width, extremes, average)
            if not _is_sound(histograms[name]):
                raise DataError(f"{path}: the histogram of tensor {name!r} is not possible", hint=_HINT)
        about = {key: header[key] for key in ("model", "samples", "runs", "versions", "created")}
        return cls(histograms=histograms, **about)


def _is_sound(found: Histogram) -> bool:
    """Whether values can have given these counts and bounds; NaN fails every comparison."""
    extremes, average = found.extremes, found.average
    if not (extremes.low <= extremes.high and average.low <= average.high):
        return False
    if not (found.counts.min() >= 0 and found.counts.max() <= _MOST_COUNTED):
        return False
    end = found.start + found.width * len(found.counts)
    if not (0 < found.width <= _LARGEST and found.start / 2 >= -_LARGEST and end / 2 <= _LARGEST):
        return False
    if not extremes.finite:
        return True  # what was counted before the infinite value is not used
    inside = extremes.low <= average.low and average.high <= extremes.high
    covered = found.start <= min(extremes.low, 0.0) and max(extremes.high, 0.0) <= end
    return inside and covered and (extremes == Range(0.0, 0.0) or bool(found.counts.any()))


def _read_header(path: Path, member: Member) -> dict[str, Any]:
    """Return the header, with every key of the type that it must have."""
    if member.dtype != np.uint8 or len(member.shape) != 1 or member.shape[0] > _LONGEST_HEADER:
        raise DataError(f"{path}: this is no statistics file", hint=_HINT)
    try:
        header = json.loads(read_whole(path, member).tobytes())
    except (ValueError, RecursionError) as err:
        raise DataError(f"{path}: the header is no JSON: {err}", hint=_HINT) from err
    if not isinstance(header, dict) or header.get("kind") != _KIND:
        raise DataError(f"{path}: this is no statistics file", hint=_HINT)
    if header.get("schema_version") != _SCHEMA_VERSION:
        raise DataError(
            f"{path}: schema_version must be {_SCHEMA_VERSION}, got {header.get('schema_version')!r}", hint=_HINT
        )
    types = {"model": str, "samples": str, "runs": int, "versions": dict, "created": str, "tensors": list}
    for key, kind in types.items():
        if not isinstance(header.get(key), kind):
            raise DataError(f"{path}: the header has no valid {key!r}", hint=_HINT)
    names = header["tensors"]
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise DataError(f"{path}: the names of the tensors are no set of texts", hint=_HINT)
    if len(names) > _MOST_TENSORS:
        raise DataError(f"{path}: {len(names)} tensors are more than the {_MOST_TENSORS} that are read", hint=_HINT)
    return header


def _read(path: Path, member: Member, dtype: type[np.generic], shape: tuple[int, ...]) -> np.ndarray:
    if member.dtype != dtype or member.shape != shape:
        raise DataError(
            f"{path}: {member.name} is {member.dtype} {list(member.shape)}, not {np.dtype(dtype)} {list(shape)}",
            hint=_HINT,
        )
    return read_whole(path, member)
