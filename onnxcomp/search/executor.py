"""Where candidates are judged ahead of their turn: in processes of this machine, or on a Dask or Ray cluster.

A job is one candidate on all evaluation samples. It is sent by value (the original, the candidate, the samples, the
metric), so that nothing has to lie on the machines of a cluster but the packages. What a job finds is what judging here
finds: the search takes it in the same order, and the winner is judged once more on this machine before it is delivered.
Timing is no job: it happens in this process, and jobs are waited for before anything goes on.
"""

import os
import pickle
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Protocol

import numpy as np

from onnxcomp import runtime
from onnxcomp.customops import custom_operators, libraries
from onnxcomp.data import Feed, Samples
from onnxcomp.errors import EnvironmentUnavailable, MetricError, ModelError, UsageError
from onnxcomp.model import load, open_session
from onnxcomp.search.judge import Judge, Task
from onnxcomp.search.result import Quality
from onnxcomp.target import Budget
from onnxcomp.usercode import file_modules

__all__ = ["Answer", "Executor", "Judging", "connected", "sendable"]

_SECONDS_TO_CONNECT = 10
_SECONDS_TO_NOTICE = 0.5  # that the process that started this one has ended
_LARGEST = 1 << 30  # bytes of samples: they are held in memory here and on every machine
_LONGEST_REASON = 300  # characters of what a package says, which may be a whole log
_DASK = ("tcp", "tls", "ws", "wss", "ucx")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a job found.

    Attributes:
        original: The original's quality on that machine.
        found: The candidate's quality; a text: why it fails.
        versions: Of onnxcomp and onnxruntime there.
    """

    original: Quality
    found: Quality | str
    versions: str


@dataclass(frozen=True, slots=True)
class Judging:
    """What all jobs of a search have in common; made by `sendable`."""

    content: np.ndarray  # [bytes]: arrays are shared by the processes of a machine, and sent to it once


class Executor(Protocol):
    """Runs jobs, and returns when all have ended."""

    @property
    def lanes(self) -> int:
        """How many jobs run at once."""

    def judge(self, judging: Judging, models: Sequence[bytes]) -> list[Answer]:
        """Judge models.

        Raises:
            EnvironmentUnavailable: A job could not run.
        """


@dataclass(frozen=True, slots=True)
class _Order:
    """What is in a `Judging`."""

    original: bytes
    task: Task
    budget: Budget
    features: frozenset[str]
    libraries: tuple[str, ...]


class _Sent(Samples):
    """Samples that are sent by value."""

    def __init__(self, feeds: Sequence[Feed], labels: list[np.ndarray] | None, description: str) -> None:
        self._feeds = feeds
        self._labels = labels
        self._description = description

    def __iter__(self) -> Iterator[Feed]:
        return iter(self._feeds)

    @property
    def length(self) -> int:
        return len(self._feeds)

    @property
    def description(self) -> str:
        return self._description

    def labels(self) -> list[np.ndarray] | None:
        return self._labels


def sendable(original: bytes, task: Task, budget: Budget, features: frozenset[str]) -> Judging:
    """Make what is sent to where jobs run.

    Raises:
        UsageError: The samples are too large, or the metric can't be sent.
    """
    import cloudpickle

    feeds, total = [], 0
    for feed in task.samples:
        feeds.append({name: np.array(value) for name, value in feed.items()})
        total += sum(value.nbytes for value in feeds[-1].values())
        if total > _LARGEST:
            raise UsageError(
                f"{task.samples.description}: over 1 GiB of samples are not sent to where jobs run",
                hint="give fewer evaluation samples, or leave out --jobs and --cluster",
            )
    samples = _Sent(feeds, task.samples.labels() if task.metric else None, task.samples.description)
    order = _Order(original, replace(task, samples=samples, held_out=None), budget, features, libraries())
    modules = file_modules()  # there are no files of the user's on the other machines
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    try:
        content = cloudpickle.dumps(order)
    except (pickle.PicklingError, TypeError, AttributeError) as err:
        raise UsageError(
            f"the metric {task.metric_name} can't be sent to where jobs run: {err}",
            hint="keep open files, locks and sessions out of its module, or leave out --jobs and --cluster",
        ) from err
    finally:
        for module in modules:
            cloudpickle.unregister_pickle_by_value(module)
    return Judging(np.frombuffer(content, np.uint8))


@cache
def _end_with(parent: int) -> None:
    """Let this process end when the one that started it has: a process that is killed ends none of its own."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_SECONDS_TO_NOTICE)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _job(content: np.ndarray, model: bytes, parent: int | None) -> Answer:
    """Judge one model; runs in another process, which `parent` has started on this machine (None: on a cluster)."""
    if parent is not None:
        _end_with(parent)
    order: _Order = pickle.loads(content.tobytes())  # from the process that started this one
    with custom_operators(order.libraries):
        # One thread each: there are as many jobs as there are cores
        judge = Judge(open_session(load(order.original)), order.task, order.budget, features=order.features)
        found: Quality | str
        try:
            found = judge.quality(open_session(load(model)), early=True)
        except (MetricError, ModelError) as err:
            found = str(err)
    return Answer(judge.original, found, _versions())


