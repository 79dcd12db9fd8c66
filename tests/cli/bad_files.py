"""Files that are no good, made by name: each maker gets the path that it writes."""

import os
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
from onnx import numpy_helper

__all__ = ["FILES", "make"]

_RNG = np.random.default_rng(0)
_WEIGHT = _RNG.normal(size=(8, 10)).astype(np.float32)
_ROWS = _RNG.normal(size=(12, 8)).astype(np.float32)
_LABELS = np.arange(12) % 10
_GOOD = "g (float[N, 8] x) => (float[N, 10] y) { [head] y = MatMul(x, w) }"
_PNG = b"\x89PNG\r\n\x1a\n" + bytes(60)


def make(name: str, folder: Path) -> None:
    """Make a file of that name in a folder, and what it needs."""
    FILES[name](folder / name)


def _proto(text: str, opset: int = 17, **weights: np.ndarray) -> onnx.ModelProto:
    proto = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}, "my.domain" : 1]> {text}')
    proto.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return proto


def _good() -> onnx.ModelProto:
    return _proto(_GOOD, w=_WEIGHT)


def _model(text: str, opset: int = 17, **weights: np.ndarray) -> Callable[[Path], None]:
    return lambda path: onnx.save_model(_proto(text, opset, **weights), path)


def _edited(edit: Callable[[onnx.ModelProto], object]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        proto = _good()
        edit(proto)
        path.write_bytes(proto.SerializeToString())

    return write


def _bytes(content: bytes) -> Callable[[Path], None]:
    return lambda path: _write(path, content)


def _text(content: str) -> Callable[[Path], None]:
    return _bytes(content.encode())


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _cut(path: Path, *, share: float) -> None:
    content = _good().SerializeToString()
    path.write_bytes(content[: int(len(content) * share)])


def _external(path: Path, *, location: str = "w.bin", data: int = 320, **entries: str) -> None:
    """Write a model whose weight lies in another file, with so many bytes in ``w.bin`` beside it."""
    proto = _good()
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in ({"location": location} | entries).items():
        tensor.external_data.add(key=key, value=value)
    if data:
        path.with_name("w.bin").write_bytes(bytes(data))
    path.write_bytes(proto.SerializeToString())


def _linked_external(path: Path) -> None:
    _external(path, location="w.link")
    path.with_name("w.link").symlink_to("/etc/hostname")


def _npz(**arrays: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, **arrays)


def _rows_with(value: float) -> np.ndarray:
    rows = _ROWS.copy()
    rows[7, 3] = value
    return rows


def _cut_npz(path: Path) -> None:
    np.savez(path, x=_ROWS)
    path.write_bytes(path.read_bytes()[:-40])


def _zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no array")


def _folder(*files: tuple[str, Callable[[Path], None]]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        path.mkdir()
        for name, maker in files:
            maker(path / name)

    return write


def _link(path: Path, *, to: str, hard: bool = False) -> None:
    target = path.with_name(to)
    if target != path and not target.exists():
        make(to, path.parent)
    path.hardlink_to(target) if hard else path.symlink_to(target)


def _tensor(kind: int, dims: tuple[int, ...], raw: bytes) -> onnx.TensorProto:
    return onnx.TensorProto(name="w", data_type=kind, dims=dims, raw_data=raw)


def _replace_weight(tensor: onnx.TensorProto) -> Callable[[Path], None]:
    return _edited(lambda proto: proto.graph.initializer[0].CopyFrom(tensor))


def _metric(body: str) -> Callable[[Path], None]:
    return _text(f"def score(outputs, labels):\n    {body}\n")


def _recipe(text: str) -> Callable[[Path], None]:
    return _text(f"schema_version = 1\n{text}\n")


FILES: dict[str, Callable[[Path], None]] = {
    "m.onnx": _edited(lambda _: None),
    # no model at all
    "empty.onnx": _bytes(b""),
    "text.onnx": _text("this is no model\n"),
    "png.onnx": _bytes(_PNG),
    "zeros.onnx": _bytes(bytes(4096)),
    "zip.onnx": _zip,
    "tensor.onnx": _bytes(numpy_helper.from_array(_WEIGHT, "w").SerializeToString()),
    "folder.onnx": _folder(),
    "pipe.onnx": os.mkfifo,
    "cut-early.onnx": partial(_cut, share=0.1),
    "cut-half.onnx": partial(_cut, share=0.5),
    "cut-late.onnx": partial(_cut, share=0.99),
    # external data
    "external-missing.onnx": partial(_external, data=0),
    "external-short.onnx": partial(_external, data=100, length="320"),
    "external-less.onnx": partial(_external, length="100"),
    "external-parent.onnx": partial(_external, location="../w.bin"),
    "external-absolute.onnx": partial(_external, location="/etc/hostname"),
    "external-link.onnx": _linked_external,
    "external-offset.onnx": partial(_external, offset="some", length="320"),
    # graphs that are none
    "no-graph.onnx": _bytes(onnx.ModelProto(ir_version=8).SerializeToString()),
    "no-output.onnx": _edited(lambda proto: proto.graph.ClearField("output")),
    "no-node.onnx": _edited(lambda proto: proto.graph.ClearField("node")),
    "no-input.onnx": _model("g () => (float[2] y) { y = Constant <value_floats = [1.0, 2.0]> () }"),
    "dangling.onnx": _model("g (float[3] x) => (float[3] y) { y = Add(x, nowhere) }"),
    "cycle.onnx": _model("g (float[3] x) => (float[3] y) { a = Add(x, y) y = Relu(a) }"),
    "twice.onnx": _model("g (float[3] x) => (float[3] y) { y = Relu(x) y = Neg(x) }"),
    "unknown-op.onnx": _model("g (float[3] x) => (float[3] y) { y = NoSuchOp(x) }"),
    "unknown-domain.onnx": _model("g (float[3] x) => (float[3] y) { y = my.domain.Op(x) }"),
    "new-opset.onnx": _model("g (float[3] x) => (float[3] y) { y = Relu(x) }", opset=99),
    "wrong-type.onnx": _model("g (float[3] x, int64[3] z) => (float[3] y) { y = Add(x, z) }"),
    "wrong-shape.onnx": _model("g (float[3, 4] x) => (float[3, 5] y) { y = MatMul(x, w) }", w=_WEIGHT),
    "huge-weight.onnx": _replace_weight(_tensor(1, (1 << 40, 1 << 20), b"1234")),
    "negative-weight.onnx": _replace_weight(_tensor(1, (-8, 10), _WEIGHT.tobytes())),
    "short-weight.onnx": _replace_weight(_tensor(1, (8, 10), b"1234")),
    "odd-weight.onnx": _replace_weight(_tensor(77, (8, 10), _WEIGHT.tobytes())),
    "nan-weight.onnx": _model(_GOOD, w=np.full_like(_WEIGHT, np.nan)),
    "infinite.onnx": _model(
        "g (float[N, 8] x) => (float[N, 8] y) { a = Mul(x, w) b = Exp(a) y = MatMul(b, v) }",
        w=np.float32([2000.0]),
        v=_WEIGHT[:, :8],
    ),
    "unsorted.onnx": _model("g (float[3] x) => (float[3] y) { y = Neg(a) a = Relu(x) }"),
    "texts.onnx": _model("g (string[N] x) => (string[N] y) { y = Identity(x) }"),
    "rankless.onnx": _edited(lambda proto: proto.graph.input[0].type.tensor_type.ClearField("shape")),
    # samples
    "rows.npz": _npz(x=_ROWS),
    "labelled.npz": _npz(x=_ROWS, labels=_LABELS),
    "other-name.npz": _npz(picture=_ROWS),
    "two-names.npz": _npz(x=_ROWS, mask=_ROWS),
    "float64.npz": _npz(x=_ROWS.astype(np.float64)),
    "bytes.npz": _npz(x=_ROWS.astype(np.uint8)),
    "texts.npz": _npz(x=np.array([["a"] * 8])),
    "wide.npz": _npz(x=np.zeros((4, 9), np.float32)),
    "rank.npz": _npz(x=np.zeros((4, 8, 1), np.float32)),
    "scalar.npz": _npz(x=np.float32(1)),
    "no-array.npz": _npz(),
    "no-rows.npz": _npz(x=_ROWS[:0]),
    "objects.npz": _npz(x=np.array([{}, {}], dtype=object)),
    "text.npz": _text("no archive"),
    "cut.npz": _cut_npz,
    "zip.npz": _zip,
    "nan.npz": _npz(x=_rows_with(np.nan)),
    "infinity.npz": _npz(x=_rows_with(np.inf)),
    "short-labels.npz": _npz(x=_ROWS, labels=_LABELS[:5]),
    "one-label.npz": _npz(x=_ROWS, labels=np.int64(3)),
    "float-labels.npz": _npz(x=_ROWS, labels=_LABELS / 10),
    "large-labels.npz": _npz(x=_ROWS, labels=_LABELS + 100),
    "samples.csv": _text("1,2,3\n"),
    "empty-folder": _folder(),
    "text-folder": _folder(("a.txt", _text("text"))),
    "half-labelled": _folder(("a.npz", _npz(x=_ROWS, labels=_LABELS)), ("b.npz", _npz(x=_ROWS))),
    "half-good": _folder(("a.npz", _npz(x=_ROWS)), ("b.npz", _npz(z=_ROWS))),
    # metrics
    "score.py": _metric("return 1.0"),
    "raises.py": _metric("raise KeyError('speed')"),
    "exits.py": _metric("raise SystemExit(0)"),
    "nan.py": _metric("return float('nan')"),
    "string.py": _metric("return 'good'"),
    "nothing.py": _metric("pass"),
    "number.py": _text("score = 3\n"),
    "syntax.py": _text("def score(outputs, labels:\n"),
    "imports.py": _text("import no_such_package_of_anyone\n"),
    # recipes
    "text.toml": _text("quantize everything please\n"),
    "latin.toml": _bytes(b"schema_version = 1 # \xfc\n"),
    "version.toml": _text("schema_version = 9\n"),
    "key.toml": _recipe("passes = 3"),
    "nameless.toml": _recipe("[[pass]]\nanchors = ['Conv']"),
    "pass.toml": _recipe("[[pass]]\nname = 'quantize-magic'"),
    "setting.toml": _recipe("[[pass]]\nname = 'quantize-static'\nspeed = 3"),
    "type.toml": _recipe("[[pass]]\nname = 'quantize-static'\nper_channel = 'yes'"),
    "value.toml": _recipe("[[pass]]\nname = 'quantize-static'\nmethod = 'guess'"),
    "exclude.toml": _recipe("[[pass]]\nname = 'quantize-dynamic'\nexclude = ['haed']"),
    "static.toml": _recipe("[[pass]]\nname = 'quantize-static'"),
    # outputs
    "old.onnx": _bytes(b"precious"),
    "old.json": _text("{}"),
    "link.onnx": partial(_link, to="m.onnx"),
    "hard.onnx": partial(_link, to="m.onnx", hard=True),
    "ring.onnx": partial(_link, to="ring.onnx"),
    "pipe.txt": os.mkfifo,
    "file": _text("no folder"),
    "locked": lambda path: path.mkdir(mode=0o555),
    "out": _folder(),
}  # fmt: skip
