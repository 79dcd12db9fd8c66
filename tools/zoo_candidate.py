"""What tools need that judge a candidate of `optimize` as it is: the cleaned-up model, its context, a judge."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxcomp.data import Samples, open_samples
from onnxcomp.facts import feature_outputs, input_specs
from onnxcomp.metrics import load_metric
from onnxcomp.model import load, open_session
from onnxcomp.passbase import PassContext
from onnxcomp.pipeline import Verifier, run_recipe
from onnxcomp.recipe import Recipe
from onnxcomp.search import Judge, Task, cleanup
from onnxcomp.search.candidates import quantized
from onnxcomp.target import Budget, get_target

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Bench", "set_up"]


@dataclass(frozen=True, slots=True)
class Bench:
    """A model on the bench.

    Attributes:
        cleaned: The model as candidates get it.
        recipe: Of the candidate.
        ctx: For its passes; ranges are not measured yet.
        verifier: Compares results with the original.
        judge: Knows the original's answers on all evaluation samples.
        calibration: Samples.
        evaluation: Samples.
    """

    cleaned: "ir.Model"
    recipe: Recipe
    ctx: PassContext
    verifier: Verifier
    judge: Judge
    calibration: Samples
    evaluation: Samples


def set_up(job: Mapping[str, Any]) -> Bench:
    """Load and clean up a model.

    Args:
        job: With ``model``, ``calibration``, ``eval`` (paths), ``metric`` (or None) and ``candidate`` (its name).
    """
    original = load(job["model"])
    specs = input_specs(original)
    samples, evaluation = (open_samples(Path(job[key]), specs) for key in ("calibration", "eval"))
    ctx = PassContext(target=get_target("auto"), samples=samples)
    verifier = Verifier(original, samples.spread(3))
    cleaned, _ = run_recipe(original, cleanup(), ctx, verifier)
    task = Task(evaluation, load_metric(job["metric"])[1] if job["metric"] else None)
    judge = Judge(open_session(original, threads=0), task, Budget(), features=feature_outputs(original))
    (candidate,) = (found for found in quantized(calibrated=True) if found.name == job["candidate"])
    return Bench(cleaned, candidate.recipe, ctx, verifier, judge, samples, evaluation)
