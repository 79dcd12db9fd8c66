"""The verbs, from Python: one module per verb. The command line is a thin layer over these."""

from onnxcomp.api.benchmark import bench
from onnxcomp.api.bundling import bundle, bundle_candidates
from onnxcomp.api.calibration import CalibrateResult, calibrate
from onnxcomp.api.checking import check
from onnxcomp.api.comparison import compare
from onnxcomp.api.diagnosis import doctor
from onnxcomp.api.difference import diff
from onnxcomp.api.inspection import inspect
from onnxcomp.api.many import optimize_many
from onnxcomp.api.measured import read_measurements
from onnxcomp.api.optimization import Result, optimize
from onnxcomp.api.packing import pack, unpack
from onnxcomp.api.planning import plan
from onnxcomp.api.pruning import PruneResult, prune
from onnxcomp.api.quantization import QuantizeResult, quantize
from onnxcomp.api.sessions import session
from onnxcomp.api.sharing import ShareResult, share
from onnxcomp.api.study import sensitivity

__all__ = [
    "CalibrateResult",
    "PruneResult",
    "QuantizeResult",
    "Result",
    "ShareResult",
    "bench",
    "bundle",
    "bundle_candidates",
    "calibrate",
    "check",
    "compare",
    "diff",
    "doctor",
    "inspect",
    "optimize",
    "optimize_many",
    "pack",
    "plan",
    "prune",
    "quantize",
    "read_measurements",
    "sensitivity",
    "session",
    "share",
    "unpack",
]
