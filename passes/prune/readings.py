"""How the nodes that sum over the channels of groups read them, measured with samples.

Convolutions, products with constant matrices and recurrent layers are linear in what they read: what their other
weights can make up for is told by the second moment of it (`Gram`). Where a bias takes up the mean, it is the
covariance. Of all else (products of queries and keys, sums of squares) only what a channel contributes is known:
the mean square of it, and nothing makes up for that.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from onnxcomp.data import Samples
from onnxcomp.passbase import PassContext
from onnxcomp.passes.cleanup._graph import constant, is_constant
from onnxcomp.statistics import MOST_BYTES, Columns, Gram, collect_squares, columns_of
from onnxcomp.statistics.columns import Window

from .groups import Channels, Group
from .layers import RECURRENT
from .obs import Reading
from .shrinkage import collect_parts, shrunk
from .walk import Reader

__all__ = ["POSITIONS", "RUNS", "Read", "readings", "reads_of"]

POSITIONS = 4096  # vectors per reader, over all samples
RUNS = 256  # samples at most
_LONGEST = 2304  # of vectors whose full matrix is used: the time goes with the third power


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """One way in which a node reads channels of a group.

    Attributes:
        node: Name.
        columns: The vectors that it reads.
        labels: Of their positions, [parts, K].
        rows: What they are multiplied with, [parts, R, K]; None: nothing that is known here.
        centred: Whether a bias can take up their mean.
        other: Vectors that they are multiplied with, position by position.
    """

    node: str
    columns: Columns
    labels: npt.NDArray[np.int32]
    rows: npt.NDArray[np.float64] | None = None
    centred: bool = False
    other: Columns | None = None

    def place(self, group: Group) -> npt.NDArray[np.int64]:
        """Return which channel of a group each column belongs to, [parts, K]; -1: none."""
        order = np.argsort(group.labels)
        found = order[np.searchsorted(group.labels, self.labels, sorter=order) % group.channels]
        return np.where(group.labels[found] == self.labels, found, -1)


def reads_of(model: ir.Model, channels: Channels, group: Group) -> list[Read]:
    """Return how nodes read the channels of a group, in the order of the graph, without what is not understood."""
    nodes = {str(node.name): node for node in model.graph}
    found = [_read(nodes[reader.node], reader, channels) for reader in group.consumers]
    for item in group.inputs:  # units of a recurrent layer read each other
        node = nodes[item.node]
        if node.op_type in RECURRENT and item.input == 2:
            states = next((value for value in node.outputs if value.name and value.uses()), None)
            weight = constant(node.inputs[2])
            if states is not None and weight is not None:
                columns = Columns(str(states.name), weight.shape[2])
                rows = weight.reshape(1, -1, weight.shape[2]).astype(np.float64)
                found.append(Read(item.node, columns, item.labels[None], rows, centred=True))
    return [read for read in found if read is not None]


def _read(node: ir.Node, reader: Reader, channels: Channels) -> Read | None:
    value = node.inputs[reader.input]
    assert value is not None
    size, rank = reader.labels.size, len(channels.shape(value))
    alone = Columns(str(value.name), size, axis=reader.axis - rank)
    weights = [None if item is None else constant(item) for item in node.inputs[:2]]
    if node.op_type == "Conv" and weights[1] is not None and (columns := columns_of(node)) is not None:
        taps = math.prod(weights[1].shape[2:])
        labels = np.repeat(reader.labels, taps).reshape(columns.groups, -1)
        return Read(reader.node, columns, labels, columns.rows(weights[1]).astype(np.float64), centred=True)
    if node.op_type == "ConvTranspose" and weights[1] is not None:
        parts, kernel = node.attributes.get_int("group", 1), weights[1].shape[2:]
        rows = weights[1].reshape(parts, size // parts, -1).transpose(0, 2, 1).astype(np.float64)
        columns = _pixels(str(value.name), size // parts, parts, len(kernel))
        return Read(reader.node, columns, reader.labels.reshape(parts, -1), rows, centred=True)
    if node.op_type in ("Gemm", "MatMul") and weights[1] is not None and weights[1].ndim == 2 and reader.input == 0:
        matrix = weights[1].T if node.op_type == "MatMul" or not node.attributes.get_int("transB", 0) else weights[1]
        centred = node.op_type == "Gemm" or _gets_bias(node)
        return Read(reader.node, alone, reader.labels[None], matrix[None].astype(np.float64), centred=centred)
    if node.op_type == "MatMul" and weights[0] is not None and weights[0].ndim == 2:
        return Read(reader.node, alone, reader.labels[None], weights[0][None].astype(np.float64))
    if node.op_type in RECURRENT and weights[1] is not None and reader.input == 0:
        rows = weights[1].reshape(1, -1, size).astype(np.float64)
        return Read(reader.node, alone, reader.labels[None], rows, centred=len(node.inputs) > 3)
    if node.op_type == "MatMul" and rank >= 2:  # of activations: the pair counts, once
        side = node.inputs[1]
        if reader.input == 1 or side is None:
            return None
        return Read(reader.node, alone, reader.labels[None], other=Columns(str(side.name), size, axis=-2))
    return Read(reader.node, alone, reader.labels[None])


def _pixels(tensor: str, length: int, parts: int, axes: int) -> Columns:
    """Return the vectors of channels, one per position of an image."""
    ones = (1,) * axes
    return Columns(tensor, length, Window(ones, ones, ones, (0,) * 2 * axes, groups=parts))


def _gets_bias(node: ir.Node) -> bool:
    """Whether what a product gives goes into the sum with a constant, and nowhere else."""
    uses = list(node.outputs[0].uses())
    if len(uses) != 1 or uses[0].node.op_type != "Add":
        return False
    return any(value is not None and is_constant(value) for value in uses[0].node.inputs)


def readings(
    model: ir.Model, channels: Channels, groups: Iterable[Group], samples: Samples, ctx: PassContext
) -> Iterator[tuple[Group, list[Reading]]]:
    """Run a model over samples and yield each group with how its channels are read, as soon as all of that is known.

    Args:
        model: What `groups.prepare` returned; not changed.
        channels: What `groups.discover` found in it.
        groups: Those that are wanted; one that nobody reads has no readings.
        samples: To run it on, `RUNS` of them at most.
        ctx: Its seed, threads and progress.

    Raises:
        ModelError: What is read takes a NaN or an infinity, or the model does not run.
        DataError: There are no samples, or they do not fit.
    """
    wanted = list(groups)
    reads = {group.name: _bounded(reads_of(model, channels, group)) for group in wanted}
    every = [read for found in reads.values() for read in found]
    linear = {read.columns: read.columns for read in every if read.rows is not None and _fits(read.columns)}
    plain = [read for read in every if read.columns not in linear]
    plain_columns = [c for read in plain for c in (read.columns, read.other) if c is not None]
    some = samples.spread(RUNS)
    squares = collect_squares(
        model,
        some,
        {str(number): columns for number, columns in enumerate(dict.fromkeys(plain_columns))},
        positions=POSITIONS,
        seed=ctx.seed,
        threads=ctx.threads,
    )
    energies = {columns: squares[str(number)] for number, columns in enumerate(dict.fromkeys(plain_columns))}
    names = {str(number): columns for number, columns in enumerate(linear)}
    pending = {group.name: {r.columns for r in reads[group.name]} & set(linear) for group in wanted}
    grams: dict[Columns, tuple[Gram, ...]] = {}

    def finished() -> Iterator[tuple[Group, list[Reading]]]:
        for group in wanted:
            if group.name in pending and pending[group.name] <= set(grams):
                del pending[group.name]
                yield group, [_reading(read, group, grams, energies) for read in reads[group.name]]
        needed = set().union(*pending.values())
        for columns in set(grams) - needed:
            del grams[columns]

    yield from finished()
    for name, gram in collect_parts(model, some, names, positions=POSITIONS, ctx=ctx):
        grams[names[name]] = gram
        yield from finished()


def _fits(columns: Columns) -> bool:
    return columns.length <= _LONGEST


def _bounded(reads: list[Read]) -> list[Read]:
    """Keep the matrices of a group to the bound: of convolutions that take too much all taps share one matrix.

    That leaves out how neighbouring positions of the image go together.
    """
    most = min(_LONGEST, math.isqrt(MOST_BYTES // 8 // max(len(reads), 1)))
    found = []
    for read in reads:
        window = read.columns.window
        if read.columns.length > most and window is not None and read.rows is not None:
            parts, rows, _ = read.rows.shape
            taps = math.prod(window.kernel)
            apart = read.rows.reshape(parts, rows, -1, taps).transpose(0, 1, 3, 2)
            columns = _pixels(read.columns.tensor, apart.shape[-1], parts, len(window.kernel))
            rows_apart = apart.reshape(parts, rows * taps, -1)
            found.append(replace(read, columns=columns, labels=read.labels[:, ::taps], rows=rows_apart))
        else:
            found.append(read)
    return found


def _reading(
    read: Read,
    group: Group,
    grams: Mapping[Columns, Sequence[Gram]],
    energies: Mapping[Columns, npt.NDArray[np.float64]],
) -> Reading:
    place = read.place(group)
    if read.columns in grams and read.rows is not None:
        return Reading(shrunk(grams[read.columns], centred=read.centred), read.rows, place)
    each = energies[read.columns]  # [parts, K]
    if read.other is not None:
        each = each * energies[read.other]
    if read.rows is not None:
        each = each * np.square(read.rows).sum(axis=1)
    return plain(each, place, group.channels)


def plain(energies: npt.NDArray[np.float64], place: npt.NDArray[np.int64], channels: int) -> Reading:
    """Return a reading in which nothing makes up for anything.

    Args:
        energies: What each column contributes, [parts, K].
        place: Which channel it belongs to, [parts, K]; -1: none.
        channels: How many there are.
    """
    each = np.bincount(place.reshape(-1) + 1, energies.reshape(-1), minlength=channels + 1)
    size = channels + 1
    diagonal = np.diag(each).astype(np.float64)
    return Reading(diagonal[None], np.eye(size)[None], np.arange(-1, channels, dtype=np.int64)[None])
