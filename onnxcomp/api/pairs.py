"""Two models that are run on the same inputs: whether they can be, and what the one's names mean in the other."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from onnxcomp.data import Feed, InputSpec
from onnxcomp.errors import UsageError
from onnxcomp.facts import input_specs
from onnxcomp.runtime import Session

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Outputs", "Pair", "check_same_inputs", "pair_by_name", "pair_by_position"]

Outputs = dict[str, np.ndarray]
_ALIKE = "give models of which one was made from the other"
Names = tuple[dict[str, str], dict[str, str]]


@dataclass(frozen=True, slots=True)
class Pair:
    """Sessions of two models that take the same inputs, and give the same outputs.

    Attributes:
        reference: The one whose names are used.
        candidate: The other.
        inputs: The candidate's names of inputs by the reference's; those that are the same may be missing.
        outputs: The reference's names of outputs by the candidate's; as well.
    """

    reference: Session
    candidate: Session
    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)

    def run(self, feed: Feed) -> tuple[Outputs, Outputs]:
        """Return the outputs of both, by the reference's names.

        Raises:
            DataError: The feed does not fit the models.
            ModelError: A node fails while it runs.
        """
        answers = self.reference.run(feed)
        theirs = self.candidate.run({self.inputs.get(name, name): value for name, value in feed.items()})
        renamed = {self.outputs.get(name, name): value for name, value in theirs.items()}
        return answers, {name: renamed[name] for name in answers}  # in one order: a metric may take the first


def pair_by_name(first: "ir.Model", second: "ir.Model", names: tuple[str, str]) -> Names:
    """Return the `inputs` and `outputs` of a `Pair` of models that call them the same.

    Args:
        first: The reference.
        second: The candidate.
        names: What the models are called.

    Raises:
        UsageError: Inputs or outputs differ.
    """
    try:
        check_same_inputs(first, second, names=names)
        _check_same_outputs(first, second)
    except UsageError as err:
        with suppress(UsageError):
            pair_by_position(first, second)
            err.hint = "--by-position pairs inputs and outputs by their order"
        raise
    return {}, {}


def pair_by_position(first: "ir.Model", second: "ir.Model") -> Names:
    """Return the `inputs` and `outputs` of a `Pair` of models that have them in the same order.

    Raises:
        UsageError: They differ in number, data type or rank.
    """
    mine, theirs = ([spec for spec in input_specs(model) if not spec.optional] for model in (first, second))
    _check_number("inputs", len(mine), len(theirs))
    for left, right in zip(mine, theirs, strict=True):
        if not _alike(left, right):
            raise UsageError(f"input '{left.name}' is {_form(left)}, '{right.name}' is {_form(right)}", hint=_ALIKE)
    outputs = list(first.graph.outputs), list(second.graph.outputs)
    _check_number("outputs", *map(len, outputs))
    for one, other in zip(*outputs, strict=True):
        if one.shape is not None and other.shape is not None and len(one.shape) != len(other.shape):
            raise UsageError(
                f"outputs '{one.name}' and '{other.name}' have {len(one.shape)} and {len(other.shape)} axes"
            )
    return (
        {left.name: right.name for left, right in zip(mine, theirs, strict=True)},
        {str(other.name): str(one.name) for one, other in zip(*outputs, strict=True)},
    )


def check_same_inputs(first: "ir.Model", second: "ir.Model", *, names: tuple[str, str]) -> None:
    """Refuse two models that can't be run on the same samples.

    Args:
        first: One model.
        second: The other.
        names: What they are called.

    Raises:
        UsageError: Names, data types or shapes of their inputs differ.
    """
    left, right = ({spec.name: spec for spec in input_specs(model) if not spec.optional} for model in (first, second))
    differences = [f"only {names[0]} has '{name}'" for name in left.keys() - right.keys()]
    differences += [f"only {names[1]} has '{name}'" for name in right.keys() - left.keys()]
    differences += [
        f"'{name}' is {_form(left[name])} in {names[0]} and {_form(right[name])} in {names[1]}"
        for name in left.keys() & right.keys()
        if not _alike(left[name], right[name])
    ]
    if differences:
        raise UsageError(
            f"the models can't run on the same inputs: {'; '.join(sorted(differences))}",
            hint=_ALIKE,
        )


def _check_same_outputs(first: "ir.Model", second: "ir.Model") -> None:
    left, right = ([str(value.name) for value in model.graph.outputs] for model in (first, second))
    if set(left) != set(right):
        raise UsageError(
            f"the models' outputs have different names: {', '.join(left)} and {', '.join(right)}", hint=_ALIKE
        )


def _check_number(what: str, first: int, second: int) -> None:
    if first != second:
        raise UsageError(f"the models have {first} and {second} {what}", hint=_ALIKE)


def _alike(first: InputSpec, second: InputSpec) -> bool:
    if first.dtype != second.dtype:
        return False
    if first.shape is None or second.shape is None:
        return True
    return len(first.shape) == len(second.shape) and all(
        a is None or b is None or a == b for a, b in zip(first.shape, second.shape, strict=True)
    )


def _form(spec: InputSpec) -> str:
    shape = "any shape" if spec.shape is None else [size or "?" for size in spec.shape]
    return f"{spec.dtype or 'no tensor'} {shape}"
