"""How close two models' outputs are, and how good outputs are against labels.

Against the original (no labels needed): SQNR, cosine and agreement, added up run by run in a `Fidelity`. Against
labels: top-1, top-5, or a function of the user's.
"""

from onnxcomp.metrics.fidelity import Fidelity, OutputFidelity, Outputs, agreement, cosine, sqnr
from onnxcomp.metrics.score import BUILT_IN, Metric, evaluate, load_metric, top1, top5
from onnxcomp.metrics.tables import as_arrays

__all__ = [
    "BUILT_IN",
    "Fidelity",
    "Metric",
    "OutputFidelity",
    "Outputs",
    "agreement",
    "as_arrays",
    "cosine",
    "evaluate",
    "load_metric",
    "sqnr",
    "top1",
    "top5",
]
