"""Bits by sensitivity: the path of allocations, and the bisection along it."""

from itertools import pairwise, product

import pytest

from onnxcomp.api.bits import path, smallest_good

NOISE = {"a": 1e-2, "b": 1e-4, "c": 3e-3}
ELEMENTS = {"a": 100, "b": 1000, "c": 300}
CHOICES = (1, 2, 4, 8)


def noise_of(bits: dict[str, float]) -> float:
    return sum(NOISE[unit] * 4 ** (4 - number) for unit, number in bits.items())


def total(bits: dict[str, float]) -> float:
    return sum(ELEMENTS[unit] * number for unit, number in bits.items())


def test_it_goes_from_all_bits_to_few() -> None:
    found = path(NOISE, ELEMENTS, CHOICES, measured=4)
    assert dict(found[0].bits) == dict.fromkeys(NOISE, 8)
    assert dict(found[-1].bits) == dict.fromkeys(NOISE, 1)
    assert len(found) == 1 + 3 * 3
    for before, after in pairwise(found):
        assert after.mean < before.mean
        assert sum(before.bits[unit] != after.bits[unit] for unit in NOISE) == 1
    for one in found:
        assert one.mean == pytest.approx(total(dict(one.bits)) / 1400)


def test_no_other_allocation_is_better_in_both() -> None:
    every = [dict(zip(NOISE, bits, strict=True)) for bits in product(CHOICES, repeat=3)]
    for one in path(NOISE, ELEMENTS, CHOICES, measured=4):
        bits = dict(one.bits)
        assert not [
            other for other in every if noise_of(other) < noise_of(bits) * (1 - 1e-9) and total(other) <= total(bits)
        ]


def test_units_that_make_no_noise_or_too_much() -> None:
    found = path({"a": 0.0, "b": float("inf")}, {"a": 10, "b": 10}, CHOICES, measured=4)
    halfway = found[3]
    assert halfway.bits["a"] == 1
    assert halfway.bits["b"] == 8


@pytest.mark.parametrize("limit", range(11))
def test_the_bisection_finds_the_last_good_one(limit: int) -> None:
    candidates = path(NOISE, ELEMENTS, CHOICES, measured=4)
    judged: list[int] = []

    def good(candidate: object) -> bool:
        judged.append(next(i for i, one in enumerate(candidates) if one is candidate))
        return judged[-1] < limit

    found = smallest_good(candidates, good)
    assert len(judged) <= 4
    if limit == 0:
        assert found is None
        assert judged[-1] == 0
    else:
        assert found is candidates[min(limit, 10) - 1]
        assert judged == list(dict.fromkeys(judged))
