"""Prunes a model with onnxsim, for ``pruning_bench``: ``PYTHON rival_pruner.py JOB.json``, where PYTHON has onnxsim.

The job names ``model``, ``output`` (a folder), ``sparsity`` (the share of the channels that goes) and ``samples``, an
.npz of arrays called ``INDEX/INPUT``. It asks for one ``form``:

- ``sliced``: `apply_structured_pruning` by L2 norm, then `apply_attention_head_pruning`; no data;
- ``tuned``: the same, then `apply_pruning_finetune`, a least-squares fit of MatMul and Gemm with the samples.

Its other way of telling what matters, `apply_structured_wanda_pruning`, finds fewer layers to prune, and is left out.
The model is written as ``FORM.SPARSITY.onnx``, whole or not at all; the simplified original is kept beside it for the
next job. What onnxsim refuses is left out, with a line on standard error.
"""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx

__all__ = ["main"]

Feeds = list[dict[str, np.ndarray]]


def read_samples(path: str) -> Feeds:
    """Return the samples that a job brings."""
    feeds: dict[int, dict[str, np.ndarray]] = {}
    with np.load(path) as arrays:
        for name, array in arrays.items():
            index, _, tensor = name.partition("/")
            feeds.setdefault(int(index), {})[tensor] = array
    return [feeds[index] for index in sorted(feeds)]


def pruned(onnxsim: Any, simple: onnx.ModelProto, form: str, sparsity: float, feeds: Feeds) -> onnx.ModelProto:
    """Return a model in one form."""
    sliced = onnxsim.apply_structured_pruning(simple, sparsity=sparsity)
    sliced = onnxsim.apply_attention_head_pruning(sliced, sparsity=sparsity)
    if form == "tuned":
        sliced = onnxsim.apply_pruning_finetune(simple, sliced, calibration_data=feeds)
    assert isinstance(sliced, onnx.ModelProto)
    return sliced


def main(arguments: list[str]) -> int:
    """Do one job."""
    onnxsim = importlib.import_module("onnxsim")
    job = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    folder, form, sparsity = Path(job["output"]), job["form"], job["sparsity"]
    try:
        if not (folder / "simple.onnx").is_file():
            write(onnxsim.simplify(onnx.load(job["model"]))[0], folder / "simple.onnx")
        feeds = read_samples(job["samples"]) if form == "tuned" else []
        made = pruned(onnxsim, onnx.load(folder / "simple.onnx"), form, sparsity, feeds)
        write(made, folder / f"{form}.{sparsity:g}.onnx")
    except Exception as err:  # whatever it is, it is the result
        print(f"onnxsim, {sparsity:g}: {type(err).__name__}: {str(err)[:200]}", file=sys.stderr)
    return 0


def write(model: onnx.ModelProto, path: Path) -> None:
    """Write a model whole, even if this process is stopped."""
    part = path.with_suffix(".part")
    onnx.save(model, str(part))
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
