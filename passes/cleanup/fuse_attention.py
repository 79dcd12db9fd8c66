"""Fuse scaled dot-product attention into one operator.

::

    Q, V = Transpose(Reshape(q)), Transpose(Reshape(v))    # [B, S, H*D] -> [B, S, H, D] -> [B, H, S, D]
    K = Transpose(Reshape(k))                              # [B, L, H*D] -> [B, L, H, D] -> [B, H, D, L]
    P = Softmax(MatMul(Q, K) * scale + mask)
    y = Reshape(Transpose(MatMul(P, V)))       ==>         y = Attention(q, k, v, mask)

The scale may stand before or after the product, on either side or on both, or nowhere; the mask and the guard that
turns rows of NaN into zeros may be missing. The model is brought to opset 23, which has the operator. onnxruntime's
kernel does not store the transposed heads, but it is not faster everywhere: the search times it.

Declines: heads that are not split from, and merged to, three axes (the operator's form for heads that are already
apart is no faster); shapes from which it does not follow that no batch or sequence is mixed up; scales that are not
positive; types other than float32; values in between that are used elsewhere too; masks that would widen the scores or
hide all keys from a query by constants; models with functions, or for a runtime without opset 23.

Correct by definition of the operator. onnxruntime wants the last two axes of a mask whole: a mask that is broadcast is
expanded. It gives zeros where the best score of a row is the lowest float32 or less: a mask is scaled down by one
rounding step, so that -3.4028235e38, the usual "hidden" of exporters, weighs all keys alike as it does in Softmax. What
differs: a row hidden by -infinity alone gives zeros instead of NaN; an empty batch or sequence is an error.

Source: Vaswani et al., "Attention Is All You Need", 2017, sections 3.2.1 and 3.2.2.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import onnx_ir as ir

from onnxcomp.model import upgrade_opset
from onnxcomp.passbase import NoConfig, Pass, PassContext, PassStats
from onnxcomp.runtime import limits

from ._graph import Names, float_constant, graphs, int_attribute, ints_attribute, is_op, opset_of, set_constant
from ._match import product, replace
from ._shapes import Dim, Shapes, infer

__all__ = ["FuseAttention"]

_OPSET = 23
_LOWEST = float(np.finfo(np.float32).min)
_STEP = np.float32(1 - 2**-23)
_SPLIT = (0, 2, 1, 3)  # [B, S, H, D] to [B, H, S, D], and back
_APART = "its heads are not split from three axes"
_MERGED = "its heads are not merged to three axes"


@dataclass(frozen=True, slots=True)
class _Heads:
    """Heads ``[B, H, S, D]`` that are ``scale`` times ``source``, ``[B, S, H*D]``, split."""

    source: ir.Value
    batch: Dim
    length: Dim
    count: int
    scale: float


@dataclass(frozen=True, slots=True)
class _Site:
    """One attention; ``root`` is the Reshape that merges its heads."""

    root: ir.Node
    query: _Heads
    key: _Heads
    value: _Heads
    scale: float
    mask: ir.Value | None
    whole: bool  # whether the mask has the last two axes of the scores


class FuseAttention(Pass[NoConfig]):
    """Fuse scaled dot-product attention."""

    name: ClassVar[str] = "fuse-attention"
    exact: ClassVar[bool] = True

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Rewrite the model in place.

        Raises:
            ModelError: The model can't be brought to the opset that has the operator.
        """
        if all(_weighting(node) is None for graph in graphs(model) for node in graph):
            return PassStats(modified=False)
        found, declined = _sites(model)
        for node, reason in declined:
            ctx.skip(node, reason)
        if found and opset_of(model) < _OPSET:
            if (why_not := _why_no_upgrade(model)) is not None:
                for site in found:
                    ctx.skip(site.root, why_not)
                return PassStats(modified=False)
            work = model.clone()
            upgrade_opset(work, _OPSET)
            if found := _sites(work)[0]:
                model.graph, model.ir_version = work.graph, work.ir_version
        writer = _Writer(Names(model))
        for site in found:
            writer.write(site)
        return PassStats(bool(found), {"Attention fused": len(found)} if found else {})


def _why_no_upgrade(model: ir.Model) -> str | None:
    if model.functions:
        return f"Attention needs opset {_OPSET}, and models with functions of their own are not converted"
    if limits().opset < _OPSET:
        return f"Attention needs opset {_OPSET}, the installed onnxruntime loads up to {limits().opset}"
    return None


