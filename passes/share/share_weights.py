"""Weight sharing: the values of a weight become the centroids of clusters; indices and a codebook are stored.

Before, after (see ``_form``)::

    Conv(x, W)    Conv(x, Gather(codebook, Cast(indices)))

onnxruntime computes what is new when it loads the model: the speed is that of the float model, the file holds ``bits``
bits per weight. Clusters minimise the squared error, each weight counting as much as E[x^2] of the input that it
multiplies, where there are calibration samples: the diagonal of the Hessian of a linear layer's squared error. With
samples, a weight does not simply get the nearest centroid: inputs are taken one after the other, the error that one
makes is made up for by the weights that are left, and in the end centroids are fitted to what was chosen. Exact zeros
of pruned weights stay zeros. With ``vector`` an index stands for several neighbours along the inputs, by k-means of
sub-vectors. Method ``entropy`` spends ``bits`` of entropy instead, for files that are packed.
Declines: weights that are no constant float32 or float16 matrices, hold NaN, are a graph output, or are too small to
pay.
Sources: Han et al. 2016 (Deep Compression), section 3; Choi et al. 2017 (Towards the Limit of Network Quantization),
equation 16 (weights of clusters) and section 4.2 (entropy); Zhou et al. 2017 (INQ: powers of two); Frantar et al. 2022
(GPTQ, algorithm 1: feedback); Gong et al. 2014 (sub-vectors).
"""

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxcomp.clustering import INITS, Cells, Codebook, entropy_clusters, kmeans, powers_of_two, tally
from onnxcomp.errors import PassError, RecipeError
from onnxcomp.facts import name_nodes, opset
from onnxcomp.passbase import Need, Pass, PassContext, PassStats, Simulation, Unit
from onnxcomp.passes.cleanup._graph import Names
from onnxcomp.passes.share._form import LEAST_OPSET, Shared, form_bytes, write_form, write_switch
from onnxcomp.passes.share._layers import Known, known_inputs
from onnxcomp.passes.share._vectors import takes_vectors, vectors_shared
from onnxcomp.passes.share._weights import Weight, drop_unread, weights_of

__all__ = ["SWITCHES", "ShareWeights", "ShareWeightsConfig"]

SWITCHES = "onnxcomp.switches"
_MOST_OF_ITS_SIZE = 0.9  # a weight that keeps more than that is left alone
_LEAST_ENTROPY = 0.25  # bits
_LONGEST = 16
_PRUNED = 0.01  # share of exact zeros from which 0 is a centroid, whatever else is


@dataclass(frozen=True, slots=True)
class ShareWeightsConfig:
    """Settings of weight sharing.

    Attributes:
        bits: Of an index, 1 to 8: there are 2^bits centroids; with method ``entropy`` the entropy of an index, which
            may be a fraction, from 0.25 on.
        bits_of: Other bits for the weights of some nodes, by name.
        granularity: What has a codebook of its own: a ``tensor``, a ``group`` of its output channels, or the whole
            ``model``.
        group_channels: Output channels of a group.
        method: With ``kmeans`` the error is least for so many centroids; with ``entropy`` it is least at so much
            entropy, with up to 256 centroids: larger in the graph, smaller in a packed file.
        init: Of ``kmeans``: ``exact``, or Lloyd's algorithm from ``linear``, ``density`` or ``random`` centroids.
        vector: Neighbours along the inputs of a layer that have one index together, 1 to 16: 2^bits vectors stand for
            them, ``bits`` / ``vector`` bits are spent on a weight. Where that does not fit (small weights, pruned ones)
            single numbers share that many bits each, rounded up.
        codebook: Which centroids there may be: ``free``: any; ``powers``: 0 and powers of two, for
            hardware that shifts; one less than 2^bits.
        weighting: How much a weight counts: ``inputs``: as E[x^2] of what it multiplies, in the calibration samples;
            ``none``: all the same; ``auto``: ``inputs`` where there are samples.
        assignment: Which centroid stands for a weight: ``nearest``; ``feedback``: what changes the outputs of the layer
            least, in the calibration samples; ``auto``: ``feedback`` where there are samples.
        damping: Of ``feedback``: added to the diagonal of the inputs' second moment, as a share of its mean.
        min_elements: Smaller weights stay as they are.
        exclude: Names of nodes whose weights stay as they are.
    """

    bits: float = 4
    bits_of: Mapping[str, float] = field(default_factory=dict)
    granularity: Literal["tensor", "group", "model"] = "tensor"
    group_channels: int = 64
    method: Literal["kmeans", "entropy"] = "kmeans"
    init: str = "exact"
    vector: int = 1
    codebook: Literal["free", "powers"] = "free"
    weighting: Literal["auto", "inputs", "none"] = "auto"
    assignment: Literal["auto", "nearest", "feedback"] = "auto"
    damping: float = 0.01
    min_elements: int = 512
    exclude: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name, bits in {"bits": self.bits, **self.bits_of}.items():
            least = _LEAST_ENTROPY if self.method == "entropy" else 1
            if isinstance(bits, bool) or not isinstance(bits, int | float) or not least <= bits <= 8:
                raise RecipeError(
                    f"bits must be from {least} to 8, got {bits!r}" + ("" if name == "bits" else f" for {name}")
                )
            if self.method == "kmeans" and bits != int(bits):
                raise RecipeError(f"bits must be a whole number, got {bits}", hint="a fraction needs method entropy")
        if self.init not in INITS:
            raise RecipeError(f"init must be one of {', '.join(INITS)}, got {self.init!r}")
        if self.method == "entropy" and self.init != "exact":
            raise RecipeError("init is of method kmeans", hint="leave it out")
        if self.codebook == "powers" and (self.method, self.init) != ("kmeans", "exact"):
            raise RecipeError("codebook powers has a method of its own", hint="leave method and init out")
        if self.codebook == "powers" and min((self.bits, *self.bits_of.values())) < 2:
            raise RecipeError("codebook powers needs 2 bits or more: 0 is one of the centroids")
        if isinstance(self.vector, bool) or not isinstance(self.vector, int) or not 1 <= self.vector <= _LONGEST:
            raise RecipeError(f"vector must be a whole number from 1 to {_LONGEST}, got {self.vector!r}")
        others = (self.method, self.init, self.codebook, self.granularity)
        if self.vector > 1 and others != ("kmeans", "exact", "free", "tensor"):
            raise RecipeError(
                "vectors are clustered by k-means, per tensor", hint="leave method, init, codebook and granularity out"
            )
        if not 0 < self.damping <= 1:
            raise RecipeError(f"damping must be in (0, 1], got {self.damping}")
        if self.group_channels < 1:
            raise RecipeError(f"group_channels must be 1 or more, got {self.group_channels}")
        if self.min_elements < 0:
            raise RecipeError(f"min_elements must not be negative, got {self.min_elements}")


