"""What two versions of a model are made of, side by side: layers, stored bytes, operators, ranges of activations."""

from dataclasses import dataclass

__all__ = ["Activation", "Anatomy", "Layer", "OperatorShare", "Storage"]


@dataclass(frozen=True, slots=True)
class Layer:
    """A node with weights: constants of two axes or more.

    Attributes:
        name: Of the node before; after, where it is new.
        op_type: After; before, where it is gone.
        dtype_before: Of its weights as they are stored; empty: it was not there.
        dtype_after: The same after; empty: it is gone.
        bytes_before: Of all its constants.
        bytes_after: The same after.
        seconds_before: Of one run, by onnxruntime's profile; None: not measured, or it is part of another node.
        seconds_after: The same after.
        sqnr: Signal-to-noise ratio of what it gives, against the cleaned-up model, dB; null: not comparable, or equal.
    """

    name: str
    op_type: str
    dtype_before: str
    dtype_after: str
    bytes_before: int
    bytes_after: int
    seconds_before: float | None
    seconds_after: float | None
    sqnr: float | None


@dataclass(frozen=True, slots=True)
class Storage:
    """What constants take that nodes of one type read, and that are of one data type.

    Attributes:
        op_type: Of the nodes.
        dtype: Of the constants as they are stored.
        before: Bytes.
        after: Bytes.
    """

    op_type: str
    dtype: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class OperatorShare:
    """What the nodes of one type take in a run, as onnxruntime runs them, by its profile.

    Attributes:
        op_type: After onnxruntime's own rewriting.
        nodes_before: How many there are.
        nodes_after: The same after.
        seconds_before: All of them together.
        seconds_after: The same after.
    """

    op_type: str
    nodes_before: int
    nodes_after: int
    seconds_before: float
    seconds_after: float


@dataclass(frozen=True, slots=True)
class Activation:
    """How the values of a quantized tensor are distributed on the calibration samples, and what is kept of them.

    Attributes:
        tensor: Its name.
        least: Smallest value.
        most: Largest value.
        low: Smallest value that the integers reach.
        high: Largest one.
        clipped: Share of the values outside of these.
        counts: Values in each of equal bins from the smallest to the largest.
    """

    tensor: str
    least: float
    most: float
    low: float
    high: float
    clipped: float
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Anatomy:
    """What the original and the delivered model are made of.

    Attributes:
        layers: Nodes with weights, in the order of the delivered graph.
        storage: Bytes of constants, the most first.
        operators: Time by type of operator, the slowest before first; empty: not measured.
        activations: Quantized tensors, in the order of the delivered graph; empty where none has a fixed range.
        notes: What could not be found out, and why.
    """

    layers: tuple[Layer, ...]
    storage: tuple[Storage, ...]
    operators: tuple[OperatorShare, ...]
    activations: tuple[Activation, ...]
    notes: tuple[str, ...]
