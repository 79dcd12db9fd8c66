"""``check``: hold a model against bounds, against its original, and against what an earlier version reached."""

import dataclasses
import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from onnxcomp.api.benchmark import bench
from onnxcomp.api.common import Data, check_batch, check_threads, size_on_disk
from onnxcomp.api.comparison import compare
from onnxcomp.data import ImageOptions
from onnxcomp.errors import GateFailed, UsageError
from onnxcomp.files import replacing
from onnxcomp.measure import Ratio
from onnxcomp.model import is_packed, load
from onnxcomp.report import (
    CheckReport,
    CheckSettings,
    CompareReport,
    GateResult,
    GateUnit,
    Saved,
    Written,
    machine,
    now,
    versions,
)
from onnxcomp.report.figures import one_line
from onnxcomp.search import Progress
from onnxcomp.target import Gates

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["check"]

_TURNS = 3  # runs with sessions of their own
_CLEAR = 0.05  # further from the bound than what sessions of one file differ by
_LEAST_SECONDS = 2.0  # left over, to be worth another run
_ALONE: dict[str, GateUnit] = {"max_size": "bytes"}
_PAIRED: dict[str, GateUnit] = {
    "max_size_ratio": "ratio",
    "max_drop": "share",
    "min_agreement": "share",
    "min_sqnr": "dB",
}


def check(
    model: "str | os.PathLike[str] | bytes | ir.Model",
    *,
    baseline: "str | os.PathLike[str] | bytes | ir.Model | None" = None,
    gates: Gates | None = None,
    against: str | os.PathLike[str] | None = None,
    tolerance: float = 0.05,
    score_tolerance: float = 0.005,
    save_baseline: str | os.PathLike[str] | None = None,
    strict: bool = False,
    eval: Data | None = None,  # noqa: A002  (the name of the option)
    metric: str | None = None,
    by_position: bool = False,
    threads: int = 1,
    batch: int = 1,
    images: ImageOptions | None = None,
    seconds: float = 30.0,
    seed: int = 0,
    progress: Progress | None = None,
) -> CheckReport:
    """Judge a model by bounds: the gate of a CI job.

    Answers and scores come from `compare`, times from `bench`: both models in turns, in one run. A latency fails where
    the whole 95 % interval of the ratio is over the bound, passes where it is below, and is undecided between.

    Args:
        model: A path, a serialized model, or a model in memory. It is not changed.
        baseline: The original, in the same forms. Every gate but ``max_size`` needs it.
        gates: The bounds.
        against: The JSON report of an earlier `check`: figures may not be worse than there by more than the tolerances.
        tolerance: How much size and latency may grow against it, as a share.
        score_tolerance: How much score and agreement may fall against it, in the unit of the score.
        save_baseline: Write the report to this file unless a gate fails, as JSON that later ones are held against. With
            an original the latency is measured also where no gate needs it.
        strict: Fail where a gate is undecided or not measured.
        eval: Labelled samples for the metric, or unlabelled ones for fidelity alone; None: made-up inputs.
        metric: ``top1``, ``top5``, ``FILE.py:function`` or ``module:function``; top1 where labels are class numbers.
        by_position: Pair inputs and outputs by their order, where names differ.
        threads: Intra-op threads while timing; 0 is all cores.
        batch: Rows per run of an ``.npz`` of rows; images per run.
        images: How the images of a folder become values of the model's input.
        seconds: For the timing; less where that decides.
        seed: For every random choice.
        progress: Called with the stage and the share done.

    Returns:
        What was found.

    Raises:
        GateFailed: A gate is missed; it carries the report.
        OutputError: The baseline can't be saved.
        UsageError: There is no gate, a setting makes no sense, or the models' inputs or outputs differ.
        DataError: The samples do not fit the models, or `against` is no saved report.
        MetricError: The metric can't be loaded, has no labels, or fails.
        ModelError: A model is invalid, or fails while it runs.
    """
    gates = gates or Gates()
    _check_gates(gates, baseline, against)
    _check_numbers(tolerance, score_tolerance, seconds)
    check_threads(threads)
    check_batch(batch)
    saved = None if against is None else Saved.read(against)
    size = _file_size(model)
    baseline_size = None if baseline is None else _file_size(baseline)
    found = latency = None
    notes: list[str] = []
    if baseline is not None:
        found = _compare(
            baseline,
            model,
            max_drop=gates.max_drop,
            eval=eval,
            metric=metric,
            by_position=by_position,
            batch=batch,
            images=images,
            seed=seed,
            progress=progress,
        )
        notes += found.notes
        compared = save_baseline is not None or (saved is not None and saved.latency is not None)
        if compared or gates.max_latency_ratio is not None:
            latency = _time(
                (baseline, model),
                bound=None if compared else gates.max_latency_ratio,
                data=eval,
                threads=threads,
                batch=batch,
                images=images,
                seconds=seconds,
                seed=seed,
                progress=progress,
            )
    settings = CheckSettings(
        gates=gates,
        strict=strict,
        against=None if against is None else os.fspath(against),
        tolerance=tolerance,
        score_tolerance=score_tolerance,
        threads=threads,
        batch=batch,
        seconds=seconds,
        seed=seed,
    )
    report = CheckReport(
        model=_name(model) or "the model",
        baseline=None if baseline is None else _name(baseline) or "the original",
        settings=settings,
        results=tuple(_judge(gates, (size, baseline_size or size), found, latency, seconds)),
        missed=(),
        size=size,
        baseline_size=baseline_size,
        baseline_sha256=Written.at(name).sha256 if baseline is not None and (name := _name(baseline)) else None,
        evaluation=found.evaluation if found else None,
        agreement=found.agreement if found else None,
        sqnr=_sqnr(found) if found else None,
        score=found.score if found else None,
        latency=latency,
        notes=tuple(notes),
        versions=versions(),
        machine=machine(),
        created=now(),
    )
    if saved is not None:
        report = dataclasses.replace(report, results=(*report.results, *saved.compared(report)))
    missed = tuple(one_line(f"{r.name}: {r.reason}") for r in report.results if report.fails(r))
    report = dataclasses.replace(report, missed=missed)
    if missed:
        raise GateFailed("; ".join(missed), report=report)
    if save_baseline is not None:
        with replacing(Path(save_baseline)) as temporary:
            temporary.write_text(report.to_json(), encoding="utf-8")
    return report


