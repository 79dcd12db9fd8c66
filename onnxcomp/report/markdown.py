"""The report of `optimize` as Markdown: for the summary page of a CI run, or a comment on a change."""

from collections.abc import Iterable

from onnxcomp.report.content import Content
from onnxcomp.report.figures import bytes_text, count_text, decibels_text, markdown_cell, markdown_table, seconds_text
from onnxcomp.report.parts import evidence_text, front_row
from onnxcomp.report.robustness import robustness_rows

__all__ = ["render_markdown"]


def render_markdown(report: Content) -> str:
    """Return the report as Markdown: what changed, then each candidate and what became of it."""
    settings, outcome = report.settings, report.outcome
    delivered = outcome.winner or "the original, unchanged"
    lines = [
        f"### onnxcomp optimize: {markdown_cell(settings.model)}",
        "",
        f"Delivered: **{markdown_cell(outcome.missed or delivered)}**. {count_text(report.parameters)} parameters, "
        f"target {settings.target}, goal {settings.goal}, judged on {markdown_cell(settings.evaluation)}.",
        "",
        *markdown_table(("", "before", "after", ""), _measures(report)),
        "",
        *markdown_table(("candidate", "size", "latency", "score", "agreement", ""), _candidates(report)),
        "",
        *_front(report),
        *_robustness(report),
        *(f"- {markdown_cell(note)}" for note in report.notes),
        *(
            f"- nearest: {markdown_cell(near.name)}: {markdown_cell(', '.join(near.misses))}"
            for near in outcome.nearest
        ),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _measures(report: Content) -> Iterable[tuple[str, ...]]:
    outcome, budget = report.outcome, report.settings.budget
    smaller = f"{outcome.original_size / outcome.size:.2f}x smaller" if outcome.winner else ""
    yield "size", bytes_text(outcome.original_size), bytes_text(outcome.size), smaller
    faster = f"{1 / outcome.latency.ratio:.2f}x faster" if outcome.latency else ""
    if outcome.original_seconds is None or outcome.seconds_per_run is None:
        yield "latency", "not measured", "not measured", markdown_cell(report.settings.unmeasured or "")
    else:
        yield "latency", seconds_text(outcome.original_seconds), seconds_text(outcome.seconds_per_run), faster
    before, after = outcome.original_quality.score, outcome.quality.score
    if before is not None and after is not None:
        allowed = f"{after - before:+.4f}, allowed -{budget.max_drop:g}"
        yield markdown_cell(report.settings.metric or "score"), f"{before:.4f}", f"{after:.4f}", allowed
    if outcome.evidence is not None:
        yield "verdict", "", "", evidence_text(outcome.evidence)
    yield "agreement", "", f"{outcome.quality.agreement:.4f}", f"at least {budget.agreement_bound:g}"
    yield "SQNR", "", decibels_text(outcome.quality.sqnr), ""


def _candidates(report: Content) -> Iterable[tuple[str, ...]]:
    outcome = report.outcome
    for c in outcome.candidates:
        yield (
            markdown_cell(c.name),
            f"{c.size / outcome.original_size:.3f}",
            f"{c.latency.ratio:.3f}" if c.latency else "",
            f"{c.quality.score:.4f}" if c.quality and c.quality.score is not None else "",
            f"{c.quality.agreement:.4f}" if c.quality else "",
            "delivered" if c.name == outcome.winner else markdown_cell(c.rejected or "ranked lower"),
        )


def _robustness(report: Content) -> Iterable[str]:
    if report.robustness:
        heads, *rows = robustness_rows(report.robustness, ("original", "result"))
        yield from markdown_table(heads, rows)
        yield ""


def _front(report: Content) -> Iterable[str]:
    outcome = report.outcome
    if outcome.front is None:
        return
    rows = (
        (*front_row(one, outcome.original_size), markdown_cell("; ".join(one.missed) or "inside the budget"))
        for one in outcome.front
    )
    yield from markdown_table(("front", "size", "latency", "score", "agreement", ""), rows)
    yield ""
