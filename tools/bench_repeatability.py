"""Shows whether `bench` says the same when asked again, and no more than is so.

    python tools/bench_repeatability.py [MODEL] [--slowdown 0.05] [--runs 20] [--seconds 3] [--rounds 15]
                                        [--load 0 1] [--confidence 0.99] [--json FILE] [--markdown FILE]

`bench` times three models side by side, again and again: MODEL, the same file once more, and a copy that does more
work: a chain of nodes beside the model, as long as it takes to be slower by the share asked for. Counted is what
`bench` then says: of the file itself it must claim no difference (at most 1 time in 20), of the copy that it is slower
(at least 18 times in 20). A claim is an interval that lies beyond 2 % on one side: two sessions of one file may differ
by a percent or two, as they lie in memory. How often an interval leaves out 1 is shown, too.

`--load N`: N processes work beside it for moments of random length, as other programs do; each number makes a row.

How long the chain must be, and what the copy truly takes, is measured in another way: as onnxruntime_perf_test does it,
by loops of nothing but runs of one session. Each round makes a session of each model, runs one loop after the other,
and takes the median of each; the figures are medians over the rounds. The last table sets them beside the medians of
what `bench` found in the runs of its first row: the time of a run of each model, and the ratio of the copy. Both come
with a distribution-free interval over the rounds, or the runs; they agree where these overlap.

Exit code: 0 where both counts keep their bounds in all rows, 1 where one does not, 2 wrong usage.
"""

import argparse
import json
import math
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper
from zoo_tables import Interval, Table, circumstances

import onnxcomp
from onnxcomp.api.common import make_up
from onnxcomp.data import Feed
from onnxcomp.errors import OnnxCompError, UsageError
from onnxcomp.measure import Ratio, median_interval
from onnxcomp.model import load
from onnxcomp.report import claim
from onnxcomp.runtime import Session

__all__ = ["Row", "compare", "main", "slowed"]

SCHEMA_VERSION = 1
MOST_FALSE = 1 / 20
LEAST_FOUND = 18 / 20
_SAMPLE = Path(__file__).parent.parent / "sample_models" / "resnet8" / "model.onnx"
_CHAIN = 4  # nodes of the chain; their width is what is fitted
_FIRST_WIDTH = 1000
_FITS = 6
_CLOSE = 0.1  # of the slowdown: near enough
_FAR = 0.3  # of the slowdown: too far off, after all tries
_LOOP_SECONDS = 0.2  # or one run
_BURST = (0.02, 0.4)  # seconds of work, and of sleep


@dataclass(frozen=True, slots=True)
class Row:
    """What `bench` said in all runs with one load.

    Attributes:
        load: Processes beside it.
        runs: How often it was asked.
        false_claims: Runs that claim a difference between a model and itself.
        found: Runs that claim that the copy is slower.
        self_excludes: Runs whose interval of the model against itself leaves out 1.
        slowed_excludes: The same of the copy.
        self_ratio: Median of the ratios.
        slowed_ratio: The same of the copy.
        seconds: Of all runs.
    """

    load: int
    runs: int
    false_claims: int
    found: int
    self_excludes: int
    slowed_excludes: int
    self_ratio: float
    slowed_ratio: float
    seconds: float

    @property
    def kept(self) -> bool:
        """Whether both counts keep their bounds."""
        return self.false_claims <= MOST_FALSE * self.runs and self.found >= LEAST_FOUND * self.runs


