"""What commands return: values with everything that was measured, and their renderings."""

from onnxcomp.report.benchmark import BenchReport, BenchSettings, ModelBenchmark, claim, fallback_text
from onnxcomp.report.bundle import BundleReport
from onnxcomp.report.calibration import CalibrateReport
from onnxcomp.report.check import CheckReport, CheckSettings, GateResult, GateStatus, GateUnit
from onnxcomp.report.ci import annotations, junit_xml
from onnxcomp.report.comparison import CompareReport, LayerFidelity, ScoreChange
from onnxcomp.report.content import Settings
from onnxcomp.report.document import SCHEMA_VERSION, Document, Written, machine, now, versions
from onnxcomp.report.many import ModelResult, OptimizeManyReport
from onnxcomp.report.packing import PackReport, UnpackReport
from onnxcomp.report.pruning import PrunedGroup, PruneReport
from onnxcomp.report.quantization import QuantizeReport
from onnxcomp.report.reading import read_document
from onnxcomp.report.robustness import Robustness
from onnxcomp.report.saved import Saved
from onnxcomp.report.sensitivity import SensitivityReport
from onnxcomp.report.sharing import ShareReport, TriedBits, TriedSparsity
from onnxcomp.report.sweep import StreamRate, SweepPoint, SweepTiming, Throughput, sweep_notes
from onnxcomp.report.value import Report, make_report

__all__ = [
    "SCHEMA_VERSION",
    "BenchReport",
    "BenchSettings",
    "BundleReport",
    "CalibrateReport",
    "CheckReport",
    "CheckSettings",
    "CompareReport",
    "Document",
    "GateResult",
    "GateStatus",
    "GateUnit",
    "LayerFidelity",
    "ModelBenchmark",
    "ModelResult",
    "OptimizeManyReport",
    "PackReport",
    "PruneReport",
    "PrunedGroup",
    "QuantizeReport",
    "Report",
    "Robustness",
    "Saved",
    "ScoreChange",
    "SensitivityReport",
    "Settings",
    "ShareReport",
    "StreamRate",
    "SweepPoint",
    "SweepTiming",
    "Throughput",
    "TriedBits",
    "TriedSparsity",
    "UnpackReport",
    "Written",
    "annotations",
    "claim",
    "fallback_text",
    "junit_xml",
    "machine",
    "make_report",
    "now",
    "read_document",
    "sweep_notes",
    "versions",
]
