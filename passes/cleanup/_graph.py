"""Questions and edits that the cleanup passes share: constants, consumers, names, values that change places."""

from collections.abc import Collection, Iterator

import numpy as np
import onnx_ir as ir

__all__ = [
    "Names",
    "bypass",
    "constant",
    "constant_dtype",
    "constant_node_tensor",
    "float_attribute",
    "float_constant",
    "graphs",
    "int_attribute",
    "ints_attribute",
    "is_constant",
    "is_op",
    "onnx_domain",
    "opset_of",
    "remove_if_unused",
    "set_constant",
    "sole_consumer",
    "stages",
]

_PLAIN_KINDS = "biuf"
_ONNX_DOMAINS = ("", "ai.onnx")


class Names:
    """Hands out names of values or nodes that are new to the whole model: subgraphs may not shadow outer names."""

    def __init__(self, model: ir.Model) -> None:
        self._taken: set[str] = set()
        for graph in graphs(model):
            self._taken.update(value.name for value in graph.inputs if value.name)
            self._taken.update(graph.initializers)
            self._taken.update(value.name for node in graph for value in node.outputs if value.name)
            self._taken.update(node.name for node in graph if node.name)

    def fresh(self, base: str) -> str:
        """Return ``base``, or ``base_1``, ``base_2``... where that is taken, and take it."""
        name, count = base, 0
        while name in self._taken:
            count += 1
            name = f"{base}_{count}"
        self._taken.add(name)
        return name


def graphs(model: ir.Model) -> Iterator[ir.Graph]:
    """Yield the graph and its subgraphs; not the bodies of functions, which can hold no initializers."""
    yield from model.graphs()


def onnx_domain(node: ir.Node) -> bool:
    """Say whether the node's operator is one of the ONNX standard's own."""
    return node.domain in _ONNX_DOMAINS


def is_op(node: ir.Node | None, *op_types: str) -> bool:
    """Say whether the node is one of these operators of the ONNX standard."""
    return node is not None and onnx_domain(node) and node.op_type in op_types


def opset_of(model: ir.Model) -> int:
    """Return the version of the default operator set (0 where the model imports none)."""
    return model.opset_imports.get("", model.opset_imports.get("ai.onnx", 0))


def constant(value: ir.Value | None) -> np.ndarray | None:
    """Return the value as an array where no caller can change it.

    An initializer that is also a graph input is only a default. Strings, 4-bit and other types that numpy
    has no arithmetic for count as unknown.
    """
    tensor = _tensor(value)
    if tensor is None or tensor.dtype.is_string():
        return None
    array = np.asarray(tensor.numpy())
    return array if array.dtype.kind in _PLAIN_KINDS or tensor.dtype == ir.DataType.BFLOAT16 else None


def float_constant(value: ir.Value | None) -> np.ndarray | None:
    """Return a constant of a floating-point type in float64, ``None`` for anything else."""
    array, tensor = constant(value), _tensor(value)
    if array is None or tensor is None or not tensor.dtype.is_floating_point():
        return None
    return array.astype(np.float64)


def constant_dtype(value: ir.Value | None) -> np.dtype[np.generic] | None:
    """Return the type of a constant."""
    tensor = _tensor(value)
    return None if tensor is None else np.dtype(tensor.dtype.numpy())


def is_constant(value: ir.Value | None) -> bool:
    """Say whether the value is an initializer that nobody can override, or the output of a Constant node."""
    return _tensor(value) is not None


def sole_consumer(value: ir.Value) -> ir.Node | None:
    """Return the node that alone uses the value, once; uses inside subgraphs and as a graph output count."""
    uses = value.uses()
    if len(uses) != 1 or value.is_graph_output():
        return None
    return next(iter(uses)).node


def int_attribute(node: ir.Node, name: str, default: int) -> int:
    """Return an integer attribute, or the default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def float_attribute(node: ir.Node, name: str, default: float) -> float:
    """Return a float attribute, or the default."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()


def ints_attribute(node: ir.Node, name: str) -> tuple[int, ...] | None:
    """Return an attribute that is a list of integers, ``None`` where it is absent."""
    attribute = node.attributes.get(name)
    return None if attribute is None else tuple(attribute.as_ints())


