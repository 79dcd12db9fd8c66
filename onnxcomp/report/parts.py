"""Lines and words that several reports share."""

from collections.abc import Callable, Iterable, Sequence

from onnxcomp.measure import Ratio
from onnxcomp.pipeline import PassReport
from onnxcomp.report.document import Written
from onnxcomp.report.figures import bytes_text, counted, seconds_text
from onnxcomp.search import Evidence, FrontModel

__all__ = [
    "count_row",
    "evidence_text",
    "front_row",
    "latency_row",
    "metric_label",
    "pass_lines",
    "size_row",
    "target_text",
    "written_lines",
]

_LABEL = 12  # characters in front of a row
_WORTH_SAYING = 1.005  # a ratio below this is no difference


def pass_lines(made: Sequence[tuple[str, PassReport]], *, verbose: bool = False) -> Iterable[str]:
    """Yield a line per pass that did something.

    Args:
        made: What each pass belongs to, and what it did.
        verbose: Also those that did nothing, and what each left alone and why.
    """
    shown = [(owner, done) for owner, done in made if verbose or done.modified or done.failure]
    left = max((len(owner) for owner, _ in shown), default=0)
    middle = max((len(done.name) for _, done in shown), default=0)
    for owner, done in shown:
        yield f" {owner:{left}}  {done.name:{middle}}  {_did(done):40} {done.seconds:6.1f} s"
        if verbose:
            yield from (f"{'':{left + 3}}- {skip.op_type} {skip.node}: {skip.reason}" for skip in done.skipped)
    if len(shown) < len(made):
        other = "other " if shown else ""
        yield f" {len(made) - len(shown)} {other}clean-up passes found nothing to do"


def size_row(before: int, after: int) -> str:
    """Return the table row that compares sizes in bytes."""
    return count_row("size", before, after, text=bytes_text, words=("smaller", "larger"))


def count_row(
    name: str,
    before: int,
    after: int,
    *,
    text: Callable[[int], str] = str,
    words: tuple[str, str] = ("fewer", "more"),
) -> str:
    """Return the table row that compares two numbers of something, and says in which word they differ."""
    change = _change(before / after, *words) if after else ""
    return f" {name:12} {text(before):>12} {text(after):>12}   {change}"


def latency_row(before: float | None, after: float | None, latency: Ratio | None) -> str:
    """Return the table row that compares seconds per run; a ratio of None says nothing about the difference."""
    if before is None or after is None:
        return f" {'latency':12} {'not measured':>12} {'not measured':>12}"
    speed = ""
    if latency is not None:
        low, high = (latency.low, latency.high) if latency.ratio > 1 else (1 / latency.high, 1 / max(latency.low, 1e-9))
        bounds = f"[{low:.2f}, {high:.2f}]" if latency.low > 0 else ""
        speed = f"   {_change(1 / latency.ratio, 'faster', 'slower')} {bounds}"
    return f" {'latency':12} {seconds_text(before):>12} {seconds_text(after):>12}{speed}"


def metric_label(metric: str | None) -> str:
    """Return what a row calls a metric: its function, and of a long name the end; the evaluation has it in full."""
    name = (metric or "score").rpartition(":")[2]
    return name if len(name) <= _LABEL else f"..{name[2 - _LABEL :]}"


def target_text(target: str, unmeasured: str | None, measurements: str | None = None) -> str:
    """Return a target's name and whether it is where times are taken."""
    where = "latency not measured" if unmeasured else "measured there" if measurements else "this machine"
    return f"{target} ({where})"


def front_row(one: FrontModel, original_size: int) -> tuple[str, str, str, str, str]:
    """Return a model of the front: name of its file, shares of the original's size and time, score, agreement."""
    score = "-" if one.quality.score is None else f"{one.quality.score:.4f}"
    latency = "-" if one.latency is None else f"{one.latency.ratio:.3f}"
    return one.model_file, f"{one.size / original_size:.3f}", latency, score, f"{one.quality.agreement:.4f}"


def evidence_text(evidence: Evidence) -> str:
    """Say what a verdict rests on, and how sure the difference of the scores is."""
    seen = "unseen by the search" if evidence.held_out else "seen by the search too"
    if evidence.low is None or evidence.high is None:
        return (
            f"{counted(evidence.samples, 'sample')}, {seen}; no interval of the score's difference: {evidence.method}"
        )
    return (
        f"{counted(evidence.samples, 'sample')}, {seen}; 95 % interval of the difference "
        f"{evidence.low:+.4f} to {evidence.high:+.4f} ({evidence.method})"
    )


def written_lines(output: Written | None) -> Iterable[str]:
    """Yield the line that says which file was written, if one was."""
    if output is not None:
        yield f" wrote   {output.path}"


def _change(ratio: float, better: str, worse: str) -> str:
    if ratio >= _WORTH_SAYING:
        return f"{ratio:.2f}x {better}"
    return f"{1 / ratio:.2f}x {worse}" if ratio <= 1 / _WORTH_SAYING else "same"


def _did(made: PassReport) -> str:
    if made.failure:
        return f"rolled back: {made.failure}"
    return ", ".join(f"{name}: {count}" for name, count in made.counters.items() if count) or "nothing to do"
