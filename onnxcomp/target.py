"""Where the model will run (``Target``: tables of facts) and what it may cost (``Budget``)."""

import enum
import math
import platform
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from numbers import Real
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from onnxcomp.errors import UsageError

if TYPE_CHECKING:
    from onnxcomp.runtime import Provider

__all__ = [
    "TARGETS",
    "Budget",
    "Gates",
    "Goal",
    "Role",
    "Target",
    "Technique",
    "cpu_features",
    "cpu_name",
    "detect",
    "get_target",
    "told_apart",
]


class Role(enum.Enum):
    """What an operator means for integer execution on a target."""

    ANCHOR = "worth quantizing by itself"
    JOIN = "has an integer kernel; pays only among integer neighbours"
    SCALE = "multiplies by a positive constant: free, the quantizer's scale does it"
    MOVE = "moves integers through unchanged; input and output share scale and zero point"


@dataclass(frozen=True, slots=True)
class Target:
    """Facts about one kind of machine and runtime that the passes consult.

    Attributes:
        name: As given to ``--target``.
        meaning: What it stands for, in a few words.
        provider: Of onnxruntime, there. The CPU provider's optimised graph can be read anywhere.
        verified: Whether these facts were measured by this project (else they come from documentation).
        roles: Operators with integer kernels, by type; none: static INT8 gains nothing there.
        dynamic: Operators with a kernel that quantizes its input while it runs.
        activations: Integer type of quantized activations.
        symmetric: Whether their zero point is always 0.
        weights: Integer type of quantized weights.
        reduce_range: Whether weights keep to 7 bits, because the kernel's 16-bit sums saturate.
        quantized_bias: Whether kernels want the bias as int32; else it stays float.
        float_outputs: Operators whose integer kernels may give float: rounded only where integers read the result.
        float16: Whether float16 runs faster than float32.
        block_products: Whether products of float16 tensors and 4- or 8-bit weights have a kernel (MatMulNBits).
        channel_multiple: Numbers of channels that kernels like: multiples of this.
    """

    name: str
    meaning: str
    provider: "Provider"
    verified: bool
    roles: Mapping[str, Role]
    dynamic: frozenset[str]
    activations: Literal["uint8", "int8"] = "uint8"
    symmetric: bool = False
    weights: Literal["uint8", "int8"] = "int8"
    reduce_range: bool = False
    quantized_bias: bool = True
    float_outputs: frozenset[str] = frozenset({"Gemm", "MatMul"})
    float16: bool = False
    block_products: bool = False
    channel_multiple: int = 8

    @property
    def readable(self) -> bool:
        """Whether what onnxruntime fuses on this machine tells what it fuses there."""
        return self.provider == "cpu"

    @property
    def no_static(self) -> str | None:
        """Why static INT8 gains nothing there, or None."""
        return None if self.roles else f"{self.name} has no fast integer kernels{self._instead}"

    @property
    def no_dynamic(self) -> str | None:
        """Why dynamic INT8 gains nothing there, or None."""
        return None if self.dynamic else f"{self.name} has no kernels that quantize while they run{self._instead}"

    @property
    def _instead(self) -> str:
        return ": float16 is faster there" if self.float16 else ""


_ANCHORS = ("Conv", "Gemm", "MatMul")
_MOVERS = ("Expand", "Flatten", "Gather", "MaxPool", "Reshape", "Resize", "Slice", "Split", "Squeeze", "Tile",
           "Transpose", "Unsqueeze")  # fmt: skip
