"""The folder of a long run's state: what it is the state of, and that the same command goes on with it."""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.data import Samples
from onnxcomp.errors import UsageError
from onnxcomp.files import check_folder, replacing
from onnxcomp.model import fingerprint
from onnxcomp.report import machine, versions
from onnxcomp.search import Memory, Progress, Work
from onnxcomp.statistics import Statistics
from onnxcomp.usercode import source_file

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["open_memory"]

_IDENTITY = "run.json"


def open_memory(folder: Path, model: "ir.Model", work: Work, *, metric: str | None, progress: Progress) -> Memory:
    """Open the folder of a run's state, or make it.

    Args:
        folder: It may be missing.
        model: The original.
        work: What the run is to do.
        metric: As it was named.
        progress: Told what was known.

    Raises:
        OutputError: The folder can't be made or written.
        UsageError: It holds the state of a run on another model, other data, options or versions, or something else.
    """
    check_folder(folder, overwrite=True)
    identity = _identity(model, work, metric)
    path = folder / _IDENTITY
    if path.is_file():
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as err:
            raise UsageError(f"{path} can't be read: {err}", hint="name another --work-dir") from err
        found = found if isinstance(found, dict) else {}
        if others := [name for name in identity if found.get(name) != identity[name]]:
            raise UsageError(
                f"{folder} holds the state of another run: {', '.join(others)} differ",
                hint="name another --work-dir, or remove that folder to start afresh",
            )
    else:
        folder.mkdir(exist_ok=True)
        if any(not entry.name.startswith(".") for entry in folder.iterdir()):
            raise UsageError(f"{folder} holds files, but no run's state", hint="name a new folder, or an empty one")
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(identity, indent=1), encoding="utf-8")
    return Memory(folder, lambda what: progress(what, None))


def _identity(model: "ir.Model", work: Work, metric: str | None) -> dict[str, str]:
    """Return all that results depend on, by a name for people."""
    held_out = work.task.held_out
    code = source_file(metric) if metric else None
    return {
        "the model": fingerprint(model),
        "the calibration samples": _hash_samples(work.calibration),
        "the statistics": _hash_statistics(work.statistics),
        "the evaluation samples": _hash_samples(work.task.samples) + _hash_samples(held_out),
        "the metric": f"{metric} {hashlib.sha256(code.read_bytes()).hexdigest() if code else ''}",
        "the recipe": work.recipe.to_toml() if work.recipe else "",
        "the options": repr(
            (work.budget, work.goal, work.target.name, work.techniques, work.threads, work.timed, work.seed)
        ),
        "the time budget": repr(work.time_budget),
        "the versions": json.dumps(versions()),
        "the machine": json.dumps(machine(work.provider)),
    }


def _hash_samples(samples: Samples | None) -> str:
    if samples is None:
        return ""
    digest = hashlib.sha256()
    for feed in samples:
        for name in sorted(feed):
            _add(digest, name, feed[name])
    for label in samples.labels() or ():
        _add(digest, "labels", np.asarray(label))
    return digest.hexdigest()


def _hash_statistics(statistics: Statistics | None) -> str:
    if statistics is None:
        return ""
    digest = hashlib.sha256(statistics.model.encode())
    for name, found in statistics.histograms.items():
        _add(digest, f"{name} {found.start} {found.width} {found.extremes} {found.average}", found.counts)
    return digest.hexdigest()


def _add(digest: "hashlib._Hash", name: str, value: np.ndarray) -> None:
    digest.update(f"{name} {value.dtype} {value.shape} ".encode())
    digest.update(repr(value.tolist()).encode() if value.dtype.hasobject else np.ascontiguousarray(value).tobytes())
