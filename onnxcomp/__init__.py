"""Make an ONNX model measurably smaller and faster inside an accuracy budget, or learn why not.

>>> import onnxcomp
>>> result = onnxcomp.optimize("model.onnx", calibration="calib.npz", eval="eval.npz", metric="top1")
>>> print(result.report)
>>> result.save("model.opt.onnx")

Everything is imported when it is first used: ``import onnxcomp`` itself is cheap.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxcomp.api import (
        CalibrateResult,
        PruneResult,
        QuantizeResult,
        Result,
        ShareResult,
        bench,
        bundle,
        bundle_candidates,
        calibrate,
        check,
        compare,
        diff,
        doctor,
        inspect,
        optimize,
        optimize_many,
        pack,
        prune,
        quantize,
        read_measurements,
        sensitivity,
        session,
        share,
        unpack,
    )
    from onnxcomp.customops import custom_operators
    from onnxcomp.data import ImageOptions
    from onnxcomp.errors import (
        DataError,
        EnvironmentUnavailable,
        GateFailed,
        MetricError,
        ModelError,
        OnnxCompError,
        OutputError,
        PassError,
        RecipeError,
        UsageError,
    )
    from onnxcomp.recipe import Recipe
    from onnxcomp.report import (
        BenchReport,
        BundleReport,
        CalibrateReport,
        CheckReport,
        CompareReport,
        ModelResult,
        OptimizeManyReport,
        PackReport,
        PruneReport,
        QuantizeReport,
        Report,
        SensitivityReport,
        ShareReport,
        UnpackReport,
    )
    from onnxcomp.statistics import Statistics
    from onnxcomp.target import Budget, Gates

__version__ = "0.1.0"

_PLACES = {
    "BenchReport": "onnxcomp.report",
    "Budget": "onnxcomp.target",
    "BundleReport": "onnxcomp.report",
    "CalibrateReport": "onnxcomp.report",
    "CalibrateResult": "onnxcomp.api",
    "CheckReport": "onnxcomp.report",
    "CompareReport": "onnxcomp.report",
    "DataError": "onnxcomp.errors",
    "EnvironmentUnavailable": "onnxcomp.errors",
    "GateFailed": "onnxcomp.errors",
    "Gates": "onnxcomp.target",
    "ImageOptions": "onnxcomp.data",
    "MetricError": "onnxcomp.errors",
    "ModelError": "onnxcomp.errors",
    "ModelResult": "onnxcomp.report",
    "OnnxCompError": "onnxcomp.errors",
    "OptimizeManyReport": "onnxcomp.report",
    "OutputError": "onnxcomp.errors",
    "PackReport": "onnxcomp.report",
    "PassError": "onnxcomp.errors",
    "PruneReport": "onnxcomp.report",
    "PruneResult": "onnxcomp.api",
    "QuantizeReport": "onnxcomp.report",
    "QuantizeResult": "onnxcomp.api",
    "Recipe": "onnxcomp.recipe",
    "RecipeError": "onnxcomp.errors",
    "Report": "onnxcomp.report",
    "Result": "onnxcomp.api",
    "SensitivityReport": "onnxcomp.report",
    "Statistics": "onnxcomp.statistics",
    "ShareReport": "onnxcomp.report",
    "ShareResult": "onnxcomp.api",
    "UnpackReport": "onnxcomp.report",
    "UsageError": "onnxcomp.errors",
    "bench": "onnxcomp.api",
    "bundle": "onnxcomp.api",
    "bundle_candidates": "onnxcomp.api",
    "calibrate": "onnxcomp.api",
    "check": "onnxcomp.api",
    "compare": "onnxcomp.api",
    "custom_operators": "onnxcomp.customops",
    "diff": "onnxcomp.api",
    "doctor": "onnxcomp.api",
    "inspect": "onnxcomp.api",
    "optimize": "onnxcomp.api",
    "optimize_many": "onnxcomp.api",
    "pack": "onnxcomp.api",
    "prune": "onnxcomp.api",
    "quantize": "onnxcomp.api",
    "read_measurements": "onnxcomp.api",
    "sensitivity": "onnxcomp.api",
    "session": "onnxcomp.api",
    "share": "onnxcomp.api",
    "unpack": "onnxcomp.api",
}

__all__ = [
    "BenchReport",
    "Budget",
    "BundleReport",
    "CalibrateReport",
    "CalibrateResult",
    "CheckReport",
    "CompareReport",
    "DataError",
    "EnvironmentUnavailable",
    "GateFailed",
    "Gates",
    "ImageOptions",
    "MetricError",
    "ModelError",
    "ModelResult",
    "OnnxCompError",
    "OptimizeManyReport",
    "OutputError",
    "PackReport",
    "PassError",
    "PruneReport",
    "PruneResult",
    "QuantizeReport",
    "QuantizeResult",
    "Recipe",
    "RecipeError",
    "Report",
    "Result",
    "SensitivityReport",
    "ShareReport",
    "ShareResult",
    "Statistics",
    "UnpackReport",
    "UsageError",
    "__version__",
    "bench",
    "bundle",
    "bundle_candidates",
    "calibrate",
    "check",
    "compare",
    "custom_operators",
    "diff",
    "doctor",
    "inspect",
    "optimize",
    "optimize_many",
    "pack",
    "prune",
    "quantize",
    "read_measurements",
    "sensitivity",
    "session",
    "share",
    "unpack",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'onnxcomp' has no attribute {name!r}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
