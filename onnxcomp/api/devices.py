"""What it means for `optimize` that the target is a device beside the processor, such as a GPU."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from onnxcomp.api.common import why_unmeasured
from onnxcomp.errors import UsageError
from onnxcomp.measure import device_name, fallback, node_profile
from onnxcomp.model import materialized
from onnxcomp.report import fallback_text
from onnxcomp.runtime import why_not
from onnxcomp.search import Work
from onnxcomp.target import Target

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["check_alone", "fallen_back", "times_hint", "whose_times", "why_untimed"]

_RUNS = 5  # of a profile


def why_untimed(target: Target) -> str | None:
    """Say why candidates can't be timed for a target, or None: the device of its provider may be at hand."""
    return why_unmeasured(target) if target.provider == "cpu" else why_not(target.provider)


def times_hint(target: Target) -> str:
    """Say what may be done where candidates can't be timed for a target."""
    hint = "--bundle FOLDER, to time candidates on such a machine; or --goal size, without a bound on latency"
    if target.provider == "cpu":
        return hint
    return f"{hint}; or, on a machine with an NVIDIA GPU, pip install 'onnxcomp[gpu]' in an environment of its own"


def check_alone(work: Work, *, jobs: int, cluster: str | None) -> None:
    """Refuse help from other processes where candidates are judged on a device of this machine.

    Raises:
        UsageError: There would be some.
    """
    if work.provider != "cpu" and (jobs > 1 or cluster is not None):
        raise UsageError(
            f"candidates for {work.target.name} are judged on its provider here, one after another",
            hint="leave out --jobs and --cluster",
        )


def whose_times(work: Work) -> str | None:
    """Return the sentence for reports on a target whose device is at hand, or None."""
    if work.provider == "cpu":
        return None
    device = device_name() or "what device, nvidia-smi does not tell"
    return f"times and answers are those of the {work.provider} provider: {device}"


def fallen_back(models: "Mapping[str, ir.Model]", work: Work) -> list[str]:
    """Say how much of each model ran on the CPU, where the target has another provider.

    Args:
        models: By what they are called.
        work: Where they ran, and on what.

    Raises:
        ModelError: One does not run.
    """
    found = []
    feed = next(iter(work.task.samples.take(1)))
    for name, model in models.items():
        if work.provider == "cpu":
            break
        with materialized(model) as source:
            nodes = node_profile(source, feed, threads=work.threads, provider=work.provider, runs=_RUNS)
        fallen = fallback(nodes, work.provider)
        found += [] if fallen is None else [fallback_text(name, fallen)]
    return found
