"""Mutated models go through load, clean-up and save: success, or an error of ours; no crash, no hang, no 2 GB.

``python -m tests.test_fuzz_loader 2000`` prints the figures.
"""

import collections
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from onnxcomp.model import load
from tests.fuzz.mutate import BYTES, FIELDS, MUTATIONS, mutated
from tests.fuzz.sources import sources

HANG = 120  # seconds: the slowest takes two
ROOT = Path(__file__).parents[1]

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of processes"),
    pytest.mark.untraced,
]


def results(seeds: range, worker: str = "tests.fuzz.worker") -> Iterator[tuple[int, str]]:
    """Yield what came of each seed; a process that ends at one is started again behind it."""
    todo = seeds
    while todo:
        last = todo.start - 1
        for seed, result in _run(todo, worker):
            yield seed, result
            last = seed
        todo = range(last + 1, seeds.stop)


def _run(seeds: range, module: str) -> Iterator[tuple[int, str]]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", module, folder, str(seeds.start), str(seeds.stop)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
        with (
            Path(folder, "errors").open("w+b") as errors,
            subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment) as worker,
        ):
            assert worker.stdout is not None
            current = None
            while True:
                timer = threading.Timer(HANG, worker.kill)
                timer.start()
                line = worker.stdout.readline()
                timer.cancel()
                if not line:
                    break
                kind, seed, *rest = line.rstrip("\n").split(" ", 2)
                current = int(seed) if kind == "begin" else None
                if kind == "end":
                    yield int(seed), rest[0]
            code = worker.wait()
            errors.seek(0)
            said = errors.read().decode(errors="replace")[-2000:]
        if current is not None:
            yield current, f"CRASH or hang, exit code {code}: {said}"
        else:
            assert code == 0, said


def check(seeds: range) -> collections.Counter[str]:
    """Run the seeds; return how many ended in which way, and fail where one ended badly."""
    count: collections.Counter[str] = collections.Counter()
    bad = []
    for seed, result in results(seeds):
        kind = result.split(" ", 1)[0]
        count[kind] += 1
        if kind in {"BUG", "CRASH"} or "bad_alloc" in result or "MemoryError" in result:
            name = mutated(sources()[seed % len(sources())], sources(), seed)[0]
            bad.append(f"seed {seed} ({name}): {result}")
    assert sum(count.values()) == len(seeds)
    assert not bad, "\n\n".join(bad)
    return count


def test_the_sources_load() -> None:
    for content in sources():
        load(content)


def test_mutations_change_models() -> None:
    content = sources()[0]
    found = dict(mutated(content, sources(), seed) for seed in range(400))
    assert set(found) == set(MUTATIONS) == {*BYTES, *FIELDS}
    assert sum(changed != content for changed in found.values()) > 0.8 * len(found)
    assert mutated(content, sources(), 3) == mutated(content, sources(), 3)


def test_a_hundred_mutated_models() -> None:
    check(range(100))


@pytest.mark.slow
@pytest.mark.parametrize("start", range(0, 2000, 500))
def test_two_thousand_mutated_models(start: int) -> None:
    check(range(start, start + 500))


if __name__ == "__main__":
    for kind, number in check(range(int(sys.argv[1]))).most_common():
        print(f"{number:6} {kind}")
