"""What can go wrong, as exceptions that carry the command line's exit code and a hint on what to do next."""

from typing import ClassVar

__all__ = [
    "DataError",
    "EnvironmentUnavailable",
    "GateFailed",
    "MetricError",
    "ModelError",
    "OnnxCompError",
    "OutputError",
    "PassError",
    "RecipeError",
    "UsageError",
]


class OnnxCompError(Exception):
    """Base of every error that onnxcomp raises on purpose.

    Args:
        message: What is wrong and where.
        hint: What the user can do next; shown on a line of its own.
    """

    exit_code: ClassVar[int] = 70

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class GateFailed(OnnxCompError):
    """The work is done and a bound that the user named is missed.

    Args:
        message: What is missed.
        report: What was measured, where there is a report.
        hint: What the user can do next.
    """

    exit_code = 1

    def __init__(self, message: str, *, report: object | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.report = report


class UsageError(OnnxCompError):
    """An argument makes no sense, alone or beside another."""

    exit_code = 2


class DataError(UsageError):
    """Samples or labels can't be read, or don't fit the model."""


class MetricError(UsageError):
    """A metric can't be loaded, raises, or gives no finite number."""


class RecipeError(UsageError):
    """A recipe or a pass setting is wrong."""


class OutputError(UsageError):
    """An output path can't be used."""


class ModelError(OnnxCompError):
    """The model is invalid or uses something that is not supported."""

    exit_code = 3


class PassError(OnnxCompError):
    """A pass failed on a model that it should have handled or declined."""

    exit_code = 3


class EnvironmentUnavailable(OnnxCompError):
    """A device or a package that was asked for is not there."""

    exit_code = 4
