"""The report that `optimize` returns, and how it is put together."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxcomp.facts import opset, parameter_count
from onnxcomp.pipeline import recipe_of
from onnxcomp.report.anatomy import Anatomy
from onnxcomp.report.content import Content, Settings
from onnxcomp.report.document import machine, now, versions
from onnxcomp.report.markdown import render_markdown
from onnxcomp.report.robustness import Robustness
from onnxcomp.report.text import render_text
from onnxcomp.runtime import Provider
from onnxcomp.search import Outcome

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Report", "make_report"]


@dataclass(frozen=True, slots=True)
class Report(Content):
    """Everything that one `optimize` measured."""

    def render(self, *, verbose: bool = False) -> str:
        """Return the report for a terminal; `verbose`: also what each pass left alone and why."""
        return render_text(self, verbose=verbose)

    def markdown(self) -> str:
        """Return tables of what changed and of the candidates."""
        return render_markdown(self)


def make_report(
    model: "ir.Model",
    outcome: Outcome,
    settings: Settings,
    *,
    notes: tuple[str, ...],
    anatomy: Anatomy | None = None,
    robustness: tuple[Robustness, ...] = (),
    provider: Provider = "cpu",
) -> Report:
    """Put a report together.

    Args:
        model: The original.
        outcome: What `optimize` found.
        settings: What it was asked for.
        notes: Plain sentences for the reader.
        anatomy: What the original and the delivered model are made of; None: the original is delivered.
        robustness: What disturbances do to both.
        provider: What ran the models that were timed.
    """
    recipe = recipe_of(outcome.model)
    return Report(
        settings=settings,
        outcome=outcome,
        parameters=parameter_count(model),
        opset=opset(model),
        recipe=recipe.to_toml() if outcome.winner is not None else "",
        notes=notes,
        versions=versions(),
        machine=machine(provider),
        created=now(),
        anatomy=anatomy,
        robustness=robustness,
    )
