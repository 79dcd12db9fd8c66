"""What weight sharing gives: ``python tools/sharing_bench.py ZOO --markdown FILE``.

For every model of a zoo, bits per weight chosen so that the score drops by at most ``--max-drop`` (``onnxcomp share``):
the file as it is, gzip -9 and zstd -19 of it, INT8 (the smaller one of static and dynamic, whatever its score), zstd
-19 of that, the smallest zstd -19 of what onnxruntime's own quantizers write, whatever its score, values shared in the
graph (method kmeans) and as a packed file (method entropy, ``onnxcomp pack``). Bits and the bound (order-0 entropy) are
of a weight of the packed file's tensors that hold indices. Loading takes processor time on one thread: of fp32, of
values shared in the graph, of the packed file.

``--clusters`` prints instead how much processor time k-means takes for 20 million values, and the error and the entropy
of clusters of a Gaussian beside those of entropy-constrained ones.
"""

import argparse
import gzip
import json
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rival_quantizers import RIVALS
from storage_bench import _load as load_seconds
from storage_bench import _zstd, quantized
from zoo_folder import ZooModel, find_models
from zoo_tables import Table, circumstances, geometric_mean, number

import onnxcomp
from onnxcomp.clustering import entropy_clusters, kmeans, tally
from onnxcomp.errors import OnnxCompError
from onnxcomp.report import PackReport, ShareReport

__all__ = ["Row", "main", "measure"]

_TITLES = ("model", "fp32", "gzip -9", "zstd -19", "int8", "zstd -19 of it", "rival's", "shared", "its score", "onnxz",
           "smaller", "score", "of the original", "bits/weight", "over bound", "load", "shared", "onnxz")  # fmt: skip
_INDICES = ("UINT8", "UINT4")
_RIVAL_SAMPLES = 100  # of calibration


@dataclass(frozen=True, slots=True)
class Row:
    """One model.

    Attributes:
        model: Of the zoo.
        fp32: Bytes of the model of the zoo.
        fp32_gzip: Bytes after gzip -9.
        fp32_zstd: Bytes after zstd -19; None: it is not installed.
        int8: Bytes in INT8, the smaller one of static and dynamic, whatever its score.
        int8_zstd: Bytes of that after zstd -19.
        rival_zstd: Bytes of the smallest INT8 model of onnxruntime's quantizers after zstd -19, whatever its score.
        shared: Bytes with codebooks in the graph; None: not made.
        shared_score: Its score.
        onnxz: Bytes of the packed file.
        onnxz_score: Its score.
        score: Of the original.
        bits: Of a weight that shares values, in the packed file.
        over_bound: Bytes of indices over what their entropy allows, minus 1.
        load: Seconds of processor time to load the model of the zoo into onnxruntime.
        load_shared: The same, with codebooks in the graph.
        load_onnxz: The same, of the packed file.
        seconds: That both took.
    """

    model: str
    fp32: int
    fp32_gzip: int
    fp32_zstd: int | None
    int8: int | None
    int8_zstd: int | None
    rival_zstd: int | None
    shared: int | None
    shared_score: float | None
    onnxz: int
    onnxz_score: float | None
    score: float | None
    bits: float
    over_bound: float
    load: float
    load_shared: float | None
    load_onnxz: float
    seconds: float


def measure(model: ZooModel, max_drop: float, batch: int, *, int8: bool = True, in_graph: bool = True) -> Row:
    """Share the weights of one model, in the graph and to pack it, and pack it."""
    start = time.perf_counter()
    content = model.model.read_bytes()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        inside = _shared(model, "kmeans", max_drop, batch, folder / "kmeans.onnx") if in_graph else None
        outside = _shared(model, "entropy", max_drop, batch, folder / "entropy.onnx")
        packed = onnxcomp.pack(folder / "entropy.onnx", folder / "m.onnxz")
        integers = quantized(model, folder).read_bytes() if int8 else None
        rival = _smallest_rival(model, folder) if int8 else None
        loads = [load_seconds(path) for path in (model.model, folder / "m.onnxz")]
        load_shared = load_seconds(folder / "kmeans.onnx") if in_graph else None
    bits, over_bound = _indices(packed)
    return Row(
        model=model.name,
        fp32=len(content),
        fp32_gzip=len(gzip.compress(content, 9)),
        fp32_zstd=_zstd(content),
        int8=None if integers is None else len(integers),
        int8_zstd=None if integers is None else _zstd(integers),
        rival_zstd=rival,
        shared=None if inside is None else inside.size,
        shared_score=None if inside is None else inside.quality.score,
        onnxz=packed.size,
        onnxz_score=outside.quality.score,
        score=outside.original_quality.score,
        bits=bits,
        over_bound=over_bound,
        load=loads[0],
        load_shared=load_shared,
        load_onnxz=loads[1],
        seconds=time.perf_counter() - start,
    )


