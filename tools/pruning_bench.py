"""What structured pruning gives without training, with onnxsim beside it.

    python tools/pruning_bench.py [ZOO_DIR] [--sample-models sample_models] [--only NAME ...] [--shares 0.3 0.5 0.7]
        [--distill] [--batch N] [--rival PYTHON] [--json FILE] [--markdown FILE]

A share of the prunable MACs is removed: of those that are gone when every group keeps as little as it may. The score
is that after removing channels of least norm from all layers alike (``sliced``), after a fit of biases (``+ bias``) or
of all weights (``+ fit``) to calibration samples, and of what `onnxcomp prune` does by default: channels chosen by OBS,
dealt out over the groups, then fitted (``OBS + fit``); with ``--distill`` also what its ``--recovery distill`` makes of
these channels (``+ distill``), which takes minutes. ``MACs``, ``parameters`` and ``latency`` are shares of the
original's, of ``OBS + fit``; latency is timed in turns with the original, with its 95 % interval. ``time/MACs`` is the
share of the time that is saved over the share of the MACs. Without labels the score is the agreement with the original.

``rows`` is how many samples a timed run takes: ``--batch``, where the first axis of all inputs and outputs counts
samples and is free, else one. A call costs some microseconds whatever it computes: small networks show with many rows
what their arithmetic saves.

``--rival`` names a Python that has onnxsim; `rival_pruner` says what it does. Of its sparsities the least is taken that
leaves no more MACs than onnxcomp's target, or the largest; when ``--rival-timeout`` is over, the best so far.

Each model is measured in a process of its own. Where one is stopped (``--timeout``), the shares that it had done are
kept. Exit code: 0 done, 1 a model failed, 2 wrong usage.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pruning_rival import FORMS, RIVAL, TUNED, Rival
from zoo_folder import ZooModel, find_models
from zoo_job import run_job, serve
from zoo_tables import Interval, Table, circumstances, number, without_infinity

from onnxcomp.api.granularities import get_granularity
from onnxcomp.api.making import Assignment, assign, cleaned, judge_of
from onnxcomp.api.shapes import count_costs
from onnxcomp.data import Feed, Samples
from onnxcomp.errors import OnnxCompError, PassError, UsageError
from onnxcomp.facts import parameter_count
from onnxcomp.measure import interleave
from onnxcomp.model import open_session
from onnxcomp.passbase import PassContext
from onnxcomp.pipeline import run_recipe
from onnxcomp.recipe import Recipe, Step
from onnxcomp.search import Judge
from onnxcomp.statistics import RangeStore
from onnxcomp.target import Gates, get_target

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Figures", "Prunable", "main"]

SCHEMA_VERSION = 1
_ALL = 0.9999  # of each group: what it must keep is left
_UNIFORM = {"criterion": "l2", "allocation": "uniform"}
_OBS = {"criterion": "obs", "allocation": "global"}
CONTENDERS: Mapping[str, tuple[Mapping[str, str], str]] = {
    "sliced": (_UNIFORM, "none"),
    "+ bias": (_UNIFORM, "bias"),
    "+ fit": (_UNIFORM, "least-squares"),
    "OBS + fit": (_OBS, "least-squares"),
    "+ distill": (_OBS, "distill"),
}
OURS, DISTILLED = "OBS + fit", "+ distill"
_TIMED = ("+ fit", OURS, RIVAL)
_TITLES = ("model", "removed", "MACs", "parameters", "latency", "rows", "time/MACs", "original", *CONTENDERS, RIVAL,
           TUNED, "its MACs", "its latency")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of one pruned model; shares are of the original.

    Attributes:
        macs: Share of the multiply-accumulate operations of one run.
        parameters: Share of the elements of weights.
        score: Of the metric; without labels the agreement.
        seconds: That making it took.
        latency: Interval of the ratio of times; None: not timed.
    """

    macs: float
    parameters: float
    score: float
    seconds: float
    latency: dict[str, Any] | None = None


