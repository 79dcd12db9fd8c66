"""What `optimize` works on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from onnxcomp.data import Samples
from onnxcomp.measure import Comparison
from onnxcomp.recipe import Recipe
from onnxcomp.runtime import Provider
from onnxcomp.search.executor import Executor
from onnxcomp.search.judge import Task
from onnxcomp.search.memory import Memory
from onnxcomp.statistics import Statistics
from onnxcomp.target import Budget, Goal, Target, Technique

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["Measured", "Progress", "Work"]

Progress = Callable[[str, float | None], None]  # stage, share done (None: unknown)


@dataclass(frozen=True, slots=True)
class Measured:
    """Candidates that another machine has timed.

    Attributes:
        models: By name; they carry their recipes.
        comparison: What was found out there, by the same names; the baseline is the original.
    """

    models: "Mapping[str, ir.Model]"
    comparison: Comparison


@dataclass(frozen=True, slots=True)
class Work:
    """What `optimize` works on.

    Attributes:
        task: What answers are judged on.
        target: Where the model will run.
        calibration: Samples for activation ranges; None: no technique that needs them.
        statistics: Ranges that were measured before; with them, samples are needed for what they lack alone.
        recipe: Tried instead of the built-in candidates.
        techniques: The only ones that the built-in candidates may use; None: all.
        budget: Bounds.
        goal: What is minimised.
        threads: Intra-op threads of the timed sessions.
        timed: Whether times of this machine count: not where the model is to run on another.
        measured: Candidates that another machine has timed, tried instead of those that would be made here.
        pareto: Folder that gets the candidates that nothing beats in size, latency and score at once.
        memory: What earlier runs on the same things have found out.
        executor: Judges candidates ahead of their turn, elsewhere; None: each is judged here when it is its turn.
        seed: For every random choice.
        time_budget: Seconds after which no optional step is begun; the proof is never cut short.
    """

    task: Task
    target: Target
    calibration: Samples | None = None
    statistics: Statistics | None = None
    recipe: Recipe | None = None
    techniques: tuple[Technique, ...] | None = None
    budget: Budget = field(default_factory=Budget)
    goal: Goal = "latency"
    threads: int = 1
    timed: bool = True
    measured: Measured | None = None
    pareto: Path | None = None
    memory: Memory = field(default_factory=Memory)
    executor: Executor | None = None
    seed: int = 0
    time_budget: float = 300.0

    @property
    def provider(self) -> Provider:
        """What runs the models that are timed and judged: the target's, where times of this machine count."""
        return self.target.provider if self.timed and self.measured is None else "cpu"
