"""What `doctor` found on this machine, as values, and its text."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from onnxcomp.report.document import Document
from onnxcomp.report.figures import bytes_text

__all__ = ["Diagnosis", "Extra", "Problem"]


@dataclass(frozen=True, slots=True)
class Extra:
    """An optional part: what it is for, its package's version (empty: missing), and how to install it."""

    name: str
    purpose: str
    version: str
    install: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something to put right; `fatal`: nothing works before that."""

    message: str
    hint: str
    fatal: bool


@dataclass(frozen=True, slots=True)
class Diagnosis(Document):
    """What this machine and installation can do.

    Attributes:
        works: Whether the basis does: a small model was loaded and run.
        versions: Of the packages involved.
        machine: Processor, operating system and Python.
        features: Of the processor, those that matter for integers.
        target: What ``--target auto`` stands for here.
        target_reason: Why.
        cores: Of the machine.
        usable_cores: Those that this process may use.
        memory: Bytes of the machine; None: the system does not say.
        providers: Execution providers of onnxruntime, and why one does not work (empty: it does).
        extras: Optional parts.
        temporary: Folder for temporary files.
        temporary_free: Bytes free in it; None: it can't be written.
        self_test: What failed in loading and running a small model; empty: nothing.
        problems: What to put right.
    """

    kind: ClassVar[str] = "doctor"

    works: bool
    versions: Mapping[str, str]
    machine: Mapping[str, str]
    features: tuple[str, ...]
    target: str
    target_reason: str
    cores: int
    usable_cores: int
    memory: int | None
    providers: Mapping[str, str]
    extras: tuple[Extra, ...]
    temporary: str
    temporary_free: int | None
    self_test: str
    problems: tuple[Problem, ...]

    def render(self, *, verbose: bool = False) -> str:
        """Return the text; it is always all of it."""
        return "\n".join(line.rstrip() for line in _lines(self)) + "\n"


def _lines(found: Diagnosis) -> Iterator[str]:
    for name, version in found.versions.items():
        yield f" {name:16} {version}"
    for name, text in found.machine.items():
        yield f" {name:16} {text}"
    yield f" {'features':16} {' '.join(found.features) or 'none that matter for integers'}"
    yield f" {'target':16} {found.target}: {found.target_reason}"
    memory = "unknown" if found.memory is None else bytes_text(found.memory)
    yield f" {'cores':16} {found.usable_cores} of {found.cores}, memory {memory}"
    for name, why_not in found.providers.items():
        yield f" {'provider':16} {name}: {why_not or 'works'}"
    for extra in found.extras:
        state = extra.version or f"missing; {extra.install}"
        yield f" {'extra':16} {extra.name}, {extra.purpose}: {state}"
    free = "can't be written" if found.temporary_free is None else f"{bytes_text(found.temporary_free)} free"
    yield f" {'temporary files':16} {found.temporary}: {free}"
    yield f" {'self test':16} {found.self_test or 'a small model was loaded and run, with the right result'}"
    yield ""
    for problem in found.problems:
        yield f" {'error' if problem.fatal else 'warning':8} {problem.message}"
        yield f" {'':8} {problem.hint}"
    yield f" result  {'onnxcomp works here' if found.works else 'onnxcomp does not work here'}"
