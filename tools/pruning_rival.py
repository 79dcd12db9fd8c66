"""onnxsim as a contender of ``pruning_bench``: run in a Python of its own, no more often and no longer than it may."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxcomp.data import Samples
from onnxcomp.errors import PassError
from onnxcomp.model import load

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["FORMS", "RIVAL", "TUNED", "Rival"]

RIVAL, TUNED = "onnxsim", "onnxsim, tuned"
FORMS = {RIVAL: "sliced", TUNED: "tuned"}
_SPARSITIES = [step / 20 for step in range(1, 20)]


class Rival:
    """Makes pruned models, and remembers them.

    Args:
        python: Has onnxsim.
        model: Path of the original.
        folder: Where it works.
        samples: For tuning; None: it is not tuned.
        share: Tells the MACs of a model, as a share of the original's.
        seconds: That it may take, all models together.
    """

    def __init__(
        self,
        python: str,
        model: str,
        folder: Path,
        *,
        samples: Samples | None,
        share: "Callable[[ir.Model], float]",
        seconds: float,
    ) -> None:
        self._python, self._folder, self._share_of = python, folder, share
        self._job: dict[str, Any] = {"model": model, "output": str(folder), "samples": ""}
        self._allowed = self._left = seconds
        self._made: dict[tuple[str, float], Path | None] = {}
        self._macs: dict[Path, float] = {}
        if samples is not None:
            self._job["samples"] = str(folder / "samples.npz")
            arrays: dict[str, Any] = {
                f"{i}/{key}": array for i, feed in enumerate(samples) for key, array in feed.items()
            }
            np.savez(self._job["samples"], **arrays)

    def model(self, name: str, macs: float) -> "ir.Model":
        """Return its model with no more MACs than a share of the original's, or its smallest.

        The sparsity is bisected: what is bolder leaves no more. Where its time ran out, the best so far is taken.

        Raises:
            PassError: It made none, or not in time.
            OnnxCompError: What it made is no model.
        """
        mild, bold = -1, len(_SPARSITIES)
        small: Path | None = None  # the mildest that is small enough
        large: Path | None = None  # the boldest that is not
        while bold - mild > 1:
            middle = (mild + bold) // 2
            path = self._run("sliced", _SPARSITIES[middle])
            if path is not None and self._share(path) > macs:
                mild, large = middle, path
            else:
                bold, small = middle, path or small  # it may refuse to remove so much
        path = small or large
        if path is not None and FORMS[name] != "sliced":
            path = self._run(FORMS[name], float(path.stem.partition(".")[2])) if self._job["samples"] else None
        if path is not None and self._share(path) < 1:
            return load(path)
        raise PassError(f"stopped after {self._allowed:g} s" if self._left <= 0 else "onnxsim removes nothing")

    def _share(self, path: Path) -> float:
        if path not in self._macs:
            self._macs[path] = self._share_of(load(path))
        return self._macs[path]

    def _run(self, form: str, sparsity: float) -> Path | None:
        """Return what it makes in one form, or made before; None: nothing."""
        if (form, sparsity) in self._made:
            return self._made[form, sparsity]
        path, request = self._folder / f"{form}.{sparsity:g}.onnx", self._folder / "job.json"
        if self._left > 0:
            request.write_text(json.dumps({**self._job, "form": form, "sparsity": sparsity}), encoding="utf-8")
            command = [self._python, str(Path(__file__).with_name("rival_pruner.py")), str(request)]
            start = time.perf_counter()
            try:
                subprocess.run(command, check=False, timeout=self._left, stdout=sys.stderr, stdin=subprocess.DEVNULL)
            except subprocess.TimeoutExpired:
                print(f"onnxsim, {form} {sparsity:g}: stopped after {self._allowed:g} s in all", file=sys.stderr)
            self._left -= time.perf_counter() - start
        self._made[form, sparsity] = found = path if path.is_file() else None
        return found