@contextmanager
def connected(jobs: int = 1, cluster: str | None = None) -> Iterator[Executor | None]:
    """Give what runs jobs, and let go of it; None: judge here, one candidate after another.

    Args:
        jobs: Processes of this machine.
        cluster: Address of a Dask scheduler (``tcp://host:8786``) or of a Ray cluster (``ray://host:10001``) instead.

    Raises:
        EnvironmentUnavailable: Nothing answers there, there is no worker, or a package is missing.
        UsageError: The address is none, the number makes no sense, or both are given.
    """
    if jobs < 1:
        raise UsageError(f"jobs must be 1 or more, got {jobs}", hint="leave out --jobs: it is 1 then")
    if cluster is None:
        yield None if jobs == 1 else _Joblib(f"{jobs} processes", jobs, {"backend": "loky"})
        return
    if jobs != 1:
        raise UsageError("a cluster decides itself how many jobs run at once", hint="leave out --jobs or --cluster")
    scheme, found, _ = cluster.partition("://")
    if found and scheme in _DASK:
        with _dask(cluster) as executor:
            yield executor
    elif found and scheme == "ray":
        with _ray(cluster) as executor:
            yield executor
    else:
        raise UsageError(
            f"{cluster!r} is no address of a cluster",
            hint="tcp://HOST:8786 for a Dask scheduler, ray://HOST:10001 for a Ray cluster",
        )


@dataclass(frozen=True, slots=True)
class _Joblib:
    """Runs jobs with one of joblib's backends."""

    name: str
    lanes: int
    backend: dict[str, Any]

    def judge(self, judging: Judging, models: Sequence[bytes]) -> list[Answer]:
        """See `Executor.judge`."""
        import joblib

        parent = os.getpid() if self.backend["backend"] == "loky" else None
        work = (joblib.delayed(_job)(judging.content, model, parent) for model in models)
        try:
            with joblib.parallel_config(**self.backend):
                answers: list[Answer] = joblib.Parallel(n_jobs=self.lanes, batch_size=1, pre_dispatch="all")(work)
        except Exception as err:  # anything: a machine that died, a package that is not there
            raise EnvironmentUnavailable(
                f"judging on {self.name} failed: {type(err).__name__}: {err}",
                hint="the same onnxcomp and onnxruntime, and what the metric imports, must be installed there",
            ) from err
        if others := sorted({answer.versions for answer in answers} - {_versions()}):
            raise EnvironmentUnavailable(
                f"{self.name} has {others[0]}, this process has {_versions()}", hint="install the same versions there"
            )
        return answers


@contextmanager
def _dask(address: str) -> Iterator[_Joblib]:
    try:
        from distributed import Client
    except ImportError as err:
        raise _missing(address, "dask") from err
    try:
        client = Client(address, timeout=_SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as err:
        raise _unreachable(address, "Dask scheduler", err) from err
    with client:
        try:
            client.wait_for_workers(1, timeout=_SECONDS_TO_CONNECT)
        except TimeoutError as err:
            raise EnvironmentUnavailable(
                f"the Dask scheduler at {address} has no workers", hint=f"dask worker {address}"
            ) from err
        lanes = sum(client.ncores().values())
        yield _Joblib(f"the cluster at {address}", lanes, {"backend": "dask", "client": client})


@contextmanager
def _ray(address: str) -> Iterator[_Joblib]:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as err:
        raise _missing(address, "ray") from err
    try:
        ray.init(address, log_to_driver=False, logging_level="error")
    except (OSError, RuntimeError, ValueError) as err:
        raise _unreachable(address, "Ray cluster", err) from err
    try:
        register_ray()
        yield _Joblib(f"the cluster at {address}", int(ray.cluster_resources().get("CPU", 1)), {"backend": "ray"})
    finally:
        ray.shutdown()


def _missing(address: str, extra: str) -> EnvironmentUnavailable:
    return EnvironmentUnavailable(
        f"{address} needs a package that is not installed", hint=f"pip install 'onnxcomp[{extra}]'"
    )


def _unreachable(address: str, what: str, err: Exception) -> EnvironmentUnavailable:
    reason = " ".join(str(err).split())[:_LONGEST_REASON] or type(err).__name__
    return EnvironmentUnavailable(f"no {what} answers at {address}: {reason}", hint="start it, or correct --cluster")


def _versions() -> str:
    try:
        ours = version("onnxcomp")
    except PackageNotFoundError:  # it runs from its sources
        ours = "from its sources"
    return f"onnxcomp {ours}, onnxruntime {runtime.version()}"
