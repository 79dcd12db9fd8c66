"""Sizes and speeds of containers beside gzip and zstd: ``python tools/storage_bench.py ZOO --markdown FILE``.

Every model of a zoo as it is and in INT8, quantized by ``onnxcomp.quantize`` with the zoo's calibration samples
(static, or dynamic where that is smaller). gzip is of level 9, zstd of level 19 (package ``zstandard``). Bits per value
and the bound (order-0 entropy of values of one byte, or of byte planes) are of the stored tensors. Speeds are bytes of
the model by second of processor time on one thread, the second of two runs; without numba: in a process that can't
import it.
"""

import argparse
import gzip
import json
import math
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from zoo_folder import ZooModel, find_models
from zoo_tables import Table, circumstances, geometric_mean, number

import onnxcomp
from onnxcomp.errors import OnnxCompError

__all__ = ["Row", "main", "measure"]

_TITLES = ("model", "onnx", "gzip -9", "zstd -19", "onnxz", "smaller", "bits/value", "over bound", "encode MB/s",
         "decode MB/s", "encode, no numba", "decode, no numba")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Row:
    """One model in one form.

    Attributes:
        model: Of the zoo.
        form: fp32 or int8.
        original: Bytes of the model of the zoo.
        onnx: Bytes of this form.
        gzip: Bytes after gzip -9.
        zstd: Bytes after zstd -19; None: it is not installed.
        onnxz: Bytes of the container.
        bits: Of a value of the stored tensors, in the container.
        over_bound: Stored bytes over what the entropy bound allows, minus 1.
        encode: MB/s with numba; None: it is not installed.
        decode: The same.
        encode_plain: MB/s without numba.
        decode_plain: The same.
    """

    model: str
    form: str
    original: int
    onnx: int
    gzip: int
    zstd: int | None
    onnxz: int
    bits: float
    over_bound: float
    encode: float | None
    decode: float | None
    encode_plain: float
    decode_plain: float


def measure(name: str, form: str, model: Path, original: int) -> Row:
    """Measure one file."""
    content = model.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder, "m.onnxz")
        report = onnxcomp.pack(model, packed, threads=1)
        plain = _elsewhere(model, hide=True)
        fast = _elsewhere(model, hide=False) if _has("numba") else None
    stored = sum(tensor.stored for tensor in report.tensors)
    values = sum(math.prod(tensor.shape) for tensor in report.tensors)
    return Row(
        model=name,
        form=form,
        original=original,
        onnx=len(content),
        gzip=len(gzip.compress(content, 9)),
        zstd=_zstd(content),
        onnxz=report.size,
        bits=8 * stored / max(values, 1),
        over_bound=stored / max(sum(tensor.bound for tensor in report.tensors), 1) - 1,
        encode=fast and fast[0],
        decode=fast and fast[1],
        encode_plain=plain[0],
        decode_plain=plain[1],
    )


def speeds(model: Path) -> tuple[float, float]:
    """Return MB/s of encoding and decoding a model, the second time."""
    found = []
    size = model.stat().st_size / 1e6
    with tempfile.TemporaryDirectory() as folder:
        packed, back = Path(folder, "m.onnxz"), Path(folder, "m.onnx")
        for _ in range(2):
            start = time.process_time()
            onnxcomp.pack(model, packed, verify=False, threads=1)
            middle = time.process_time()
            onnxcomp.unpack(packed, back, threads=1)
            found.append((size / (middle - start), size / (time.process_time() - middle)))
    return found[-1]


def _elsewhere(model: Path, *, hide: bool) -> tuple[float, float]:
    """Measure speeds in a process of its own, with numba or without."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=_hide_numba if hide else None) as pool:
        return pool.submit(speeds, model).result()


def _hide_numba() -> None:
    sys.modules["numba"] = None  # type: ignore[assignment]  # importing it raises ImportError then


def _has(package: str) -> bool:
    try:
        __import__(package)
    except ImportError:
        return False
    return True


def _zstd(content: bytes) -> int | None:
    if not _has("zstandard"):
        return None
    import zstandard

    return len(zstandard.ZstdCompressor(level=19).compress(content))


def quantized(model: ZooModel, folder: Path) -> Path:
    """Write the smaller one of the static and the dynamic INT8 model."""
    found: list[Path] = []
    for mode in ("static", "dynamic"):
        if mode == "static" and model.calibration is None:
            continue
        try:
            calibration = model.calibration if mode == "static" else None
            result = onnxcomp.quantize(model.model, mode=mode, calibration=calibration, bench=False)
        except OnnxCompError as err:
            print(f"{model.name}: {mode}: {err}", file=sys.stderr)
            continue
        found.append(folder / f"{mode}.onnx")
        result.save(found[-1])
    return min(found, key=lambda path: path.stat().st_size)


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a table, and geometric means."""
    text = Table(_TITLES, [_cells(row) for row in rows]).markdown()
    for form in dict.fromkeys(row.form for row in rows):
        some = [row for row in rows if row.form == form]
        smaller = geometric_mean(row.original / row.onnxz for row in some)
        beside = geometric_mean(row.zstd / row.onnxz for row in some if row.zstd)
        text += f"\n{form}, geometric means of {len(some)}: {number(smaller, 2)}x smaller than fp32, "
        text += f"{number(beside, 3)}x smaller than zstd -19 of the same model.\n"
    return text


def _cells(row: Row) -> list[str]:
    sizes = [f"{size:,}" if size is not None else "-" for size in (row.onnx, row.gzip, row.zstd, row.onnxz)]
    speeds = [number(value, 0) for value in (row.encode, row.decode, row.encode_plain, row.decode_plain)]
    ratio = f"{row.original / row.onnxz:.2f}x"
    return [f"{row.model}, {row.form}", *sizes, ratio, f"{row.bits:.3f}", f"{row.over_bound:+.1%}", *speeds]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a zoo; print the table and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path, help="folder of model folders")
    parser.add_argument("--only", nargs="+", default=(), help="names of models")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--markdown", type=Path, help="where the table goes")
    given = parser.parse_args(arguments)
    rows = []
    for model in find_models(given.zoo, given.only):
        with tempfile.TemporaryDirectory() as folder:
            size = model.model.stat().st_size
            for form, path in (("fp32", model.model), ("int8", quantized(model, Path(folder)))):
                rows.append(measure(model.name, form, path, size))
                print("  ".join(_cells(rows[-1])), file=sys.stderr, flush=True)
    text = markdown(rows)
    print(text)
    if given.markdown:
        given.markdown.write_text(text, encoding="utf-8")
    if given.json:
        content = {"circumstances": circumstances(), "rows": [asdict(row) for row in rows]}
        given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
