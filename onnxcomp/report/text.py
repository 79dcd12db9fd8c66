"""The report for a terminal."""

from collections.abc import Iterable

from onnxcomp.pipeline import PassReport
from onnxcomp.report.content import Content

__all__ = ["render_text"]


def render_text(report: Content, *, verbose: bool = False) -> str:
    """Return the report as text.

    Args:
        report: What to show.
        verbose: Also show what each pass left alone and why.
    """
    lines = [*_head(report), "", *_passes(report, verbose=verbose), "", *_candidates(report), "", *_table(report)]
    lines += ["", *(f" note    {note}" for note in report.notes), f" result  {_verdict(report)}"]
    return "\n".join(lines) + "\n"


def _head(report: Content) -> Iterable[str]:
    settings, outcome = report.settings, report.outcome
    yield (
        f" input   {settings.model}  {_bytes(outcome.original_size)}  {_count(report.parameters)} parameters  "
        f"opset {report.opset}"
    )
    threads = f"{settings.threads or 'all'} thread{'' if settings.threads == 1 else 's'}"
    yield f" target  {settings.target} (this machine), {threads}      goal  {settings.goal}"
    if settings.calibration:
        yield f" calibration  {settings.calibration}"
    yield f" evaluation   {settings.evaluation}" + (f", {settings.metric}" if settings.metric else "")


def _passes(report: Content, *, verbose: bool) -> Iterable[str]:
    for made in report.outcome.cleanup:
        yield from _pass(made, verbose=verbose)
    if verbose:
        for candidate in report.outcome.candidates:
            for made in candidate.passes:
                yield from _pass(made, verbose=True, candidate=candidate.name)


def _pass(made: PassReport, *, verbose: bool, candidate: str = "cleanup") -> Iterable[str]:
    if made.failure:
        what = f"rolled back: {made.failure}"
    else:
        what = ", ".join(f"{count} {name}" for name, count in made.counters.items() if count) or "nothing to do"
    yield f" {candidate:20} {made.name:20} {what:40} {made.seconds:6.1f} s"
    if verbose:
        for skip in made.skipped:
            yield f"{'':22}- {skip.op_type} {skip.node}: {skip.reason}"


def _candidates(report: Content) -> Iterable[str]:
    outcome = report.outcome
    yield f" {'candidate':20} {'size':>6} {'latency':>22} {'score':>8} {'agreement':>10}"
    for c in outcome.candidates:
        latency = f"{c.latency.ratio:.3f} [{c.latency.low:.3f}, {c.latency.high:.3f}]" if c.latency else "-"
        score = f"{c.quality.score:.4f}" if c.quality and c.quality.score is not None else "-"
        agreement = f"{c.quality.agreement:.4f}" if c.quality else "-"
        fate = "delivered" if c.name == outcome.winner else c.rejected or ""
        yield f" {c.name:20} {c.size / outcome.original_size:6.3f} {latency:>22} {score:>8} {agreement:>10}  {fate}"


def _table(report: Content) -> Iterable[str]:
    outcome, settings = report.outcome, report.settings
    yield f" {'':12} {'before':>12} {'after':>12}"
    size = outcome.original_size / outcome.size
    yield f" {'size':12} {_bytes(outcome.original_size):>12} {_bytes(outcome.size):>12}   {size:.2f}x smaller"
    before, after = _seconds(outcome.original_seconds), _seconds(outcome.seconds_per_run)
    speed = ""
    if latency := outcome.latency:
        bounds = f"[{1 / latency.high:.2f}, {1 / latency.low:.2f}]" if latency.low > 0 else ""
        speed = f"   {1 / latency.ratio:.2f}x faster {bounds}"
    yield f" {'latency':12} {before:>12} {after:>12}{speed}"
    if outcome.original_quality.score is not None and outcome.quality.score is not None:
        change = outcome.quality.score - outcome.original_quality.score
        yield (
            f" {settings.metric or 'score':12} {outcome.original_quality.score:12.4f} {outcome.quality.score:12.4f}   "
            f"{change:+.4f}  budget {settings.budget.max_drop:g}  PASS"
        )
    yield f" {'agreement':12} {'':12} {outcome.quality.agreement:12.4f}   bound {settings.budget.agreement_bound:g}"
    yield f" {'SQNR':12} {'':12} {outcome.quality.sqnr:9.1f} dB"


def _verdict(report: Content) -> str:
    outcome = report.outcome
    if outcome.winner is None:
        return "nothing measured better: the original is delivered unchanged"
    if outcome.winner == "cleanup":
        return "no quantized model was better inside the budget: the cleaned-up model is delivered"
    return f"{outcome.winner} is delivered ({outcome.seconds:.0f} s in all)"


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def _count(count: int) -> str:
    return f"{count / 1e6:.2f} M" if count >= 1e6 else f"{count / 1e3:.1f} k"


def _seconds(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"
