"""Sends every test model of the installed onnx package through onnxcomp and compares the answers.

    python tools/robustness.py [--only PATTERN] [--shards N] [--json FILE]

Each of them (node tests, small models, light models) is loaded, cleaned up by the whole recipe, saved, and run by
onnxruntime; the outputs must be the ones that the onnx package expects. So must each once more with its inputs planted
as constants, which gives the clean-up something to fold. A model is

- ``passed`` where they are, also after a second clean-up; a pass whose result was rolled back is named;
- ``refused`` where onnxruntime itself, given the original, refuses it, crashes or answers otherwise; onnxcomp must then
  either say so by an error of its own or go on;
- ``failed`` else; also where anything but an error of onnxcomp's own kinds is raised, or the process dies.

The work is shared out to processes; the death of one costs the model that it was at. Exit code: 0 where none failed,
1 where one did, 2 wrong usage.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx_cases import Case, all_cases, constants_planted

from onnxcomp.errors import OnnxCompError
from onnxcomp.model import load, save
from onnxcomp.passbase import PassContext
from onnxcomp.pipeline import Verifier, run_recipe
from onnxcomp.runtime import Session, version
from onnxcomp.search.candidates import cleanup
from onnxcomp.target import get_target

__all__ = ["Verdict", "check", "main", "run_shard"]

_COARSE = {"bfloat16": 2.0**-6, "float16": 2.0**-9}  # two steps, relative


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one case.

    Attributes:
        name: Of the case.
        outcome: ``passed``, ``refused`` or ``failed``.
        reason: Why it did not pass, or which pass was rolled back.
    """

    name: str
    outcome: str
    reason: str = ""


class _DifferenceError(Exception):
    """Outputs are not the expected ones."""


def check(case: Case, folder: Path, begun: Any = None) -> Verdict:
    """Send one case through onnxcomp.

    Args:
        case: A model with its runs.
        folder: Where it is saved.
        begun: Called once onnxruntime has taken the original and it is onnxcomp's turn.
    """
    try:
        _compare(Session(case.model.SerializeToString()), case)
    except (_DifferenceError, OnnxCompError) as err:
        refusal: str | None = str(err)
    else:
        refusal = None
    if begun is not None:
        begun()
    rolled_back = ""
    try:
        rolled_back = _through(case, folder / "model.onnx")
    except Exception as err:  # whatever it is, it is the result
        if refusal is None or not isinstance(err, _DifferenceError | OnnxCompError):
            return Verdict(case.name, "failed", f"{type(err).__name__}: {err}"[:600])
    return (
        Verdict(case.name, "passed", rolled_back) if refusal is None else Verdict(case.name, "refused", refusal[:300])
    )


def _through(case: Case, path: Path) -> str:
    """Load, clean up twice, save, and compare what the file says; return which passes were rolled back, and why."""
    model = load(case.model.SerializeToString())
    verifier = Verifier(model, [feed for feed, _ in case.runs])
    ctx = PassContext(target=get_target("auto"))
    failures: dict[str, None] = {}
    for _ in range(2):
        model, reports = run_recipe(model, cleanup(), ctx, verifier)
        failures |= dict.fromkeys(f"{report.name}: {report.failure}" for report in reports if report.failure)
    save(model, path)
    _compare(Session(path), case)
    return "; ".join(failures)


def _compare(session: Session, case: Case) -> None:
    for feed, expected in case.runs:
        outputs = session.run(feed)
        if len(outputs) != len(expected):
            raise _DifferenceError(f"{len(outputs)} outputs, {len(expected)} expected")
        for (name, got), wanted in zip(outputs.items(), expected, strict=True):
            if (difference := _difference(got, wanted, case)) is not None:
                raise _DifferenceError(f"output {name}: {difference}")


def _difference(got: Any, wanted: Any, case: Case) -> str | None:
    """Say how a value differs from the expected one; None: it does not."""
    if isinstance(wanted, list | tuple):
        if not isinstance(got, list | tuple) or len(got) != len(wanted):
            return f"not a list of {len(wanted)}"
        found = (_difference(a, b, case) for a, b in zip(got, wanted, strict=True))
        return next((text for text in found if text is not None), None)
    if wanted is None or isinstance(wanted, dict):
        return None if got == wanted else f"{got!r} is not {wanted!r}"
    got, wanted = np.asarray(got), np.asarray(wanted)
    if got.shape != wanted.shape:
        return f"shape {got.shape}, expected {wanted.shape}"
    if wanted.dtype.kind not in "fcV":
        return None if np.array_equal(got, wanted) else "other values"
    if got.dtype != wanted.dtype:
        return f"{got.dtype}, expected {wanted.dtype}"
    rtol = max(case.rtol, _COARSE.get(wanted.dtype.name, 0))
    if wanted.dtype.kind == "V":
        got, wanted = got.astype(np.float32), wanted.astype(np.float32)
    close = np.isclose(got, wanted, rtol=rtol, atol=case.atol, equal_nan=True)
    return None if close.all() else f"{int((~close).sum())} of {close.size} elements differ"


