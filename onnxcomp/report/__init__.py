"""What commands return: values with everything that was measured, and their renderings."""

from onnxcomp.report.benchmark import BenchReport, BenchSettings, ModelBenchmark
from onnxcomp.report.calibration import CalibrateReport
from onnxcomp.report.comparison import CompareReport, Robustness, ScoreChange
from onnxcomp.report.content import Settings
from onnxcomp.report.document import SCHEMA_VERSION, Document, Written, machine, now, versions
from onnxcomp.report.packing import PackReport, UnpackReport
from onnxcomp.report.quantization import QuantizeReport
from onnxcomp.report.sensitivity import SensitivityReport
from onnxcomp.report.value import Report, make_report

__all__ = [
    "SCHEMA_VERSION",
    "BenchReport",
    "BenchSettings",
    "CalibrateReport",
    "CompareReport",
    "Document",
    "ModelBenchmark",
    "PackReport",
    "QuantizeReport",
    "Report",
    "Robustness",
    "ScoreChange",
    "SensitivityReport",
    "Settings",
    "UnpackReport",
    "Written",
    "machine",
    "make_report",
    "now",
    "versions",
]