def _smallest_rival(model: ZooModel, folder: Path) -> int | None:
    """Return the bytes after zstd -19 of the smallest model that one of onnxruntime's quantizers writes."""
    found = []
    for index, quantize in enumerate(RIVALS.values()):
        output = folder / f"rival{index}.onnx"
        try:
            quantize(model.model, output, model.calibration, _RIVAL_SAMPLES)
        except Exception as err:  # whatever they raise
            print(f"{model.name}: {err}", file=sys.stderr)
            continue
        found.append(_zstd(output.read_bytes()))
    return min((size for size in found if size is not None), default=None)


def _shared(model: ZooModel, method: str, max_drop: float, batch: int, path: Path) -> ShareReport:
    gates = onnxcomp.Gates(max_drop=max_drop) if model.metric else onnxcomp.Gates(min_sqnr=20)
    result = onnxcomp.share(
        model.model,
        method=method,
        calibration=model.calibration,
        eval=model.evaluation,
        metric=model.metric,
        gates=gates,
        bench=False,
        batch=batch,
    )
    return result.save(path)


def _indices(packed: PackReport) -> tuple[float, float]:
    """Return the bits of an index, and the bytes of all over their bound, minus 1."""
    some = [tensor for tensor in packed.tensors if tensor.dtype in _INDICES]
    stored, count = sum(tensor.stored for tensor in some), sum(math.prod(tensor.shape) for tensor in some)
    return 8 * stored / max(count, 1), stored / max(sum(tensor.bound for tensor in some), 1) - 1


def clusters() -> str:
    """Time k-means of 20 million values; compare with entropy-constrained clusters."""
    numbers = np.random.default_rng(0).normal(size=20_000_000).astype(np.float32)
    kmeans(tally(numbers[:100_000]), 4)  # numba compiles
    start = time.process_time()
    cells = tally(numbers)
    book = kmeans(cells, 256)
    found = time.process_time()
    book.indices(numbers)
    seconds = found - start, time.process_time() - found
    text = f"256 clusters of 20 million values: {seconds[0]:.2f} s of processor time, indices {seconds[1]:.2f} s\n"
    rows = []
    for k in (4, 8, 16, 32, 64):
        book = kmeans(cells, k)
        bits = book.bits(cells)
        other = entropy_clusters(cells, bits)
        errors = [10 * math.log10(cells.counts.sum() / one.error(cells)) for one in (book, other)]
        rows.append([str(k), f"{bits:.2f}", *(f"{error:.1f} dB" for error in errors), str(len(other))])
    return text + Table(("clusters", "entropy", "k-means", "entropy-constrained", "of them"), rows).markdown()


def markdown(rows: Sequence[Row]) -> str:
    """Return the rows as a table, and geometric means."""
    text = Table(_TITLES, [_cells(row) for row in rows]).markdown() + "\nSizes are bytes, load times milliseconds.\n"
    smaller = geometric_mean(row.fp32 / row.onnxz for row in rows)
    return text + f"\nGeometric mean of {len(rows)}: {number(smaller, 2)}x smaller than fp32.\n"


def _cells(row: Row) -> list[str]:
    found = row.fp32, row.fp32_gzip, row.fp32_zstd, row.int8, row.int8_zstd, row.rival_zstd, row.shared
    sizes = [None if size is None else f"{size:,}" for size in found]
    return [
        row.model,
        *(size or "-" for size in sizes),
        number(row.shared_score, 4),
        f"{row.onnxz:,}",
        f"{row.fp32 / row.onnxz:.2f}x",
        number(row.onnxz_score, 4),
        number(row.score, 4),
        f"{row.bits:.2f}",
        f"{row.over_bound:+.1%}",
        *(number(s if s is None else 1000 * s, 0) for s in (row.load, row.load_shared, row.load_onnxz)),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure a zoo; print the table and write what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("zoo", type=Path, nargs="?", help="folder of model folders")
    parser.add_argument("--only", nargs="+", default=(), help="names of models")
    parser.add_argument("--max-drop", type=float, default=0.01, help="of the score")
    parser.add_argument("--batch", type=int, default=1, help="rows per run of an .npz")
    parser.add_argument("--no-int8", action="store_true", help="leave INT8 out")
    parser.add_argument("--packed-only", action="store_true", help="leave values shared in the graph out")
    parser.add_argument("--clusters", action="store_true", help="measure clusters, no models")
    parser.add_argument("--json", type=Path, help="where the figures go")
    parser.add_argument("--markdown", type=Path, help="where the table goes")
    given = parser.parse_args(arguments)
    if given.clusters:
        print(clusters())
        return 0
    if given.zoo is None:
        parser.error("name a zoo, or --clusters")
    rows = []
    for model in find_models(given.zoo, given.only):
        try:
            flags = {"int8": not given.no_int8, "in_graph": not given.packed_only}
            rows.append(measure(model, given.max_drop, given.batch, **flags))
        except OnnxCompError as err:
            print(f"{model.name}: {err}", file=sys.stderr)
            continue
        print("  ".join(_cells(rows[-1])), f" {rows[-1].seconds:.0f} s", file=sys.stderr, flush=True)
    if not rows:
        return 1
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
