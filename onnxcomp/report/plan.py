"""What `optimize` would try, as values, and its text."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from onnxcomp.recipe import Recipe, Step
from onnxcomp.report.content import Settings
from onnxcomp.report.document import Document
from onnxcomp.report.figures import bytes_text, count_text
from onnxcomp.report.parts import target_text

__all__ = ["Plan", "PlannedCandidate"]


@dataclass(frozen=True, slots=True)
class PlannedCandidate:
    """A candidate by name, with the recipe that would make it from the cleaned-up model, as TOML."""

    name: str
    recipe: str


@dataclass(frozen=True, slots=True)
class Plan(Document):
    """What a run would do; nothing was timed, judged or written.

    Attributes:
        settings: What the run is asked for.
        size: Bytes of the original.
        parameters: Elements of its weights.
        opset: Of the original.
        cleanup: Names of the passes that every candidate starts from.
        candidates: What would be built first. The search goes on from those that do well.
        notes: What the reader should know.
        versions: Of the packages involved.
        created: UTC, ISO 8601.
    """

    kind: ClassVar[str] = "plan"

    settings: Settings
    size: int
    parameters: int
    opset: int
    cleanup: tuple[str, ...]
    candidates: tuple[PlannedCandidate, ...]
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    created: str

    def render(self, *, verbose: bool = False) -> str:
        """Return the text; `verbose`: also the recipes in full."""
        lines = [*_head(self), "", *_candidates(self, verbose=verbose), ""]
        lines += [*(f" note    {note}" for note in self.notes), " result  a dry run: nothing was measured or written"]
        return "\n".join(line.rstrip() for line in lines) + "\n"


def _head(plan: Plan) -> Iterator[str]:
    settings, budget = plan.settings, plan.settings.budget
    yield (
        f" input   {settings.model}  {bytes_text(plan.size)}  {count_text(plan.parameters)} parameters  "
        f"opset {plan.opset}"
    )
    threads = f"{settings.threads or 'all'} thread{'' if settings.threads == 1 else 's'}"
    where = target_text(settings.target, settings.unmeasured)
    yield f" target  {where}, {threads}      goal  {settings.goal}"
    yield f" calibration  {settings.calibration or 'none'}"
    yield f" evaluation   {settings.evaluation}" + (f", {settings.metric}" if settings.metric else "")
    yield f" verdict      {settings.verdict}"
    if settings.metric:
        yield f" gate    {settings.metric} drops by at most {budget.max_drop:g}"
    yield f" gate    at least {budget.agreement_bound:g} of the answers stay the same"
    if budget.min_sqnr is not None or not settings.metric:
        yield f" gate    SQNR of at least {20 if budget.min_sqnr is None else budget.min_sqnr:g} dB"
    if budget.max_size is not None:
        yield f" gate    at most {bytes_text(budget.max_size)}"
    if settings.unmeasured:
        return
    ratio = budget.max_latency_ratio
    yield f" gate    {'no slower than' if ratio is None else f'latency at most {ratio:g} of'} the original"


def _candidates(plan: Plan, *, verbose: bool) -> Iterator[str]:
    yield f" clean-up: {', '.join(plan.cleanup)}"
    width = max(len(candidate.name) for candidate in plan.candidates)
    for candidate in plan.candidates:
        yield f" {candidate.name:{width}}  {', '.join(map(_step, Recipe.from_toml(candidate.recipe).steps))}"
        if verbose:
            yield from (f"{'':{width + 3}}{line}" for line in candidate.recipe.splitlines() if line)


def _step(step: Step) -> str:
    settings = ", ".join(f"{name} {value}" for name, value in step.settings.items())
    return f"{step.name} ({settings})" if settings else step.name
