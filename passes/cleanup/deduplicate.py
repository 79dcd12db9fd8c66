"""Store equal tensors once.

::

    a = initializer [1, 2, 3]
    b = initializer [1, 2, 3]         a = initializer [1, 2, 3]
    y = Add(Mul(x, a), b)      ==>    y = Add(Mul(x, a), a)

Equal means the same type, shape and bytes (so ``0.0`` and ``-0.0`` differ). Tensors are compared by digest and then
byte by byte; only those that share type and shape with another are read at all.

Declines: initializers that are graph inputs (a caller may override one and not the other) or graph outputs (they need
their names). Works within each graph; a tensor of a subgraph is not merged with one outside.

Correct because initializers are constants: which of two equal ones a node reads makes no difference.

Source: hash consing; Ershov, "On programming of arithmetic operations", CACM 1958.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable
from typing import ClassVar

import onnx_ir as ir

from onnxcomp.passbase import NoConfig, Pass, PassContext, PassStats

from ._graph import graphs, remove_if_unused

__all__ = ["DeduplicateInitializers"]


class DeduplicateInitializers(Pass[NoConfig]):
    """Store equal initializers of a graph once."""

    name: ClassVar[str] = "deduplicate-initializers"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the model in place."""
        counts: Counter[str] = Counter()
        for graph in graphs(model):
            alike: dict[Hashable, list[ir.Value]] = defaultdict(list)
            for value in graph.initializers.values():
                tensor = value.const_value
                if tensor is not None and not value.is_graph_input() and not value.is_graph_output():
                    alike[tensor.dtype, tuple(tensor.shape.numpy())].append(value)
            for values in alike.values():
                if len(values) > 1:
                    counts["initializers removed"] += _merge(values)
        return PassStats(counts.total() > 0, dict(+counts))


def _merge(values: Iterable[ir.Value]) -> int:
    """Let the first of equal values stand for all; return how many went."""
    kept: dict[bytes, list[ir.Value]] = defaultdict(list)
    count = 0
    for value in values:
        content = _content(value)
        same_digest = kept[hashlib.blake2b(content).digest()]
        twin = next((other for other in same_digest if _content(other) == content), None)
        if twin is None:
            same_digest.append(value)
        else:
            value.replace_all_uses_with(twin)
            remove_if_unused(value)
            count += 1
    return count


def _content(value: ir.Value) -> bytes:
    tensor = value.const_value
    assert tensor is not None
    if isinstance(tensor, ir.StringTensor) or tensor.dtype.is_string():
        strings = [bytes(text) for text in tensor.string_data()]  # type: ignore[attr-defined]
        return b"".join(len(text).to_bytes(8, "little") + text for text in strings)
    return tensor.tobytes()
