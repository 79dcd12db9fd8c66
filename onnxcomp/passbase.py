"""What a pass is: one graph rewrite that says what it needs, what it did and what it left alone.

A pass reads and changes one ``ir.Model`` in place. An *exact* pass keeps the outputs up to rounding; a *lossy* one may
change them and is judged by the budget. Leaving a node alone is data, not silence: ``ctx.skip(node, reason)``.
"""

import dataclasses
import enum
import types
import typing
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Protocol, TypeVar

from onnxcomp.data import Feed, Samples
from onnxcomp.errors import RecipeError
from onnxcomp.statistics import GramStore, MeanStore, RangeStore
from onnxcomp.target import Target

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

__all__ = [
    "ChannelGroup",
    "Grouping",
    "Need",
    "NoConfig",
    "Origin",
    "Pass",
    "PassContext",
    "PassStats",
    "Simulation",
    "Skip",
    "Timer",
    "Unit",
]


class Need(enum.Enum):
    """What a pass can't do without."""

    CALIBRATION = "calibration samples"
    SHAPES = "inferred shapes"
    LABELS = "labelled samples"


@dataclass(frozen=True, slots=True)
class Skip:
    """A node that a pass left alone, and why."""

    node: str
    op_type: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unit:
    """Something that a search may switch on or off in a pass: a node, a block, a channel group.

    Attributes:
        name: Of its first node.
        op_type: Of its first node.
        nodes: Names of the nodes that are switched.
        tails: Names of nodes that go with them: the pass does their work in another way.
    """

    name: str
    op_type: str
    nodes: tuple[str, ...]
    tails: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PassStats:
    """What a pass did: whether the model changed, and how often it did what."""

    modified: bool
    counters: Mapping[str, int] = field(default_factory=dict)
    skipped: tuple[Skip, ...] = ()


@dataclass(frozen=True, slots=True)
class Simulation:
    """What a lossy pass would do to the outputs, for any choice of its units, without rewriting for each choice.

    Attributes:
        model: Has inputs beside those of the model that the pass was to rewrite.
        switches: Says what to feed to them when the nodes of these names are left out.
    """

    model: "ir.Model"
    switches: "Callable[[Collection[str]], Mapping[str, np.ndarray]]"


@dataclass(frozen=True, slots=True)
class ChannelGroup:
    """Channels that layers make together, and that may be removed one by one.

    Attributes:
        name: Of the first layer that makes them.
        kind: What one is: channel, head, dim (the same dimension of all heads) or unit.
        channels: How many there are.
        makers: Layers that make them.
        readers: Nodes that sum over them.
        parameters: Elements of weights that belong to them.
        macs: Multiply-accumulate operations of one run that these weights take; None: they can't be told.
        time: Share of the time of one run that these weights take; None: it was not measured.
    """

    name: str
    kind: str
    channels: int
    makers: tuple[str, ...]
    readers: tuple[str, ...]
    parameters: int
    macs: int | None
    time: float | None = None


@dataclass(frozen=True, slots=True)
class Grouping:
    """The channel groups of a model, layers whose channels all stay with the reason, and the share that can be cut.

    Attributes:
        groups: In the order of the graph.
        frozen: Layers whose channels stay.
        parameters: Elements of weights that belong to any of the groups.
    """

    groups: tuple[ChannelGroup, ...]
    frozen: tuple[Skip, ...]
    parameters: int


@dataclass(frozen=True, slots=True)
class Origin:
    """The float model before anything was pruned from it, and what of it is still there.

    Attributes:
        model: What the first pruning step of the recipe began with; its tensors have the names that they have now.
        kept: Indices that are still there, by name of a tensor and by axis; of others all are.
    """

    model: "ir.Model"
    kept: "Mapping[str, Mapping[int, np.ndarray]]" = field(default_factory=dict)


class Timer(Protocol):
    """What times models where the target is."""

    def nodes(self, model: "ir.Model", feed: Feed) -> Mapping[str, float]:
        """Return the seconds of each node, by name; of some of them, where a runtime does not tell."""

    def ratio(self, model: "ir.Model", baseline: "ir.Model", feed: Feed, *, seconds: float) -> float:
        """Return the time of a model as a share of that of another one; ``seconds`` of measuring at most."""


