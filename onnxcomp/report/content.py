"""The report as plain content: what was asked for, what was measured, on which machine, with which versions."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, get_type_hints

from onnxcomp.report.anatomy import Anatomy
from onnxcomp.report.document import Document, Written
from onnxcomp.report.robustness import Robustness
from onnxcomp.search import Outcome
from onnxcomp.target import Budget

__all__ = ["Content", "Settings"]

_NOT_SAVED = ("model", "source", "cleaned", "histograms")  # of an outcome: the anatomy says what is in them


@dataclass(frozen=True, slots=True)
class Settings:
    """What a run was asked for.

    Attributes:
        model: Where it came from.
        calibration: Samples for activation ranges.
        evaluation: Samples that answers are judged on.
        verdict: Which of them the final verdict is taken from.
        metric: What scores answers; None without labels.
        goal: What is minimised.
        techniques: The only ones that were to be tried; None: all.
        target: Where the model will run.
        unmeasured: Why no time is taken on the target, where none is.
        measurements: The file of times that another machine took; None: times are of this machine.
        budget: Bounds.
        threads: Intra-op threads while timing; 0 is all cores.
        batch: Rows per run that were asked for.
        seed: For every random choice.
    """

    model: str
    calibration: str | None
    evaluation: str
    verdict: str
    metric: str | None
    goal: str
    target: str
    techniques: tuple[str, ...] | None
    unmeasured: str | None
    budget: Budget
    threads: int
    batch: int
    seed: int
    measurements: str | None = None


@dataclass(frozen=True, slots=True)
class Content(Document):
    """Everything that one `optimize` measured; the renderers take it.

    Attributes:
        settings: What was asked for.
        outcome: What came out.
        parameters: Elements of the original's weights.
        opset: Of the original.
        recipe: TOML of the recipe that reproduces the delivered model; empty where the original is delivered.
        anatomy: Layers, storage, operators and activations, before and after; None: the original is delivered.
        notes: What the reader should know.
        versions: Of the packages involved.
        machine: Processor, operating system and Python.
        created: UTC, ISO 8601.
        robustness: Of the original and the delivered model, one entry per disturbance that was asked for.
        output: The file that the model was written to; None: it was not.
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
    anatomy: Anatomy | None = None
    robustness: tuple[Robustness, ...] = ()
    output: Written | None = None

    def content(self) -> dict[str, Any]:
        """Return the fields, with what came out among them, as one level."""
        own = {name: value for name, value in Document.content(self).items() if name != "outcome"}
        return own | {name: getattr(self.outcome, name) for name in _outcome_types()}

    @classmethod
    def content_types(cls) -> dict[str, Any]:
        """See `Document.content_types`."""
        hints = get_type_hints(cls)
        return {f.name: hints[f.name] for f in dataclasses.fields(cls) if f.name != "outcome"} | _outcome_types()


def _outcome_types() -> dict[str, Any]:
    """Return the types of what the JSON holds of the outcome, by name."""
    import onnx_ir as ir

    hints = get_type_hints(Outcome, localns={"ir": ir})
    return {f.name: hints[f.name] for f in dataclasses.fields(Outcome) if f.name not in _NOT_SAVED}
