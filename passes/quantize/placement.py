"""Which nodes run in integers: the plan that static quantization follows.

Before, after (``q`` is QuantizeLinear + DequantizeLinear)::

    x -> Conv -> Relu -> Add -> Softmax
    x -> q -> Conv -> Relu -> q -> Add -> q -> Softmax

Anchors (Conv, Gemm, MatMul with constant weights) are worth it by themselves. Joins (Add, pooling ...) have an integer
kernel but pay only between integer neighbours; movers (Reshape ...) pass integers on. The plan starts with all of them
and takes away joins and movers that have no integer producer or no integer consumer, until nothing changes: so a
detection head's last Concat or a final Softmax stays float. Source: which QDQ groups onnxruntime's CPU provider fuses.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from onnxcomp.passbase import PassContext
from onnxcomp.target import Role, Target

__all__ = ["Placement", "constant", "plan", "scale_factor", "scaled_axis"]

_RELUS = frozenset({"Relu", "Clip"})
_BIAS_INDEX = {"Conv": 2, "Gemm": 2}


@dataclass(slots=True)
class Placement:
    """The nodes that will run in integers.

    Attributes:
        roles: Role of each such node, in graph order.
        tails: The Relu or Clip that a node's quantizer absorbs.
        float_outputs: Operators that are rounded only where integers read their result (``Target.float_outputs``).
    """

    float_outputs: frozenset[str]
    roles: dict[ir.Node, Role] = field(default_factory=dict)
    tails: dict[ir.Node, ir.Node] = field(default_factory=dict)

    def output(self, node: ir.Node) -> ir.Value:
        """The tensor at which the node's result is quantized: behind its tail, where it has one."""
        return self.tails.get(node, node).outputs[0]

    def is_source(self, value: ir.Value) -> bool:
        """Whether an integer node makes this tensor."""
        node = value.producer()
        return node is not None and (node in self.roles or node in self.tails.values())

    def feeds_integers(self, value: ir.Value) -> bool:
        """Whether an integer node reads this tensor as an activation."""
        return any(
            node in self.roles and any(value is v for v in activations(node, self.roles[node]))
            for node in value.consumers()
        )

    def rounds_output(self, node: ir.Node) -> bool:
        """Whether an anchor's or a join's result is quantized."""
        output = self.output(node)
        # A product with float output would be fused with its Relu, to a float operator
        absorbs = node in self.tails and not output.is_graph_output()
        return node.op_type not in self.float_outputs or self.feeds_integers(output) or absorbs


def plan(
    graph: ir.Graph,
    ctx: PassContext,
    *,
    anchors: Collection[str],
    exclude: Collection[str],
) -> Placement:
    """Choose the nodes that will run in integers.

    Args:
        graph: A typed graph; only its own nodes are considered, not those of subgraphs.
        ctx: Tells the target; nodes that are declined are recorded in it.
        anchors: Operator types that may be anchors.
        exclude: Names of nodes to leave float.
    """
    placement = Placement(ctx.target.float_outputs)
    for node in graph:
        role = _role(node, ctx.target)
        if role is None or (role is Role.ANCHOR and node.op_type not in anchors):
            continue
        if node.name in exclude:
            ctx.skip(node, "excluded")
        elif reason := _why_not(node, role):
            ctx.skip(node, reason)
        else:
            placement.roles[node] = role
    _find_tails(placement)
    _drop_isolated(placement, ctx)
    return placement


def activations(node: ir.Node, role: Role) -> Iterator[ir.Value]:
    """Yield the inputs of a node that are float tensors computed at run time and enter its integer kernel."""
    inputs = node.inputs[:1] if role is Role.MOVE else node.inputs
    for index, value in enumerate(inputs):
        if value is None or (node.op_type == "Where" and index == 0):
            continue
        if constant(value) is None:
            yield value


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """Return the tensor of an initializer that no caller can override, else None."""
    if value is None or not value.is_initializer() or value.is_graph_input():
        return None
    return value.const_value


def scaled_axis(node: ir.Node) -> int:
    """Return the axis of a node's weight that holds the output channels."""
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if node.attributes.get_int("transB", 0) else 1
    return len(node.inputs[1].shape or ()) - 1 if node.inputs[1] is not None else 0


def scale_factor(node: ir.Node) -> float | None:
    """Return the positive constant that a Mul or Div multiplies by, where it does nothing else."""
    if node.op_type not in ("Mul", "Div") or len(node.inputs) != 2:
        return None
    index = 1 if constant(node.inputs[1]) is not None else 0
    tensor = constant(node.inputs[index])
    if tensor is None or tensor.size != 1 or len(tensor.shape) > 1 or (node.op_type == "Div" and index == 0):
        return None
    if tensor.dtype != ir.DataType.FLOAT:
        return None
    number = float(tensor.numpy().reshape(-1)[0])
    if not (np.isfinite(number) and number > 0):
        return None
    return number if node.op_type == "Mul" else 1 / number


