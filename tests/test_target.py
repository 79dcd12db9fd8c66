"""Gates: the bounds that were named, and no others. Targets: facts that agree with each other."""

from typing import Any

import pytest

from onnxcomp.errors import UsageError
from onnxcomp.target import TARGETS, Budget, Gates, get_target

FOUND: dict[str, Any] = {"drop": 0.02, "agreement": 0.9, "sqnr": 25.0, "size": 1000, "original_size": 2000}


@pytest.mark.parametrize(
    ("kept", "missed", "says"),
    [
        (Gates(max_drop=0.02), Gates(max_drop=0.01), "0.0200"),
        (Gates(min_agreement=0.9), Gates(min_agreement=0.91), "0.9000"),
        (Gates(min_sqnr=25), Gates(min_sqnr=26), "25.0 dB"),
        (Gates(max_size=1000), Gates(max_size=999), "1000 bytes"),
        (Gates(max_size_ratio=0.5), Gates(max_size_ratio=0.49), "0.49 of the original's 2000"),
    ],
)
def test_each_gate(kept: Gates, missed: Gates, says: str) -> None:
    assert kept.missed(**FOUND) == []
    (miss,) = missed.missed(**FOUND)
    assert says in miss


@pytest.mark.parametrize(
    ("gates", "found", "says"),
    [
        (Gates(max_drop=0), {"drop": 0.00002}, "drops by 0.00002, allowed is 0"),
        (Gates(min_agreement=1), {"agreement": 0.99999}, "original 0.99999 is under 1"),
    ],
)
def test_what_is_missed_by_little_does_not_look_kept(gates: Gates, found: dict[str, float], says: str) -> None:
    (miss,) = gates.missed(**FOUND | found)
    assert says in miss


def test_without_gates_nothing_is_missed() -> None:
    assert Gates().missed(drop=1.0, agreement=0.0, sqnr=float("-inf"), size=10**12, original_size=1) == []


def test_a_drop_needs_a_metric() -> None:
    assert Gates(max_drop=0.0).missed(**FOUND | {"drop": None}) == []


def test_a_model_that_gives_nonsense_misses_the_sqnr() -> None:
    assert len(Gates(min_sqnr=0).missed(**FOUND | {"sqnr": float("nan")})) == 1


@pytest.mark.parametrize(
    "bounds",
    [
        {"max_drop": -0.1},
        {"max_drop": "0.01"},
        {"min_agreement": 2},
        {"min_agreement": True},
        {"min_sqnr": float("nan")},
        {"max_size": 0},
        {"max_size": [5]},
        {"max_latency_ratio": 0},
    ],
)
@pytest.mark.parametrize("kind", [Budget, Gates])
def test_bounds_that_cannot_be(bounds: dict[str, Any], kind: type[Budget | Gates]) -> None:
    with pytest.raises(UsageError, match=next(iter(bounds)).replace("_", "-")):
        kind(**bounds)


@pytest.mark.parametrize("name", TARGETS)
def test_the_facts_of_a_target_agree(name: str) -> None:
    target = get_target(name)
    assert target.name == name
    assert target.float_outputs <= target.roles.keys() | {"Gemm", "MatMul"}
    assert bool(target.roles) == (target.no_static is None)
    assert bool(target.dynamic) == (target.no_dynamic is None)
    # a symmetric quantizer has levels below 0: in onnxruntime it can't do what a Relu does
    assert not target.symmetric or (target.activations == "int8" and not target.readable)


def test_only_what_was_measured_is_verified() -> None:
    assert [name for name, target in TARGETS.items() if target.verified] == ["cpu-x86-vnni"]
