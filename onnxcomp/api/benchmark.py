"""``bench``: latency, throughput, load time and memory of models, side by side."""

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import numpy as np

from onnxcomp.api.common import (
    Data,
    check_batch,
    check_images_used,
    check_threads,
    make_up,
    open_data,
    size_on_disk,
)
from onnxcomp.api.pairs import check_same_inputs
from onnxcomp.api.streaming import alike, share_out
from onnxcomp.api.sweeping import check_sweep, sweep_points, swept_places
from onnxcomp.data import Feed, ImageOptions
from onnxcomp.errors import EnvironmentUnavailable, UsageError
from onnxcomp.facts import input_specs
from onnxcomp.measure import (
    Comparison,
    Memory,
    NodeTime,
    check_device,
    fallback,
    interleave,
    load_times,
    node_profile,
    operator_times,
    peak_memory,
)
from onnxcomp.model import fingerprint, is_packed, load, save
from onnxcomp.report import (
    BenchReport,
    BenchSettings,
    ModelBenchmark,
    machine,
    now,
    sweep_notes,
    versions,
)
from onnxcomp.report.figures import counted
from onnxcomp.runtime import Provider, Session, check_provider, limits
from onnxcomp.search import Progress

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["MADE_UP", "Contender", "bench", "check_timing", "enter", "rows_of", "timed_feed"]

_PROFILE_SECONDS = 2.0
_LEAST = 0.1  # of the seconds: a fast model would be timed within a moment, when a neighbour may work
_PROFILE_RUNS = (5, 50)
MADE_UP = "made-up inputs: where the work depends on values (loops), real ones may take other times"


@dataclass(frozen=True, slots=True)
class Contender:
    """A model to be timed: what it is called, its graph, its file."""

    name: str
    model: "ir.Model"
    path: Path
    size: int


