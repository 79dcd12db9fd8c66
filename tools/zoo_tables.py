"""What the tools of the zoo print: tables as text or markdown, means of ratios, the facts of the machine."""

import datetime
import math
import platform
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import onnxcomp
from onnxcomp.target import cpu_name, get_target

__all__ = ["Interval", "Table", "circumstances", "geometric_mean", "number", "without_infinity"]

_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "onnx", "onnx-ir", "onnxscript", "numpy")


@dataclass(frozen=True, slots=True)
class Interval:
    """A ratio with its 95 % interval; a bound that is unknown is infinite."""

    ratio: float
    low: float
    high: float

    @classmethod
    def of(cls, values: dict[str, Any] | None) -> "Interval | None":
        """Read the form that reports have in JSON, where infinity is null."""
        if values is None or values.get("ratio") is None:
            return None
        low, high = values.get("low"), values.get("high")
        return cls(values["ratio"], -math.inf if low is None else low, math.inf if high is None else high)

    @property
    def half_width(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2

    def __str__(self) -> str:
        return f"{self.ratio:.3f} [{self.low:.3f}, {self.high:.3f}]"


@dataclass(frozen=True, slots=True)
class Table:
    """Cells as text: the first column is aligned to the left, all others to the right."""

    titles: Sequence[str]
    rows: Sequence[Sequence[str]]

    def text(self) -> str:
        """Return the table for a terminal."""
        widths = [max(len(cell) for cell in column) for column in zip(self.titles, *self.rows, strict=True)]
        return "\n".join("  ".join(self._aligned(row, widths)).rstrip() for row in (self.titles, *self.rows)) + "\n"

    def markdown(self) -> str:
        """Return the table as GitHub renders it."""
        rule = [":--", *("--:" for _ in self.titles[1:])]
        rows = (self.titles, rule, *([cell.replace("|", "\\|") for cell in row] for row in self.rows))
        return "\n".join(f"| {' | '.join(row)} |" for row in rows) + "\n"

    @staticmethod
    def _aligned(row: Sequence[str], widths: Sequence[int]) -> Iterable[str]:
        for index, (cell, width) in enumerate(zip(row, widths, strict=True)):
            yield cell.rjust(width) if index else cell.ljust(width)


def geometric_mean(values: Iterable[float]) -> float | None:
    """Return the geometric mean of positive numbers, the mean that suits ratios; None where there is no number."""
    logs = [math.log(value) for value in values]
    return math.exp(math.fsum(logs) / len(logs)) if logs else None


def number(value: float | None, digits: int) -> str:
    """Return a number as a cell; a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def without_infinity(values: dict[str, Any]) -> dict[str, Any]:
    """Return a copy in which infinite numbers and NaN are None: JSON has neither."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def circumstances() -> dict[str, Any]:
    """Return when, where, with which versions and by which command line something was measured."""
    versions = {"onnxcomp": onnxcomp.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": versions,
        "machine": {
            "processor": cpu_name(),
            "target": get_target("auto").name,
            "architecture": platform.machine(),
            "system": f"{platform.system()} {platform.release()}",
            "python": platform.python_version(),
        },
    }
