"""Take out of a loop's state what no iteration changes.

::

    Loop(n, c, w, s)                               Loop(n, c, s)
      body(i, c, w_in, s_in):                        body(i, c, s_in):
        s_out = MatMul(s_in, w_in)        ==>          s_out = MatMul(s_in, w)
        w_out = Identity(w_in)                         -> c, s_out
        -> c, w_out, s_out

Exporters of recurrent networks carry the weights of a cell through every iteration. A body can read them where they
are: then they are constants, which other passes and the runtime can work with.

Declines: values that the loop returns to the caller of the model.

Correct because the state after any number of iterations, none included, is the state before the first.

Source: loop-invariant code motion; Aho et al., "Compilers: Principles, Techniques, and Tools", 2nd ed., 9.1.7.
"""

from typing import ClassVar

import onnx_ir as ir

from onnxcomp.passbase import NoConfig, Pass, PassContext, PassStats

from ._graph import graphs, is_op

__all__ = ["HoistLoopInvariants"]

_OWN = 2  # inputs of a Loop, and of its body, before the state: trip count or iteration, and condition


class HoistLoopInvariants(Pass[NoConfig]):
    """Let the body of a Loop read what never changes where it is, instead of carrying it as state."""

    name: ClassVar[str] = "hoist-loop-invariants"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the model in place."""
        count = 0
        for graph in tuple(graphs(model)):
            for node in tuple(graph):
                if is_op(node, "Loop"):
                    count += _hoist(node, ctx)
        return PassStats(count > 0, {"loop states hoisted": count} if count else {})


def _hoist(loop: ir.Node, ctx: PassContext) -> int:
    """Shorten the state of one loop; return by how much."""
    body = loop.attributes["body"].as_graph()
    fixed = []
    for index, inner in enumerate(body.inputs[_OWN:]):
        carried = body.outputs[1 + index]
        if loop.inputs[_OWN + index] is None or _through_identities(carried) is not inner:
            continue
        elsewhere = sum(value is inner for value in body.outputs) - (carried is inner)
        if loop.outputs[index].is_graph_output() or elsewhere:
            ctx.skip(loop, f"state {inner.name} is returned")
        else:
            fixed.append(index)
    moved = [(body.inputs[_OWN + index], loop.inputs[_OWN + index], loop.outputs[index]) for index in fixed]
    for index in reversed(fixed):
        body.outputs.pop(1 + index)
        body.inputs.pop(_OWN + index)
    for inner, outer, result in moved:
        assert outer is not None
        inner.replace_all_uses_with(outer)
        result.replace_all_uses_with(outer)
    if not fixed:
        return 0
    left = [i for i in range(len(loop.outputs)) if i not in fixed]
    inputs = [value for i, value in enumerate(loop.inputs) if i - _OWN not in fixed]
    new = ir.Node(loop.domain, "Loop", inputs, [ir.AttrGraph("body", body)], num_outputs=len(left), name=loop.name)
    for value, index in zip(new.outputs, left, strict=True):
        old = loop.outputs[index]
        value.name, value.type, value.shape = old.name, old.type, old.shape
        old.replace_all_uses_with(value, replace_graph_outputs=True)
    graph = loop.graph
    assert graph is not None
    graph.insert_before(loop, new)
    graph.remove(loop, safe=True)
    return len(fixed)


def _through_identities(value: ir.Value) -> ir.Value | None:
    producer = value.producer()
    while is_op(producer, "Identity"):
        assert producer is not None
        source = producer.inputs[0]
        if source is None:
            return None
        value, producer = source, source.producer()
    return value
