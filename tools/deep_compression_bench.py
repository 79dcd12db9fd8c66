"""How small the LeNets get without training: ``python tools/deep_compression_bench.py sample_models --markdown FILE``.

Zeros, shared values, entropy coding (Han et al. 2016, Deep Compression, without its retraining): ``onnxcomp share
--method entropy`` with and without ``--prune auto``, then ``onnxcomp pack``. Every other row of the evaluation samples
chooses, for a drop of top1 of at most ``--max-drop``; the score of the rest, which nothing has seen, stands beside it.
With ``--whole`` all rows choose, as for whoever has no more than these. With ``--data``, the folder that
`train_samples` takes, too, and the other 8,000 test images of Fashion-MNIST are what nothing has seen.
The bound is the order-0 entropy of what is stored as indices.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from zoo_tables import Table, circumstances, number

import onnxcomp
from onnxcomp.errors import OnnxCompError, UsageError

__all__ = ["Row", "main", "measure"]

_TITLES = ("model", "fp32", "zeros", "packed", "smaller", "over bound", "top1, chosen on", "of the original",
           "top1, held out", "of the original", "s")  # fmt: skip
_INDICES = ("UINT8", "UINT4")
Images = tuple[np.ndarray, np.ndarray]  # and their labels


@dataclass(frozen=True, slots=True)
class Row:
    """One model, made in one way.

    Attributes:
        model: Its name.
        fp32: Bytes as it was.
        zeros: Share of its weights that pruning set to zero.
        packed: Bytes of the packed file.
        over_bound: Bytes of indices over what their entropy allows, minus 1.
        scores: Of the rows that have chosen: of the result, of the original.
        held_out: Of the other rows; None: there are none.
        seconds: That it took.
    """

    model: str
    fp32: int
    zeros: float
    packed: int
    over_bound: float
    scores: tuple[float, float]
    held_out: tuple[float, float] | None
    seconds: float


def measure(
    folder: Path, name: str, max_drop: float, prune: str | None, batch: int, *, whole: bool, unseen: Images | None
) -> Row:
    """Make one model small, and judge it on what has chosen and on the rest, or on others."""
    source, start = folder / name / "model.onnx", time.perf_counter()
    with np.load(folder / "fashion_mnist" / "eval.npz") as data, tempfile.TemporaryDirectory() as place:
        image, labels = data["image"], data["labels"]
        sets = [(image, labels)] if whole or unseen else [(image[k::2], labels[k::2]) for k in range(2)]
        sets += [unseen] if unseen else []
        parts = [Path(place, f"{number}.npz") for number in range(len(sets))]
        for part, (image, labels) in zip(parts, sets, strict=True):
            np.savez(part, image=image, labels=labels)
        result = onnxcomp.share(
            source,
            method="entropy",
            prune=prune,
            calibration=folder / "fashion_mnist" / "calibration.npz",
            eval=parts[0],
            gates=onnxcomp.Gates(max_drop=max_drop),
            bench=False,
            batch=batch,
        )
        result.save(Path(place, "shared.onnx"))
        packed = onnxcomp.pack(Path(place, "shared.onnx"), Path(place, "shared.onnxz"))
        seconds = time.perf_counter() - start
        scores = [_scores(part, source, Path(place, "shared.onnxz")) for part in parts]
    indices = [tensor for tensor in packed.tensors if tensor.dtype in _INDICES]
    done = next((each.counters for each in result.report.passes if each.name == "prune-weights"), {})
    return Row(
        model=name,
        fp32=source.stat().st_size,
        zeros=done.get("zeros", 0) / done.get("of weights", 1),
        packed=packed.size,
        over_bound=sum(tensor.stored for tensor in indices) / sum(tensor.bound for tensor in indices) - 1,
        scores=scores[0],
        held_out=scores[1] if len(scores) > 1 else None,
        seconds=seconds,
    )


def unseen_of(data: Path) -> Images:
    """Return the test images that the samples in the repository lack.

    Raises:
        UsageError: The folder does not hold Fashion-MNIST.
    """
    from train_samples import EVAL_IMAGES, DataError, read_split  # needs torch

    try:
        images, labels = read_split(data, "t10k", 10_000)
    except DataError as err:
        raise UsageError(str(err)) from err
    return images[EVAL_IMAGES:], labels[EVAL_IMAGES:]


def _scores(samples: Path, original: Path, packed: Path) -> tuple[float, float]:
    """Return top1 of the packed model, and of the original."""
    with np.load(samples) as data:
        image, labels = data["image"], data["labels"]
    found = [
        float((onnxcomp.session(path).run(None, {"image": image})[0].argmax(1) == labels).mean())
        for path in (packed, original)
    ]
    return found[0], found[1]


def _cells(row: Row) -> list[str]:
    return [
        row.model,
        f"{row.fp32:,}",
        f"{row.zeros:.0%}",
        f"{row.packed:,}",
        f"{row.fp32 / row.packed:.1f}x",
        f"{row.over_bound:+.1%}",
        *(number(score, 4) for score in (*row.scores, *(row.held_out or (None, None)))),
        f"{row.seconds:.0f}",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; print the table and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="with the models, and the samples in fashion_mnist")
    parser.add_argument("--only", nargs="+", default=("lenet_300_100", "lenet5"), help="names of models")
    parser.add_argument("--max-drop", type=float, default=0.01, help="of top1")
    parser.add_argument("--batch", type=int, default=20, help="rows per run")
    parser.add_argument("--whole", action="store_true", help="let all samples choose")
    parser.add_argument("--data", type=Path, help="folder with the four .gz files of Fashion-MNIST")
    parser.add_argument("--no-plain", action="store_true", help="leave out what is not pruned")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--markdown", type=Path, help="where the table goes")
    given = parser.parse_args(arguments)
    try:
        unseen = unseen_of(given.data) if given.data else None
    except UsageError as err:
        print(f"error: {err}", file=sys.stderr)
        return err.exit_code
    rows = []
    for name in given.only:
        for prune in ("auto",) if given.no_plain else (None, "auto"):
            try:
                row = measure(given.folder, name, given.max_drop, prune, given.batch, whole=given.whole, unseen=unseen)
            except OnnxCompError as err:
                print(f"{name}: {err}", file=sys.stderr)
                continue
            rows.append(row)
            print("  ".join(_cells(rows[-1])), file=sys.stderr, flush=True)
    if not rows:
        return 1
    text = Table(_TITLES, [_cells(row) for row in rows]).markdown()
    print(text)
    if given.markdown:
        given.markdown.write_text(text, encoding="utf-8")
    if given.json:
        content = {"circumstances": circumstances(), "rows": [asdict(row) for row in rows]}
        given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
