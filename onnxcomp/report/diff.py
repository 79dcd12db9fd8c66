"""What `diff` found: two models side by side, as values and as text."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from onnxcomp.report.document import Document
from onnxcomp.report.figures import bytes_text, count_text, decibels_text, table
from onnxcomp.report.inspection import Inspection, TensorFacts

__all__ = ["Change", "DiffReport", "OperatorChange", "TensorChange"]

Change = Literal["added", "removed", "other type", "other shape", "other values"]
_SHOWN = 20  # tensors that the text shows


@dataclass(frozen=True, slots=True)
class OperatorChange:
    """How often an operator is there: nodes of the first model and of the second."""

    op_type: str
    first: int
    second: int


@dataclass(frozen=True, slots=True)
class TensorChange:
    """A weight that is not the same in both models.

    Attributes:
        name: Of the initializer.
        change: What became of it.
        first: Its type and shape in the first model; empty: it is not there.
        second: The same in the second.
        first_bytes: Of its values.
        second_bytes: The same in the second.
        sqnr: Of the values in the second against those in the first, dB; None: they can't be compared.
    """

    name: str
    change: Change
    first: str
    second: str
    first_bytes: int
    second_bytes: int
    sqnr: float | None


@dataclass(frozen=True, slots=True)
class DiffReport(Document):
    """Two models side by side.

    Attributes:
        first: All about the first model.
        second: All about the second.
        operators: Those whose number differs, by type.
        tensors: Weights that differ, those first that changed most in bytes.
        unchanged: Weights that are the same in both.
        created: UTC, ISO 8601.
    """

    kind: ClassVar[str] = "diff"

    first: Inspection
    second: Inspection
    operators: tuple[OperatorChange, ...]
    tensors: tuple[TensorChange, ...]
    unchanged: int
    created: str

    def render(self, *, verbose: bool = False) -> str:
        """Return the text; `verbose`: every weight that differs."""
        lines = [*table([*self._facts()]), ""]
        if self.operators:
            rows = [("operator", "first", "second", "change")]
            rows += [(o.op_type, str(o.first), str(o.second), f"{o.second - o.first:+}") for o in self.operators]
            lines += [*table(rows), ""]
        shown = self.tensors if verbose else self.tensors[:_SHOWN]
        if shown:
            lines += [*table([*_tensors(shown)])]
            if left := len(self.tensors) - len(shown):
                lines += [f" and {left} more: --verbose shows all"]
            lines += [""]
        notes = dict.fromkeys((*self.first.notes, *self.second.notes))
        lines += [*(f" note    {note}" for note in notes), *(f" result  {line}" for line in self._verdict())]
        return "\n".join(line.rstrip() for line in lines) + "\n"

    def _facts(self) -> Iterable[tuple[str, str, str, str]]:
        a, b = self.first, self.second
        yield "", "first", "second", ""
        yield "model", a.model, b.model, ""
        yield "size", bytes_text(a.size), bytes_text(b.size), _times(a.size, b.size)
        yield "parameters", count_text(a.parameters), count_text(b.parameters), _times(a.parameters, b.parameters)
        yield "MACs", count_text(a.macs_known), count_text(b.macs_known), _times(a.macs_known, b.macs_known)
        yield "nodes", str(_nodes(a)), str(_nodes(b)), _times(_nodes(a), _nodes(b))
        yield "opset", _opsets(a.opsets), _opsets(b.opsets), ""
        yield "IR version", str(a.ir_version), str(b.ir_version), ""
        yield "quantized", _yes(a.quantized), _yes(b.quantized), ""
        yield "weights", _weights(a), _weights(b), ""
        yield "made by onnxcomp", _yes(bool(a.recipe)), _yes(bool(b.recipe)), ""
        yield "onnxruntime loads it", _yes(not a.refusal), _yes(not b.refusal), ""

    def _verdict(self) -> Iterable[str]:
        for what, first, second in (
            ("inputs", self.first.inputs, self.second.inputs),
            ("outputs", self.first.outputs, self.second.outputs),
        ):
            same = first == second
            yield f"{what} are the same" if same else f"{what} differ: {_declared(first)} and {_declared(second)}"
        yield f"weights: {self.unchanged} the same, {len(self.tensors)} not"


def _tensors(changes: Iterable[TensorChange]) -> Iterable[tuple[str, str, str, str, str]]:
    yield "weight", "change", "first", "second", "SQNR"
    for found in changes:
        sqnr = "-" if found.sqnr is None else decibels_text(found.sqnr)
        yield found.name, found.change, found.first or "-", found.second or "-", sqnr


def _nodes(found: Inspection) -> int:
    return sum(operator.count for operator in found.operators)


def _weights(found: Inspection) -> str:
    return ", ".join(f"{weight.dtype} {bytes_text(weight.bytes)}" for weight in found.weights)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _times(first: int, second: int) -> str:
    return f"{second / first:.3f}x" if first else ""


def _opsets(opsets: Mapping[str, int]) -> str:
    return ", ".join(f"{domain or 'ai.onnx'} {version}" for domain, version in opsets.items())


def _declared(tensors: Iterable[TensorFacts]) -> str:
    return ", ".join(f"{tensor.name} {tensor.type}{list(tensor.shape or ())}" for tensor in tensors)
