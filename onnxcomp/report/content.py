"""The report as plain content: what was asked for, what was measured, on which machine, with which versions."""

import dataclasses
import json
import math
from dataclasses import dataclass
from typing import Any

from onnxcomp.search import Outcome
from onnxcomp.target import Budget

__all__ = ["SCHEMA_VERSION", "Content", "Settings"]

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run was asked for."""

    model: str
    calibration: str | None
    evaluation: str
    metric: str | None
    goal: str
    target: str
    budget: Budget
    threads: int
    batch: int
    seed: int


@dataclass(frozen=True, slots=True)
class Content:
    """Everything that one `optimize` measured; the renderers take it.

    Attributes:
        settings: What was asked for.
        outcome: What came out.
        parameters: Elements of the original's weights.
        opset: Of the original.
        recipe: TOML of the recipe that reproduces the delivered model; empty where the original is delivered.
        notes: What the reader should know.
        versions: Of the packages involved.
        machine: Processor, operating system and Python.
        created: UTC, ISO 8601.
    """

    settings: Settings
    outcome: Outcome
    parameters: int
    opset: int
    recipe: str
    notes: tuple[str, ...]
    versions: dict[str, str]
    machine: dict[str, str]
    created: str

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain values; JSON has no infinity, so an infinite number is null."""
        outcome = {
            f.name: getattr(self.outcome, f.name)
            for f in dataclasses.fields(self.outcome)
            if f.name not in {"model", "source"}
        }
        content = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "outcome"}
        plain = _plain({"schema_version": SCHEMA_VERSION, **content, **outcome})
        assert isinstance(plain, dict)
        return plain

    def to_json(self) -> str:
        """Return the report as JSON."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    """Turn dataclasses, tuples and numbers that JSON lacks into plain values."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(v) for key, v in value.items()}
    if hasattr(value, "items"):
        return {str(key): _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