def run_shard(index: int, of: int, *, only: str = "", script: str = __file__) -> list[Verdict]:
    """Check every ``of``-th case from the given one on, in processes of their own.

    Args:
        index: Which share, from 0.
        of: How many there are.
        only: A regular expression that the names must match somewhere.
        script: What the processes run: this module's `main`.
    """
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory(prefix="onnxcomp.") as folder:
        while True:
            log = Path(folder, f"{len(verdicts)}.jsonl")
            arguments = ["--worker", str(index), str(of), str(len(verdicts)), str(log), only]
            done = subprocess.run([sys.executable, script, *arguments], check=False, stdin=subprocess.DEVNULL)
            lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.exists() else []
            verdicts += [Verdict(**line["verdict"]) for line in lines if "verdict" in line]
            if done.returncode == 0:
                return verdicts
            if not lines or "verdict" in lines[-1]:
                raise RuntimeError(f"the worker ended with {done.returncode} and was at no model")
            guilty = "failed" if lines[-1]["ours"] else "refused"
            verdicts.append(Verdict(lines[-1]["begun"], guilty, f"the process died ({done.returncode})"))


def _work(index: int, of: int, skip: int, log: Path, only: str) -> None:
    """Do a share, and write down each step before the next may kill the process."""
    with log.open("w", encoding="utf-8") as file, tempfile.TemporaryDirectory(prefix="onnxcomp.") as folder:

        def note(**line: Any) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()

        for case in list(_cases(only))[index::of][skip:]:
            note(begun=case.name, ours=False)
            verdict = check(case, Path(folder), lambda name=case.name: note(begun=name, ours=True))
            note(verdict=asdict(verdict))


def _cases(only: str) -> Iterator[Case]:
    for case in all_cases():
        for variant in (case, constants_planted(case)):
            if variant is not None and re.search(only, variant.name):
                yield variant


def main(argv: Sequence[str] | None = None) -> int:
    """Check all cases and print the figures."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv[:1] == ["--worker"]:
        index, of, skip, log, only = argv[1:]
        _work(int(index), int(of), int(skip), Path(log), only)
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only",
        default="",
        type=_pattern,
        metavar="PATTERN",
        help="only cases whose names match this regular expression",
    )
    parser.add_argument("--shards", type=int, default=2, metavar="N", help="processes at a time (default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every verdict here")
    args = parser.parse_args(argv)
    if args.shards < 1:
        parser.error("--shards must be 1 or more")
    shares: dict[int, list[Verdict]] = {}

    def share(index: int) -> None:
        shares[index] = run_shard(index, args.shards, only=args.only)

    threads = [threading.Thread(target=share, args=(index,)) for index in range(args.shards)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    verdicts = sorted((v for found in shares.values() for v in found), key=lambda v: v.name)
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(v) for v in verdicts], indent=1), encoding="utf-8")
    return _summary(verdicts)


def _summary(verdicts: Sequence[Verdict]) -> int:
    """Print what failed or was rolled back, and the figures; return the exit code."""
    import onnx

    failed = [verdict for verdict in verdicts if verdict.outcome == "failed"]
    for verdict in verdicts:
        if verdict in failed or (verdict.outcome == "passed" and verdict.reason):
            print(f"{'FAILED' if verdict in failed else 'rolled back'} {verdict.name}: {verdict.reason}")
    print(f"onnx {onnx.__version__}, onnxruntime {version()}")
    kinds = sorted({_kind(verdict) for verdict in verdicts})
    for kind in [*kinds, "all"]:
        counts = Counter(verdict.outcome for verdict in verdicts if kind in ("all", _kind(verdict)))
        print(f"{kind:34} passed {counts['passed']:5}   refused {counts['refused']:5}   failed {counts['failed']:5}")
    return 1 if failed or not verdicts else 0


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as err:
        raise argparse.ArgumentTypeError(f"{text!r} is no regular expression: {err}") from err
    return text


def _kind(verdict: Verdict) -> str:
    folder, _, name = verdict.name.partition("/")
    return f"{folder}, inputs constant" if name.endswith("(constants)") else folder


if __name__ == "__main__":
    sys.exit(main())
