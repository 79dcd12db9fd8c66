"""Where the error of a model starts: its inner tensors beside those of the same names in the original."""

import math
from typing import TYPE_CHECKING

from onnxcomp.data import Samples
from onnxcomp.errors import MetricError
from onnxcomp.metrics import Fidelity
from onnxcomp.report import LayerFidelity
from onnxcomp.statistics import float_tensors, runs

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["layer_fidelity"]

_RECOVERED = 6.0  # dB
_RUNS = 8  # all inner tensors of a run are in memory at once


def layer_fidelity(reference: "ir.Model", candidate: "ir.Model", samples: Samples) -> tuple[LayerFidelity, ...]:
    """Compare the float tensors that both models compute under the same name, in the order of the reference.

    A tensor whose error does not reach what is made from it is left out: its name means something else there. Both
    models run as their graphs are written: what onnxruntime would fuse has no tensors to look at.

    Args:
        reference: The original.
        candidate: What was made from it.
        samples: A few runs of them, spread over all, are compared.

    Raises:
        ModelError: A model does not run.
        DataError: The samples do not fit.
    """
    inputs = {value.name for value in reference.graph.inputs}
    theirs = set(float_tensors(candidate))
    names = [name for name in float_tensors(reference) if name in theirs and name not in inputs]
    if not names:
        return ()
    chosen = samples.spread(_RUNS)
    tallies = {name: Fidelity() for name in names}
    for first, second in zip(runs(reference, chosen, names), runs(candidate, chosen, names), strict=True):
        for name in list(tallies):
            try:
                tallies[name].add({name: first[name]}, {name: second[name]})
            except MetricError:  # the same name, and another shape: it means something else there
                del tallies[name]
    found = {name: tally.sqnr for name, tally in tallies.items()}
    return tuple(_layers(reference, found))


def _layers(reference: "ir.Model", found: dict[str, float]) -> "list[LayerFidelity]":
    """Set each tensor beside the worst of those that it is made from; leave out those whose error nobody reads."""
    worst_before: dict[str, float] = {}
    heard = _heard(reference, found)
    layers = []
    for node in reference.graph:
        read = [str(value.name) for value in node.inputs if value is not None]
        before = min((worst_before.get(name, math.inf) for name in read), default=math.inf)
        for output in node.outputs:
            name = str(output.name)
            if name in found and heard[name] <= found[name] + _RECOVERED:
                layers.append(LayerFidelity(name, str(node.name), node.op_type, found[name], before))
                worst_before[name] = found[name]
            else:
                worst_before[name] = before
    return layers


def _heard(reference: "ir.Model", found: dict[str, float]) -> dict[str, float]:
    """Return the worst SQNR of the compared tensors that are made from each one next; its own, where it is an output.

    What is far better than the tensor itself shows that its name means something else in the candidate: before a Relu
    that integers have in their range, for example, or a normalization that weights have taken in.
    """
    heard: dict[str, float] = {}
    for node in reversed(reference.graph):
        for output in node.outputs:
            name = str(output.name)
            after = [
                found.get(str(made.name), heard.get(str(made.name), math.inf))
                for reader, _ in output.uses()
                for made in reader.outputs
            ]
            own = [found[name]] if name in found and (output.is_graph_output() or not after) else []
            heard[name] = min([*after, *own], default=math.inf)
    return heard
