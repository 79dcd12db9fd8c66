"""Options that mean the same in every command: ``def command(model: Model, output: Output = None, ...)``."""

import enum
from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "Batch",
    "Calibration",
    "CustomOps",
    "DryRun",
    "Evaluation",
    "Format",
    "Goal",
    "ImageLayout",
    "ImageMean",
    "ImageResize",
    "ImageSize",
    "ImageStd",
    "Layout",
    "MaxDrop",
    "MaxDropGate",
    "MaxLatencyGate",
    "MaxSizeGate",
    "MaxSizeRatioGate",
    "MetricName",
    "MinAgreement",
    "MinAgreementGate",
    "MinSqnr",
    "MinSqnrGate",
    "Model",
    "Models",
    "NoBench",
    "Output",
    "OutputFormat",
    "Overwrite",
    "Provider",
    "ProviderName",
    "Quiet",
    "Reports",
    "Seed",
    "StatisticsFile",
    "Synthetic",
    "TargetName",
    "Technique",
    "Threads",
    "Verbose",
]


class Goal(enum.StrEnum):
    """What is minimised."""

    LATENCY = "latency"
    SIZE = "size"
    BALANCED = "balanced"


class Technique(enum.StrEnum):
    """What `optimize` may use."""

    PRUNE = "prune"
    STATIC = "static"
    DYNAMIC = "dynamic"
    WEIGHTS = "weights"
    FLOAT16 = "float16"


class Provider(enum.StrEnum):
    """What runs models."""

    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"


class Layout(enum.StrEnum):
    """Order of the axes of an image input."""

    NCHW = "NCHW"
    NHWC = "NHWC"


class Format(enum.StrEnum):
    """What is printed."""

    TEXT = "text"
    JSON = "json"


Model = Annotated[
    Path, typer.Argument(help="The exported ONNX model, or an .onnxz file of one. It is only read.", show_default=False)
]
Models = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="MODEL...", help="Exported ONNX models, or .onnxz files. They are only read.", show_default=False
    ),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="Where the result goes; NAME.onnxz is packed.  [default: MODEL.opt.onnx]"),
]
Calibration = Annotated[
    str | None,
    typer.Option(
        help="Samples for activation ranges: an .npz of rows, a folder of .npz (one per run) or of images (a "
        "sub-folder per class), or FILE.py:function."
    ),
]
StatisticsFile = Annotated[
    Path | None, typer.Option("--statistics", help="Ranges that onnxcomp calibrate measured, instead of samples.")
]
Evaluation = Annotated[
    str | None, typer.Option("--eval", help="Samples to judge on, of the same forms, best with 'labels'.")
]
CustomOps = Annotated[
    list[Path] | None, typer.Option("--custom-ops", help="Library of custom operators to load; may be repeated.")
]
MetricName = Annotated[
    str | None,
    typer.Option("--metric", help="top1, top5, FILE.py:function or module:function.  [default: top1 for classes]"),
]
MaxDrop = Annotated[float, typer.Option(help="Largest accepted drop of the metric, 0.01 = one point.")]
MinAgreement = Annotated[
    float | None, typer.Option(help="Least share of answers equal to the original's.  [default: 1 - 3 * max-drop]")
]
MinSqnr = Annotated[
    float | None, typer.Option(help="Least SQNR of every float output, dB.  [default: 20 without labels]")
]
# Bounds of commands that make or judge one model: each holds only where it is named
MaxDropGate = Annotated[float | None, typer.Option("--max-drop", help="Gate: largest drop of the metric.")]
MinAgreementGate = Annotated[
    float | None, typer.Option("--min-agreement", help="Gate: least share of answers equal to the original's.")
]
MinSqnrGate = Annotated[float | None, typer.Option("--min-sqnr", help="Gate: least SQNR of every float output, dB.")]
MaxSizeGate = Annotated[str | None, typer.Option("--max-size", help="Gate: largest file, as in 5MB or 800kB.")]
MaxSizeRatioGate = Annotated[
    float | None, typer.Option("--max-size-ratio", help="Gate: largest share of the original's size.")
]
MaxLatencyGate = Annotated[
    float | None, typer.Option("--max-latency-ratio", help="Gate: largest share of the original's latency.")
]
NoBench = Annotated[bool, typer.Option("--no-bench", help="Do not measure the latency.")]
Sizes = Annotated[
    bool,
    typer.Option("--sizes", help="Also store it in other ways (gzip, zstd, .onnxz): table of sizes and load times."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Do the work and print the report, but write no file.")]
Synthetic = Annotated[
    bool, typer.Option("--synthetic", help="Calibrate on made-up inputs, where there are no samples.")
]
TargetName = Annotated[str, typer.Option("--target", help="Where the model will run; auto is this machine.")]
ProviderName = Annotated[Provider, typer.Option("--provider", help="What runs the models.")]
Reports = Annotated[
    list[Path] | None,
    typer.Option("--report", help="Also write the report: .json, .html, .md or .txt; may be repeated."),
]
Threads = Annotated[int, typer.Option(min=0, help="Threads while timing; 0 is all cores.")]
Batch = Annotated[int, typer.Option(min=1, help="Rows of an .npz, or images, per run.")]
ImageSize = Annotated[
    str | None,
    typer.Option(help="Images: size in pixels, as in 224 or 224x192 (height first).  [default: what the model takes]"),
]
ImageMean = Annotated[
    str | None,
    typer.Option("--mean", help="Images: subtracted from pixels in 0 to 1, as in 0.485,0.456,0.406.  [default: 0]"),
]
ImageStd = Annotated[
    str | None,
    typer.Option("--std", help="Images: what is left is divided by it, as in 0.229,0.224,0.225.  [default: 1]"),
]
ImageLayout = Annotated[
    Layout | None, typer.Option("--layout", help="Images: order of the axes.  [default: told from the model]")
]
ImageResize = Annotated[
    str | None,
    typer.Option(
        "--resize", help="Images: crop, stretch, or pixels of the smaller side before a crop.  [default: crop]"
    ),
]
Perturb = Annotated[
    list[str] | None,
    typer.Option(
        "--perturb",
        metavar="KIND[=STRENGTH]",
        help="Also compare both models on disturbed inputs: noise, brightness, contrast, scaling; blur, occlusion of "
        "images. Without a strength: severities 1 to 5; all: every kind that suits the inputs. May be repeated.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="For every random choice.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.")]
OutputFormat = Annotated[Format, typer.Option("--format", help="What to print.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Also show what was skipped and why.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print no report text and no progress.")]
