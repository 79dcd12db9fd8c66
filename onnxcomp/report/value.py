"""The report that `optimize` returns, and how it is put together."""

import datetime
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from onnxcomp.facts import opset, parameter_count
from onnxcomp.pipeline import recipe_of
from onnxcomp.report.content import Content, Settings
from onnxcomp.report.text import render_text
from onnxcomp.search import Outcome
from onnxcomp.target import cpu_name

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Report", "make_report"]

_PACKAGES = ("onnxcomp", "onnxruntime", "onnxruntime-gpu", "onnx", "onnx-ir", "onnxscript", "numpy")


@dataclass(frozen=True, slots=True)
class Report(Content):
    """Everything that one `optimize` measured; as a string, the report for a terminal."""

    def __str__(self) -> str:
        return render_text(self)


def make_report(model: "ir.Model", outcome: Outcome, settings: Settings, notes: tuple[str, ...]) -> Report:
    """Put a report together.

    Args:
        model: The original.
        outcome: What `optimize` found.
        settings: What it was asked for.
        notes: Plain sentences for the reader.
    """
    recipe = recipe_of(outcome.model)
    return Report(
        settings=settings,
        outcome=outcome,
        parameters=parameter_count(model),
        opset=opset(model),
        recipe=recipe.to_toml() if outcome.winner is not None else "",
        notes=notes,
        versions=_versions(),
        machine={
            "processor": cpu_name(),
            "architecture": platform.machine(),
            "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
        },
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