def _role(node: ir.Node, target: Target) -> Role | None:
    """Return what a node would be in integers, if anything."""
    role = target.roles.get(node.op_type) if node.domain == "" else None
    if role is Role.ANCHOR and not _has_constant_weight(node):
        return Role.JOIN
    if role is Role.JOIN and scale_factor(node) is not None:
        return Role.SCALE
    return role


def _has_constant_weight(node: ir.Node) -> bool:
    return len(node.inputs) > 1 and constant(node.inputs[1]) is not None


def _why_not(node: ir.Node, role: Role) -> str | None:
    """Say why a node can't run in integers, or None where it can."""
    if len(node.outputs) != 1 and node.op_type != "Split":
        return "has several outputs"
    values = [*activations(node, role), *(v for v in node.outputs if v.name)]
    if any(v.dtype is None for v in values):
        return "the type of a tensor is unknown"
    if any(v.dtype != ir.DataType.FLOAT for v in values):
        return "not float32"
    if not any(True for _ in activations(node, role)):
        return "all inputs are constant"
    if any(value.is_initializer() for value in activations(node, role)):
        return "a caller may override an operand"
    return _why_not_op(node, role)


def _why_not_op(node: ir.Node, role: Role) -> str | None:
    if role is Role.ANCHOR:
        return _why_not_anchor(node)
    if node.op_type == "Div" and role is Role.JOIN:
        return "no integer kernel for this form"
    if node.op_type == "Gemm" or (
        node.op_type == "Resize" and node.attributes.get_string("mode", "nearest") != "nearest"
    ):
        return "no integer kernel for this form"
    if node.op_type == "Where" and any(constant(v) is not None for v in node.inputs[1:]):
        return "a branch is constant"
    constants = [c for v in node.inputs if (c := constant(v)) is not None] if role is Role.JOIN else []
    if any(c.dtype != ir.DataType.FLOAT or not np.isfinite(c.numpy()).all() for c in constants):
        return "an operand is not finite float32"
    return None


def _why_not_anchor(node: ir.Node) -> str | None:
    weight = constant(node.inputs[1])
    assert weight is not None
    if weight.dtype != ir.DataType.FLOAT:
        return "the weight is not float32"
    if not np.isfinite(weight.numpy()).all():
        return "the weight holds NaN or infinity"
    bias_index = _BIAS_INDEX.get(node.op_type)
    if bias_index is not None and len(node.inputs) > bias_index and (bias := node.inputs[bias_index]) is not None:
        value = constant(bias)
        if value is None or value.numpy().reshape(-1).shape[0] != weight.shape.numpy()[scaled_axis(node)]:
            return "the bias is no constant vector of the output channels"
        if not np.isfinite(value.numpy()).all():
            return "the bias holds NaN or infinity"
    if node.op_type == "Gemm" and (
        node.attributes.get_float("alpha", 1.0) != 1.0
        or node.attributes.get_float("beta", 1.0) != 1.0
        or node.attributes.get_int("transA", 0) != 0
    ):
        return "alpha, beta or transA is set"
    if node.op_type == "MatMul" and len(weight.shape) != 2:
        return "the weight is not a matrix"
    return None


def _find_tails(placement: Placement) -> None:
    """Give each anchor or join the Relu or Clip behind it, where only that reads its result.

    An asymmetric quantizer has no level below 0 for a tensor that never is, so it does what the Relu did.
    A symmetric one is for runtimes that do the Relu before they round.
    """
    for node, role in placement.roles.items():
        consumers = node.outputs[0].consumers()
        if role in (Role.MOVE, Role.SCALE) or node.outputs[0].is_graph_output() or len(consumers) != 1:
            continue
        tail = consumers[0]
        same_graph = tail.op_type in _RELUS and tail.graph is node.graph and tail.inputs[0] is node.outputs[0]
        if same_graph and (tail.op_type == "Relu" or _clips_around_zero(tail)):
            placement.tails[node] = tail


def _clips_around_zero(clip: ir.Node) -> bool:
    for index, sign in ((1, -1), (2, 1)):
        if len(clip.inputs) > index and (bound := clip.inputs[index]) is not None:
            value = constant(bound)
            if value is None or value.numpy().item() * sign < 0:
                return False
    return True


def _drop_isolated(placement: Placement, ctx: PassContext) -> None:
    """Take away, until nothing changes, joins and movers that have no integer producer or no integer consumer."""
    changed = True
    while changed:
        changed = False
        for node, role in list(placement.roles.items()):
            if role is Role.ANCHOR:
                continue
            fed = any(placement.is_source(v) for v in activations(node, role))
            outputs = node.outputs if role is Role.MOVE else [placement.output(node)]
            if not fed or not any(placement.feeds_integers(v) for v in outputs):
                del placement.roles[node]
                placement.tails.pop(node, None)
                ctx.skip(node, "no integer producer" if not fed else "no integer consumer")
                changed = True
