"""Mutations of real models: of their bytes, and of what their fields say."""

import contextlib
import random
from collections.abc import Callable, Iterator

from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

__all__ = ["MUTATIONS", "mutated"]

_DIMS = (-1, -(2**63), 0, 1, 2, 7, 1000, 2**20, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1)
_OPS = ("Add", "Cast", "Concat", "Constant", "ConstantOfShape", "Conv", "DequantizeLinear", "Expand", "Gather", "Gemm",
        "Identity", "If", "LSTM", "Loop", "MatMul", "Pad", "QuantizeLinear", "Range", "Reshape", "Resize", "Scan",
        "Shape", "Slice", "Split", "Squeeze", "Tile", "TopK", "Transpose", "Unsqueeze", "Where", "",
        "NoSuchOp")  # fmt: skip
_DOMAINS = ("", "ai.onnx", "com.microsoft", "ai.onnx.ml", "nowhere")
_DEPTHS = (2, 8, 15, 24)  # protobuf itself refuses 100 levels of messages: four for each body


def mutated(content: bytes, others: list[bytes], seed: int) -> tuple[str, bytes]:
    """Return the name of the mutation that a seed stands for, and what it makes of a model."""
    rng = random.Random(seed)
    name = rng.choice(sorted(MUTATIONS))
    if name in BYTES:
        return name, BYTES[name](rng, content, rng.choice(others))
    proto = ModelProto.FromString(content)
    for _ in range(rng.choice((1, 1, 1, 3))):
        with contextlib.suppress(DecodeError):  # nested deeper than protobuf goes
            FIELDS[name](rng, proto)
    return name, proto.SerializePartialToString()


def _flip(rng: random.Random, content: bytes, _: bytes) -> bytes:
    changed = bytearray(content)
    # Most bytes are weights: the graph is at the ends, and there is more to break
    edge = min(len(changed), 4000)
    for _ in range(rng.choice((1, 1, 4, 32))):
        place = rng.randrange(edge)
        changed[place if rng.random() < 0.5 else -1 - place] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _overwrite(rng: random.Random, content: bytes, _: bytes) -> bytes:
    start = rng.randrange(len(content))
    run = rng.choice((b"\xff", b"\x00", b"\x80")) * rng.choice((1, 4, 10, 100))
    return content[:start] + run + content[start + len(run) :]


def _truncate(rng: random.Random, content: bytes, _: bytes) -> bytes:
    return content[: rng.randrange(len(content))]


def _insert(rng: random.Random, content: bytes, _: bytes) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + rng.randbytes(rng.choice((1, 2, 8, 100))) + content[start:]


def _delete(rng: random.Random, content: bytes, _: bytes) -> bytes:
    start = rng.randrange(len(content))
    return content[:start] + content[start + rng.choice((1, 2, 8, 100)) :]


def _splice(rng: random.Random, content: bytes, other: bytes) -> bytes:
    return content[: rng.randrange(len(content))] + other[rng.randrange(len(other)) :]


def _append(rng: random.Random, content: bytes, other: bytes) -> bytes:
    return content + (other if rng.random() < 0.5 else content)  # protobuf merges messages that follow each other


BYTES: dict[str, Callable[[random.Random, bytes, bytes], bytes]] = {
    "flip bits": _flip,
    "overwrite": _overwrite,
    "truncate": _truncate,
    "insert": _insert,
    "delete": _delete,
    "splice": _splice,
    "append": _append,
}


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for body in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _graphs(body)


def _graph(rng: random.Random, proto: ModelProto) -> GraphProto:
    return rng.choice(list(_graphs(proto.graph)))


def _node(rng: random.Random, proto: ModelProto) -> NodeProto:
    nodes = [node for graph in _graphs(proto.graph) for node in graph.node]
    return rng.choice(nodes) if nodes else proto.graph.node.add()


def _tensor(rng: random.Random, proto: ModelProto) -> TensorProto:
    tensors = [tensor for graph in _graphs(proto.graph) for tensor in graph.initializer]
    tensors += [a.t for graph in _graphs(proto.graph) for n in graph.node for a in n.attribute if a.HasField("t")]
    return rng.choice(tensors) if tensors else proto.graph.initializer.add()


def _attribute(rng: random.Random, proto: ModelProto) -> AttributeProto:
    attributes = [a for graph in _graphs(proto.graph) for node in graph.node for a in node.attribute]
    return rng.choice(attributes) if attributes else _node(rng, proto).attribute.add()


