"""The command line: one module per command. Parses, calls the API, prints; holds no logic of its own."""

import sys

from onnxcomp.cli.app import build_app, run

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(run(build_app(), sys.argv[1:]))
