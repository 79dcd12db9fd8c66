"""Candidates judged in other processes, and on a real Dask scheduler: the same winner, scores and file as alone.

Times are made up, so that what is compared is what was judged.
"""

import builtins
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnxcomp
from onnxcomp.cli.app import build_app, run
from onnxcomp.errors import EnvironmentUnavailable, UsageError
from onnxcomp.search import Quality, executor
from onnxcomp.search.executor import Answer, connected

METRIC = """
import numpy as np

def hits(outputs, labels):
    return [int(np.argmax(o["logits"], -1)[0] == l[0]) for o, l in zip(outputs, labels)]

def score(outputs, labels):
    return float(np.mean(hits(outputs, labels)))
"""


KILLS_WHO_STARTED_IT = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from onnxcomp.data import open_samples
from onnxcomp.facts import input_specs
from onnxcomp.model import load
from onnxcomp.search.executor import connected, sendable
from onnxcomp.search import Task
from onnxcomp.target import Budget

first = os.getpid()

def score(outputs, labels):
    os.kill(first, signal.SIGKILL)
    time.sleep(600)

model, data = sys.argv[1:]
samples = open_samples(data, input_specs(load(model))).take(2)
with connected(2) as executor:
    content = Path(model).read_bytes()
    executor.judge(sendable(content, Task(samples, score), Budget(), frozenset()), [content, content])