# Operators that onnxruntime's CPU provider fuses with the Q/DQ pairs around them (QLinear* kernels)
_CPU_ROLES = MappingProxyType(
    {
        **dict.fromkeys(_ANCHORS, Role.ANCHOR),
        **dict.fromkeys(
            ("Add", "AveragePool", "Concat", "Div", "GlobalAveragePool", "LeakyRelu", "Mul", "Sigmoid", "Softmax",
             "Where"),
            Role.JOIN,
        ),
        **dict.fromkeys(_MOVERS, Role.MOVE),
    }
)  # fmt: skip
# Sigmoid, Mul and their like: TensorRT fuses them in floating point, to kernels of its own
_TENSORRT_ROLES = MappingProxyType(
    {
        **dict.fromkeys(_ANCHORS, Role.ANCHOR),
        **dict.fromkeys(("Add", "AveragePool", "Concat", "GlobalAveragePool"), Role.JOIN),
        **dict.fromkeys(("Flatten", "MaxPool", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"), Role.MOVE),
    }
)
_CPU_DYNAMIC = frozenset({"Gather", "Gemm", "LSTM", "MatMul"})
_NOTHING: Mapping[str, Role] = MappingProxyType({})

TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        target.name: target
        for target in (
            Target(
                "cpu-x86-vnni",
                "x86 with AVX512-VNNI or AVX-VNNI",
                "cpu",
                True,
                _CPU_ROLES,
                _CPU_DYNAMIC,
                channel_multiple=16,
            ),
            Target("cpu-x86-avx2", "x86 without VNNI", "cpu", False, _CPU_ROLES, _CPU_DYNAMIC, reduce_range=True),
            Target(
                "cpu-arm",
                "64-bit ARM",
                "cpu",
                False,
                _CPU_ROLES,
                _CPU_DYNAMIC,
                activations="int8",
            ),
            Target(
                "cuda",
                "NVIDIA GPU, onnxruntime's CUDA provider",
                "cuda",
                False,
                _NOTHING,  # it has no fast kernels for Q/DQ: float16 and blocks of weights are what gains
                frozenset(),
                float16=True,
                block_products=True,
            ),
            Target(
                "tensorrt",
                "NVIDIA GPU, TensorRT",
                "tensorrt",
                False,
                _TENSORRT_ROLES,
                frozenset(),
                activations="int8",
                symmetric=True,
                quantized_bias=False,
                float_outputs=frozenset({"Add", "AveragePool", "Conv", "Gemm", "GlobalAveragePool", "MatMul"}),
                float16=True,
            ),
            Target(
                "portable",
                "any runtime that takes standard ONNX",
                "cpu",
                False,
                _CPU_ROLES,
                _CPU_DYNAMIC - {"LSTM"},  # an operator of com.microsoft
                reduce_range=True,  # right on processors with and without VNNI
            ),
        )
    }
)

Goal = Literal["latency", "size", "balanced"]
Technique = Literal["prune", "static", "dynamic", "weights", "float16"]  # of those that `optimize` chooses from


def _check_numbers(bounds: object) -> None:
    """Refuse bounds that are no numbers, or not a number."""
    for field in fields(bounds):  # type: ignore[arg-type]
        value = getattr(bounds, field.name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, Real) or math.isnan(value)):
            raise UsageError(f"{field.name.replace('_', '-')} must be a number, got {value!r}")


@dataclass(frozen=True, slots=True)
class Budget:
    """What the result may cost.

    Attributes:
        max_drop: Largest accepted drop of the metric, as a share (0.01 = one point of a 0..1 score).
        min_agreement: Smallest accepted share of answers equal to the original's; None: ``1 - 3 * max_drop``.
        min_sqnr: Smallest accepted signal-to-quantization-noise ratio of every float output, dB; None: 20 dB where
            there are no labels, no bound where there are.
        max_size: Largest accepted size in bytes.
        max_latency_ratio: Largest accepted latency, as a share of the original's.

    Raises:
        UsageError: A bound is outside its range.
    """

    max_drop: float = 0.01
    min_agreement: float | None = None
    min_sqnr: float | None = None
    max_size: int | None = None
    max_latency_ratio: float | None = None

    def __post_init__(self) -> None:
        _check_numbers(self)
        if not 0 <= self.max_drop <= 1:
            raise UsageError(f"max-drop must be in [0, 1], got {self.max_drop}")
        if self.min_agreement is not None and not 0 <= self.min_agreement <= 1:
            raise UsageError(f"min-agreement must be in [0, 1], got {self.min_agreement}")
        if self.min_sqnr is not None and not math.isfinite(self.min_sqnr):
            raise UsageError(f"min-sqnr must be a finite number, got {self.min_sqnr}")
        if self.max_size is not None and self.max_size <= 0:
            raise UsageError(f"max-size must be positive, got {self.max_size}")
        if self.max_latency_ratio is not None and not self.max_latency_ratio > 0:
            raise UsageError(f"max-latency-ratio must be positive, got {self.max_latency_ratio}")

    @property
    def agreement_bound(self) -> float:
        """The smallest accepted agreement."""
        return max(0.0, 1 - 3 * self.max_drop) if self.min_agreement is None else self.min_agreement


