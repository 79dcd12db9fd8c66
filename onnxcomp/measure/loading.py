"""What having a model loaded costs: the time to load it, the memory that running it takes."""

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxcomp.customops import libraries
from onnxcomp.data import Feed
from onnxcomp.errors import EnvironmentUnavailable
from onnxcomp.runtime import Provider

__all__ = ["Memory", "load_times", "peak_memory"]

_ROUNDS = 5
_ENOUGH_SECONDS = 5.0  # no further round is begun after this
_RUNS = 3  # the allocator has taken what it needs after the second


@dataclass(frozen=True, slots=True)
class Memory:
    """Peak resident memory of a process that does nothing but load a model and run it.

    Attributes:
        peak: Bytes, all of the process.
        before: Bytes of it before the model was loaded: Python, numpy, onnxruntime.
        device: Bytes by which the use of the GPU's memory grew meanwhile, other programs' included; None: not known, or
            there is no GPU at work.
    """

    peak: int
    before: int
    device: int | None = None


def load_times(loaders: Sequence[Callable[[], object]]) -> list[list[float]]:
    """Create a session of every model again and again, in turn, and return the seconds that each one took.

    The files are in the system's cache: this is the time after the first.

    Args:
        loaders: Each creates a session, whatever it takes to get there; it raises what that raises.
    """
    found: list[list[float]] = [[] for _ in loaders]
    start = time.perf_counter()
    for _ in range(_ROUNDS):
        for load, times in zip(loaders, found, strict=True):
            begin = time.perf_counter()
            load()
            times.append(time.perf_counter() - begin)
        if time.perf_counter() - start > _ENOUGH_SECONDS:
            break
    return found


def peak_memory(model: Path, feed: Feed, *, threads: int, provider: Provider) -> Memory:
    """Load and run a model in a process of its own, and return the most memory that the process had.

    Raises:
        EnvironmentUnavailable: The process fails, or the system does not tell.
    """
    # -P: a file of the current folder must not stand in for a module
    arguments = [str(model), str(threads), provider, str(_RUNS), *libraries()]
    command = [sys.executable, "-P", "-m", "onnxcomp.measure.probe", *arguments]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run(command, input=pickle.dumps(dict(feed)), capture_output=True, env=environment, check=True)
    except subprocess.CalledProcessError as err:
        told = err.stderr.decode(errors="replace").strip().splitlines()
        raise EnvironmentUnavailable(f"its process ended with {err.returncode}: {told[-1] if told else ''}") from err
    except OSError as err:
        raise EnvironmentUnavailable(f"a process can't be started: {err}") from err
    found = json.loads(done.stdout)
    if found["peak"] is None:
        raise EnvironmentUnavailable("this system does not tell")
    return Memory(**found)
