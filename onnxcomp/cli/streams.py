"""The process's output streams, made such that nothing a user does with them is a crash."""

import io
import logging
import os
import sys
from pathlib import Path

__all__ = ["discard_stdout", "prepare_streams", "show", "stdout_failure"]


def prepare_streams() -> None:
    """Let output streams take any text, stand in for closed ones, and silence foreign logs.

    Only the command line does this, once: it is a change of the whole process.
    """
    # Where a stream is closed (`>&-`) the next file opened would get its number, and stray prints would land in it
    sys.stdout = sys.stdout or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  (open to the end)
    sys.stderr = sys.stderr or Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  (open to the end)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # paths hold what a terminal's encoding may lack
    # It warns of invalid models, which we refuse with an error of our own
    logging.getLogger("onnx_ir").setLevel(logging.CRITICAL)


def show(text: str) -> None:
    """Print to stdout, in its own encoding; click's echo prints UTF-8 where that is ASCII."""
    if sys.stdout is not None:
        sys.stdout.write(text)


def stdout_failure() -> OSError | None:
    """Say why stdout takes no more (its disk is full); None: all that was printed has arrived."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as err:
        return err
    return None


def discard_stdout() -> None:
    """Drop what is left to print: Python would try, and fail, to print it at its end."""
    sys.stdout = sys.__stdout__  # typer wraps it
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
