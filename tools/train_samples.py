"""Train the networks of `sample_models/` on Fashion-MNIST and write them with their data and cards.

    python tools/train_samples.py --data DIR [--only NAME] [--seed N] [--out sample_models]

DIR holds the four files `{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz` of Fashion-MNIST
(https://github.com/zalandoresearch/fashion-mnist, or the Debian package `dataset-fashion-mnist`).
Needs torch, onnx, onnxruntime and numpy. A network that misses its accuracy bar is not written.
Exit codes: 0 all written, 1 a network missed its bar, 2 wrong option, unusable data or output folder.
"""

import argparse
import gzip
import io
import json
import struct
import sys
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray
from sample_nets import RECIPES, ByteImages, Recipe, train

HOME = "https://github.com/zalandoresearch/fashion-mnist"
OPSET = 17
CALIBRATION_IMAGES = 400
EVAL_IMAGES = 2000
Split = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images [N, 1, 28, 28] and labels [N]


class DataError(Exception):
    """The data folder does not hold Fashion-MNIST."""


def read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read a gzip-compressed IDX file of bytes, which must have exactly `shape`."""
    try:
        raw = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as err:
        raise DataError(f"{path}: cannot be read: {getattr(err, 'strerror', None) or err}") from err
    header = struct.pack(f">4B{len(shape)}I", 0, 0, 8, len(shape), *shape)
    if not raw.startswith(header) or len(raw) != len(header) + int(np.prod(shape)):
        raise DataError(f"{path}: not an IDX file of bytes with shape {shape}")
    return np.frombuffer(raw, np.uint8, offset=len(header)).reshape(shape).copy()


def read_split(folder: Path, prefix: str, count: int) -> Split:
    """Images [count, 1, 28, 28] and labels [count] of one split, `train` or `t10k`."""
    images = read_idx(folder / f"{prefix}-images-idx3-ubyte.gz", (count, 28, 28))
    labels = read_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", (count,))
    if labels.max() > 9:
        raise DataError(f"{folder}: {prefix} has the label {labels.max()}; Fashion-MNIST has 0 to 9")
    return images[:, None], labels.astype(np.int64)


def export(net: ByteImages) -> onnx.ModelProto:
    """The network as ONNX, BatchNorm as its own nodes, weights as initializers, and nothing about where it was made."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # the exporter that rewrites least is the deprecated one; folding is off with PRESERVE, as it asks for
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            net,
            (torch.zeros(2, 1, 28, 28, dtype=torch.uint8),),
            buffer,
            dynamo=False,
            opset_version=OPSET,
            training=torch.onnx.TrainingMode.PRESERVE,  # EVAL would fold BatchNorm into the convolutions
            do_constant_folding=False,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
        )
    model = onnx.load_from_string(buffer.getvalue())
    model.doc_string = model.graph.doc_string = ""
    del model.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    onnx.checker.check_model(model, full_check=True)
    return model


def top1(model: onnx.ModelProto, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> float:
    """Share of `images` that onnxruntime, on the CPU, puts into the right class."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    right = 0
    for at in range(0, len(images), 500):
        logits = np.asarray(session.run(["logits"], {"image": images[at : at + 500]})[0])
        right += int((logits.argmax(1) == labels[at : at + 500]).sum())
    return right / len(images)


def make_card(recipe: Recipe, model: onnx.ModelProto, score: float, full_score: float) -> dict[str, Any]:
    """What `card.json` says."""
    moves = f"mirrored left-right half of the time{f', moved by up to {recipe.shift} pixel' if recipe.shift else ''}"
    return {
        "task": "clothing photo 28x28 -> one of 10 classes (Fashion-MNIST)",
        "source": "trained by tools/train_samples.py",
        "licence": "Apache-2.0",
        "opset": OPSET,
        "params": sum(int(np.prod(tensor.dims)) for tensor in model.graph.initializer),
        "metric": "top1",
        "fp32_score": score,
        "fp32_score_full": full_score,
        "note": "fp32_score: eval.npz, the first 2,000 test images; fp32_score_full: all 10,000 test images",
        "data": "../fashion_mnist",
        "training": {
            "images": 60000,
            "epochs": recipe.epochs,
            "batch": recipe.batch,
            "optimizer": "SGD, Nesterov momentum 0.9" if recipe.optimizer == "sgd" else "Adam",
            "learning_rate": recipe.learning_rate,
            "schedule": "one cycle: linear rise for a fifth of the steps, cosine fall to zero",
            "weight_decay": recipe.weight_decay,
            "augmentation": moves,
            "seed": recipe.seed,
            "torch": torch.__version__.split("+")[0],
        },
    }


def write_sample(name: str, train_split: Split, test_split: Split, out: Path, seed: int) -> bool:
    """Train the network `name` and write its model and card into `out`; False if it missed its bar."""
    recipe = replace(RECIPES[name], seed=seed)

    def log(line: str) -> None:
        print(f"{name}  {line}", file=sys.stderr, flush=True)

    model = export(train(recipe, *train_split, log))
    images, labels = test_split
    score, full_score = top1(model, images[:EVAL_IMAGES], labels[:EVAL_IMAGES]), top1(model, images, labels)
    if full_score < recipe.bar:
        log(f"FAILED: top-1 {full_score:.4f} on the test set, needs {recipe.bar:.4f}; nothing written")
        return False
    (out / name).mkdir(exist_ok=True)
    onnx.save(model, out / name / "model.onnx")
    card = json.dumps(make_card(recipe, model, score, full_score), indent=2)
    (out / name / "card.json").write_text(card + "\n", encoding="utf-8")
    print(f"{name}  top-1 {full_score:.4f} on the test set, {score:.4f} on eval.npz  {model.ByteSize() / 1e6:.2f} MB")
    return True


def write_samples(data: Path, out: Path, names: Sequence[str], seed: int) -> bool:
    """Write the shared data and the networks `names` into `out`; False if one of them missed its bar."""
    train_split, test_split = read_split(data, "train", 60_000), read_split(data, "t10k", 10_000)
    folder = out / "fashion_mnist"
    folder.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(folder / "calibration.npz", image=train_split[0][:CALIBRATION_IMAGES])
    np.savez_compressed(folder / "eval.npz", image=test_split[0][:EVAL_IMAGES], labels=test_split[1][:EVAL_IMAGES])
    passed = [write_sample(name, train_split, test_split, out, seed) for name in names]
    return all(passed)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description="Train the networks of sample_models/ on Fashion-MNIST.")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with the four .gz files")
    parser.add_argument("--only", choices=sorted(RECIPES), metavar="NAME", help=f"one of {', '.join(RECIPES)}")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="other copies; default: %(default)s, the sample models"
    )
    parser.add_argument("--out", type=Path, default=Path("sample_models"), metavar="DIR", help="default: %(default)s")
    args = parser.parse_args(argv)
    try:
        passed = write_samples(args.data, args.out, [args.only] if args.only else list(RECIPES), args.seed)
    except DataError as err:
        print(f"error: {err}\nhint: the four files are at {HOME}", file=sys.stderr)
        return 2
    except OSError as err:
        print(f"error: {err}", file=sys.stderr)
        return 2
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