def _sites(model: ir.Model) -> tuple[list[_Site], list[tuple[ir.Node, str]]]:
    """Return what can be fused, in the order of the roots, and what looks like attention but can't, with reasons."""
    shapes = infer(model)
    found: list[_Site] = []
    declined: list[tuple[ir.Node, str]] = []
    for graph in graphs(model):
        roots = {}
        for node in graph:
            site = _site(node, shapes, opset_of(model))
            if isinstance(site, str):
                declined.append((node, site))
            elif site is not None:
                roots[site.root] = site
        found += [roots[node] for node in graph if node in roots]
    return found, declined


def _site(softmax: ir.Node, shapes: Shapes, opset: int) -> _Site | str | None:
    """Recognise the attention around a Softmax; say why it can't be fused; None: there is none."""
    weighting = _weighting(softmax)
    scores = None if weighting is None else _scores(softmax.inputs[0], shapes)
    if weighting is None or scores is None:
        return None
    matmul, scale, mask = scores
    axis = int_attribute(softmax, "axis", -1 if opset >= 13 else 1)
    if shapes.rank(softmax.inputs[0]) != 4 or axis not in (-1, 3):
        return "its scores have no four axes of which the last is normalized"
    if shapes.dtype(softmax.inputs[0]) != ir.DataType.FLOAT:
        return "its type is not known to be float32"
    query, key = _heads(matmul.inputs[0], shapes), _keys(matmul.inputs[1], shapes)
    value = _heads(weighting.inputs[1], shapes)
    if query is None or key is None or value is None or value.scale != 1:
        return _APART
    if query.batch is None or not query.batch == key.batch == value.batch:
        return "its inputs are not known to have one batch"
    if not query.count == key.count == value.count:
        return "its inputs have different numbers of heads"
    root = _merging(weighting, shapes)
    if root is None:
        return _MERGED
    shape, inner = shapes.symbols(mask), (query.length, key.length)
    whole = shape is not None and None not in inner and shape[-2:] == inner
    site = _Site(root, query, key, value, scale * query.scale * key.scale, mask, whole)
    if not 0 < site.scale < math.inf:
        return f"its scale is {site.scale:g}, not positive"
    if mask is not None and (reason := _why_not_mask(mask, site, shapes)) is not None:
        return reason
    return site if _serves_only(matmul, root) else "a value in between is used elsewhere too"


def _weighting(softmax: ir.Node) -> ir.Node | None:
    """Return the MatMul that weighs values by a Softmax, behind a guard that turns NaN into zero where there is one."""
    if not is_op(softmax, "Softmax"):
        return None
    weights = softmax.outputs[0]
    for node in weights.consumers():
        if is_op(node, "Where") and node.inputs[2] is weights and _is_zero(node.inputs[1]):
            test = None if node.inputs[0] is None else node.inputs[0].producer()
            if test is not None and is_op(test, "IsNaN") and test.inputs[0] is weights:
                weights = node.outputs[0]
                break
    return next((n for n in weights.consumers() if is_op(n, "MatMul") and n.inputs[0] is weights), None)


def _is_zero(value: ir.Value | None) -> bool:
    array = float_constant(value)
    return array is not None and array.size == 1 and array.ndim <= 4 and not array.any()


def _scores(value: ir.Value | None, shapes: Shapes) -> tuple[ir.Node, float, ir.Value | None] | None:
    """Take scores apart as the product of queries and keys, times a scale, plus a mask."""
    if value is None:
        return None
    if (found := _scaled_product(value, shapes)) is not None:
        return *found, None
    node = value.producer()
    if node is None or not is_op(node, "Add"):
        return None
    for scores, mask in (node.inputs, tuple(reversed(node.inputs))):
        if scores is not None and mask is not None and (found := _scaled_product(scores, shapes)) is not None:
            return *found, mask
    return None


def _scaled_product(value: ir.Value, shapes: Shapes) -> tuple[ir.Node, float] | None:
    whole = product(value, shapes)
    node = whole.factors[0].producer() if len(whole.factors) == 1 else None
    return (node, whole.scale) if node is not None and is_op(node, "MatMul") else None


def _heads(value: ir.Value | None, shapes: Shapes, scale: float = 1.0) -> _Heads | None:
    """Recognise ``[B, H, S, D]``, split from ``[B, S, H*D]``."""
    step = _permuted(value, shapes)
    if step is None or step[1] != _SPLIT:
        return None
    source, _, factor = step
    return _split(source, shapes, scale * factor)


