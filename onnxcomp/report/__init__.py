"""What commands return: values with everything that was measured, and their renderings."""

from onnxcomp.report.benchmark import Benchmark, BenchSettings, ModelBenchmark
from onnxcomp.report.content import Settings
from onnxcomp.report.document import SCHEMA_VERSION, Document, machine, now, versions
from onnxcomp.report.quantization import QuantizeReport
from onnxcomp.report.value import Report, make_report

__all__ = [
    "SCHEMA_VERSION",
    "BenchSettings",
    "Benchmark",
    "Document",
    "ModelBenchmark",
    "QuantizeReport",
    "Report",
    "Settings",
    "machine",
    "make_report",
    "now",
    "versions",
]