@dataclass(slots=True)
class PassContext:
    """What the passes of one run share.

    Attributes:
        target: Where the model will run.
        samples: Calibration samples, where the user gave some.
        ranges: Activation ranges by tensor name, measured once on the cleaned-up model.
        reference: Means of the last model of this recipe that was not quantized yet, where there are samples.
        origin: The model of this recipe that was not pruned yet, where a step has pruned it.
        timer: For passes that decide by measured times.
        findings: What passes found out about a model and may ask again, by all that it depends on.
        grams: Gram matrices of what layers read, kept between runs of passes on one and the same model.
        seed: For every random choice.
        threads: Intra-op threads for sessions that a pass opens; 0 is all cores.
        progress: Told how many samples a pass has run, and of how many, where that is known.
        skipped: What the pass that runs now has left alone.
    """

    target: Target
    samples: Samples | None = None
    ranges: RangeStore | None = None
    reference: MeanStore | None = None
    origin: Origin | None = None
    timer: Timer | None = None
    findings: dict[tuple[str, ...], Any] = field(default_factory=dict)
    grams: GramStore | None = None
    seed: int = 0
    threads: int = 0
    progress: Callable[[int, int | None], None] | None = None
    skipped: list[Skip] = field(default_factory=list)

    def afresh(self, model: "ir.Model") -> "PassContext":
        """Return a context for a model whose activations are others: what was measured of them is measured anew."""
        ranges = self.ranges
        if ranges is not None and self.samples is not None:
            ranges = RangeStore(model, self.samples, threads=self.threads, progress=self.progress)
        return dataclasses.replace(self, ranges=ranges, grams=None)

    def skip(self, node: "ir.Node", reason: str) -> None:
        """Record that a node is left alone."""
        self.skipped.append(Skip(node.name or "", node.op_type, reason))


@dataclass(frozen=True, slots=True)
class NoConfig:
    """Settings of a pass that has none."""


C = TypeVar("C")


class Pass(ABC, Generic[C]):
    """One graph rewrite.

    Class attributes:
        name: Stable; used in recipes and reports.
        Config: A frozen dataclass that validates itself.
        exact: Whether outputs stay equal up to rounding.
        shifts: Whether activations are others afterwards, so that steps that follow measure them anew.
        needs: What must be there before the pass can run.
        wants: What it makes use of where it is there.
        choices: Values of settings that a search may try, by setting.
    """

    name: ClassVar[str]
    Config: ClassVar[type[Any]] = NoConfig
    exact: ClassVar[bool]
    shifts: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset()
    wants: ClassVar[frozenset[Need]] = frozenset()
    choices: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    def __init__(self, config: C | None = None) -> None:
        self.config: C = self.Config() if config is None else config

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> "Pass[C]":
        """Make the pass from the settings of a recipe.

        Raises:
            RecipeError: A setting is unknown, has the wrong type or is out of range.
        """
        known = {f.name: f for f in dataclasses.fields(cls.Config)}
        if unknown := sorted(set(settings) - set(known)):
            choices = ", ".join(sorted(known)) or "none"
            raise RecipeError(f"pass {cls.name} has no setting {unknown[0]!r}", hint=f"its settings: {choices}")
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
        hints = typing.get_type_hints(cls.Config)
        for name, value in values.items():
            if not _fits(value, hints[name]):
                raise RecipeError(
                    f"pass {cls.name}: {name} must be {_spelt(hints[name])}, got {settings[name]!r}",
                    hint=f"onnxcomp passes {cls.name} shows its settings",
                )
        try:
            return cls(cls.Config(**values))
        except TypeError as err:
            raise RecipeError(f"pass {cls.name}: {err}") from err

    def units(self, model: "ir.Model", ctx: PassContext) -> list[Unit]:
        """List what a search may switch in this pass on this model; by default nothing."""
        return []

    def simulate(self, model: "ir.Model", ctx: PassContext) -> Simulation | None:
        """Return a simulation of the pass on this model, where it has one; the model is not changed."""
        return None

    def groups(self, model: "ir.Model", ctx: PassContext) -> Grouping | None:
        """Return the channel groups that the pass could prune; None: it prunes no channels. The model is not changed.

        Where the context has a timer, the share of time that each takes is measured.

        Raises:
            PassError: They can't be found.
        """
        return None

    @abstractmethod
    def run(self, model: "ir.Model", ctx: PassContext) -> PassStats:
        """Rewrite the model in place.

        ``PassStats.skipped`` may stay empty: the pipeline adds what ``ctx.skip`` recorded.

        Raises:
            PassError: The pass can't go on; the pipeline rolls the model back.
        """


def _fits(value: object, hint: Any) -> bool:
    """Say whether a setting has the type that its dataclass field declares; an int will do for a float."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, choice) for choice in arguments)
    if origin is typing.Literal:
        return value in arguments
    if origin is tuple:
        kinds = arguments[:1] * len(value) if isinstance(value, tuple) and arguments[-1] is ... else arguments
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_fits, value, kinds))
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    kind = origin or hint
    return not isinstance(kind, type) or isinstance(value, kind)


def _spelt(hint: Any) -> str:
    """Say in words what type a setting has."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " or ".join(map(repr, arguments))
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_spelt, arguments))
    if origin is tuple:
        return f"a list of {_spelt(arguments[0])}" if arguments[-1] is ... else f"a list of {len(arguments)} values"
    return "nothing" if hint is types.NoneType else str(getattr(hint, "__name__", hint))
