"""`optimize` for several models, one after another: one that fails does not stop the others."""

import os
import time
import traceback
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypedDict, Unpack

from onnxcomp.api.common import Data
from onnxcomp.api.disturbing import check_disturbances
from onnxcomp.api.optimization import optimize
from onnxcomp.data import ImageOptions
from onnxcomp.errors import GateFailed, OnnxCompError, OutputError, UsageError
from onnxcomp.files import check_folder, check_output, is_folder
from onnxcomp.recipe import Recipe
from onnxcomp.report import ModelResult, OptimizeManyReport, Report, machine, now, versions
from onnxcomp.search import Progress, connected
from onnxcomp.statistics import Statistics
from onnxcomp.target import Budget, Goal, Technique

__all__ = ["OptimizeOptions", "optimize_many"]

_BUG = 70


class OptimizeOptions(TypedDict, total=False):
    """The settings of `optimize` that are the same for all models; see there.

    In a text, of ``calibration``, ``statistics``, ``eval`` and ``metric``, ``{folder}`` stands for the folder that a
    model is in, and ``{name}`` for its name without ``.onnx``: each model may have data of its own.
    """

    calibration: Data | None
    statistics: str | os.PathLike[str] | Statistics | None
    eval: Data | None
    metric: str | None
    budget: Budget | None
    goal: Goal
    target: str
    recipe: Recipe | None
    techniques: Collection[Technique] | None
    synthetic_calibration: bool
    threads: int
    batch: int
    images: ImageOptions | None
    seed: int
    time_budget: float


@dataclass(frozen=True, slots=True)
class _Order:
    """A model's file, and its place below the folder of the results."""

    source: Path
    place: Path


def optimize_many(
    models: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    pareto: str | os.PathLike[str] | None = None,
    work_dir: str | os.PathLike[str] | None = None,
    jobs: int = 1,
    cluster: str | None = None,
    perturb: Sequence[str] = (),
    progress: Progress | None = None,
    **options: Unpack[OptimizeOptions],
) -> OptimizeManyReport:
    """Optimize several models, one after another, each as `optimize` does; write what is found at once.

    A model that fails does not stop the others: its entry in the report says why. Nothing else runs while a model is
    timed. An interrupt leaves the results of the models before it.

    Args:
        models: Files, and folders with ``.onnx`` files in them at any depth. A file's result has its name, and that of
            a file in a folder its place below that folder; so have files of one name, below the folder that holds both.
        output: Folder for the results; it may be missing.
        overwrite: Whether files in it may be replaced.
        pareto: Folder that gets, for each model, the folder of its front.
        work_dir: Folder that gets, for each model, the state of its run.
        jobs: As of `optimize`.
        cluster: As of `optimize`.
        perturb: As of `optimize`.
        progress: Called with the model and its stage, and the share of the stage that is done.
        options: As those of `optimize`, for each model; `OptimizeOptions` says how each can have data of its own.

    Raises:
        UsageError: There are no models, or two would be written to the same file.
        OutputError: The folder can't be used, or holds such a file already.
        EnvironmentUnavailable: The cluster does not answer.
    """
    if isinstance(models, str | os.PathLike):
        raise UsageError("models must be a list of paths", hint=f"models=[{os.fspath(models)!r}]")
    check_disturbances(perturb)
    folder = Path(output)
    orders = _orders([Path(model) for model in models], folder)
    _check_targets(orders, folder, overwrite=overwrite)
    for place in (folder, *(Path(other) for other in (pareto, work_dir) if other is not None)):
        check_folder(place, overwrite=True)
    with connected(jobs, cluster):
        pass  # it answers: else nothing would be begun
    start = time.perf_counter()
    results = []
    for number, order in enumerate(orders, start=1):
        tell = None if progress is None else partial(_tell, progress, f"{order.place} ({number} of {len(orders)})")
        results.append(
            _one(
                order,
                folder / order.place,
                pareto=None if pareto is None else Path(pareto) / order.place.with_suffix(""),
                work_dir=None if work_dir is None else Path(work_dir) / order.place.with_suffix(""),
                jobs=jobs,
                cluster=cluster,
                perturb=perturb,
                progress=tell,
                options=options,
            )
        )
    return OptimizeManyReport(
        models=tuple(results),
        output=str(folder),
        seconds=time.perf_counter() - start,
        versions=versions(),
        machine=machine(),
        created=now(),
    )