class Prunable:
    """A cleaned-up model, what judges it, and how far it can be pruned."""

    def __init__(self, job: Mapping[str, Any]) -> None:
        self.job = job
        self.work: Assignment = assign(
            job["model"],
            calibration=job["calibration"],
            evaluation=job["evaluation"],
            metric=job["metric"],
            gates=Gates(),
            batch=1,
            images=None,
            seed=job["seed"],
        )
        self.samples: Samples | None = self.work.samples and self.work.samples.spread(job["samples"])
        self.ctx = PassContext(get_target("auto"), samples=self.samples, seed=job["seed"])
        self._verifier, self.base, _ = cleaned(self.work, self.ctx, lambda _stage, _share: None)
        self.ctx.ranges = None if self.samples is None else RangeStore(self.base, self.samples)
        self.judge: Judge = judge_of(self.work)
        self.feed: Feed = next(iter(self.work.task.samples.take(1)))
        self.timed_feed, self.rows = side_by_side(self.work.model, self.feed, job["batch"])
        self.macs = self.count(self.base)
        least = self.pruned({"ratio": _ALL, "criterion": "l2"}, "none")
        self.prunable = 1 - self.count(least) / self.macs

    @property
    def original_score(self) -> float:
        """Of the original; 1 without labels."""
        return 1.0 if self.judge.original.score is None else self.judge.original.score

    def pruned(self, settings: Mapping[str, Any], recovery: str) -> "ir.Model":
        """Return a pruned model.

        Raises:
            PassError: Nothing was removed, or a step failed.
        """
        step = Step("prune-channels", {"round": self.job["round"], **settings})
        recipe = Recipe((step, *get_granularity("channel").after(recovery)))
        model, reports = run_recipe(self.base, recipe, self.ctx, self._verifier)
        failures = [report.failure for report in reports if report.failure]
        if failures or not reports[0].modified:
            raise PassError(failures[0] if failures else "nothing was removed")
        return model

    def count(self, model: "ir.Model") -> int:
        """Count the MACs of one run; those that can't be told count nothing."""
        return sum(cost or 0 for cost in count_costs(model, self.feed).macs.values())

    def figures(self, model: "ir.Model", seconds: float) -> Figures:
        """Count and judge a model that took so long to make."""
        quality = self.judge.quality(open_session(model, threads=0))
        score = quality.agreement if quality.score is None else quality.score
        parameters = parameter_count(model) / parameter_count(self.work.model)
        return Figures(self.count(model) / self.macs, parameters, score, seconds)

    def timed(self, models: "Mapping[str, ir.Model]") -> dict[str, dict[str, Any]]:
        """Time models in turns with the original; return the interval of each ratio."""
        threads, seconds, seed = (self.job[name] for name in ("threads", "seconds", "seed"))
        sessions = {name: open_session(model, threads=threads) for name, model in models.items()}
        contenders = {"original": partial(open_session(self.work.model, threads=threads).run, self.timed_feed)}
        contenders |= {name: partial(session.run, self.timed_feed) for name, session in sessions.items()}
        found = interleave(contenders, baseline="original", half_width=0.02, max_seconds=seconds, seed=seed)
        return {name: without_infinity(asdict(ratio)) for name, ratio in found.ratios.items()}


def side_by_side(model: "ir.Model", feed: Feed, batch: int) -> tuple[Feed, int]:
    """Return a run on so many copies of a sample, where the model answers each of them, and how many there are."""
    if batch == 1 or not all(array.ndim and len(array) == 1 for array in map(np.asarray, feed.values())):
        return feed, 1
    joined = {name: np.concatenate([np.asarray(array)] * batch) for name, array in feed.items()}
    session = open_session(model)
    try:
        shapes = [np.shape(array) for array in session.run(joined).values()]
    except OnnxCompError:  # it takes no more than one
        return feed, 1
    wanted = [(batch, *np.shape(array)[1:]) for array in session.run(feed).values()]
    return (joined, batch) if shapes == wanted else (feed, 1)


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Measure one model at all shares; what is known is also written to ``job["kept"]``, share by share."""
    prunable = Prunable(job)
    found: dict[str, Any] = {
        "original": prunable.original_score,
        "metric": prunable.work.task.metric_name,
        "prunable": prunable.prunable,
        "rows": prunable.rows,
        "shares": [],
    }
    with tempfile.TemporaryDirectory(prefix="onnxcomp.") as folder:
        rival = rival_of(prunable, Path(folder)) if job["rival"] else None
        for share in job["shares"]:
            found["shares"].append(at_share(prunable, share, rival))
            part = Path(folder, "kept.json")
            part.write_text(json.dumps(found), encoding="utf-8")
            part.replace(job["kept"])
    return found


def rival_of(prunable: Prunable, folder: Path) -> Rival:
    """Return the rival, with the samples that it is given."""
    job = prunable.job
    return Rival(
        job["rival"],
        job["model"],
        folder,
        samples=None if prunable.samples is None else prunable.samples.spread(job["rival_samples"]),
        share=lambda model: prunable.count(model) / prunable.macs,
        seconds=job["rival_timeout"],
    )


def at_share(prunable: Prunable, share: float, rival: Rival | None) -> dict[str, Any]:
    """Measure all contenders where a share of the prunable MACs is removed."""
    target = 1 - share * prunable.prunable
    makers: dict[str, Callable[[], ir.Model]] = {
        name: partial(prunable.pruned, {**settings, "macs": target}, recovery)
        for name, (settings, recovery) in CONTENDERS.items()
        if name != DISTILLED or prunable.job["distill"]
    }
    makers |= {name: partial(rival.model, name, target) for name in FORMS} if rival else {}
    models: dict[str, ir.Model] = {}
    errors: dict[str, str] = {}
    found: dict[str, Any] = {}
    for name, make in makers.items():
        start = time.perf_counter()
        try:
            model = make()
            found[name] = asdict(prunable.figures(model, time.perf_counter() - start))
        except OnnxCompError as err:  # a model of the rival that does not run, too
            errors[name] = str(err)
        else:
            models[name] = model
    for name, ratio in prunable.timed({name: models[name] for name in _TIMED if name in models}).items():
        found[name]["latency"] = ratio
    return {"share": share, "target": target, "contenders": found, "errors": errors}


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return a line per model and share."""
    return Table(_TITLES, [cells for row in rows for cells in _lines(row)])