"""


@pytest.fixture(scope="module")
def dask() -> Iterator[str]:
    """The address of a scheduler with two workers, processes of their own."""
    distributed = pytest.importorskip("distributed")
    cluster = distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=0
    )
    with cluster:
        yield cluster.scheduler_address


@pytest.fixture
def dense(sample_models: Path, tmp_path: Path) -> Path:
    """A model of matrix products alone, in a folder of its own."""
    path = tmp_path / "source" / "model.onnx"
    path.parent.mkdir()
    shutil.copyfile(sample_models / "lenet_300_100" / "model.onnx", path)
    return path


@pytest.fixture
def optimized(dense: Path, data: dict[str, Path], tmp_path: Path, times: Callable[..., None]) -> Callable[..., Any]:
    """Optimize under a metric from a file and a bound that some candidates miss; return what was found."""
    times()
    (tmp_path / "metric.py").write_text(METRIC, encoding="utf-8")

    def optimize(**where: Any) -> Any:
        result = onnxcomp.optimize(
            dense,
            metric=str(tmp_path / "metric.py"),
            techniques=["static", "dynamic"],
            budget=onnxcomp.Budget(max_drop=0.0, min_agreement=1.0),
            **data,
            **where,
        )
        result.save(tmp_path / "found.onnx")
        outcome = result.report.outcome
        candidates = {c.name: (c.quality, c.rejected) for c in outcome.candidates}
        content = (tmp_path / "found.onnx").read_bytes()
        return outcome.winner, outcome.quality, outcome.original_quality, candidates, content

    return optimize


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Answer]:
    """What jobs answered, wherever they ran."""
    answers: list[Answer] = []
    judge = executor._Joblib.judge

    def recorded(self: Any, judging: Any, models: Any) -> list[Answer]:
        found = judge(self, judging, models)
        answers.extend(found)
        return found

    monkeypatch.setattr(executor._Joblib, "judge", recorded)
    return answers


def test_processes_find_the_same(optimized: Callable[..., Any], jobs: list[Answer]) -> None:
    alone = optimized()
    assert not jobs
    assert optimized(jobs=2) == alone
    assert len(jobs) > 1
    assert any(isinstance(answer.found, Quality) for answer in jobs)


@pytest.mark.cluster
def test_a_dask_cluster_finds_the_same(optimized: Callable[..., Any], jobs: list[Answer], dask: str) -> None:
    alone = optimized()
    assert optimized(cluster=dask) == alone
    assert len(jobs) > 1


@pytest.mark.cluster
@pytest.mark.usefixtures("times")
def test_the_command_judges_on_a_cluster(
    dense: Path, data: dict[str, Path], dask: str, capfd: pytest.CaptureFixture[str], jobs: list[Answer]
) -> None:
    tmp_path = dense.parent
    (tmp_path / "models").mkdir()
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / "models" / name).write_bytes(dense.read_bytes())
    arguments = ["optimize", str(tmp_path / "models"), "-o", str(tmp_path / "out"), "--cluster", dask]
    assert run(build_app(), [*arguments, "--eval", str(data["eval"])]) == 0
    assert "2 of 2 models written" in capfd.readouterr().out
    assert jobs
    assert (tmp_path / "out" / "a.onnx").read_bytes() == (tmp_path / "out" / "b.onnx").read_bytes()


@pytest.mark.usefixtures("times")
def test_an_original_that_scores_differently_there_is_not_believed(
    optimized: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = optimized()
    told = []

    def other(self: Any, judging: Any, models: Any) -> list[Answer]:
        told.extend(models)
        wrong = Quality(0.5, 1.0, float("inf"))
        return [Answer(wrong, wrong, "") for _ in models]

    monkeypatch.setattr(executor._Joblib, "judge", other)
    assert optimized(jobs=2) == alone
    assert told


def test_a_candidate_that_fails_there_is_rejected(
    optimized: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = executor._Joblib.judge

    def failing(self: Any, judging: Any, models: Any) -> list[Answer]:
        return [Answer(one.original, "it does not run", one.versions) for one in judge(self, judging, models)]

    monkeypatch.setattr(executor._Joblib, "judge", failing)
    *_, candidates, _ = optimized(jobs=2)
    assert "it does not run" in {rejected for _, rejected in candidates.values()}


def test_other_versions_are_refused(optimized: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found = iter(["onnxcomp 0, onnxruntime 0"])
    here = executor._versions()
    monkeypatch.setattr(executor, "_versions", lambda: next(found, here))
    with pytest.raises(EnvironmentUnavailable, match="this process has"):
        optimized(jobs=2)


def test_nothing_answers(resnet: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(executor, "_SECONDS_TO_CONNECT", 1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["optimize", str(resnet), "-o", str(resnet.parent / "o.onnx"), "--cluster", f"tcp://127.0.0.1:{port}"]
    assert run(build_app(), arguments) == 4
    told = capfd.readouterr().err
    assert "no Dask scheduler answers at tcp://127.0.0.1" in told
    assert "Traceback" not in told


@pytest.mark.cluster
def test_a_scheduler_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(executor, "_SECONDS_TO_CONNECT", 1)
    cluster = distributed.LocalCluster(n_workers=0, dashboard_address=":0")
    with (
        cluster,
        pytest.raises(EnvironmentUnavailable, match="has no workers"),
        connected(cluster=cluster.scheduler_address),
    ):
        pass


@pytest.mark.parametrize(("address", "package"), [("tcp://host:1", "distributed"), ("ray://host:1", "ray")])
def test_a_package_that_is_missing(address: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def importing(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == package:
            raise ModuleNotFoundError(f"No module named {package!r}", name=package)
        return real(name, *rest, **more)

    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", importing)
    with pytest.raises(EnvironmentUnavailable) as caught, connected(cluster=address):
        pass
    extra = {"distributed": "dask", "ray": "ray"}[package]
    assert caught.value.hint == f"pip install 'onnxcomp[{extra}]'"
    assert caught.value.exit_code == 4


@pytest.mark.parametrize(
    "where",
    [{"jobs": 0}, {"jobs": 2, "cluster": "tcp://host:1"}, {"cluster": "host:8786"}, {"cluster": "http://host"}],
    ids=str,
)
def test_what_makes_no_sense(where: dict[str, Any]) -> None:
    with pytest.raises(UsageError), connected(**where):
        pass


def test_too_many_samples_are_not_sent(
    resnet: Path, data: dict[str, Path], times: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    times()
    monkeypatch.setattr(executor, "_LARGEST", 1000)
    with pytest.raises(UsageError, match="are not sent"):
        onnxcomp.optimize(resnet, eval=data["eval"], jobs=2)


def test_a_metric_that_can_not_be_sent(
    resnet: Path, data: dict[str, Path], tmp_path: Path, times: Callable[..., None]
) -> None:
    times()
    (tmp_path / "m.py").write_text(
        "import threading\nlock = threading.Lock()\ndef score(outputs, labels):\n    with lock:\n        return 1.0\n",
        encoding="utf-8",
    )
    with pytest.raises(UsageError, match="can't be sent"):
        onnxcomp.optimize(resnet, eval=data["eval"], metric=str(tmp_path / "m.py"), jobs=2)


def test_samples_arrive_as_they_are(parse: Callable[..., Any], samples: Any) -> None:
    """Texts, numbers of any type, and the labels."""
    feeds = [{"x": np.array(["a", "bc"], object)}, {"x": np.array(["d"], object)}]
    sent = executor._Sent(feeds, [np.array([1, 0]), np.array([1])], "two runs")
    again = executor.pickle.loads(executor.pickle.dumps(sent))
    assert [run["x"].tolist() for run in again] == [["a", "bc"], ["d"]]
    assert [run["x"].tolist() for run in again.pick([1])] == [["d"]]
    assert [label.tolist() for label in again.labels()] == [[1, 0], [1]]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_processes_end_with_the_one_that_started_them(dense: Path, data: dict[str, Path]) -> None:
    command = [sys.executable, "-c", KILLS_WHO_STARTED_IT, dense, data["eval"]]
    # it comes back when the last one that could write to these pipes has ended
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
