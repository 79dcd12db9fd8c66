"""``onnxcomp doctor``."""

from onnxcomp.cli import options
from onnxcomp.errors import EnvironmentUnavailable

__all__ = ["EXAMPLES", "command"]

EXAMPLES = """Examples:

onnxcomp doctor

onnxcomp doctor --format json
"""


def command(
    report: options.Reports = None,
    overwrite: options.Overwrite = False,
    output_format: options.OutputFormat = options.Format.TEXT,
    quiet: options.Quiet = False,
) -> None:
    """Show what this machine and installation can do, and what to put right; exit code 4 where nothing works."""
    try:
        from onnxcomp.api import doctor
        from onnxcomp.cli.output import check_outputs, deliver
    except ImportError as err:
        raise EnvironmentUnavailable(f"a package is missing or broken: {err}", hint="pip install onnxruntime") from err

    check_outputs(None, report or [], inputs=(), overwrite=overwrite)
    found = doctor()
    deliver(found, report or [], output_format, quiet=quiet)
    if not found.works:
        fatal = next(problem for problem in found.problems if problem.fatal)
        raise EnvironmentUnavailable(fatal.message, hint=fatal.hint)
