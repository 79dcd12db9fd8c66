"""The report for a terminal."""

import math
from collections.abc import Iterable

from onnxcomp.report.content import Content
from onnxcomp.report.figures import bytes_text, count_text, decibels_text, table
from onnxcomp.report.parts import (
    evidence_text,
    front_row,
    latency_row,
    metric_label,
    pass_lines,
    size_row,
    target_text,
    written_lines,
)
from onnxcomp.report.robustness import robustness_rows
from onnxcomp.search import FrontModel

__all__ = ["render_text"]


def render_text(report: Content, *, verbose: bool = False) -> str:
    """Return the report as text.

    Args:
        report: What to show.
        verbose: Also show what each pass left alone and why.
    """
    lines = [*_head(report), "", *_passes(report, verbose=verbose), "", *_candidates(report), "", *_table(report), ""]
    if report.outcome.front is not None:
        lines += [*_front(report.outcome.front, report.outcome.original_size), ""]
    if report.robustness:
        lines += [*table([*robustness_rows(report.robustness, ("original", "result"))]), ""]
    lines += [*(f" note    {note}" for note in report.notes)]
    lines += [*(f" nearest {near.name}: {', '.join(near.misses)}" for near in report.outcome.nearest)]
    lines += [f" result  {_verdict(report)}"]
    lines += written_lines(report.output)
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _head(report: Content) -> Iterable[str]:
    settings, outcome = report.settings, report.outcome
    yield (
        f" input   {settings.model}  {bytes_text(outcome.original_size)}  {count_text(report.parameters)} parameters  "
        f"opset {report.opset}"
    )
    threads = f"{settings.threads or 'all'} thread{'' if settings.threads == 1 else 's'}"
    where = target_text(settings.target, settings.unmeasured, settings.measurements)
    yield f" target  {where}, {threads}      goal  {settings.goal}"
    if settings.calibration:
        yield f" calibration  {settings.calibration}"
    yield f" evaluation   {settings.evaluation}" + (f", {settings.metric}" if settings.metric else "")
    yield f" verdict      {settings.verdict}"


def _passes(report: Content, *, verbose: bool) -> Iterable[str]:
    made = [("cleanup", done) for done in report.outcome.cleanup]
    if verbose:
        made += [(candidate.name, done) for candidate in report.outcome.candidates for done in candidate.passes]
    yield from pass_lines(made, verbose=verbose)


def _candidates(report: Content) -> Iterable[str]:
    outcome = report.outcome
    width = max(len(c.name) for c in outcome.candidates)
    yield f" {'candidate':{width}} {'size':>6} {'latency':>22} {'score':>8} {'agreement':>10}"
    for c in outcome.candidates:
        size = c.size / outcome.original_size
        latency = "-"
        if c.latency is not None:
            known = math.isfinite(c.latency.high)  # else there were too few runs for an interval
            latency = f"{c.latency.ratio:.3f} [{c.latency.low:.3f}, {c.latency.high:.3f}]" if known else "not settled"
        score = f"{c.quality.score:.4f}" if c.quality and c.quality.score is not None else "-"
        agreement = f"{c.quality.agreement:.4f}" if c.quality else "-"
        fate = "delivered" if c.name == outcome.winner else c.rejected or "ranked lower"
        yield f" {c.name:{width}} {size:6.3f} {latency:>22} {score:>8} {agreement:>10}  {fate}"
    if report.settings.unmeasured:
        yield f" latency not measured: {report.settings.unmeasured}"
        return
    yield " latency is the share of the original's time: rough, but timed once more for what is delivered. Closer than"
    yield " 2 % (sizes: 1 %) counts as equal: then the other figure decides, then the simpler recipe"
    if outcome.evidence is not None and outcome.evidence.held_out:
        reference = outcome.searched_quality.score
        yield " score and agreement are those on the samples that the search judges by" + (
            f", where the original scores {reference:.4f}" if reference is not None else ""
        )


def _front(front: tuple[FrontModel, ...], original_size: int) -> Iterable[str]:
    if not front:
        yield " front: the original alone; nothing else is better in size, latency or score"
        return
    rows = [("front", "size", "latency", "score", "agreement")]
    rows += [front_row(one, original_size) for one in front]
    fates = ["", *("; ".join(one.missed) or "inside the budget" for one in front)]
    yield from (f"{line}  {fate}" for line, fate in zip(table(rows), fates, strict=True))
    yield " each is in the folder of the front as a model, and as a recipe that makes it again"


def _table(report: Content) -> Iterable[str]:
    outcome, settings = report.outcome, report.settings
    yield f" {'':12} {'before':>12} {'after':>12}"
    yield size_row(outcome.original_size, outcome.size)
    yield latency_row(outcome.original_seconds, outcome.seconds_per_run, outcome.latency)
    if outcome.original_quality.score is not None and outcome.quality.score is not None:
        change = outcome.quality.score - outcome.original_quality.score
        yield (
            f" {metric_label(settings.metric):12} {outcome.original_quality.score:12.4f} "
            f"{outcome.quality.score:12.4f}   {change:+.4f}  budget {settings.budget.max_drop:g}  PASS"
        )
    if outcome.evidence is not None:
        yield f" {'':12} {evidence_text(outcome.evidence)}"
    yield f" {'agreement':12} {'':12} {outcome.quality.agreement:12.4f}   bound {settings.budget.agreement_bound:g}"
    bound = settings.budget.min_sqnr
    judged = "no bound: the labels decide" if settings.metric else "bound 20 dB"
    judged = judged if bound is None else f"bound {bound:g} dB"
    yield f" {'SQNR':12} {'':12} {decibels_text(outcome.quality.sqnr):>12}   {judged}"


def _verdict(report: Content) -> str:
    outcome = report.outcome
    if outcome.missed is not None:
        return "a bound is missed: no model is written"
    if outcome.winner is None:
        return "nothing better was proven inside the budget: the original is delivered unchanged"
    if outcome.winner == "cleanup":
        return "no quantized model was better inside the budget: the cleaned-up model is delivered"
    return f"{outcome.winner} is delivered ({outcome.seconds:.0f} s in all)"