class ShareWeights(Pass[ShareWeightsConfig]):
    """Let the weights of a layer share a few values."""

    name: ClassVar[str] = "share-weights"
    Config = ShareWeightsConfig
    exact: ClassVar[bool] = False
    wants: ClassVar[frozenset[Need]] = frozenset({Need.CALIBRATION})

    def units(self, model: ir.Model, ctx: PassContext) -> list[Unit]:
        """List the weights, by the nodes that read them."""
        work = model.clone()
        found = (tuple(weight.readers) for weight in self._weights(work, ctx))
        return [
            Unit(str(readers[0].name), readers[0].op_type, tuple(str(node.name) for node in readers))
            for readers in dict.fromkeys(found)
        ]

    def run(self, model: ir.Model, ctx: PassContext) -> PassStats:
        """Share the values of every weight that pays."""
        version, names = opset(model), Names(model)
        counters: dict[str, int] = {}
        for weight, shared in self._all_shared(model, list(self._weights(model, ctx)), ctx):
            if form_bytes(shared, version) > _MOST_OF_ITS_SIZE * weight.array.nbytes:
                for node in weight.readers:
                    ctx.skip(node, "the codebook would take too much of what the indices save")
                continue
            write_form(model, names, weight.value, shared, version)
            d = shared.codebooks.shape[2]
            key = f"weights of {self._bits(weight, d):g} bits" + (f" for {d} numbers" if d > 1 else "")
            counters[key] = counters.get(key, 0) + 1
        drop_unread(model)
        return PassStats(modified=bool(counters), counters=dict(sorted(counters.items())))

    def simulate(self, model: ir.Model, ctx: PassContext) -> Simulation | None:
        """Return a model that holds every weight twice, shared and as it was, with a switch for each."""
        work = model.clone()
        weights = list(self._weights(work, ctx))
        if not weights:
            return None
        names, readers = Names(work), []
        switches = ir.val(SWITCHES, dtype=ir.DataType.BOOL, shape=[len(weights)])
        work.graph.inputs.append(switches)
        for index, (weight, shared) in enumerate(self._all_shared(work, weights, ctx)):
            readers.append({str(node.name) for node in weight.readers})
            write_switch(work, names, weight.value, shared, switches=switches, index=index)

        def switched(left_out: Collection[str]) -> dict[str, NDArray[np.bool_]]:
            return {SWITCHES: np.array([not found & set(left_out) for found in readers])}

        return Simulation(work, switched)

    def _weights(self, model: ir.Model, ctx: PassContext) -> Iterator[Weight]:
        """Yield the weights that are to be shared; the others are recorded in ``ctx``, with the reason."""
        for graph in model.graphs():
            name_nodes(graph)
        version = opset(model)
        for weight in weights_of(model):
            if reason := self._why_not(weight, version):
                for node in weight.readers:
                    ctx.skip(node, reason)
            else:
                yield weight

    def _why_not(self, weight: Weight, version: int) -> str | None:
        if any(node.name in self.config.exclude for node in weight.readers):
            return "excluded"
        if weight.tensor.size < max(self.config.min_elements, 1):
            return "the weight is too small to pay"
        if version < LEAST_OPSET:
            return f"opset {version} can't express it: run upgrade-opset to {LEAST_OPSET} first"
        return weight.why_not

    def _bits(self, weight: Weight, d: int = 1) -> float:
        """Return the bits of an index of a weight that shares ``d`` numbers at once."""
        bits = self.config.bits_of.get(weight.name, self.config.bits)
        return bits if d == self.config.vector else math.ceil(bits / self.config.vector)

    def _all_shared(self, model: ir.Model, weights: list[Weight], ctx: PassContext) -> Iterator[tuple[Weight, Shared]]:
        """Yield the weights, in any order, with what they become; a weight may be rewritten before the next one."""
        if ctx.samples is None and (self.config.weighting == "inputs" or self.config.assignment == "feedback"):
            raise PassError("weighting by inputs and feedback need calibration samples", hint="--calibration DATA")
        version = opset(model)
        blind = self.config.weighting == "none" and self.config.assignment == "nearest"
        common = None
        if self.config.granularity == "model" and weights:
            found = self._known(model, weights, ctx, blind=blind)
            parts = [tally(weight.array, self._counting(weight, known)) for weight, known in found]
            common = self._clusters(Cells.joined(parts), self.config.bits, ctx.seed)
        for weight, known in self._known(model, weights, ctx, blind=blind):
            d, k = self.config.vector, 2 ** int(self._bits(weight, self.config.vector))
            if d > 1 and takes_vectors(weight, d, k, version):
                damping = None if self.config.assignment == "nearest" else self.config.damping
                counting = self._counting(weight, known)
                yield weight, vectors_shared(weight, known, counting, d=d, k=k, damping=damping, seed=ctx.seed)
            else:
                yield weight, self._shared(weight, known, common, ctx.seed)

    @staticmethod
    def _known(
        model: ir.Model, weights: list[Weight], ctx: PassContext, *, blind: bool
    ) -> Iterator[tuple[Weight, Known | None]]:
        if blind or ctx.samples is None:
            return ((weight, None) for weight in weights)
        return known_inputs(model, weights, ctx)

    def _counting(self, weight: Weight, known: Known | None) -> NDArray[np.float64] | None:
        """Return how much each number of a weight counts, in its shape; None: all the same."""
        return None if known is None or self.config.weighting == "none" else known.squares(weight)

    def _shared(self, weight: Weight, known: Known | None, common: Codebook | None, seed: int) -> Shared:
        array, counting = weight.array, self._counting(weight, known)
        last, groups = bool(weight.channels_last), 1
        if self.config.granularity == "group" and weight.channels_last is not None:
            channels = array.shape[-1 if last else 0]
            groups = math.ceil(channels / self.config.group_channels)
            while channels % groups:  # groups are of one size
                groups += 1
        last = last and groups > 1
        if last:
            array = np.ascontiguousarray(np.moveaxis(array, -1, 0))
            counting = None if counting is None else np.moveaxis(counting, -1, 0)
        rows = array.reshape(groups, -1)
        counts = None if counting is None else counting.reshape(groups, -1)
        books = [
            common or self._clusters(tally(row, None if counts is None else counts[i]), self._bits(weight), seed)
            for i, row in enumerate(rows)
        ]
        if known is not None and groups == 1 and self.config.assignment != "nearest":
            return known.shared(
                weight, books[0], self.config.damping, fit=common is None and self.config.codebook == "free"
            )
        k = max(map(len, books))
        codebooks = np.stack([np.pad(book.centroids, (0, k - len(book)), mode="edge") for book in books])
        indices = np.stack([book.indices(row) for book, row in zip(books, rows, strict=True)])
        return Shared(indices, codebooks[:, :, None].astype(array.dtype), array.shape, last)

    def _clusters(self, cells: Cells, bits: float, seed: int) -> Codebook:
        zero = cells.zeros > _PRUNED * float(cells.counts.sum())
        if self.config.codebook == "powers":
            return powers_of_two(cells, 2 ** int(bits))
        if self.config.method == "entropy":
            return entropy_clusters(cells, bits, zero=zero)
        return kmeans(cells, 2 ** int(bits), init=self.config.init, zero=zero, seed=seed)
