"""A `check` report of an earlier commit, read back: what later figures are held against."""

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from onnxcomp.errors import DataError
from onnxcomp.measure import Ratio
from onnxcomp.report.check import CheckReport, GateResult
from onnxcomp.report.figures import counted
from onnxcomp.report.reading import read_content

__all__ = ["Saved"]

_HINT = "write it with onnxcomp check --save-baseline FILE"


@dataclass(frozen=True, slots=True)
class Saved:
    """The figures of an earlier `check`, and what they hold for.

    Attributes:
        size: Bytes.
        baseline_sha256: Of the original's file; None: not known.
        evaluation: What both models ran on; None: they did not.
        agreement: Share of answers equal to the original's; None: not measured.
        metric: That made the score; None: there is none.
        score: The model's own; None: not measured.
        latency: Its time over the original's; None: not measured.
        threads: While timing.
        batch: Rows per run.
        machine: Where the time was taken.
        runtime: Version of onnxruntime; empty: not known.
    """

    size: int
    baseline_sha256: str | None
    evaluation: str | None
    agreement: float | None
    metric: str | None
    score: float | None
    latency: Ratio | None
    threads: int
    batch: int
    machine: str
    runtime: str

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> "Saved":
        """Read a report that was saved as JSON.

        Raises:
            DataError: It can't be read, or is no report of `check` of this version of the format.
        """
        found = read_content(path, kind=CheckReport.kind, what="saved baseline", hint=_HINT)
        try:
            return _saved(found)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
            raise DataError(f"{os.fspath(path)} is damaged: {type(err).__name__}: {err}", hint=_HINT) from err

    def compared(self, report: CheckReport) -> Iterator[GateResult]:
        """Hold a report against these figures: one result for each that is saved."""
        asked = report.settings
        allowed = 1 + asked.tolerance
        grown = report.size / self.size
        reason = f"{report.size} bytes, {self.size} before" if grown > allowed else ""
        yield GateResult("size-growth", "failed" if reason else "passed", "ratio", allowed, grown, reason=reason)
        other = self._other_answers(report)
        score = report.score
        if self.score is not None:
            new = score.candidate if score is not None and score.metric == self.metric else None
            why = other or (f"no {self.metric} here" if new is None else None)
            samples = score.samples if score else None
            yield _loss("score-loss", asked.score_tolerance, (self.score, new), why, samples=samples)
        if self.agreement is not None:
            figures = self.agreement, report.agreement
            yield _loss("agreement-loss", asked.score_tolerance, figures, other)
        if self.latency is not None:
            yield self._latency(report, allowed)

    def _latency(self, report: CheckReport, allowed: float) -> GateResult:
        before, after = self.latency, report.latency
        assert before is not None
        why = self._other_times(report)
        if why is not None or after is None:
            reason = why or "the latency is not measured"
            return GateResult("latency-growth", "not measured", "ratio", allowed, None, reason=reason)
        highest = after.high / before.low if before.low else math.inf
        grown = after.ratio / before.ratio, after.low / before.high, highest
        found = GateResult.of_interval("latency-growth", allowed, grown, seconds=report.settings.seconds)
        told = f"{after.ratio:.3f} of the original's time, {before.ratio:.3f} before: {found.reason}"
        return replace(found, reason=told) if found.reason else found

    def _other_original(self, report: CheckReport) -> str | None:
        if report.baseline is None:
            return "there is no original to compare with"
        if report.baseline_sha256 != self.baseline_sha256:
            return "the original is not the one that the saved baseline was held against"
        return None

    def _other_answers(self, report: CheckReport) -> str | None:
        if why := self._other_original(report):
            return why
        return None if report.evaluation == self.evaluation else f"the samples were others: {self.evaluation}"

    def _other_times(self, report: CheckReport) -> str | None:
        """Say why times can't be compared, or None."""
        if why := self._other_original(report):
            return why
        if (here := _kind(report.machine)) != self.machine:
            return f"measured on another kind of machine: {self.machine}, this is {here}"
        asked = report.settings
        if (asked.threads, asked.batch) != (self.threads, self.batch):
            return f"measured with {counted(self.threads, 'thread')} and batches of {self.batch}"
        if (runtime := _runtime(report.versions)) != self.runtime:
            return f"measured with onnxruntime {self.runtime}, this is {runtime}"
        return None


def _saved(found: Mapping[str, Any]) -> Saved:
    score, latency, asked = found["score"], found["latency"], found["settings"]
    size = int(found["size"])
    if size <= 0:
        raise ValueError(f"a size of {size} bytes")
    return Saved(
        size=size,
        baseline_sha256=_text(found["baseline_sha256"]),
        evaluation=_text(found["evaluation"]),
        agreement=_number(found["agreement"]),
        metric=None if score is None else _text(score["metric"]),
        score=None if score is None else _number(score["candidate"]),
        latency=None if latency is None else _ratio(latency),
        threads=int(asked["threads"]),
        batch=int(asked["batch"]),
        machine=_kind(found["machine"]),
        runtime=_runtime(found["versions"]),
    )


def _ratio(found: Mapping[str, Any]) -> Ratio:
    ratio, low, high = (math.inf if found[name] is None else float(found[name]) for name in ("ratio", "low", "high"))
    if not 0 <= low <= ratio <= high or ratio <= 0:
        raise ValueError(f"a ratio of {ratio} [{low}, {high}]")
    return Ratio(ratio, low, high)


def _loss(
    name: str, allowed: float, figures: tuple[float, float | None], why: str | None, *, samples: int | None = None
) -> GateResult:
    """Judge how much a figure fell; `why`: what keeps it from being compared."""
    before, after = figures
    if after is None or why is not None:
        return GateResult(name, "not measured", "share", allowed, None, reason=why or "it is not measured")
    lost = before - after
    failed = lost > allowed + 1e-9  # a difference of counts
    reason = f"{after:.4f}, {before:.4f} before" if failed else ""
    return GateResult(name, "failed" if failed else "passed", "share", allowed, lost, samples=samples, reason=reason)


def _kind(machine: Mapping[str, str]) -> str:
    return f"{machine['processor']}, {machine['architecture']}"


def _runtime(versions: Mapping[str, str]) -> str:
    return versions.get("onnxruntime") or versions.get("onnxruntime-gpu", "")


def _text(value: object) -> str | None:
    if not (value is None or isinstance(value, str)):
        raise TypeError(f"{value!r} is no text")
    return value


def _number(value: object) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(f"{value!r} is no number")
    return float(value)