def bypass(node: ir.Node, source: ir.Value) -> bool:
    """Let ``source`` take the place of the node's first output, and remove the node.

    A graph output keeps its name: the value computed in its place takes that name over. Where it can't (a graph
    input, an initializer, another output, a value of an outer graph) nothing changes and the answer is False.
    """
    output, graph = node.outputs[0], node.graph
    if graph is None:
        return False
    if output.is_graph_output():
        producer = source.producer()
        if producer is None or producer.graph is not graph or source.is_graph_output():
            return False
        name, declared_type, declared_shape = output.name, output.type, output.shape
        output.replace_all_uses_with(source, replace_graph_outputs=True)
        source.name = name
        source.type, source.shape = declared_type or source.type, declared_shape or source.shape
    else:
        output.replace_all_uses_with(source)
    inputs = list(node.inputs)
    graph.remove(node, safe=True)
    for value in inputs:
        remove_if_unused(value)
    return True


def remove_if_unused(value: ir.Value | None) -> None:
    """Drop an initializer that nothing uses any more; graph inputs and outputs stay."""
    if value is None or not value.is_initializer() or value.uses():
        return
    if value.is_graph_input() or value.is_graph_output():
        return
    graph = value.graph
    if graph is not None and value.name is not None:
        graph.initializers.pop(value.name)


def set_constant(node: ir.Node, index: int, array: np.ndarray, *, names: Names, base: str) -> None:
    """Give a node a constant of its own as input ``index``.

    An initializer that only this node uses is changed in place and keeps its name. One that is shared stays as it
    is for the others.

    Args:
        node: Gets the constant; it must lie in a graph.
        index: Which input; the node grows if it has fewer.
        array: The new content.
        names: Of the model.
        base: Name of a new initializer where there was none.
    """
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    old = node.inputs[index]
    tensor = ir.tensor(np.asarray(array, order="C"))  # ascontiguousarray gives scalars an axis
    if old is not None and old.is_initializer() and len(old.uses()) == 1 and _is_private(old):
        tensor.name = old.name
        old.const_value, old.shape, old.type = tensor, ir.Shape(array.shape), ir.TensorType(tensor.dtype)
        return
    name = names.fresh(base if old is None or not old.name else old.name)
    tensor.name = name
    value = ir.Value(name=name, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype), const_value=tensor)
    graph = node.graph
    if not isinstance(graph, ir.Graph):
        raise TypeError(f"node {node.name!r} lies in no graph")
    graph.register_initializer(value)
    node.replace_input_with(index, value)
    remove_if_unused(old)


def _is_private(value: ir.Value) -> bool:
    return not value.is_graph_input() and not value.is_graph_output()


def _tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the tensor behind a constant value, ``None`` where there is none."""
    if value is None or value.is_graph_input():
        return None
    if value.is_initializer():
        return value.const_value
    producer = value.producer()
    if not is_op(producer, "Constant") or producer is None:
        return None
    return constant_node_tensor(producer)


def constant_node_tensor(node: ir.Node) -> ir.TensorProtocol | None:
    """Return what a Constant node holds as a tensor; ``None`` for sparse tensors and references to attributes."""
    attribute = next(iter(node.attributes.values()), None)
    if attribute is None or len(node.attributes) != 1 or attribute.is_ref():
        return None
    tensor: ir.TensorProtocol | None = None
    match attribute.name:
        case "value":
            tensor = attribute.as_tensor()
        case "value_int" | "value_ints":
            tensor = ir.tensor(np.asarray(attribute.value, dtype=np.int64))
        case "value_float" | "value_floats":
            tensor = ir.tensor(np.asarray(attribute.value, dtype=np.float32))
        case "value_string":
            tensor = ir.StringTensor([attribute.as_string().encode()], shape=ir.Shape(()))
        case "value_strings":
            strings = [text.encode() for text in attribute.as_strings()]
            tensor = ir.StringTensor(strings, shape=ir.Shape((len(strings),)))
    return tensor


def stages(graph: ir.Graph, nodes: Collection[ir.Node]) -> list[list[ir.Node]]:
    """Group nodes by the most of them that lie on a way to each from the inputs: none of a group feeds another."""
    depths: dict[ir.Node, int] = {}
    found: list[list[ir.Node]] = []
    for node in graph:
        makers = [made for value in node.inputs if value is not None and (made := value.producer()) is not None]
        depths[node] = max((depths.get(made, 0) for made in makers), default=0)
        if node in nodes:
            found[depths[node] :] = found[depths[node] :] or [[]]
            found[depths[node]].append(node)
            depths[node] += 1
    return found
