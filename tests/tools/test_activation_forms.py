"""The table of activation functions in docs/recipes.md says what runs."""

from pathlib import Path

import pytest
from activation_forms import FORMS, kernels

DOCS = Path(__file__).parents[2] / "docs" / "recipes.md"


@pytest.mark.parametrize("name", FORMS)
def test_the_table_says_what_runs(name: str) -> None:
    runs = ", ".join(f"{count} {kind}" for kind, count in kernels(FORMS[name]).items()) or "nothing"
    assert f"| {name} | {runs} |" in DOCS.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["Relu", "Clip", "Min of Max"])
def test_what_a_quantizer_absorbs_costs_nothing(name: str) -> None:
    assert not kernels(FORMS[name])
