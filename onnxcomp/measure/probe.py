"""What a model needs in a process of its own, and of the memory of a GPU.

``python -m onnxcomp.measure.probe MODEL THREADS PROVIDER RUNS [LIBRARY...] < feed``: the libraries are of custom
operators. The process imports what running takes and nothing else. The feed is a pickle from the one that started it.
"""

import json
import pickle
import sys
from pathlib import Path

from onnxcomp.customops import custom_operators
from onnxcomp.measure.device import device_memory
from onnxcomp.measure.memory import peak_rss
from onnxcomp.runtime import Session, check_provider

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Load and run a model; print the peak memory before and after as JSON."""
    path, threads, provider, runs, *libraries = arguments
    feed = pickle.load(sys.stdin.buffer)
    check_provider(provider)  # type: ignore[arg-type]  # imports onnxruntime
    before = peak_rss()
    in_use = None if provider == "cpu" else device_memory()
    with custom_operators(libraries):
        session = Session(Path(path), threads=int(threads), provider=provider)  # type: ignore[arg-type]
    for _ in range(int(runs)):
        session.run(feed)
    then = None if in_use is None else device_memory()
    device = None if in_use is None or then is None else max(0, then - in_use)
    print(json.dumps({"peak": peak_rss(), "before": before, "device": device}))


if __name__ == "__main__":
    main(sys.argv[1:])
