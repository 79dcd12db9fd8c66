"""Keep every constant in one place: the initializers.

::

    Constant(value=w) -> c          initializer c = w
    Conv(x, c)               ==>    Conv(x, c)

Some exporters keep all weights in Constant nodes; the other passes (and onnxruntime's memory mapping) look for
initializers. A Constant inside a subgraph becomes an initializer of that subgraph.

Others list every initializer among the inputs as well, as ONNX once demanded. Since IR version 4 that makes them mere
defaults, which onnxruntime can't fold, pack or fuse. Where all are listed, and a layer has its weights among them, they
are listed no more: they can't be fed any longer.

Declines: Constants that are graph outputs themselves, sparse tensors, and Constants in functions (a function has no
initializers); inputs with a default beside initializers that are none.

Source: the ONNX specification, IR.md ("Initializers").
"""

from collections import Counter
from typing import ClassVar

import onnx_ir as ir

from onnxcomp.facts import weights_listed_as_inputs
from onnxcomp.passbase import NoConfig, Pass, PassContext, PassStats

from ._graph import constant_node_tensor, graphs, is_op

__all__ = ["LiftConstants"]


class LiftConstants(Pass[NoConfig]):
    """Turn Constant nodes into initializers, and weights that are inputs too into constants."""

    name: ClassVar[str] = "lift-constants"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the model in place."""
        counts: Counter[str] = Counter()
        for value in weights_listed_as_inputs(model):
            model.graph.inputs.remove(value)
            counts["weights that were inputs"] += 1
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
