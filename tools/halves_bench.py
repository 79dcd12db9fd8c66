"""What is left of a model with half of its channels.

    python tools/halves_bench.py MODEL --calibration NPZ --eval NPZ

`onnxcomp prune --ratio 0.5 --round 1` with least squares and with ``distill``, for several seeds; layers named by
``--ignore`` keep their channels. With ``--data``, the folder that `train_samples` takes, too, scores of all 10,000 test
images of Fashion-MNIST stand beside: of 2,000, a third of a point is chance.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from zoo_tables import Table, number

import onnxcomp
from onnxcomp.errors import OnnxCompError, UsageError

__all__ = ["main"]

_TITLES = ("recovery", "seed", "score", "of the original", "agreement", "score of 10,000", "of the original",
           "agreement", "s")  # fmt: skip


def lines_of(args: argparse.Namespace, recovery: str, seed: int, images: Path | None) -> list[str]:
    """Prune once; return a line of the table."""
    start = time.monotonic()
    result = onnxcomp.prune(
        args.model,
        calibration=args.calibration,
        eval=args.eval,
        ratio=0.5,
        round=1,
        ignore=args.ignore,
        recovery=recovery,
        seed=seed,
        bench=False,
    )
    seconds = time.monotonic() - start
    quality = result.report.quality
    cells = [number(value, 4) for value in (quality.score, result.report.original_quality.score, quality.agreement)]
    more = ["-"] * 3
    if images is not None:
        small = images.with_name("small.onnx")
        result.save(small)
        with np.load(images) as data:
            found, first = (
                onnxcomp.session(path).run(None, {"image": data["image"]})[0].argmax(1) for path in (small, args.model)
            )
            scores = [(found == data["labels"]).mean(), (first == data["labels"]).mean(), (found == first).mean()]
        more = [number(float(score), 4) for score in scores]
    return [recovery, str(seed), *cells, *more, f"{seconds:.0f}"]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Remove half of the channels; fit what is left.")
    parser.add_argument("model", type=Path, help="model")
    parser.add_argument("--calibration", type=Path, required=True, help="samples to fit to")
    parser.add_argument("--eval", type=Path, required=True, help="labelled samples")
    parser.add_argument("--ignore", nargs="+", default=[], metavar="PATTERN", help="layers that keep their channels")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="N", help="default: 0")
    parser.add_argument("--data", type=Path, help="folder with the four .gz files of Fashion-MNIST")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    args = parse(argv)
    with tempfile.TemporaryDirectory(prefix="onnxcomp.") as folder:
        images = None
        try:
            if args.data:
                from train_samples import DataError, read_split  # needs torch

                try:
                    pixels, labels = read_split(args.data, "t10k", 10_000)
                except DataError as err:
                    raise UsageError(str(err)) from err
                images = Path(folder) / "images.npz"
                np.savez(images, image=pixels, labels=labels)
            rows = []
            for recovery in ("least-squares", "distill"):
                for seed in args.seeds:
                    rows.append(lines_of(args, recovery, seed, images))
                    print("  ".join(rows[-1]), file=sys.stderr, flush=True)
        except OnnxCompError as err:
            print(f"error: {err}", file=sys.stderr)
            return err.exit_code
    print(Table(_TITLES, rows).markdown(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
