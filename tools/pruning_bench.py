"""What structured pruning gives without training, with onnxsim beside it.

    python tools/pruning_bench.py [ZOO_DIR] [--sample-models sample_models] [--only NAME ...] [--shares 0.3 0.5 0.7]
        [--rival PYTHON] [--json FILE] [--markdown FILE]

A share of the prunable MACs is removed: of those that are gone when every group keeps as little as it may. The score
is that after removing channels of least norm from all layers alike (``sliced``), after a fit of biases (``+ bias``) or
of all weights (``+ fit``) to calibration samples, and of what `onnxcomp prune` does by default: channels chosen by OBS,
dealt out over the groups, then fitted (``OBS + fit``). ``MACs``, ``parameters`` and ``latency`` are those of the last
one, as shares of the original's; latency is timed in turns with the original, with its 95 % interval. ``time/MACs`` is
the share of the time that is saved over the share of the MACs. Without labels the score is the agreement with the
original.

``--rival`` names a Python that has onnxsim; `rival_pruner` says what it does. Of its sparsities the least is taken that
leaves no more MACs than onnxcomp's target, or the largest.

Each model is measured in a process of its own. Exit code: 0 done, 1 a model failed, 2 wrong usage.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from zoo_folder import ZooModel, find_models
from zoo_job import run_job, serve
from zoo_tables import Interval, Table, circumstances, number, without_infinity

from onnxcomp.api.making import Assignment, assign, cleaned, judge_of
from onnxcomp.api.shapes import count_costs
from onnxcomp.data import Feed, Samples
from onnxcomp.errors import OnnxCompError, PassError, UsageError
from onnxcomp.facts import parameter_count
from onnxcomp.measure import interleave
from onnxcomp.model import load, open_session
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
CONTENDERS: Mapping[str, tuple[Mapping[str, str], str | None]] = {
    "sliced": (_UNIFORM, None),
    "+ bias": (_UNIFORM, "bias"),
    "+ fit": (_UNIFORM, "least-squares"),
    "OBS + fit": (_OBS, "least-squares"),
}
OURS, RIVAL, TUNED = "OBS + fit", "onnxsim", "onnxsim, tuned"
_FORMS = {RIVAL: "sliced", TUNED: "tuned"}
_SPARSITIES = [step / 20 for step in range(1, 20)]
_TIMED = ("+ fit", OURS, RIVAL)
_TITLES = ("model", "removed", "MACs", "parameters", "latency", "time/MACs", "original", *CONTENDERS, RIVAL, TUNED,
           "its MACs", "its latency")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Figures:
    """What is known of one pruned model; shares are of the original.

    Attributes:
        macs: Share of the multiply-accumulate operations of one run.
        parameters: Share of the elements of weights.
        score: Of the metric; without labels the agreement.
        latency: Interval of the ratio of times; None: not timed.
    """

    macs: float
    parameters: float
    score: float
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
        self.macs = self.count(self.base)
        least = self.pruned({"ratio": _ALL, "criterion": "l2"}, None)
        self.prunable = 1 - self.count(least) / self.macs

    @property
    def original_score(self) -> float:
        """Of the original; 1 without labels."""
        return 1.0 if self.judge.original.score is None else self.judge.original.score

    def pruned(self, settings: Mapping[str, Any], recovery: str | None) -> "ir.Model":
        """Return a pruned model.

        Raises:
            PassError: Nothing was removed, or a step failed.
        """
        steps = [Step("prune-channels", {"round": self.job["round"], **settings})]
        steps += [Step("recover", {"method": recovery})] if recovery else []
        model, reports = run_recipe(self.base, Recipe(tuple(steps)), self.ctx, self._verifier)
        failures = [report.failure for report in reports if report.failure]
        if failures or not reports[0].modified:
            raise PassError(failures[0] if failures else "nothing was removed")
        return model

    def count(self, model: "ir.Model") -> int:
        """Count the MACs of one run; those that can't be told count nothing."""
        return sum(cost or 0 for cost in count_costs(model, self.feed).macs.values())

    def figures(self, model: "ir.Model") -> Figures:
        """Count and judge a model."""
        quality = self.judge.quality(open_session(model, threads=0))
        score = quality.agreement if quality.score is None else quality.score
        return Figures(self.count(model) / self.macs, parameter_count(model) / parameter_count(self.work.model), score)

    def timed(self, models: "Mapping[str, ir.Model]") -> dict[str, dict[str, Any]]:
        """Time models in turns with the original; return the interval of each ratio."""
        threads, seconds, seed = (self.job[name] for name in ("threads", "seconds", "seed"))
        sessions = {name: open_session(model, threads=threads) for name, model in models.items()}
        contenders = {"original": partial(open_session(self.work.model, threads=threads).run, self.feed)}
        contenders |= {name: partial(session.run, self.feed) for name, session in sessions.items()}
        found = interleave(contenders, baseline="original", half_width=0.02, max_seconds=seconds, seed=seed)
        return {name: without_infinity(asdict(ratio)) for name, ratio in found.ratios.items()}