def _orders(models: Sequence[Path], output: Path) -> list[_Order]:
    """Find the models; refuse two of one place."""
    found: dict[str, _Order] = {}
    places = _places([model for model in models if not is_folder(model)])
    for model in models:
        for order in _of_folder(model, output) if is_folder(model) else [_Order(model, places[model])]:
            key = str(order.place).casefold()  # there are file systems that take both for one
            if key in found:
                first = found[key].source
                raise UsageError(
                    f"{first} and {order.source} would both be written to {output / order.place}",
                    hint="name the folder that holds both: its results keep their places below it"
                    if first.resolve() != order.source.resolve()
                    else "name it once",
                )
            found[key] = order
    if not found:
        raise UsageError("there are no models to optimize", hint="name .onnx files, or folders that hold some")
    return list(found.values())


def _places(files: Sequence[Path]) -> dict[Path, Path]:
    """Say where below the folder of the results each file's goes: those of one name keep what tells them apart."""
    alike: dict[str, list[Path]] = {}
    for path in files:
        alike.setdefault(path.name.casefold(), []).append(path)
    found: dict[Path, Path] = {}
    for paths in alike.values():
        full = {path: Path(os.path.normpath(path.absolute())) for path in paths}
        above = os.path.commonpath([one.parent for one in full.values()])
        found |= {path: one.relative_to(above) for path, one in full.items()}
    return found


def _of_folder(folder: Path, output: Path) -> list[_Order]:
    """List the models below a folder, without what is hidden and what an earlier run has written there."""
    results = output.resolve()
    if folder.resolve().parent == folder.resolve():
        raise UsageError(f"{folder}: it is a directory, and the root of all", hint="name a folder of models")
    try:
        paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() == ".onnx" and path.is_file())
    except OSError as err:
        raise UsageError(f"{folder}: can't be read: {err.strerror or err}", hint="name the models themselves") from err
    orders = [_Order(path, path.relative_to(folder)) for path in paths]
    orders = [
        order
        for order in orders
        if not any(part.startswith(".") for part in order.place.parts) and results not in order.source.resolve().parents
    ]
    if not orders:
        raise UsageError(f"{folder}: no .onnx file in this folder", hint="name .onnx files, or folders that hold some")
    return orders


def _check_targets(orders: Sequence[_Order], folder: Path, *, overwrite: bool) -> None:
    """Refuse, before any work, files that can't be written."""
    sources = tuple(order.source for order in orders)
    for order in orders:
        target = folder / order.place
        parent = next(place for place in target.parents if place.exists() or place == place.parent)
        if not parent.is_dir():
            raise OutputError(f"cannot write {target}: {parent} is no folder", hint="name another --output")
        if target.parent == parent:
            check_output(target, inputs=sources, overwrite=overwrite)


def _one(
    order: _Order,
    target: Path,
    *,
    pareto: Path | None,
    work_dir: Path | None,
    jobs: int,
    cluster: str | None,
    perturb: Sequence[str],
    progress: Progress | None,
    options: OptimizeOptions,
) -> ModelResult:
    """Optimize one model and write it; say what went wrong, where something did."""
    source = str(order.source)
    start = time.perf_counter()
    try:
        for place in (target.parent, *(other.parent for other in (pareto, work_dir) if other is not None)):
            _make_folder(place)
        result = optimize(
            order.source,
            pareto=pareto,
            work_dir=work_dir,
            jobs=jobs,
            cluster=cluster,
            perturb=perturb,
            progress=progress,
            **_own(options, order.source),
        )
        return _described(source, result.save(target))
    except GateFailed as err:
        report = err.report.to_dict() if isinstance(err.report, Report) else None
        found = ModelResult(source, err.exit_code, str(err), err.hint, report=report)
    except OnnxCompError as err:
        found = ModelResult(source, err.exit_code, str(err), err.hint)
    except Exception as err:  # the other models are not to suffer from it
        said = f"a bug of onnxcomp: {type(err).__name__}: {err}"
        found = ModelResult(source, _BUG, said, "please report it", traceback=traceback.format_exc())
    return replace(found, seconds=time.perf_counter() - start)


def _own(options: OptimizeOptions, model: Path) -> OptimizeOptions:
    """Put a model's folder and name into the texts that leave a place for them."""
    found = options.copy()
    for key in ("calibration", "statistics", "eval", "metric"):
        if isinstance(text := options.get(key), str):
            found[key] = text.replace("{folder}", str(model.parent)).replace("{name}", model.stem)
    return found


def _described(source: str, report: Report) -> ModelResult:
    outcome = report.outcome
    return ModelResult(
        source,
        winner=outcome.winner,
        size_ratio=outcome.size / outcome.original_size,
        latency=outcome.latency,
        score_before=outcome.original_quality.score,
        score=outcome.quality.score,
        agreement=outcome.quality.agreement,
        seconds=outcome.seconds,
        output=report.output,
        report=report.to_dict(),
    )


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise OutputError(
            f"cannot make the folder {folder}: {err.strerror or err}", hint="name another --output"
        ) from err


def _tell(progress: Progress, model: str, stage: str, share: float | None) -> None:
    progress(f"{model}, {stage}", share)
