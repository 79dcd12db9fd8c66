"""Damaged containers: refused with an error of ours, or read as they were; no crash, no hang, no 1 GB.

``python -m tests.storage.test_fuzz 20000`` prints the figures.
"""

import collections
import os
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxcomp.storage import pack_file
from tests.storage.models import MODELS
from tests.storage.mutate import MUTATIONS, Parts, mutated
from tests.storage.worker import process, unpacked
from tests.test_fuzz_loader import results

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="limits the memory of processes"),
    pytest.mark.untraced,
]


def container(name: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        pack_file(MODELS[name](), Path(folder, "m.onnxz"), producer="a test", threads=1)
        return Path(folder, "m.onnxz").read_bytes()


CONTENT = container("int8")


def check(seeds: range) -> collections.Counter[str]:
    """Run the seeds; return how many ended in which way, and fail where one ended badly."""
    count: collections.Counter[str] = collections.Counter()
    bad = []
    for seed, result in results(seeds, "tests.storage.worker"):
        kind = result.split(" ", 1)[0]
        count[kind] += 1
        if kind not in {"same", "refused"}:
            bad.append(f"seed {seed} ({mutated(CONTENT, seed)[0]}): {result}")
    assert sum(count.values()) == len(seeds)
    assert not bad, "\n\n".join(bad)
    return count


def test_a_container_taken_apart_and_put_together_is_read() -> None:
    assert process(Parts.of(CONTENT).to_bytes(), unpacked(CONTENT)) == "same"


def test_mutations_change_containers() -> None:
    found = [mutated(CONTENT, seed) for seed in range(200)]
    assert {name for name, _ in found} == set(MUTATIONS)
    assert sum(content != CONTENT for _, content in found) > 190


@given(st.integers(0, len(CONTENT) - 1), st.integers(1, 255))
@settings(max_examples=200)
def test_any_other_byte_is_refused_or_does_not_matter(at: int, other: int) -> None:
    changed = CONTENT[:at] + bytes([CONTENT[at] ^ other]) + CONTENT[at + 1 :]
    assert process(changed, [MODELS["int8"]()]).split()[0] in {"same", "refused"}


@given(st.binary(max_size=300))
@settings(max_examples=100)
def test_any_bytes_are_refused(content: bytes) -> None:
    assert process(content, []).startswith("refused")


def test_three_hundred_damaged_containers() -> None:
    count = check(range(300))
    assert count["refused"] > 200


@pytest.mark.slow
@pytest.mark.skipif("ONNXCOMP_SLOW" not in os.environ, reason="takes minutes: ONNXCOMP_SLOW=1 runs it")
@pytest.mark.parametrize("start", range(0, 20000, 5000))
def test_twenty_thousand_damaged_containers(start: int) -> None:
    check(range(start, start + 5000))


if __name__ == "__main__":
    for kind, number in check(range(int(sys.argv[1]))).most_common():
        print(f"{number:6} {kind}")
