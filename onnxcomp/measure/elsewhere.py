"""Time the models of this folder on this machine, and write measurements.json beside this file.

Needs Python 3.10 or newer, numpy and onnxruntime: ``pip install numpy onnxruntime``, then ``python measure.py``. The
models take turns in one run, so that what else the machine does hits all of them alike.
"""

import argparse
import dataclasses
import datetime
import functools
import json
import math
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxcomp.errors import EnvironmentUnavailable, ModelError, OnnxCompError, UsageError
from onnxcomp.measure.memory import peak_rss
from onnxcomp.measure.timing import Comparison, Ratio, Timing, interleave

__all__ = ["INPUT", "MEASUREMENTS", "PLAN", "main"]

PLAN = "bundle.json"
INPUT = "input.npz"
MEASUREMENTS = "measurements.json"

_LOADS = 3  # sessions that are made of each model; the median time counts
_PROBE_RUNS = 3
_FATAL = 4  # log severity: what fails is raised anyway
_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
    "tensorrt": ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"),
}

_Document = dict[str, Any]


def main(arguments: Sequence[str], folder: Path) -> int:
    """Measure and write; return the exit code.

    Args:
        arguments: Of the command line.
        folder: Of the bundle.
    """
    asked = _parser().parse_args(arguments)
    try:
        plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        asked.provider = asked.provider or plan["settings"]["provider"]
        asked.threads = plan["settings"]["threads"] if asked.threads is None else asked.threads
        feed = _feed(folder / INPUT, plan["inputs"])
        if asked.probe is not None:
            print(json.dumps(_probe(folder / plan["models"][asked.probe]["file"], feed, asked)))
            return 0
        found = _measure(folder, plan, feed, asked)
        path = folder / MEASUREMENTS
        path.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OnnxCompError as err:
        print(f"error: {err}", *([f"hint: {err.hint}"] if err.hint else []), sep="\n", file=sys.stderr)
        return err.exit_code
    except (OSError, KeyError, ValueError) as err:
        print(f"error: the bundle in {folder} is not whole: {err}", "hint: copy it again", sep="\n", file=sys.stderr)
        return UsageError.exit_code
    _show(found)
    print(f"wrote {path}: take it back to where the bundle was made")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--seconds", type=float, help="for the timing; less where that is enough")
    parser.add_argument("--threads", type=int, help="0: all cores (default: those the bundle was made for)")
    parser.add_argument("--provider", choices=_PROVIDERS, help="what runs the models (default: as for --threads)")
    parser.add_argument("--custom-ops", metavar="LIBRARY", action="append", default=[], help="of custom operators")
    parser.add_argument("--probe", type=int, help=argparse.SUPPRESS)  # measure one model's memory, in this process
    return parser


def _feed(path: Path, inputs: Sequence[str]) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[str(number)] for number, name in enumerate(inputs)}


def _measure(folder: Path, plan: _Document, feed: Mapping[str, np.ndarray], asked: argparse.Namespace) -> _Document:
    """Time all models and return the document."""
    settings = plan["settings"] | {"provider": asked.provider, "threads": asked.threads}
    settings["seconds"] = settings["seconds"] if asked.seconds is None else asked.seconds
    runs: dict[str, functools.partial[Any]] = {}
    loads: dict[str, float] = {}
    notes = list(plan["notes"])
    for model in plan["models"]:
        name = model["model"]
        try:
            session, loads[name] = _load(folder / model["file"], asked)
            session.run(None, feed)
        except OnnxCompError:
            raise
        except Exception as err:  # onnxruntime's exceptions share no base class but this one
            reason = str(err).strip().split("\n", 1)[0][:300]
            if not runs:
                raise ModelError(f"{name}, which the others are compared with, does not run here: {reason}") from err
            notes.append(f"{name} does not run there: {reason}")
            continue
        runs[name] = functools.partial(session.run, None, feed)
    comparison = interleave(
        runs,
        baseline=next(iter(runs)),
        half_width=settings["half_width"],
        confidence=settings["confidence"],
        max_seconds=settings["seconds"],
        seed=settings["seed"],
        progress=_progress,
    )
    timed = {timing.name: timing for timing in comparison.timings}
    models = [
        _entry(model, timed[model["model"]], comparison)
        | {
            "throughput": plan["rows"] / timed[model["model"]].median,
            "load_seconds": loads[model["model"]],
            "memory": _memory(number, asked),
        }
        for number, model in enumerate(plan["models"])
        if model["model"] in timed
    ]
    return {
        "schema_version": plan["schema_version"],
        "kind": "bench",
        "settings": settings,
        "shapes": {name: list(value.shape) for name, value in feed.items()},
        "rows": plan["rows"],
        "models": models,
        "rounds": comparison.rounds,
        "settled": comparison.settled,
        "seconds": comparison.seconds,
        "notes": [*notes, *comparison.warnings],
        "versions": {"onnxruntime": _onnxruntime().__version__, "numpy": np.__version__},
        "machine": _machine(),
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),  # noqa: UP017  (3.10)
        "sweep": [],
        "streams": None,
    }


