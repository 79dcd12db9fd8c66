"""The report as plain content: what was asked for, what was measured, on which machine, with which versions."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

from onnxcomp.report.document import Document
from onnxcomp.search import Outcome
from onnxcomp.target import Budget

__all__ = ["Content", "Settings"]


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
class Content(Document):
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

    kind: ClassVar[str] = "optimize"

    settings: Settings
    outcome: Outcome
    parameters: int
    opset: int
    recipe: str
    notes: tuple[str, ...]
    versions: dict[str, str]
    machine: dict[str, str]
    created: str

    def content(self) -> dict[str, Any]:
        """Return the fields, with what came out among them, as one level."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "outcome"}
        left_out = {"model", "source"}
        found = {f.name: getattr(self.outcome, f.name) for f in dataclasses.fields(self.outcome)}
        return own | {name: value for name, value in found.items() if name not in left_out}