def _names(proto: ModelProto) -> list[str]:
    found = {name for graph in _graphs(proto.graph) for node in graph.node for name in (*node.input, *node.output)}
    return [*sorted(found), "", "nowhere"]


def _dims(rng: random.Random, proto: ModelProto) -> None:
    tensor = _tensor(rng, proto)
    if tensor.dims and rng.random() < 0.8:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(_DIMS)
    else:
        tensor.dims.extend(rng.choices(_DIMS, k=rng.choice((1, 2, 60))))


def _data_type(rng: random.Random, proto: ModelProto) -> None:
    _tensor(rng, proto).data_type = rng.choice((*range(30), -1, 99, 2**31 - 1))


def _raw_data(rng: random.Random, proto: ModelProto) -> None:
    tensor = _tensor(rng, proto)
    choice = rng.randrange(5)
    if choice == 0:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    elif choice == 1:
        tensor.raw_data += rng.randbytes(rng.choice((1, 3, 1000)))
    elif choice == 2:
        tensor.ClearField("raw_data")
    elif choice == 3:
        tensor.float_data.extend([0.5] * rng.choice((1, 10)))
    else:
        tensor.raw_data = rng.randbytes(len(tensor.raw_data))  # also NaN, infinity, absurd shapes and axes


def _external(rng: random.Random, proto: ModelProto) -> None:
    tensor = _tensor(rng, proto)
    tensor.data_location = TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    places = ("/dev/zero", "/etc/passwd", "../x", "", ".", "model.onnx", "\0", "a" * 5000)
    tensor.external_data.add(key="location", value=rng.choice(places))
    for key in ("offset", "length"):
        tensor.external_data.add(key=key, value=rng.choice(("0", "-1", "4", str(2**63), "1e9", "x")))


def _attribute_type(rng: random.Random, proto: ModelProto) -> None:
    _attribute(rng, proto).type = rng.randrange(15)  # type: ignore[assignment]


def _attribute_value(rng: random.Random, proto: ModelProto) -> None:
    attribute = _attribute(rng, proto)
    if attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(_DIMS)
    else:
        attribute.i = rng.choice(_DIMS)
    if rng.random() < 0.3:
        attribute.ints.extend(rng.choices(_DIMS, k=rng.choice((1, 100))))
    attribute.f = rng.choice((0.0, float("nan"), float("inf"), -1e38))


def _attribute_lost(rng: random.Random, proto: ModelProto) -> None:
    node = _node(rng, proto)
    if node.attribute:
        index = rng.randrange(len(node.attribute))
        if rng.random() < 0.5:
            node.attribute.append(node.attribute[index])
        else:
            del node.attribute[index]


def _attribute_reference(rng: random.Random, proto: ModelProto) -> None:
    _attribute(rng, proto).ref_attr_name = "nowhere"


def _rename_input(rng: random.Random, proto: ModelProto) -> None:
    node, names = _node(rng, proto), _names(proto)  # dangling names, cycles, tensors of other types and graphs
    if node.input and rng.random() < 0.9:
        node.input[rng.randrange(len(node.input))] = rng.choice(names)
    else:
        node.input.extend(rng.choices(names, k=rng.choice((1, 50))))


def _rename_output(rng: random.Random, proto: ModelProto) -> None:
    node, names = _node(rng, proto), _names(proto)
    if node.output and rng.random() < 0.9:
        node.output[rng.randrange(len(node.output))] = rng.choice(names)
    else:
        node.output.extend(rng.choices(names, k=rng.choice((1, 50))))


def _input_lost(rng: random.Random, proto: ModelProto) -> None:
    node = _node(rng, proto)
    for names in (node.input, node.output):
        if names and rng.random() < 0.5:
            del names[rng.randrange(len(names))]


def _operator(rng: random.Random, proto: ModelProto) -> None:
    node = _node(rng, proto)
    node.op_type = rng.choice(_OPS)
    if rng.random() < 0.2:
        node.domain = rng.choice(_DOMAINS)


def _nodes(rng: random.Random, proto: ModelProto) -> None:
    graph = _graph(rng, proto)
    if not graph.node:
        return
    index = rng.randrange(len(graph.node))
    if rng.random() < 0.3:
        graph.node.append(graph.node[index])
    elif rng.random() < 0.5:
        del graph.node[index]
    else:
        graph.node.sort(key=lambda _: rng.random())


def _initializer(rng: random.Random, proto: ModelProto) -> None:
    graph = _graph(rng, proto)
    names = _names(proto)
    if graph.initializer and rng.random() < 0.5:
        graph.initializer.append(graph.initializer[rng.randrange(len(graph.initializer))])
    if graph.initializer:
        graph.initializer[rng.randrange(len(graph.initializer))].name = rng.choice(names)


