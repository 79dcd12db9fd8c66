"""Keep every constant in one place: the initializers.

::

    Constant(value=w) -> c          initializer c = w
    Conv(x, c)               ==>    Conv(x, c)

Some exporters keep all weights in Constant nodes; the other passes (and onnxruntime's memory mapping) look for
initializers. A Constant inside a subgraph becomes an initializer of that subgraph.

Models of IR version 3 and older had to list initializers as graph inputs. onnxruntime does not let a caller override
those, so they are taken off the inputs and the IR version rises to 4, where the two lists are independent.

Declines: Constants that are graph outputs themselves, sparse tensors, and Constants in functions (a function has no
initializers).

Source: the ONNX specification, IR.md ("Initializers" and the change from IR version 3 to 4).
"""

from collections import Counter
from typing import ClassVar

import onnx_ir as ir

from onnxcomp.passbase import NoConfig, Pass, PassContext, PassStats

from ._graph import constant_node_tensor, graphs, is_op

__all__ = ["LiftConstants"]


class LiftConstants(Pass[NoConfig]):
    """Turn Constant nodes into initializers."""

    name: ClassVar[str] = "lift-constants"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the model in place."""
        counts: Counter[str] = Counter()
        if model.ir_version < 4:
            counts["IR version raised"] = 1
            counts["initializers taken off the inputs"] = _raise_ir_version(model)
        for graph in tuple(graphs(model)):
            for node in tuple(graph):
                if not is_op(node, "Constant"):
                    continue
                if reason := _lift(graph, node):
                    ctx.skip(node, reason)
                else:
                    counts["constants lifted"] += 1
        return PassStats(counts.total() > 0, dict(+counts))


def _lift(graph: ir.Graph, node: ir.Node) -> str | None:
    """Replace one Constant node by an initializer, or say why not."""
    output = node.outputs[0]
    if output.is_graph_output():
        return "it is a graph output"
    tensor = constant_node_tensor(node)
    if tensor is None:
        return "it holds no dense tensor"
    value = ir.Value(name=output.name, shape=ir.Shape(tuple(tensor.shape.numpy())), type=ir.TensorType(tensor.dtype))
    tensor.name = output.name
    value.const_value = tensor
    output.replace_all_uses_with(value)
    graph.remove(node, safe=True)
    graph.register_initializer(value)
    return None


def _raise_ir_version(model: ir.Model) -> int:
    """Bring a model of IR version 3 to 4; return how many initializers are no inputs any more."""
    inputs = model.graph.inputs
    kept = [value for value in inputs if not value.is_initializer()]
    count = len(inputs) - len(kept)
    inputs.clear()
    inputs.extend(kept)
    model.ir_version = 4
    return count