def _lines(row: Mapping[str, Any]) -> list[list[str]]:
    lines = []
    for at in row.get("shares", ()):
        found = at["contenders"]
        ours, rival = found.get(OURS, {}), found.get(RIVAL, {})
        latency = Interval.of(ours.get("latency"))
        saved = (1 - latency.ratio) / (1 - ours["macs"]) if latency and ours["macs"] < 1 else None
        scores = [number(found.get(name, {}).get("score"), 4) for name in (*CONTENDERS, RIVAL, TUNED)]
        lines.append(
            [
                row["name"],
                f"{at['share']:.0%} of {row['prunable']:.0%}",
                number(ours.get("macs"), 3),
                number(ours.get("parameters"), 3),
                str(latency or "-"),
                str(row["rows"]),
                number(saved, 2),
                number(row["original"], 4),
                *scores,
                number(rival.get("macs"), 3),
                str(Interval.of(rival.get("latency")) or "-"),
            ]
        )
    if row["error"]:
        lines.append([row["name"], *["-"] * (len(_TITLES) - 2), f"FAILED: {row['error']}"])
    return lines


def sample_models(folder: Path) -> list[ZooModel]:
    """Return the models that come with the project, and their common data."""
    data = folder.resolve() / "fashion_mnist"
    return [
        ZooModel(path.parent.name, path, data / "calibration.npz", data / "eval.npz", None, {})
        for path in sorted(folder.resolve().glob("*/model.onnx"))
    ]


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Prune models without training; run onnxsim beside.")
    parser.add_argument("zoo", type=Path, nargs="?", metavar="ZOO_DIR", help="folder of model folders")
    parser.add_argument("--sample-models", type=Path, metavar="DIR", help="the project's own models")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only these models")
    parser.add_argument(
        "--shares", nargs="+", type=float, default=[0.3, 0.5, 0.7], metavar="S", help="of prunable MACs"
    )
    parser.add_argument("--round", type=int, default=0, metavar="N", help="of channels; default: what suits the target")
    parser.add_argument("--samples", type=int, default=64, metavar="N", help="for calibration; default: %(default)s")
    parser.add_argument("--distill", action="store_true", help="recover by distillation, too: takes minutes")
    parser.add_argument("--rival", metavar="PYTHON", help="a Python that has onnxsim")
    parser.add_argument("--rival-samples", type=int, default=16, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--rival-timeout", type=float, default=120, metavar="S", help="for all shares of a model; default: %(default)s"
    )
    parser.add_argument("--seconds", type=float, default=5, metavar="S", help="of timing, per share; default: 5")
    parser.add_argument("--batch", type=int, default=1, metavar="N", help="rows per timed run; default: %(default)s")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="while timing; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--timeout", type=float, default=900, metavar="S", help="for one model; default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> int:
    """Run the command line and return its exit code."""
    served = serve(argv, work)
    if served is not None:
        return served
    args = parse(argv)
    try:
        if args.batch < 1:
            raise UsageError(f"--batch must be 1 or more, got {args.batch}")
        entries = sample_models(args.sample_models) if args.sample_models else []
        named = {entry.name for entry in entries}
        entries = [entry for entry in entries if not args.only or entry.name in args.only]
        rest = [name for name in args.only if name not in named]
        if args.zoo and (rest or not args.only):
            entries += find_models(args.zoo, rest)
        elif rest:
            raise UsageError(f"there is no model {rest[0]!r}")
        if not entries:
            raise UsageError("there is no model", hint="name a zoo, or --sample-models DIR")
    except UsageError as err:
        print(f"error: {err}", file=sys.stderr)
        return 2
    names = ("shares", "round", "samples", "distill", "rival", "rival_samples", "rival_timeout", "seconds", "batch",
             "threads", "seed")  # fmt: skip
    settings = {name: getattr(args, name) for name in names}
    rows: list[dict[str, Any]] = []
    for entry in entries:
        files = {"calibration": entry.calibration, "evaluation": entry.evaluation}
        job = {name: None if path is None else str(path) for name, path in files.items()}
        job |= {"model": str(entry.model), "metric": entry.metric if entry.evaluation else None, **settings}
        with tempfile.TemporaryDirectory(prefix="onnxcomp.") as folder:
            kept = Path(folder, "shares.json")
            done = run_job(__file__, {**job, "kept": str(kept)}, timeout=args.timeout)
            found = done.value or (json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {})
        rows.append({"name": entry.name, "error": done.error, "seconds": done.seconds, **found})
        print(f"{entry.name}  {done.error or 'done'}  {done.seconds:.0f} s", file=sys.stderr, flush=True)
        if args.json:  # after every model: a benchmark that is interrupted keeps what it has
            content = {"schema_version": SCHEMA_VERSION, **circumstances(), "settings": settings, "models": rows}
            args.json.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        if args.markdown:
            args.markdown.write_text(table(rows).markdown(), encoding="utf-8")
    print(table(rows).text(), end="")
    return 1 if any(row["error"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
