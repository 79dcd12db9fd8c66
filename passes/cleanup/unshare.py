"""Give every layer weights of its own.

::

    a = Conv(x, w)             a = Conv(x, w)
    b = Conv(a, w)      ==>    b = Conv(a, w_1)

Passes that change weights (pruning channels, equalizing ranges) can then treat each layer by itself. The model grows;
``deduplicate-initializers`` takes it back where the copies stayed equal. Not part of the standard cleanup.

Declines: uses that are no weights (shapes, indices, plain arithmetic), and initializers that are graph inputs.

Correct because a copy of a constant is the same constant.

Source: the inverse of ``deduplicate-initializers``.
"""

from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir

from onnxcomp.errors import RecipeError
from onnxcomp.passbase import Pass, PassContext, PassStats

from ._graph import Names, constant, graphs, is_op, set_constant

__all__ = ["UnshareConfig", "UnshareInitializers"]


@dataclass(frozen=True, slots=True)
class UnshareConfig:
    """Settings of unsharing.

    Attributes:
        ops: Operators whose constants, from the second input on, are weights.
        first: Operators whose weights may come as their first input too.
    """

    ops: tuple[str, ...] = (
        "BatchNormalization", "Conv", "ConvTranspose", "GRU", "Gemm", "InstanceNormalization", "LSTM",
        "LayerNormalization", "MatMul", "PRelu", "RNN",
    )  # fmt: skip
    first: tuple[str, ...] = ("MatMul", "Gemm")

    def __post_init__(self) -> None:
        if not self.ops:
            raise RecipeError("ops must name at least one operator")


class UnshareInitializers(Pass[UnshareConfig]):
    """Copy initializers that several layers use as weights."""

    name: ClassVar[str] = "unshare-initializers"
    Config: ClassVar[type[UnshareConfig]] = UnshareConfig
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the model in place."""
        names = Names(model)
        counts: Counter[str] = Counter()
        for graph in graphs(model):
            for value in tuple(graph.initializers.values()):
                counts["copies made"] += self._unshare(value, names, ctx)
        return PassStats(counts.total() > 0, dict(+counts))

    def _unshare(self, value: ir.Value, names: Names, ctx: PassContext) -> int:
        """Copy one initializer for all its uses as a weight but one; return the number of copies."""
        uses = value.uses()
        as_weight = [use for use in uses if self._is_weight(use.node, use.idx)]
        if len(uses) < 2 or not as_weight:
            return 0
        array = constant(value)
        if array is None:
            ctx.skip(as_weight[0].node, f"{value.name} is a graph input, or of a type that is not copied")
            return 0
        alone = len(as_weight) == len(uses) and not value.is_graph_output()
        copied = as_weight[1:] if alone else as_weight  # one may keep the original
        for use in copied:
            set_constant(use.node, use.idx, array, names=names, base=str(value.name))
        return len(copied)

    def _is_weight(self, node: ir.Node, index: int) -> bool:
        if not is_op(node, *self.config.ops):
            return False
        return index > 0 or node.op_type in self.config.first
