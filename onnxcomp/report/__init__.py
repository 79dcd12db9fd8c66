"""One ``Report`` value with everything that was measured, and its renderings."""

from onnxcomp.report.content import SCHEMA_VERSION, Settings
from onnxcomp.report.text import render_text
from onnxcomp.report.value import Report, make_report

__all__ = ["SCHEMA_VERSION", "Report", "Settings", "make_report", "render_text"]