def _interface(rng: random.Random, proto: ModelProto) -> None:
    graph = _graph(rng, proto)
    values = list(graph.input) + list(graph.output)
    if not values:
        return
    value = rng.choice(values)
    choice = rng.randrange(5)
    if choice == 0:
        value.name = rng.choice(_names(proto))
    elif choice == 1:
        value.type.tensor_type.elem_type = rng.choice((*range(30), -1))
    elif choice == 2:
        for dimension in value.type.tensor_type.shape.dim:
            dimension.dim_value = rng.choice(_DIMS)
    elif choice == 3:
        value.type.sequence_type.elem_type.tensor_type.elem_type = rng.randrange(20)
    else:
        value.ClearField("type")


def _imports(rng: random.Random, proto: ModelProto) -> None:
    choice = rng.randrange(4)
    if choice == 0 and proto.opset_import:
        proto.opset_import[0].version = rng.choice((-1, 0, 1, 5, 7, 9, 11, 13, 23, 27, 1000, 2**62))
    elif choice == 1:
        proto.opset_import.add(domain=rng.choice(_DOMAINS), version=rng.choice((-1, 1, 18, 2**62)))
    elif choice == 2:
        del proto.opset_import[:]
    else:
        proto.ir_version = rng.choice((-1, 0, 1, 3, 4, 10, 99, 2**62))


def _function(rng: random.Random, proto: ModelProto) -> None:
    node = _node(rng, proto)  # calls itself, or another that calls it
    names = ("F", "G") if rng.random() < 0.5 else ("F", "F")
    for caller, callee in (names, names[::-1]):
        body = [helper.make_node(callee, ["a"], ["b"], domain="own")]
        imports = [helper.make_opsetid("own", 1)]
        proto.functions.append(helper.make_function("own", caller, ["a"], ["b"], body, imports))
    proto.opset_import.add(domain="own", version=1)
    node.op_type, node.domain = "F", "own"
    del node.input[1:], node.output[1:], node.attribute[:]


def _nest(rng: random.Random, proto: ModelProto) -> None:
    """Put a node inside of branches inside of branches."""
    graph = proto.graph
    if not graph.node:
        return
    node = graph.node[rng.randrange(len(graph.node))]
    graph.initializer.append(helper.make_tensor("always", TensorProto.BOOL, [], [True]))
    inner, outputs = NodeProto.FromString(node.SerializeToString()), list(node.output)
    for level in range(rng.choice(_DEPTHS)):
        results = [helper.make_empty_tensor_value_info(name) for name in inner.output]
        body = helper.make_graph([inner], f"level{level}", [], results)
        other = [helper.make_node("Identity", [graph.input[0].name if graph.input else "x"], [f"{name}_e{level}"])
                 for name in outputs]  # fmt: skip
        results = [helper.make_empty_tensor_value_info(node.output[0]) for node in other]
        inner = helper.make_node(
            "If",
            ["always"],
            [f"{name}_{level}" for name in outputs],
            then_branch=body,
            else_branch=helper.make_graph(other, f"other{level}", [], results),
        )
    inner.output[:] = outputs
    node.CopyFrom(inner)


def _metadata(rng: random.Random, proto: ModelProto) -> None:
    text = rng.choice(("", "[[pass]]", "x" * 100000, "schema_version=1"))
    proto.metadata_props.add(key="onnxcomp.recipe", value=text)
    proto.metadata_props.add(key="onnxcomp.recipe", value="twice")
    proto.graph.name = rng.choice(("", "a" * 100000, "\n\0"))
    sparse = proto.graph.sparse_initializer.add()
    sparse.dims.extend(rng.choices(_DIMS, k=2))
    sparse.values.name = "sparse"


FIELDS: dict[str, Callable[[random.Random, ModelProto], None]] = {
    "dims": _dims,
    "data type": _data_type,
    "raw data": _raw_data,
    "external data": _external,
    "attribute type": _attribute_type,
    "attribute value": _attribute_value,
    "attribute lost": _attribute_lost,
    "attribute reference": _attribute_reference,
    "input name": _rename_input,
    "output name": _rename_output,
    "input lost": _input_lost,
    "operator": _operator,
    "nodes": _nodes,
    "initializer": _initializer,
    "interface": _interface,
    "imports": _imports,
    "functions": _function,
    "nesting": _nest,
    "metadata": _metadata,
}
MUTATIONS = (*BYTES, *FIELDS)
