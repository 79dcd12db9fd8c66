"""How close two models' outputs are, and how good outputs are against labels.

Against the original (no labels needed): SQNR, cosine and agreement, added up run by run in a `Fidelity`. Against
labels: top-1, top-5, or a function of the user's.
"""

from onnxcomp.metrics.difference import NEWCOMBE, TOP, bootstrapped, score_interval
from onnxcomp.metrics.fidelity import Fidelity, OutputFidelity, Outputs, agreement, cosine, sqnr, typical_sqnr
from onnxcomp.metrics.paired import Interval, bootstrap_difference, hit_difference, mcnemar
from onnxcomp.metrics.score import BUILT_IN, Metric, evaluate, load_metric, top1, top5, top_hits
from onnxcomp.metrics.tables import as_arrays

__all__ = [
    "BUILT_IN",
    "NEWCOMBE",
    "TOP",
    "Fidelity",
    "Interval",
    "Metric",
    "OutputFidelity",
    "Outputs",
    "agreement",
    "as_arrays",
    "bootstrap_difference",
    "bootstrapped",
    "cosine",
    "evaluate",
    "hit_difference",
    "load_metric",
    "mcnemar",
    "score_interval",
    "sqnr",
    "top1",
    "top5",
    "top_hits",
    "typical_sqnr",
]
