"""Reads a zoo: a directory of model folders.

::

    NAME/model.onnx
    NAME/calibration.npz   or  NAME/calibration/0000.npz ...   optional
    NAME/eval.npz          or  NAME/eval/0000.npz ...          optional, with ``labels`` where there is a metric
    NAME/metric.py         score(outputs, labels) -> number, higher is better; optional
    NAME/card.json         what the model is; optional
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxcomp.errors import UsageError

__all__ = ["ZooModel", "find_models", "read_model"]


@dataclass(frozen=True, slots=True)
class ZooModel:
    """One folder of a zoo.

    Attributes:
        name: Of the folder.
        model: The ONNX file.
        calibration: Samples without labels; None: there are none.
        evaluation: Samples to judge answers on; None: there are none.
        metric: As `onnxcomp.optimize` takes it; None: there is none.
        card: What the folder says about the model.
    """

    name: str
    model: Path
    calibration: Path | None
    evaluation: Path | None
    metric: str | None
    card: dict[str, Any]


def find_models(zoo: Path, only: Sequence[str] = ()) -> list[ZooModel]:
    """Return the models of a zoo by name, or only the named ones.

    Raises:
        UsageError: There is no such folder, no model in it, or none of a wanted name.
    """
    if not zoo.is_dir():
        raise UsageError(f"{zoo} is not a folder")
    folders = {path.parent.name: path.parent for path in sorted(zoo.glob("[!.]*/model.onnx"))}
    if missing := sorted(set(only) - set(folders)):
        raise UsageError(f"{zoo} has no model {missing[0]!r}", hint=f"it has: {', '.join(folders) or 'none'}")
    if not folders:
        raise UsageError(f"{zoo} has no folder with a model.onnx")
    return [read_model(folder) for name, folder in folders.items() if not only or name in only]


def read_model(folder: Path) -> ZooModel:
    """Return what one folder of a zoo holds.

    Raises:
        UsageError: It has no model, or its card is not JSON.
    """
    folder = folder.resolve()
    model, metric, card = folder / "model.onnx", folder / "metric.py", folder / "card.json"
    if not model.is_file():
        raise UsageError(f"{folder} has no model.onnx")
    try:
        described = json.loads(card.read_text(encoding="utf-8")) if card.is_file() else {}
    except ValueError as err:
        raise UsageError(f"{card} is not JSON: {err}") from err
    return ZooModel(
        name=folder.name,
        model=model,
        calibration=_samples(folder, "calibration"),
        evaluation=_samples(folder, "eval"),
        metric=f"{metric}:score" if metric.is_file() else None,
        card=described,
    )


def _samples(folder: Path, name: str) -> Path | None:
    candidates = (folder / f"{name}.npz", folder / name)
    return next((path for path in candidates if path.exists()), None)
