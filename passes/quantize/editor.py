"""Adding quantization nodes and constants to a graph: short unique names, equal constants shared."""

import numpy as np
import onnx_ir as ir

from onnxcomp.facts import name_nodes

__all__ = ["GraphEditor", "drop_unused_initializers", "name_nodes"]


class GraphEditor:
    """Makes constants and nodes in one graph; they may be used in its subgraphs.

    Names are short because a small model would otherwise grow by more than its biases.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self._taken = _names(graph)
        self._count = 0
        self._constants: dict[tuple[str, bytes], ir.Value] = {}

    def constant(self, array: np.ndarray | np.generic) -> ir.Value:
        """Return an initializer that holds this array; equal ones are shared."""
        array = np.asarray(array)
        key = (f"{array.dtype}{array.shape}", array.tobytes())
        if key not in self._constants:
            name = self._fresh_name()
            value = ir.val(name, const_value=ir.tensor(array, name=name))
            self.graph.register_initializer(value)
            self._constants[key] = value
        return self._constants[key]

    def node(self, op_type: str, inputs: list[ir.Value | None], *, outputs: int = 1, **attributes: object) -> ir.Node:
        """Return a new node with named outputs; the caller inserts it."""
        node = ir.node(op_type, inputs, attributes=attributes, num_outputs=outputs)  # type: ignore[arg-type]
        for output in node.outputs:
            output.name = self._fresh_name()
        node.name = node.outputs[0].name
        return node

    def after(self, value: ir.Value, nodes: list[ir.Node]) -> None:
        """Insert nodes right behind the producer of a tensor, or first where it is an input of a graph."""
        producer = value.producer()
        graph = value.graph if producer is None else producer.graph
        assert isinstance(graph, ir.Graph)
        if producer is None:
            graph.insert_before(next(iter(graph)), nodes)
        else:
            graph.insert_after(producer, nodes)

    def _fresh_name(self) -> str:
        while (name := f"q{self._count}") in self._taken:
            self._count += 1
        self._taken.add(name)
        return name


def drop_unused_initializers(graph: ir.Graph) -> None:
    """Remove the weights that nothing reads any more, in bodies too: else the file would grow instead of shrink."""
    for part in (graph, *graph.subgraphs()):
        for name, value in list(part.initializers.items()):
            if not value.uses() and not value.is_graph_output() and not value.is_graph_input():
                del part.initializers[name]


def _names(graph: ir.Graph) -> set[str]:
    """Return every name that nodes and tensors use, in the graph and in subgraphs."""
    names = {str(value.name) for value in (*graph.inputs, *graph.initializers.values())}
    for node in graph.all_nodes():
        names |= {str(node.name), *(str(value.name) for value in node.outputs)}
        for attribute in node.attributes.values():
            if attribute.type is ir.AttributeType.GRAPH:
                names |= {str(value.name) for value in attribute.as_graph().inputs}
                names |= set(attribute.as_graph().initializers)
    return names