def _check_gates(gates: Gates, baseline: object, against: object) -> None:
    named = {f.name for f in dataclasses.fields(Gates) if getattr(gates, f.name) is not None}
    if not named and against is None:
        raise UsageError("there is no gate", hint="name a bound, as in --max-size 5MB, or --against FILE")
    if baseline is None and (paired := sorted(named - set(_ALONE))):
        option = paired[0].replace("_", "-")
        raise UsageError(f"{option} needs the original to compare with", hint="--baseline ORIGINAL")


def _check_numbers(tolerance: float, score_tolerance: float, seconds: float) -> None:
    for name, value in (("tolerance", tolerance), ("score-tolerance", score_tolerance)):
        if not 0 <= value < float("inf"):
            raise UsageError(f"{name} must be 0 or more, got {value}", hint=f"leave out --{name}")
    if not 0 < seconds < float("inf"):
        raise UsageError(f"seconds must be a positive number, got {seconds}", hint="leave out --seconds")


def _compare(
    baseline: "str | os.PathLike[str] | bytes | ir.Model",
    model: "str | os.PathLike[str] | bytes | ir.Model",
    *,
    max_drop: float | None,
    **settings: Any,
) -> CompareReport:
    """Compare the answers; a drop that is too large is judged later, beside the other gates."""
    try:
        return compare(baseline, model, gates=Gates(max_drop=max_drop), **settings)
    except GateFailed as err:
        return cast(CompareReport, err.report)


def _judge(
    gates: Gates, sizes: tuple[int, int], found: CompareReport | None, latency: Ratio | None, seconds: float
) -> Iterator[GateResult]:
    """Hold the figures against each bound; `sizes`: of the model and of the original, bytes."""
    size, original_size = sizes
    score = found.score if found else None
    sqnr = _sqnr(found) if found else None
    values = {
        "max_size": size,
        "max_size_ratio": size / original_size,
        "max_drop": score.reference - score.candidate if score else None,
        "min_agreement": found.agreement if found else None,
        "min_sqnr": sqnr,
    }
    for name, unit in (_ALONE | _PAIRED).items():
        bound, value = getattr(gates, name), values[name]
        if bound is None:
            continue
        option = name.replace("_", "-")
        if value is None:
            yield GateResult(option, "not measured", unit, bound, None, reason="the model has no output of floats")
            continue
        missed = Gates(**{name: bound}).missed(
            drop=values["max_drop"],
            agreement=found.agreement if found else 1.0,
            sqnr=float("inf") if sqnr is None else sqnr,
            size=size,
            original_size=original_size,
        )
        result = GateResult(option, "failed" if missed else "passed", unit, bound, value, reason="; ".join(missed))
        if name == "max_drop" and score is not None:
            low, high = (None, None) if score.low is None or score.high is None else (-score.high, -score.low)
            result = dataclasses.replace(result, low=low, high=high, samples=score.samples)
        yield result
    if gates.max_latency_ratio is not None and latency is not None:
        yield GateResult.of_interval(
            "max-latency-ratio", gates.max_latency_ratio, (latency.ratio, latency.low, latency.high), seconds=seconds
        )


def _time(
    models: "tuple[str | os.PathLike[str] | bytes | ir.Model, ...]",
    *,
    bound: float | None,
    seconds: float,
    seed: int,
    **settings: Any,
) -> Ratio:
    """Time the model against the original, with sessions made anew for each of up to three runs.

    Two sessions of one file differ by a percent or two, for as long as they live, and no number of rounds shows that.
    So where the first ratio is not clear of the bound, and there is time left, the interval is that which holds those
    of all runs. Without a bound all runs are made.
    """
    begin = time.monotonic()
    found: list[Ratio] = []
    for turn in range(_TURNS):
        left = seconds - (time.monotonic() - begin) if found else seconds
        if found and (left < _LEAST_SECONDS or (bound is not None and abs(found[0].ratio / bound - 1) > _CLEAR)):
            break
        ratio = bench(*models, seconds=left, seed=seed + turn, **settings).models[-1].ratio
        assert ratio is not None
        found.append(ratio)
    middle = statistics.median(one.ratio for one in found)
    return Ratio(middle, min(one.low for one in found), max(one.high for one in found))


def _sqnr(found: CompareReport) -> float | None:
    return found.sqnr if any(output.sqnr is not None for output in found.outputs.values()) else None


def _file_size(source: "str | os.PathLike[str] | bytes | ir.Model") -> int:
    """Return the bytes on disk; of a container those of its file, not of the model in it, which reports tell else."""
    model = load(source)
    if isinstance(source, str | os.PathLike) and is_packed(model):
        return Path(source).stat().st_size
    return size_on_disk(source, model)


def _name(model: object) -> str | None:
    return str(Path(model)) if isinstance(model, str | os.PathLike) else None
