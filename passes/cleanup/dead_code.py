"""Remove what no output needs.

::

    y = Relu(x)
    z = Exp(x)          # unused     ==>    y = Relu(x)
    w = initializer     # unused

Unused nodes, initializers, functions and operator set imports go, and so do the notes that exporters attach to graphs,
nodes and values (``doc_string``, ``metadata_props``). What describes the model as a whole stays: its own
``metadata_props`` and ``doc_string``, inputs and outputs. A value that a subgraph uses is used.

Declines: graph inputs stay even where nothing reads them, with their initializers: they are the model's interface.

Correct because ONNX operators have no side effects.

Source: standard dead code elimination; Aho et al., "Compilers: Principles, Techniques, and Tools", 2nd ed., 8.5.
"""

from collections import Counter
from collections.abc import Iterator
from typing import ClassVar

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedFunctionsPass

from onnxcomp.passbase import NoConfig, Pass, PassContext, PassStats

from ._graph import graphs

__all__ = ["RemoveDeadCode"]

_GraphLike = ir.Graph | ir.Function


class RemoveDeadCode(Pass[NoConfig]):
    """Remove unused nodes, initializers, functions and imports, and notes that cost bytes."""

    name: ClassVar[str] = "remove-dead-code"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the model in place."""
        counts: Counter[str] = Counter()
        bodies: list[_GraphLike] = [model.graph, *model.functions.values()]
        counts["nodes removed"] = sum(_remove_nodes(body) for body in bodies)
        counts["functions removed"] = _remove_functions(model)
        counts["initializers removed"] = sum(_remove_initializers(graph) for graph in graphs(model))
        counts["imports removed"] = _remove_imports(model)
        counts["notes removed"] = sum(_remove_notes(body) for body in bodies)
        return PassStats(counts.total() > 0, dict(+counts))


def _remove_nodes(body: _GraphLike) -> int:
    """Remove unused nodes, last first, so that one walk takes whole chains."""
    count = 0
    for node in reversed(tuple(body)):
        if not any(output.uses() or output.is_graph_output() for output in node.outputs):
            _release_subgraphs(node)
            body.remove(node, safe=True)
            count += 1
            continue
        for graph in _subgraphs(node):
            count += _remove_nodes(graph)
    return count


def _release_subgraphs(node: ir.Node) -> None:
    """Take the nodes inside a node that goes off the list of users of outer values."""
    for graph in _subgraphs(node):
        for inner in tuple(graph):
            _release_subgraphs(inner)
            for index in range(len(inner.inputs)):
                inner.replace_input_with(index, None)


def _subgraphs(node: ir.Node) -> Iterator[ir.Graph]:
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type == ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def _remove_functions(model: ir.Model) -> int:
    """Remove the functions that nothing calls, not even another function that is called."""
    count = len(model.functions)
    remove: ir.passes.InPlacePass = RemoveUnusedFunctionsPass()  # type: ignore[no-untyped-call]
    remove(model)
    return count - len(model.functions)


def _remove_initializers(graph: ir.Graph) -> int:
    unused = [
        name
        for name, value in graph.initializers.items()
        if not (value.uses() or value.is_graph_input() or value.is_graph_output())
    ]
    for name in unused:
        graph.initializers.pop(name)
    return len(unused)


def _remove_imports(model: ir.Model) -> int:
    """Remove imports that neither a node nor a function of the model refers to."""
    used = {"", "ai.onnx"} | {node.domain for node in model.graph.all_nodes()}
    for function in model.functions.values():
        used |= {function.domain, *function.opset_imports}
    unused = [domain for domain in model.opset_imports if domain not in used]
    for domain in unused:
        del model.opset_imports[domain]
    return len(unused)


def _remove_notes(body: _GraphLike) -> int:
    """Clear what exporters wrote beside graphs, nodes and values; count the objects that had some."""
    noted: list[_GraphLike | ir.Node | ir.Value] = [body, *body.inputs, *body.all_nodes()]
    noted += list(body.subgraphs())
    noted += [value for node in body.all_nodes() for value in node.outputs]
    count = 0
    for item in noted:
        if item.doc_string or (item.metadata_props and item is not body):
            count += 1
            item.doc_string = None
            if item is not body:
                item.metadata_props.clear()
    return count
