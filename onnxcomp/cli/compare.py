"""``onnxcomp compare REFERENCE CANDIDATE``."""

from pathlib import Path
from typing import Annotated

import typer

from onnxcomp.cli import options
from onnxcomp.cli.bundles import Delivery, Images, QualityGates, expanded

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp compare model.onnx model.opt.onnx

onnxcomp compare model.onnx model.opt.onnx --eval eval.npz --max-drop 0.01 --min-agreement 0.98

onnxcomp compare model.onnx model.opt.onnx --eval eval.npz --perturb noise=0.05 --perturb noise=0.2

onnxcomp compare model.onnx model.opt.onnx --eval eval.npz --perturb all --layers --report compare.html
"""


@expanded
def command(
    reference: Annotated[
        Path, typer.Argument(metavar="REFERENCE", help="The model to hold the other against.", show_default=False)
    ],
    candidate: Annotated[
        Path, typer.Argument(metavar="CANDIDATE", help="The other model. Both are only read.", show_default=False)
    ],
    evaluation: options.Evaluation = None,
    metric: options.MetricName = None,
    *,
    gates: QualityGates,
    perturb: options.Perturb = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Also compare inner tensors: where does the error start?")
    ] = False,
    by_position: Annotated[
        bool, typer.Option("--by-position", help="Pair inputs and outputs by their order, where names differ.")
    ] = False,
    custom_ops: options.CustomOps = None,
    batch: options.Batch = 1,
    images: Images,
    seed: options.Seed = 0,
    time_budget: Annotated[
        float,
        typer.Option(help="Seconds that --perturb may take: where they are too few, on some runs, spread over all."),
    ] = 300.0,
    delivery: Delivery,
) -> None:
    """Compare the answers of two models on the same inputs, with each other and with labels.

    SQNR, cosine, largest error and agreement of each output; the score of both and their difference with a 95 %
    interval: Newcombe's for paired shares (1998) and McNemar's exact test for top1 and top5, a paired bootstrap for
    other metrics. Without data, made-up inputs are used. A gate that is missed ends in exit code 1; the reports are
    written all the same.
    """
    delivery.check(None, inputs=(reference, candidate, evaluation, metric))

    from onnxcomp.api import compare

    with delivery.working(custom_ops) as progress:
        found = compare(
            reference,
            candidate,
            eval=evaluation,
            metric=metric,
            gates=gates,
            perturb=perturb or (),
            layers=layers,
            by_position=by_position,
            batch=batch,
            images=images,
            seed=seed,
            time_budget=time_budget,
            progress=progress,
        )
    delivery.deliver(found)