def slowed(model: onnx.ModelProto, width: int) -> onnx.ModelProto:
    """Return a copy with a chain of Tanh over `width` numbers beside it, made of the first input; its end is an output.

    Raises:
        UsageError: The first input is of no type that can be cast to numbers.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    constants = {value.name for value in copy.graph.initializer}
    source = next(value for value in copy.graph.input if value.name not in constants)
    if source.type.tensor_type.elem_type in (TensorProto.UNDEFINED, TensorProto.STRING):
        raise UsageError(f"the first input, {source.name}, holds no numbers")
    name = "repeatability_chain"
    shapes = {"flat": [-1], "first": [0], "end": [1], "wide": [width]}
    copy.graph.initializer.extend(
        helper.make_tensor(f"{name}_{key}", TensorProto.INT64, [1], value) for key, value in shapes.items()
    )

    def node(op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
        names = [f"{name}_{one}" if one != source.name else one for one in inputs]
        return helper.make_node(op_type, names, [f"{name}_{output}"], name=f"{name}_{output}", **attributes)

    nodes = [
        node("Cast", [source.name], "cast", to=TensorProto.FLOAT),
        node("Reshape", ["cast", "flat"], "row"),
        node("Slice", ["row", "first", "end"], "one"),
        node("Expand", ["one", "wide"], "0"),
        *(node("Tanh", [str(i)], str(i + 1)) for i in range(_CHAIN)),
        node("Slice", [str(_CHAIN), "first", "end"], "last"),
    ]
    copy.graph.node.extend(nodes)
    copy.graph.output.append(helper.make_tensor_value_info(f"{name}_last", TensorProto.FLOAT, [1]))
    return copy


def compare(
    paths: Sequence[Path], feed: Feed, *, rounds: int, confidence: float
) -> tuple[list[Interval], list[Interval]]:
    """Time models by loops of their own, in turn, and return the seconds of a run, and ratios to the first model's."""
    medians: list[list[float]] = [[] for _ in paths]
    for number in range(rounds):
        order = list(zip(paths, medians, strict=True))
        for path, found in order if number % 2 else reversed(order):
            found.append(_loop(Session(path, threads=1), feed))
    series = [np.array(found) for found in medians]
    times = [Interval(*median_interval(values, confidence=confidence)) for values in series]
    ratios = [Interval(*median_interval(values / series[0], confidence=confidence)) for values in series[1:]]
    return times, ratios


def _loop(session: Session, feed: Feed) -> float:
    """Run for a while, warm up in the first third of it, and return the median seconds of a run."""
    taken: list[float] = []
    start = time.perf_counter()
    while (begin := time.perf_counter()) < start + _LOOP_SECONDS or not taken:
        session.inference.run(None, feed)
        if begin > start + _LOOP_SECONDS / 3:
            taken.append(time.perf_counter() - begin)
    return float(np.median(taken))


def fit(model: onnx.ModelProto, base: Path, path: Path, feed: Feed, slowdown: float, *, rounds: int) -> int:
    """Write the copy with a chain of the width that makes it slower by about the share asked for; return the width."""
    width, tried = _FIRST_WIDTH, list[tuple[float, int]]()
    while len(tried) < _FITS and not (tried and min(tried)[0] <= _CLOSE * slowdown):
        path.write_bytes(slowed(model, width).SerializeToString())
        _, (ratio,) = compare([base, path], feed, rounds=rounds, confidence=0.95)
        found = ratio.ratio - 1
        tried.append((abs(found - slowdown), width))
        width = max(1, round(width * min(10.0, max(0.1, slowdown / found if found > 0 else 10.0))))
    off, nearest = min(tried)
    if off > _FAR * slowdown:
        raise UsageError(
            f"no chain slows this model by {slowdown:g}: {off:.3f} off is the nearest; is the machine quiet?"
        )
    path.write_bytes(slowed(model, nearest).SerializeToString())
    return nearest


def measure(paths: Sequence[Path], load: int, asked: argparse.Namespace) -> tuple[Row, list[onnxcomp.BenchReport]]:
    """Ask `bench` again and again."""
    reports, start = [], time.perf_counter()
    with working(load):
        for seed in range(asked.runs):
            reports.append(onnxcomp.bench(*paths, seconds=asked.seconds, confidence=asked.confidence, seed=seed))
            print(f"load {load}: run {seed + 1} of {asked.runs}", file=sys.stderr)
    itself, copy = _ratios(reports, 1), _ratios(reports, 2)
    least = reports[0].settings.half_width
    row = Row(
        load=load,
        runs=len(reports),
        false_claims=sum(1 for ratio in itself if claim(ratio, least) is not None),
        found=sum(1 for ratio in copy if claim(ratio, least) == "slower"),
        self_excludes=sum(1 for ratio in itself if not ratio.low <= 1 <= ratio.high),
        slowed_excludes=sum(1 for ratio in copy if not ratio.low <= 1 <= ratio.high),
        self_ratio=float(np.median([ratio.ratio for ratio in itself])),
        slowed_ratio=float(np.median([ratio.ratio for ratio in copy])),
        seconds=time.perf_counter() - start,
    )
    return row, reports


def _ratios(reports: Sequence[onnxcomp.BenchReport], model: int) -> list[Ratio]:
    return [ratio for report in reports if (ratio := report.models[model].ratio) is not None]


