"""Runs a piece of a tool in a process of its own, so that its peak memory is its own and its crash kills nobody else.

The script starts itself again as ``SCRIPT --worker JOB.json RESULT.json``; both files are plain JSON.
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["JobResult", "run_job", "serve"]

WORKER = "--worker"


@dataclass(frozen=True, slots=True)
class JobResult:
    """What a worker gave back: a value, or the reason why there is none."""

    value: dict[str, Any] | None
    error: str | None
    seconds: float


def run_job(script: str, job: Mapping[str, Any], *, timeout: float | None = None) -> JobResult:
    """Run a job in a fresh process; its output goes to this process's standard error.

    Args:
        script: A file whose `main` hands its arguments to `serve`.
        job: Plain JSON values.
        timeout: Seconds after which it is killed.
    """
    start = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="onnxcomp.") as folder:
        request, answer = Path(folder, "job.json"), Path(folder, "result.json")
        request.write_text(json.dumps(job), encoding="utf-8")
        command = [sys.executable, script, WORKER, str(request), str(answer)]
        try:
            done = subprocess.run(command, check=False, timeout=timeout, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        except subprocess.TimeoutExpired:
            return JobResult(None, f"killed after {timeout:g} s", time.perf_counter() - start)
        seconds = time.perf_counter() - start
        if done.returncode or not answer.is_file():
            return JobResult(None, _death(done.returncode), seconds)
        content = json.loads(answer.read_text(encoding="utf-8"))
    return JobResult(content["value"], content["error"], seconds)


def serve(argv: Sequence[str], work: Callable[[dict[str, Any]], dict[str, Any]]) -> int | None:
    """Do the job where the arguments are those of a worker.

    Args:
        argv: Without the name of the script.
        work: Turns the job into the result; an exception becomes the result's error.

    Returns:
        The exit code, or None where this is no worker.
    """
    if list(argv[:1]) != [WORKER] or len(argv) != 3:
        return None
    job = json.loads(Path(argv[1]).read_text(encoding="utf-8"))
    value, error = None, None
    try:
        value = work(job)
    except Exception as err:  # whatever it is, it is the result
        error = f"{type(err).__name__}: {str(err).strip()[:500]}"
    Path(argv[2]).write_text(json.dumps({"value": value, "error": error}), encoding="utf-8")
    return 0


def _death(code: int) -> str:
    """Say how a process ended that left no result."""
    if code >= 0:
        return f"the process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = str(-code)
    return f"the process was killed by signal {name}"
