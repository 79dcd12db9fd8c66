"""Exports small models with the exporters that people use, for the tests: ``tests/fixtures``.

    python tools/export_fixtures.py FAMILY [--output FOLDER]

FAMILY is ``torch`` (TorchScript and dynamo), ``sklearn`` (skl2onnx) or ``tensorflow`` (tf2onnx, from Keras models).
Each needs its packages and nothing of onnxcomp, so that each can run in an environment of its own. Weights are random,
seeded. ``versions.json`` beside the models records what made which.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["main"]

FOLDER = Path(__file__).parents[1] / "tests" / "fixtures"
_FAMILIES = {
    "torch": ("export_torch", ("torch", "onnxscript", "onnx")),
    "sklearn": ("export_sklearn", ("scikit-learn", "skl2onnx", "onnx")),
    "tensorflow": ("export_tensorflow", ("tensorflow-cpu", "keras", "tf2onnx", "onnx")),
}
_LARGEST = 100_000  # bytes of one model


def main(argv: Sequence[str] | None = None) -> int:
    """Export one family and record its versions."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("family", choices=_FAMILIES)
    parser.add_argument("--output", type=Path, default=FOLDER, metavar="FOLDER")
    args = parser.parse_args(argv)
    module, packages = _FAMILIES[args.family]
    export: Callable[[Path], list[str]] = importlib.import_module(module).export
    args.output.mkdir(parents=True, exist_ok=True)
    names = export(args.output)
    record = args.output / "versions.json"
    known: dict[str, Any] = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    known[args.family] = {"packages": {name: version(name) for name in packages}, "models": sorted(names)}
    record.write_text(json.dumps(known, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    too_large = [name for name in names if (args.output / name).stat().st_size > _LARGEST]
    if too_large:
        print(f"larger than {_LARGEST} bytes: {', '.join(too_large)}", file=sys.stderr)
    return 1 if too_large else 0


if __name__ == "__main__":
    sys.exit(main())