def bench(
    *models: "str | os.PathLike[str] | bytes | ir.Model",
    data: Data | None = None,
    threads: int = 1,
    batch: int = 1,
    images: ImageOptions | None = None,
    provider: Provider = "cpu",
    seconds: float = 30.0,
    half_width: float = 0.02,
    confidence: float = 0.95,
    profile: bool = False,
    copies: bool = False,
    sweep: Mapping[str, Sequence[int]] | None = None,
    streams: int | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> BenchReport:
    """Time models side by side, interleaved in one run; the first is what the others are compared with.

    Each is warmed up until it gets no faster. On another device than the CPU, what goes in and comes out stays in its
    memory, unless copies between it and the host are to count.

    Args:
        models: Paths, serialized models, or models in memory. They are not changed.
        data: Samples, the first run of which is timed; None: made-up inputs.
        threads: Intra-op threads; 0 is all cores.
        batch: Rows, or images, per run, where the models take any number.
        images: How the images of a folder become values of the models' input.
        provider: What runs the models: ``cpu``, ``cuda`` or ``tensorrt``.
        seconds: For each timing; it ends earlier when all intervals are narrow enough. A point of a sweep, and the
            streams, are timings of their own.
        half_width: How narrow the intervals of the ratios are to be, as a share of the ratio.
        confidence: Of the intervals, in (0, 1).
        profile: Also measure the time of each node and type of operator.
        copies: With a provider of another device: whether inputs and outputs are copied from and to the host in each
            run, as they are where a program has them there. Streams always copy.
        sweep: Sizes by dimension, every combination of which is timed as well: a dimension is a name in the model's
            inputs, ``batch`` for the first axis of all, or ``INPUT.AXIS`` for one without a name.
        streams: Also measure the throughput of so many threads that share a session, each with a run of its own.
        seed: Of the order of the runs and of made-up inputs.
        progress: Called with the stage and the share done.

    Returns:
        The figures. `BenchReport.settled` says whether the machine was quiet enough for intervals of that width.

    Raises:
        UsageError: A setting makes no sense, or the models differ in their inputs.
        DataError: The samples do not fit the models.
        ModelError: A model is invalid, or fails while it runs.
        EnvironmentUnavailable: The provider is not there.
    """
    if not models:
        raise UsageError("there is no model to time", hint="onnxcomp bench MODEL...")
    check_threads(threads)
    check_batch(batch)
    check_timing(provider, seconds=seconds, half_width=half_width, confidence=confidence)
    check_sweep(sweep or {})
    if streams is not None and streams < 1:
        raise UsageError(f"streams must be 1 or more, got {streams}", hint="leave out --streams: none is timed then")
    check_provider(provider)
    tell = progress or (lambda _stage, _share: None)
    with tempfile.TemporaryDirectory(prefix="onnxcomp.") as folder:
        tell("load", None)
        entries = [enter(model, number, Path(folder)) for number, model in enumerate(models, 1)]
        feeds, description = _timed_feeds(entries, data, count=streams or 1, batch=batch, images=images, seed=seed)
        feed = feeds[0]
        asked = BenchSettings(description, threads, batch, provider, seconds, half_width, seed, confidence, copies)
        graphs = [(entry.name, entry.model) for entry in entries]
        swept_places(graphs, sweep or {})  # a mistake is told before the work
        for entry in entries:
            check_device(entry.name, entry.path, feed, threads=threads, provider=provider)
        loads = load_times([partial(Session, entry.path, threads=threads, provider=provider) for entry in entries])
        memory, notes = _memories(entries, feed, threads=threads, provider=provider, progress=tell)
        rows = rows_of(feed, batch, notes)
        time = partial(
            _time,
            entries,
            threads=threads,
            provider=provider,
            copies=copies,
            seconds=seconds,
            half_width=half_width,
            confidence=confidence,
            seed=seed,
        )
        timing = time(feed, progress=tell)
        notes += timing.warnings
        swept = sweep_points(
            graphs,
            feed,
            sweep or {},
            rows=rows,
            time=lambda run, point: time(run, progress=lambda _, share: tell(f"measure {point}", share)),
        )
        points = tuple(swept) if sweep else ()
        notes += sweep_notes(points)
        shared = None
        if streams is not None:
            sessions = [(entry.name, Session(entry.path, threads=threads, provider=provider).run) for entry in entries]
            stage = partial(tell, f"measure {counted(streams, 'stream')}")
            shared = share_out(sessions, feeds, asked, rows=rows, notes=notes, progress=stage)
        nodes: list[list[NodeTime]] = [[] for _ in entries]
        if profile or provider != "cpu":
            tell("profile", None)
            nodes = [
                node_profile(entry.path, feed, threads=threads, provider=provider, runs=_profile_runs(found.median))
                for entry, found in zip(entries, timing.timings, strict=True)
            ]
    if data is None:
        notes.append(MADE_UP)
    found = tuple(
        ModelBenchmark(
            model=entry.name,
            size=entry.size,
            latency=timing.timings[i],
            throughput=rows / timing.timings[i].median,
            load_seconds=float(np.median(loads[i])),
            memory=memory[i],
            ratio=timing.ratios.get(timing.timings[i].name),
            operators=tuple(operator_times(nodes[i])) if profile else (),
            fingerprint=fingerprint(entry.model),
            nodes=tuple(nodes[i]) if profile else (),
            fallback=fallback(nodes[i], provider),
        )
        for i, entry in enumerate(entries)
    )
    return BenchReport(
        settings=asked,
        shapes={name: tuple(np.shape(value)) for name, value in feed.items()},
        rows=rows,
        models=found,
        rounds=timing.rounds,
        settled=timing.settled,
        seconds=timing.seconds,
        notes=tuple(notes),
        versions=versions(),
        machine=machine(provider),
        created=now(),
        sweep=points,
        streams=shared,
    )


def check_timing(provider: str, *, seconds: float, half_width: float, confidence: float) -> None:
    """Refuse settings of a timing that make no sense.

    Raises:
        UsageError: One does not.
    """
    if provider not in get_args(Provider):
        raise UsageError(f"unknown provider {provider!r}", hint=f"one of: {', '.join(get_args(Provider))}")
    for name, value in (("seconds", seconds), ("half-width", half_width)):
        if not 0 < value < float("inf"):
            raise UsageError(f"{name} must be a positive number, got {value}", hint=f"leave out --{name}, or raise it")
    if not 0 < confidence < 1:
        raise UsageError(
            f"confidence must be in (0, 1), got {confidence}", hint="leave out --confidence: it is 0.95 then"
        )


def rows_of(feed: Feed, batch: int, notes: list[str]) -> int:
    """Return the rows of a run: the batch where all inputs have it, else 1, with a note."""
    if all(np.shape(value)[:1] == (batch,) for value in feed.values()):
        return batch
    notes.append(f"the models do not take batches of {batch}: a run counts as one row")
    return 1


def enter(model: "str | os.PathLike[str] | bytes | ir.Model", number: int, folder: Path) -> Contender:
    """Load a model, and find or write the file that sessions are made from."""
    loaded = load(model)
    own = Path(model) if isinstance(model, str | os.PathLike) else None
    path = None if is_packed(loaded) else own
    if path is None or loaded.ir_version >= limits().ir_version:  # the file may have a newer one than onnxruntime takes
        path = folder / f"{number}.onnx"
        save(loaded, path)
    return Contender(str(own) if own else f"model {number}", loaded, path, size_on_disk(model, loaded))


def timed_feed(
    entries: Sequence[Contender], data: Data | None, *, batch: int, images: ImageOptions | None, seed: int
) -> tuple[Feed, str]:
    """Return the inputs that all models are timed on, and what they are."""
    (feed,), description = _timed_feeds(entries, data, count=1, batch=batch, images=images, seed=seed)
    return feed, description


def _timed_feeds(
    entries: Sequence[Contender], data: Data | None, *, count: int, batch: int, images: ImageOptions | None, seed: int
) -> tuple[list[Feed], str]:
    """Return inputs of the same shapes, one for each stream, and what they are."""
    first, *others = entries
    for other in others:
        check_same_inputs(first.model, other.model, names=(first.name, other.name))
    # The one that leaves least open: inputs that fit it fit the others
    strictest = min(entries, key=lambda entry: _open_dimensions(entry.model)).model
    samples = open_data(strictest, data, batch=batch, images=images) or make_up(strictest, seed=seed, batch=batch)
    check_images_used(images, samples)
    return alike(list(samples.take(count)), count), samples.description


def _open_dimensions(model: "ir.Model") -> int:
    return sum(spec.shape is None or spec.shape.count(None) for spec in input_specs(model))


def _memories(
    entries: Sequence[Contender], feed: Feed, *, threads: int, provider: Provider, progress: Progress
) -> tuple[list[Memory | None], list[str]]:
    """Measure what memory each model takes; notes say where that is not known."""
    found: list[Memory | None] = []
    notes = []
    for entry in entries:
        progress(f"memory: {entry.name}", None)
        try:
            found.append(peak_memory(entry.path, feed, threads=threads, provider=provider))
        except EnvironmentUnavailable as err:
            found.append(None)
            notes.append(f"the memory of {entry.name} is not known: {err}")
    return found, notes


def _time(
    entries: Sequence[Contender],
    feed: Feed,
    *,
    threads: int,
    provider: Provider,
    copies: bool,
    seconds: float,
    half_width: float,
    confidence: float,
    seed: int,
    progress: Progress,
) -> Comparison:
    """Time the models; a number makes names unique, because one file may be given twice."""
    contenders: dict[str, Callable[[], object]] = {}
    for number, entry in enumerate(entries):
        session = Session(entry.path, threads=threads, provider=provider)
        contenders[f"{number} {entry.name}"] = partial(session.run, feed) if copies else session.bound(feed)
    for run in contenders.values():
        run()  # what does not run fails before the time of others is taken
    return interleave(
        contenders,
        baseline=next(iter(contenders)),
        half_width=half_width,
        confidence=confidence,
        max_seconds=seconds,
        min_seconds=_LEAST * seconds,
        seed=seed,
        progress=partial(progress, "measure"),
    )


def _profile_runs(seconds_per_run: float) -> int:
    fewest, most = _PROFILE_RUNS
    return int(min(most, max(fewest, _PROFILE_SECONDS / seconds_per_run)))