@dataclass(frozen=True, slots=True)
class Gates:
    """Bounds that a command holds its one result to: only those that the user names; None is no gate.

    Attributes:
        max_drop: Largest accepted drop of the metric, as a share.
        min_agreement: Smallest accepted share of answers equal to the original's.
        min_sqnr: Smallest accepted SQNR of every float output, dB.
        max_size: Largest accepted size in bytes.
        max_size_ratio: Largest accepted size, as a share of the original's.
        max_latency_ratio: Largest accepted latency, as a share of the original's.

    Raises:
        UsageError: A bound is outside its range.
    """

    max_drop: float | None = None
    min_agreement: float | None = None
    min_sqnr: float | None = None
    max_size: int | None = None
    max_latency_ratio: float | None = None
    max_size_ratio: float | None = None

    def __post_init__(self) -> None:
        if self.max_size_ratio is not None and not self.max_size_ratio > 0:
            raise UsageError(f"max-size-ratio must be positive, got {self.max_size_ratio}")
        _check_numbers(self)
        Budget(  # the ranges are the same
            0.0 if self.max_drop is None else self.max_drop,
            self.min_agreement,
            self.min_sqnr,
            self.max_size,
            self.max_latency_ratio,
        )

    def missed(self, *, drop: float | None, agreement: float, sqnr: float, size: int, original_size: int) -> list[str]:
        """Say which bounds a result misses, its latency aside (`search.race.slowness` tells that).

        Args:
            drop: Of the metric; None: there is no metric.
            agreement: Share of answers equal to the original's.
            sqnr: Of the worst float output, dB.
            size: Bytes.
            original_size: The original's, bytes.
        """
        found = []
        if self.max_drop is not None and drop is not None and drop > self.max_drop + 1e-9:  # a difference of counts
            found.append(f"the metric drops by {told_apart(drop, self.max_drop)}, allowed is {self.max_drop:g}")
        if self.min_agreement is not None and agreement < self.min_agreement:
            told = told_apart(agreement, self.min_agreement)
            found.append(f"agreement with the original {told} is under {self.min_agreement:g}")
        if self.min_sqnr is not None and not sqnr >= self.min_sqnr:
            found.append(f"SQNR {sqnr:.1f} dB is under {self.min_sqnr:g} dB")
        if self.max_size is not None and size > self.max_size:
            found.append(f"{size} bytes are more than {self.max_size}")
        if self.max_size_ratio is not None and size > self.max_size_ratio * original_size:
            found.append(f"{size} bytes are more than {self.max_size_ratio:g} of the original's {original_size}")
        return found


def told_apart(value: float, bound: float) -> str:
    """Return a share with four digits, or with as many as it takes to differ from a bound that it is not."""
    digits = next((n for n in range(4, 9) if round(value, n) != round(bound, n)), 4)
    return f"{round(value, digits) + 0.0:.{digits}f}"  # never -0.0000


def get_target(name: str) -> Target:
    """Return the target of that name; ``auto`` is this machine.

    Raises:
        UsageError: There is no such target.
    """
    if name == "auto":
        return detect()
    if name not in TARGETS:
        raise UsageError(f"unknown target {name!r}", hint=f"one of: auto, {', '.join(TARGETS)}")
    return TARGETS[name]


@cache
def detect() -> Target:
    """Return the target that describes this machine's processor."""
    if platform.machine().lower() in {"arm64", "aarch64"}:
        return TARGETS["cpu-arm"]
    return TARGETS["cpu-x86-vnni" if cpu_features() & {"avx512_vnni", "avx_vnni"} else "cpu-x86-avx2"]


def cpu_name() -> str:
    """Return what the processor calls itself."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def cpu_features() -> frozenset[str]:
    """Return the processor's flags; empty where the system does not say (then the safe 7-bit weights are used)."""
    return frozenset((_cpuinfo("flags") or _cpuinfo("Features")).split())


def _cpuinfo(field: str) -> str:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == field:
            return value.strip()
    return ""