def _keys(value: ir.Value | None, shapes: Shapes) -> _Heads | None:
    """Recognise ``[B, H, D, L]``, split from ``[B, L, H*D]``."""
    step = _permuted(value, shapes)
    if step is None:
        return None
    source, permutation, scale = step
    if permutation == (0, 2, 3, 1):
        return _split(source, shapes, scale)
    return _heads(source, shapes, scale) if permutation == (0, 1, 3, 2) else None


def _permuted(value: ir.Value | None, shapes: Shapes) -> tuple[ir.Value, tuple[int, ...], float] | None:
    """Take a value apart as a transposed one of four axes times a scale: what was transposed, how, and the scale."""
    whole = None if value is None else product(value, shapes)
    node = None if whole is None or len(whole.factors) != 1 else whole.factors[0].producer()
    if whole is None or node is None or node.inputs[0] is None:
        return None
    if is_op(node, "Transpose"):
        return node.inputs[0], ints_attribute(node, "perm") or (), whole.scale
    source = _swapped_by_reshapes(node, shapes)
    return None if source is None else (source, (0, 1, 3, 2), whole.scale)


def _swapped_by_reshapes(node: ir.Node, shapes: Shapes) -> ir.Value | None:
    """Return ``[B, H, L, D]`` where the node gives ``[B, H, D, L]`` by way of ``[B*H, L, D]`` and ``[B*H, D, L]``."""
    middle = None if node.inputs[0] is None else node.inputs[0].producer()
    if not is_op(node, "Reshape") or middle is None or not is_op(middle, "Transpose") or middle.inputs[0] is None:
        return None
    first = middle.inputs[0].producer()
    if first is None or not is_op(first, "Reshape") or ints_attribute(middle, "perm") != (0, 2, 1):
        return None
    source, flat, swapped = (shapes.symbols(v) for v in (first.inputs[0], first.outputs[0], node.outputs[0]))
    if source is None or len(source) != 4 or None in source[1:] or flat is None or swapped is None:
        return None
    _, heads, length, depth = source
    return first.inputs[0] if flat[1:] == (length, depth) and swapped[1:] == (heads, depth, length) else None


def _split(value: ir.Value, shapes: Shapes, scale: float) -> _Heads | None:
    """Recognise ``[B, S, H, D]``, split from ``[B, S, H*D]``."""
    whole = product(value, shapes)
    node = whole.factors[0].producer() if len(whole.factors) == 1 else None
    if node is None or not is_op(node, "Reshape") or node.inputs[0] is None:
        return None
    merged, apart = shapes.symbols(node.inputs[0]), shapes.symbols(node.outputs[0])
    if merged is None or apart is None or not _same_elements(merged, apart):
        return None
    count = apart[2]
    assert isinstance(count, int)
    return _Heads(node.inputs[0], merged[0], merged[1], count, scale * whole.scale)


def _same_elements(merged: tuple[Dim, ...], apart: tuple[Dim, ...]) -> bool:
    """Say whether ``[B, S, H*D]`` and ``[B, S, H, D]`` surely are one tensor; of B and S one is enough."""
    if len(merged) != 3 or len(apart) != 4 or not isinstance(apart[2], int) or not isinstance(apart[3], int):
        return False
    leads = any(m is not None and m == a for m, a in zip(merged[:2], apart[:2], strict=True))
    return leads and merged[2] == apart[2] * apart[3]


def _merging(weighting: ir.Node, shapes: Shapes) -> ir.Node | None:
    """Return the Reshape that makes ``[B, S, H*D]`` of the weighted values ``[B, H, S, D]``."""
    for transpose in weighting.outputs[0].consumers():
        if not is_op(transpose, "Transpose") or ints_attribute(transpose, "perm") != _SPLIT:
            continue
        apart = shapes.symbols(transpose.outputs[0])
        for node in transpose.outputs[0].consumers():
            merged = shapes.symbols(node.outputs[0])
            if is_op(node, "Reshape") and merged and apart and _same_elements(merged, apart):
                return node
    return None


