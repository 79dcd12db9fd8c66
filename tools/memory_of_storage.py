"""Measures the memory of packing and unpacking: ``python tools/memory_of_storage.py --mb 2200 --tensor-mb 100``.

Writes a model of random float32 tensors of one size in external data, packs it (and decodes it, to verify), unpacks it,
and compares what came out with what went in; each in a fresh process. ``above`` is the largest resident set less that
at the start, ``tensors`` the same in sizes of a tensor. Seconds are of processor time, with one thread.
Exit code: 0, or 1 where something failed or came out different. Not on Windows: a process must know its largest
resident set.
"""

import argparse
import filecmp
import resource
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from zoo_job import run_job, serve
from zoo_tables import Table

from onnxcomp.storage import pack_file, unpack_file

__all__ = ["main", "write_model"]

_TITLES = ("step", "MB in", "MB out", "above MB", "tensors", "s")
_ROWS = 100
_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes, of the record of the largest resident set


def write_model(folder: Path, *, tensors: int, size: int) -> Path:
    """Write a model and its data, ``w.bin``, tensor by tensor.

    Args:
        folder: Where.
        tensors: How many.
        size: About the bytes of each.
    """
    rng = np.random.default_rng(0)
    columns = size // (4 * _ROWS)
    initializers = []
    with Path(folder, "w.bin").open("wb") as file:
        for number in range(tensors):
            tensor = TensorProto(name=f"w{number}", data_type=TensorProto.FLOAT, dims=[_ROWS, columns])
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "w.bin"), ("offset", file.tell()), ("length", 4 * _ROWS * columns)):
                tensor.external_data.add(key=key, value=str(value))
            initializers.append(tensor)
            file.write(rng.standard_normal((_ROWS, columns), dtype=np.float32).tobytes())
    nodes = [helper.make_node("Identity", [f"w{number}"], [f"y{number}"]) for number in range(tensors)]
    outputs = [helper.make_tensor_value_info(f"y{number}", TensorProto.FLOAT, None) for number in range(tensors)]
    graph = helper.make_graph(nodes, "g", [], outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = folder / "m.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def measure_in_worker(job: dict[str, Any]) -> dict[str, Any]:
    """Take one step; runs in the worker process.

    Args:
        job: ``step`` (pack or unpack), ``source``, ``target``.
    """
    before = _peak()
    start = time.process_time()
    if job["step"] == "pack":
        pack_file(Path(job["source"]), Path(job["target"]), threads=1)
    else:
        unpack_file(Path(job["source"]), Path(job["target"]), threads=1)
    return {"above": _peak() - before, "seconds": time.process_time() - start}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _UNIT


def measure(folder: Path, *, tensors: int, size: int) -> list[list[str]]:
    """Take all steps in a folder; return the rows of the table.

    Raises:
        RuntimeError: One failed, or what came out is different.
    """
    source, packed = write_model(folder, tensors=tensors, size=size), folder / "m.onnxz"
    back = folder / "back" / "m.onnx"
    back.parent.mkdir()
    rows = []
    for step, given, target in (("pack", source, packed), ("unpack", packed, back)):
        done = run_job(__file__, {"step": step, "source": str(given), "target": str(target)})
        if done.value is None:
            raise RuntimeError(f"{step}: {done.error}")
        sizes = [_size(path) / 1e6 for path in (given, target)]
        above = done.value["above"]
        rows.append([step, *(f"{mb:.0f}" for mb in sizes), f"{above / 1e6:.0f}", f"{above / size:.2f}",
                     f"{done.value['seconds']:.0f}"])  # fmt: skip
    for name in ("m.onnx", "w.bin"):
        if not filecmp.cmp(folder / name, back.parent / name, shallow=False):
            raise RuntimeError(f"{name} came out different")
    return rows


def _size(path: Path) -> int:
    files = [path, path.parent / "w.bin"] if path.suffix == ".onnx" else [path]
    return sum(file.stat().st_size for file in files)


def main(argv: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    served = serve(argv, measure_in_worker)
    if served is not None:
        return served
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=600, metavar="MB", help="size of the model; default: 600")
    parser.add_argument("--tensor-mb", type=int, default=50, metavar="MB", help="size of a tensor; default: 50")
    parser.add_argument("--work-dir", type=Path, metavar="DIR", help="where the files go; default: the system's")
    given = parser.parse_args(argv)
    if not 0 < given.tensor_mb <= given.mb:
        parser.error("--tensor-mb must be positive, and --mb no smaller")
    with tempfile.TemporaryDirectory(prefix="onnxcomp.", dir=given.work_dir) as folder:
        tensors = given.mb // given.tensor_mb
        try:
            rows = measure(Path(folder), tensors=tensors, size=given.tensor_mb * 1_000_000)
        except RuntimeError as err:
            print(f"error: {err}", file=sys.stderr)
            return 1
    print(Table(_TITLES, rows).text(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
