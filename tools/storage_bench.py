"""Sizes and speeds of containers beside gzip and zstd: ``python tools/storage_bench.py ZOO --markdown FILE``.

Every model of a zoo as it is and in INT8, quantized by ``onnxcomp.quantize`` with the zoo's calibration samples
(static, or dynamic where that is smaller): bytes, and processor time to load each into onnxruntime. gzip is of level
9, zstd of level 19 (package ``zstandard``). Bits per value and the bound (order-0 entropy of values of one byte, or of
byte planes, of what is stored together) are of the stored tensors. Speeds are bytes of the model by second of processor
time on one thread, the second of two runs; without numba: in a process that can't import it. ``--streams MODEL`` adds
streams of a model's weights, see `coding_streams`.
"""

import argparse
import gzip
import json
import math
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from coding_streams import StreamRow, hide_numba, measure_streams
from zoo_folder import ZooModel, find_models
from zoo_tables import Table, circumstances, geometric_mean, number

import onnxcomp
from onnxcomp.errors import OnnxCompError

__all__ = ["Row", "main", "measure"]

T = TypeVar("T")

_SIZES = ("model", "fp32", "gzip -9", "zstd -19", "onnxz", "int8", "gzip -9", "zstd -19", "onnxz", "smaller",
        "load fp32 ms", "onnxz", "load int8 ms", "onnxz")  # fmt: skip
_SPEEDS = ("model", "bits/value", "over bound", "encode MB/s", "decode MB/s", "encode, no numba", "decode, no numba")
_STREAMS = ("stream", "coder", "bits/index", "entropy", "over", "decode MB/s", "no numba")


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
        load: Seconds to load this form into onnxruntime.
        load_packed: Seconds to load the container.
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
    load: float
    load_packed: float


def measure(name: str, form: str, model: Path, original: int) -> Row:
    """Measure one file."""
    content = model.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        packed = Path(folder, "m.onnxz")
        report = onnxcomp.pack(model, packed, threads=1)
        plain = elsewhere(speeds, model, hide=True)
        fast = elsewhere(speeds, model, hide=False) if _has("numba") else None
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
        load=(fast or plain)[2],
        load_packed=(fast or plain)[3],
    )


def speeds(model: Path) -> tuple[float, float, float, float]:
    """Return MB/s of encoding and decoding a model, and seconds to load it and its container; all the second time."""
    found = []
    size = model.stat().st_size / 1e6
    with tempfile.TemporaryDirectory() as folder:
        packed, back = Path(folder, "m.onnxz"), Path(folder, "m.onnx")
        for _ in range(2):
            start = time.process_time()
            onnxcomp.pack(model, packed, verify=False, threads=1)
            middle = time.process_time()
            onnxcomp.unpack(packed, back, threads=1)
            encoding, decoding = middle - start, time.process_time() - middle
            found.append((size / encoding, size / decoding, _load(model), _load(packed)))
    return found[-1]


def _load(model: Path) -> float:
    start = time.process_time()
    onnxcomp.session(model, threads=1)
    return time.process_time() - start


def elsewhere(measured: Callable[[Path], T], model: Path, *, hide: bool) -> T:
    """Measure in a process of its own, with numba or without."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn, initializer=hide_numba if hide else None) as pool:
        return pool.submit(measured, model).result()


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
    """Return the rows as tables, and geometric means."""
    by_model: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_model.setdefault(row.model, {})[row.form] = row
    text = Table(_SIZES, [_size_cells(name, forms) for name, forms in by_model.items()]).markdown() + "\n"
    text += Table(_SPEEDS, [_speed_cells(row) for row in rows]).markdown()
    for form in dict.fromkeys(row.form for row in rows):
        some = [row for row in rows if row.form == form]
        smaller = geometric_mean(row.original / row.onnxz for row in some)
        beside = geometric_mean(row.zstd / row.onnxz for row in some if row.zstd)
        text += f"\n{form}, geometric means of {len(some)}: {number(smaller, 2)}x smaller than fp32, "
        text += f"{number(beside, 3)}x smaller than zstd -19 of the same model.\n"
    return text


def _size_cells(name: str, forms: Mapping[str, Row]) -> list[str]:
    rows = [forms["fp32"], forms["int8"]]
    sizes = [size for row in rows for size in (row.onnx, row.gzip, row.zstd, row.onnxz)]
    loads = [number(1000 * seconds, 0) for row in rows for seconds in (row.load, row.load_packed)]
    ratio = f"{rows[1].original / rows[1].onnxz:.2f}x"
    return [name, *(f"{size:,}" if size is not None else "-" for size in sizes), ratio, *loads]


def _speed_cells(row: Row) -> list[str]:
    speeds = [number(value, 0) for value in (row.encode, row.decode, row.encode_plain, row.decode_plain)]
    return [f"{row.model}, {row.form}", f"{row.bits:.3f}", f"{row.over_bound:+.1%}", *speeds]


def streams_markdown(fast: Sequence[StreamRow] | None, plain: Sequence[StreamRow]) -> str:
    """Return streams as a table: with numba, where it is installed, and without."""
    rows = []
    for number_, slow in enumerate(plain):
        quick = fast[number_] if fast is not None else None
        for coder, bits in slow.bits.items():
            speeds = [quick.speeds[coder] if quick else None, slow.speeds[coder]]
            sizes = [f"{bits:.3f}", f"{slow.bound:.3f}", f"{bits / slow.bound - 1:+.1%}"]
            rows.append([slow.stream, coder, *sizes, *(number(speed, 0) for speed in speeds)])
    return Table(_STREAMS, rows).markdown()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a zoo; print the table and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path, nargs="?", help="folder of model folders")
    parser.add_argument("--only", nargs="+", default=(), help="names of models")
    parser.add_argument("--streams", type=Path, metavar="MODEL", help="measure streams of this model's weights, too")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--markdown", type=Path, help="where the table goes")
    given = parser.parse_args(arguments)
    rows = []
    for model in find_models(given.zoo, given.only) if given.zoo is not None else ():
        with tempfile.TemporaryDirectory() as folder:
            size = model.model.stat().st_size
            for form, path in (("fp32", model.model), ("int8", quantized(model, Path(folder)))):
                rows.append(measure(model.name, form, path, size))
                print("  ".join(_speed_cells(rows[-1])), file=sys.stderr, flush=True)
    text = markdown(rows) if rows else ""
    coded: list[StreamRow] = []
    if given.streams is not None:
        coded = elsewhere(measure_streams, given.streams, hide=True)
        fast = elsewhere(measure_streams, given.streams, hide=False) if _has("numba") else None
        text += "\n" + streams_markdown(fast, coded)
        coded += fast or []
    print(text)
    if given.markdown:
        given.markdown.write_text(text, encoding="utf-8")
    if given.json:
        content = {
            "circumstances": circumstances(),
            "rows": [asdict(r) for r in rows],
            "streams": [asdict(r) for r in coded],
        }
        given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