def _why_not_mask(mask: ir.Value, site: _Site, shapes: Shapes) -> str | None:
    """Say why a mask can't be handed to the operator, or None."""
    dims = shapes.symbols(mask)
    if dims is None or len(dims) > 4:
        return "its mask is not known to have at most four axes"
    expected = (site.query.batch, site.query.count, site.query.length, site.key.length)
    for dim, wanted in zip((1,) * (4 - len(dims)) + dims, expected, strict=True):
        known = isinstance(dim, int) and isinstance(wanted, int)
        if dim not in (1, wanted) and (known or wanted == 1):
            return "its mask does not fit the scores, or may widen them"
    array = float_constant(mask)
    if array is not None and array.ndim and np.isneginf(array.max(axis=-1)).any():
        return "its mask hides all keys from a query"
    return None


def _serves_only(node: ir.Node, root: ir.Node) -> bool:
    """Say whether everything that is made of a node's outputs ends in ``root``."""
    owned = {root}
    for other in reversed(tuple(root.graph or ())):
        users = {user for output in other.outputs for user in output.consumers()}
        if users and users <= owned and not any(output.is_graph_output() for output in other.outputs):
            owned.add(other)
    return node in owned


class _Writer:
    """Puts the operator in the place of sites; those of one graph come in its order and share their masks."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._masks: dict[tuple[object, ...], ir.Value] = {}
        self._heirs: dict[ir.Value, ir.Value] = {}  # of the roots' outputs, which later sites may read

    def write(self, site: _Site) -> None:
        """Replace one site."""
        output = site.root.outputs[0]
        name = output.name
        inputs = [self._heir(heads.source) for heads in (site.query, site.key, site.value)]
        if site.mask is not None:
            inputs.append(self._mask(site.mask, site))
        attributes = [
            ir.AttrInt64("q_num_heads", site.query.count),
            ir.AttrInt64("kv_num_heads", site.key.count),
            ir.AttrFloat32("scale", site.scale),
        ]
        new = ir.Node("", "Attention", inputs, attributes)
        replaced = replace(site.root, new, self._names)
        assert replaced  # a new node can take over any name
        self._heirs[output] = new.outputs[0]
        new.outputs[0].name = name  # activation ranges are kept by name

    def _mask(self, mask: ir.Value, site: _Site) -> ir.Value:
        """Return the mask as onnxruntime wants it: the last two axes whole, no value that it takes for -infinity."""
        lengths = (site.query.length, site.key.length)
        key = (site.root.graph, mask, *lengths)
        if None not in lengths and key in self._masks:
            return self._masks[key]
        result = self._raised(self._heir(mask), site.root)
        if not site.whole:
            result = self._expanded(result, site)
        self._masks[key] = result
        return result

    def _heir(self, value: ir.Value) -> ir.Value:
        return self._heirs.get(value, value)

    def _raised(self, mask: ir.Value, root: ir.Node) -> ir.Value:
        """Scale a mask down by one rounding step, unless it surely leaves every query a key."""
        array = float_constant(mask)
        if array is not None and (array.max(axis=-1) if array.ndim else array).min() > _LOWEST:
            return mask
        node = self._before(root, "Mul", [mask, None], f"{mask.name}_raised")
        set_constant(node, 1, np.asarray(_STEP), names=self._names, base="mask_step")
        return node.outputs[0]

    def _expanded(self, mask: ir.Value, site: _Site) -> ir.Value:
        """Broadcast a mask to the lengths of queries and keys."""
        node = self._before(site.root, "Expand", [mask, None], f"{mask.name}_whole")
        pair = (site.query, site.key)
        if all(isinstance(heads.length, int) for heads in pair):
            lengths = np.array([heads.length for heads in pair], np.int64)
            set_constant(node, 1, lengths, names=self._names, base="mask_shape")
            return node.outputs[0]
        parts = [
            self._before(node, "Shape", [self._heir(heads.source)], "length", start=1, end=2).outputs[0]
            for heads in pair
        ]
        node.replace_input_with(1, self._before(node, "Concat", parts, "mask_shape", axis=0).outputs[0])
        return node.outputs[0]

    def _before(self, place: ir.Node, op: str, inputs: Sequence[ir.Value | None], name: str, **ints: int) -> ir.Node:
        """Put a new node before another one."""
        node = ir.Node("", op, inputs, [ir.AttrInt64(key, value) for key, value in ints.items()])
        node.name = node.outputs[0].name = self._names.fresh(name)
        graph = place.graph
        assert isinstance(graph, ir.Graph)
        graph.insert_before(place, node)
        return node
