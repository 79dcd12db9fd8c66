"""Measured comparison: contenders timed side by side in one run, with an interval on how much faster each one is."""

from onnxcomp.measure.bundle import SCRIPT, BundledModel, check_feed, read_plan, write_bundle
from onnxcomp.measure.device import device_name
from onnxcomp.measure.elsewhere import MEASUREMENTS
from onnxcomp.measure.interval import block_time, median_interval
from onnxcomp.measure.kernels import (
    Fallback,
    NodeTime,
    OperatorTime,
    check_device,
    fallback,
    node_profile,
    operator_times,
)
from onnxcomp.measure.loading import Memory, load_times, peak_memory
from onnxcomp.measure.memory import peak_rss
from onnxcomp.measure.nodes import node_bytes, node_times
from onnxcomp.measure.stopwatch import Stopwatch
from onnxcomp.measure.streams import Streams
from onnxcomp.measure.timing import Comparison, Ratio, Timing, interleave

__all__ = [
    "MEASUREMENTS",
    "SCRIPT",
    "BundledModel",
    "Comparison",
    "Fallback",
    "Memory",
    "NodeTime",
    "OperatorTime",
    "Ratio",
    "Stopwatch",
    "Streams",
    "Timing",
    "block_time",
    "check_device",
    "check_feed",
    "device_name",
    "fallback",
    "interleave",
    "load_times",
    "median_interval",
    "node_bytes",
    "node_profile",
    "node_times",
    "operator_times",
    "peak_memory",
    "peak_rss",
    "read_plan",
    "write_bundle",
]