def _entry(model: _Document, timing: Timing, comparison: Comparison) -> _Document:
    ratio = comparison.ratios.get(timing.name)
    return {
        "model": model["model"],
        "fingerprint": model["fingerprint"],
        "size": model["size"],
        "latency": dataclasses.asdict(timing),
        "ratio": None if ratio is None else _bounds(ratio),
        "operators": [],
        "nodes": [],
        "fallback": None,
    }


def _bounds(ratio: Ratio) -> dict[str, float | None]:
    high = ratio.high if math.isfinite(ratio.high) else None  # JSON has no infinity
    return {"ratio": ratio.ratio, "low": ratio.low, "high": high}


def _load(path: Path, asked: argparse.Namespace) -> tuple[Any, float]:
    """Return a session of a model, and the median seconds that making it took."""
    times = []
    for _ in range(_LOADS):
        begin = time.perf_counter()
        session = _session(path, asked)
        times.append(time.perf_counter() - begin)
    return session, statistics.median(times)


def _session(path: Path, asked: argparse.Namespace) -> Any:
    ort = _onnxruntime()
    wanted = _PROVIDERS[asked.provider]
    if wanted[0] not in (available := ort.get_available_providers()):
        raise EnvironmentUnavailable(f"this onnxruntime has no {wanted[0]}, only {', '.join(available)}")
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads, options.inter_op_num_threads = asked.threads, 1
    for library in asked.custom_ops:
        options.register_custom_ops_library(library)
    session = ort.InferenceSession(str(path), options, providers=list(wanted))
    if wanted[0] not in session.get_providers():  # it falls back to others in silence
        raise EnvironmentUnavailable(f"onnxruntime could not start its {wanted[0]} on this machine")
    session.disable_fallback()  # else a run that fails there is made again on others, in silence
    return session


def _memory(number: int, asked: argparse.Namespace) -> _Document | None:
    """Return the peak memory of a process that loads one model and runs it; None where that is not known."""
    threads = ["--threads", str(asked.threads), "--provider", asked.provider]
    libraries = [text for library in asked.custom_ops for text in ("--custom-ops", library)]
    command = [sys.executable, sys.argv[0], "--probe", str(number), *threads, *libraries]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found: _Document | None = json.loads(done.stdout) if done.returncode == 0 else None
    return found


def _probe(path: Path, feed: Mapping[str, np.ndarray], asked: argparse.Namespace) -> _Document | None:
    _onnxruntime()
    before = peak_rss()
    session = _session(path, asked)
    for _ in range(_PROBE_RUNS):
        session.run(None, feed)
    peak = peak_rss()
    return None if before is None or peak is None else {"peak": peak, "before": before, "device": None}


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as err:
        raise EnvironmentUnavailable("onnxruntime is not installed", hint="pip install onnxruntime") from err
    return onnxruntime


def _machine() -> dict[str, str]:
    return {
        "processor": _processor(),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    """Return what the processor, or the board that it is on, calls itself."""
    for path, field in ((Path("/proc/cpuinfo"), "model name"), (Path("/proc/device-tree/model"), "")):
        if not path.is_file():
            continue
        for line in path.read_text(encoding="utf-8", errors="replace").strip("\0").splitlines():
            name, _, value = line.partition(":")
            if not field or name.strip() == field:
                return (value if field else line).strip()
    return platform.processor() or platform.machine()


def _progress(share: float) -> None:
    if sys.stderr.isatty():
        print(f"\rmeasure {share:4.0%}", end="\n" if share == 1 else "", file=sys.stderr, flush=True)


def _show(found: _Document) -> None:
    """Print a table."""
    width = max(len(model["model"]) for model in found["models"])
    print(f"{'model':{width}}  median ms  time / first  {100 * found['settings']['confidence']:g} % interval")
    for model in found["models"]:
        line = f"{model['model']:{width}}  {1e3 * model['latency']['median']:9.3f}"
        if (ratio := model["ratio"]) is not None:
            high = math.inf if ratio["high"] is None else ratio["high"]
            line += f"  {ratio['ratio']:12.3f}  [{ratio['low']:.3f}, {high:.3f}]"
        print(line)
    if not found["settled"] and len(found["models"]) > 1:
        print(
            f"not known to {100 * found['settings']['half_width']:g} %: the machine is busy, or give it more --seconds"
        )
    for note in found["notes"]:
        print(f"note: {note}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], Path(__file__).resolve().parent))