@contextmanager
def working(processes: int) -> Iterator[None]:
    """Let processes work beside this one, in bursts."""
    context = multiprocessing.get_context("spawn")
    found = [context.Process(target=_work, args=(seed,), daemon=True) for seed in range(processes)]
    for process in found:
        process.start()
    try:
        yield
    finally:
        for process in found:
            process.terminate()
            process.join()


def _work(seed: int) -> None:
    rng, matrix = random.Random(seed), np.ones((200, 200), np.float32)
    while True:
        end = time.monotonic() + rng.uniform(*_BURST)
        while time.monotonic() < end:
            matrix @ matrix
        time.sleep(rng.uniform(*_BURST))


def agreement(loops: tuple[list[Interval], list[Interval]], reports: Sequence[Any], confidence: float) -> Table:
    """Set what `bench` found beside what the loops found."""
    times, (ratio,) = loops
    medians = ([report.models[i].latency.median for report in reports] for i in (0, 2))
    ratios = [one.ratio for one in _ratios(reports, 2)]
    names = ("run of the model, ms", "run of the copy, ms", "ratio of the copy")
    rows = []
    for name, mine, values, unit in zip(names, (*times, ratio), (*medians, ratios), (1e3, 1e3, 1.0), strict=True):
        theirs = Interval(*median_interval(values, confidence=confidence))
        overlap = mine.low <= theirs.high and theirs.low <= mine.high
        scaled = (Interval(*(unit * bound for bound in (one.ratio, one.low, one.high))) for one in (mine, theirs))
        rows.append((name, *map(str, scaled), "yes" if overlap else "no"))
    return Table(("", "loops", "bench", "intervals overlap"), rows)


def _table(rows: Sequence[Row]) -> Table:
    titles = (
        "load",
        "runs",
        "claims of itself",
        "slower found",
        "1 left out: itself",
        "copy",
        "median ratio: itself",
        "copy",
        "s",
    )
    cells = [
        (
            f"{row.load} processes",
            str(row.runs),
            str(row.false_claims),
            str(row.found),
            str(row.self_excludes),
            str(row.slowed_excludes),
            f"{row.self_ratio:.3f}",
            f"{row.slowed_ratio:.3f}",
            f"{row.seconds:.0f}",
        )
        for row in rows
    ]
    return Table(titles, cells)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", type=Path, nargs="?", default=_SAMPLE)
    parser.add_argument("--slowdown", type=float, default=0.05)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing in each run")
    parser.add_argument("--rounds", type=int, default=15, help="of the loops")
    parser.add_argument("--load", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--confidence", type=float, default=0.99)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure; return the exit code."""
    asked = _parser().parse_args(arguments)
    if min(asked.runs, asked.rounds) < 1 or min(asked.load) < 0 or not 0 < asked.slowdown < math.inf:
        print("error: --runs, --rounds and --slowdown must be positive, --load must not be negative", file=sys.stderr)
        return 2
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _main(asked, Path(folder, "slowed.onnx"))
    except OnnxCompError as err:
        print(f"error: {err}", file=sys.stderr)
        return err.exit_code


def _main(asked: argparse.Namespace, copy: Path) -> int:
    feed = dict(next(iter(make_up(load(asked.model), seed=0).take(1))))
    width = fit(onnx.load(asked.model), asked.model, copy, feed, asked.slowdown, rounds=asked.rounds)
    loops = compare([asked.model, copy], feed, rounds=asked.rounds, confidence=asked.confidence)
    print(f"the copy has {_CHAIN} x Tanh over {width} numbers: {loops[1][0]} of the model's time", file=sys.stderr)
    found = [measure([asked.model, asked.model, copy], load, asked) for load in asked.load]
    rows = [row for row, _ in found]
    tables = [_table(rows), agreement(loops, found[0][1], asked.confidence)]
    print("\n".join(table.text() for table in tables))
    if asked.json is not None:
        document = {"schema_version": SCHEMA_VERSION, **circumstances(), "width": width}
        document |= {"rows": [asdict(row) for row in rows], "loops": {"times": loops[0], "ratio": loops[1]}}
        asked.json.write_text(json.dumps(document, indent=1, default=asdict) + "\n", encoding="utf-8")
    if asked.markdown is not None:
        asked.markdown.write_text("\n".join(table.markdown() for table in tables), encoding="utf-8")
    return 0 if all(row.kept for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
