"""A folder that is timed on another machine: models, one input, and a script that needs onnxruntime and numpy alone.

    measure.py      times the models, writes measurements.json
    bundle.json     what they are, and how they are to be timed
    input.npz       the input that they run on
    models/         the models

The script is what times models here, put into one file: `onnxcomp.measure.elsewhere` behind the modules that it needs.
"""

import ast
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.data import Feed
from onnxcomp.errors import DataError, UsageError
from onnxcomp.files import replacing
from onnxcomp.measure.elsewhere import INPUT, PLAN
from onnxcomp.model import fingerprint, save

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["SCRIPT", "BundledModel", "check_feed", "read_plan", "script", "write_bundle"]

SCRIPT = "measure.py"
_MODELS = "models"
_HINT = "the measurements belong into the folder that --bundle wrote, beside its models"
# In the order of their imports
_PARTS = ("errors.py", "measure/interval.py", "measure/timing.py", "measure/memory.py", "measure/elsewhere.py")


@dataclass(frozen=True, slots=True)
class BundledModel:
    """A model of a bundle.

    Attributes:
        model: What it is called.
        file: Where it is, in the folder of the bundle.
        size: Bytes on disk.
        fingerprint: Of graph and weights: models that share it are equal.
    """

    model: str
    file: str
    size: int
    fingerprint: str


def write_bundle(
    folder: Path,
    models: "Sequence[tuple[str, ir.Model, int]]",
    feed: Feed,
    *,
    settings: Any,
    rows: int,
    notes: Sequence[str],
    schema_version: int,
) -> tuple[BundledModel, ...]:
    """Write the folder of a bundle; it may exist.

    Args:
        folder: Of the bundle.
        models: What each is called, the model, bytes on disk; the first is what the others are compared with.
        feed: The input that is timed.
        settings: A dataclass: what the document of the measurements says was asked for.
        rows: In a run.
        notes: For the reader of the measurements.
        schema_version: Of that document.

    Raises:
        OutputError: The folder can't be written.
        UsageError: The input is of a type that can't be written.
    """
    check_feed(feed)
    (folder / _MODELS).mkdir(parents=True, exist_ok=True)
    entries = []
    for number, (name, model, size) in enumerate(models):
        stem = re.sub(r"[^A-Za-z0-9]+", "-", Path(name).stem).strip("-")
        file = f"{_MODELS}/{number:02}-{stem or 'model'}.onnx"
        save(model, folder / file)
        entries.append(BundledModel(name, file, size, fingerprint(model)))
    with replacing(folder / INPUT) as temporary:
        np.savez(temporary, allow_pickle=False, **{str(i): _plain(value) for i, value in enumerate(feed.values())})
    plan = {
        "schema_version": schema_version,
        "settings": asdict(settings),
        "inputs": list(feed),
        "rows": rows,
        "models": [asdict(entry) for entry in entries],
        "notes": list(notes),
    }
    _write(folder / PLAN, json.dumps(plan, indent=1) + "\n")
    _write(folder / SCRIPT, script())
    return tuple(entries)


def check_feed(feed: Feed) -> None:
    """Refuse an input that can't be written to an .npz without pickle.

    Raises:
        UsageError: It is no array, or one of a type that numpy does not know.
    """
    for name, value in feed.items():
        if not isinstance(value, np.ndarray) or _plain(value).dtype.kind not in "biufU":
            what = value.dtype.name if isinstance(value, np.ndarray) else type(value).__name__
            raise UsageError(f"a bundle can't hold the input {name!r}: it is of {what}", hint="time it there by hand")


def read_plan(folder: Path) -> tuple[BundledModel, ...]:
    """Return the models of a bundle, the one that the others are compared with first.

    Raises:
        DataError: There is no bundle, or it is damaged.
    """
    path = folder / PLAN
    try:
        plan = json.loads(path.read_text(encoding="utf-8"))
        found = tuple(BundledModel(**entry) for entry in plan["models"])
    except (OSError, ValueError, KeyError, TypeError) as err:
        reason = err.strerror if isinstance(err, OSError) else f"it is damaged: {err}"
        raise DataError(f"cannot read the bundle's {path}: {reason}", hint=_HINT) from err
    if not found or any(Path(entry.file).name != entry.file.removeprefix(f"{_MODELS}/") for entry in found):
        raise DataError(f"{path} is damaged: its models are not in {_MODELS}/", hint=_HINT)
    return found


def script() -> str:
    """Return the script: one file, its imports from the standard library, numpy and onnxruntime alone."""
    place = Path(__file__).parent.parent
    sources = [(place / part).read_text(encoding="utf-8") for part in _PARTS]
    head = ast.get_docstring(ast.parse(sources[-1]), clean=False)
    parts = [_bare(source).strip() for source in sources]
    return f'#!/usr/bin/env python3\n"""{head}"""\n\n' + "\n\n\n".join(parts) + "\n"


def _bare(source: str) -> str:
    """Return a module without its docstring, its imports of modules of ours, and its list of public names."""
    lines = source.splitlines()
    for node in ast.parse(source).body:
        ours = isinstance(node, ast.ImportFrom) and (node.module or "").startswith("onnxcomp.")
        public = isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        if ours or public or isinstance(node, ast.Expr):  # at this level, a docstring
            lines[node.lineno - 1 : node.end_lineno] = [""] * ((node.end_lineno or node.lineno) - node.lineno + 1)
    return re.sub(r"\n{4,}", "\n\n\n", "\n".join(line.rstrip() for line in lines))


def _plain(value: np.ndarray) -> np.ndarray:
    """Return texts as an array of their own kind: objects could only be pickled."""
    return value.astype(np.str_) if value.dtype.hasobject else value


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