class Rival:
    """onnxsim, in a Python of its own."""

    def __init__(self, python: str, prunable: Prunable, folder: Path) -> None:
        self._python, self._prunable, self._folder = python, prunable, folder
        self._timeout: float = prunable.job["rival_timeout"]
        self._samples = ""
        if prunable.samples is not None:
            self._samples = str(folder / "samples.npz")
            feeds = enumerate(prunable.samples.spread(prunable.job["rival_samples"]))
            arrays: dict[str, Any] = {f"{i}/{name}": array for i, feed in feeds for name, array in feed.items()}
            np.savez(self._samples, **arrays)
        self._run("sliced", _SPARSITIES)
        self._macs: dict[Path, float] = {}

    def model(self, name: str, macs: float) -> "ir.Model | None":
        """Return its model with no more MACs than a share of the original's, or the smallest; None: there is none."""
        found = [sparsity for sparsity in _SPARSITIES if self._path("sliced", sparsity).is_file()]
        if not found:
            return None
        first, last = 0, len(found) - 1
        while first < last:  # the first one that is small enough
            middle = (first + last) // 2
            if self._share(self._path("sliced", found[middle])) <= macs:
                last = middle
            else:
                first = middle + 1
        path = self._path(_FORMS[name], found[first])
        if not path.is_file() and self._samples:
            self._run(_FORMS[name], [found[first]])
        return load(path) if path.is_file() and self._share(path) < 1 else None

    def _share(self, path: Path) -> float:
        if path not in self._macs:
            self._macs[path] = self._prunable.count(load(path)) / self._prunable.macs
        return self._macs[path]

    def _path(self, form: str, sparsity: float) -> Path:
        return self._folder / f"{form}.{sparsity:g}.onnx"

    def _run(self, form: str, sparsities: Sequence[float]) -> None:
        job = {"model": self._prunable.job["model"], "output": str(self._folder), "samples": self._samples}
        request = self._folder / "job.json"
        request.write_text(json.dumps({**job, "form": form, "sparsities": sparsities}), encoding="utf-8")
        script = Path(__file__).with_name("rival_pruner.py")
        command = [self._python, str(script), str(request)]
        try:
            subprocess.run(command, check=False, timeout=self._timeout, stdout=sys.stderr, stdin=subprocess.DEVNULL)
        except subprocess.TimeoutExpired:
            print(f"onnxsim was stopped after {self._timeout:g} s", file=sys.stderr)


def work(job: dict[str, Any]) -> dict[str, Any]:
    """Measure one model at all shares."""
    prunable = Prunable(job)
    with tempfile.TemporaryDirectory(prefix="onnxcomp.") as folder:
        rival = Rival(job["rival"], prunable, Path(folder)) if job["rival"] else None
        rows = [at_share(prunable, share, rival) for share in job["shares"]]
    return {
        "original": prunable.original_score,
        "metric": prunable.work.task.metric_name,
        "prunable": prunable.prunable,
        "shares": rows,
    }


def at_share(prunable: Prunable, share: float, rival: Rival | None) -> dict[str, Any]:
    """Measure all contenders where a share of the prunable MACs is removed."""
    target = 1 - share * prunable.prunable
    models: dict[str, ir.Model] = {}
    errors: dict[str, str] = {}
    for name, (settings, recovery) in CONTENDERS.items():
        try:
            models[name] = prunable.pruned({**settings, "macs": target}, recovery)
        except OnnxCompError as err:
            errors[name] = str(err)
    for name in _FORMS if rival else ():
        try:
            made = rival.model(name, target) if rival else None
        except OnnxCompError as err:
            errors[name] = str(err)
            continue
        if made is None:
            errors[name] = "onnxsim removes nothing"
        else:
            models[name] = made
    found: dict[str, Any] = {}
    for name, model in list(models.items()):
        try:
            found[name] = asdict(prunable.figures(model))
        except OnnxCompError as err:  # a model of the rival that does not run
            errors[name] = str(err)
            del models[name]
    for name, ratio in prunable.timed({name: models[name] for name in _TIMED if name in models}).items():
        found[name]["latency"] = ratio
    return {"share": share, "target": target, "contenders": found, "errors": errors}


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Return a line per model and share."""
    return Table(_TITLES, [cells for row in rows for cells in _lines(row)])


def _lines(row: Mapping[str, Any]) -> list[list[str]]:
    if row["error"]:
        return [[row["name"], *["-"] * (len(_TITLES) - 2), f"FAILED: {row['error']}"]]
    lines = []
    for at in row["shares"]:
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
                number(saved, 2),
                number(row["original"], 4),
                *scores,
                number(rival.get("macs"), 3),
                str(Interval.of(rival.get("latency")) or "-"),
            ]
        )
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
    parser.add_argument("--rival", metavar="PYTHON", help="a Python that has onnxsim")
    parser.add_argument("--rival-samples", type=int, default=16, metavar="N", help="default: %(default)s")
    parser.add_argument("--rival-timeout", type=float, default=120, metavar="S", help="default: %(default)s")
    parser.add_argument("--seconds", type=float, default=5, metavar="S", help="of timing, per share; default: 5")
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
    names = ("shares", "round", "samples", "rival", "rival_samples", "rival_timeout", "seconds", "threads", "seed")
    settings = {name: getattr(args, name) for name in names}
    rows: list[dict[str, Any]] = []
    for entry in entries:
        files = {"calibration": entry.calibration, "evaluation": entry.evaluation}
        job = {name: None if path is None else str(path) for name, path in files.items()}
        job |= {"model": str(entry.model), "metric": entry.metric if entry.evaluation else None, **settings}
        done = run_job(__file__, job, timeout=args.timeout)
        rows.append({"name": entry.name, "error": done.error, "seconds": done.seconds, **(done.value or {})})
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
