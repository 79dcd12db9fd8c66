"""The command table, and what every command does alike: errors to stderr, exit codes."""

import shlex
import sys
import traceback
from pathlib import Path
from typing import Annotated

import typer

from onnxcomp import __version__
from onnxcomp.cli import (
    bench,
    calibrate,
    check,
    compare,
    doctor,
    inspect,
    optimize,
    pack,
    passes,
    prune,
    quantize,
    report,
    sensitivity,
    share,
    unpack,
)
from onnxcomp.cli.configuration import command_line, file_values, read_configuration, used_file
from onnxcomp.cli.signature import commands
from onnxcomp.cli.streams import discard_stdout, stdout_failure
from onnxcomp.errors import OnnxCompError, UsageError

__all__ = ["EXIT_CODES", "build_app", "run"]

_ParseError: type[typer.BadParameter] = typer.BadParameter.__mro__[1]  # "UsageError", which typer does not export
_INTERRUPTED = 130
_BUG = 70
EXIT_CODES = {
    0: "done",
    1: "a gate failed",
    2: "usage, data or output path",
    3: "model invalid or a pass failed",
    4: "device or package not available",
    70: "a bug of ours",
    130: "interrupted",
}
_EPILOG = (
    f"Exit codes: {', '.join(f'{code} {meaning}' for code, meaning in EXIT_CODES.items())}. Options have the defaults "
    "that onnxcomp.toml, or [tool.onnxcomp] of pyproject.toml, gives them in this folder or one above."
)


def build_app() -> typer.Typer:
    """Return the application with all commands."""
    app = typer.Typer(
        name="onnxcomp",
        help="Make an ONNX model measurably smaller and faster inside an accuracy budget, or learn why not.",
        epilog=_EPILOG,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    app.command("bench", epilog=bench.EXAMPLES)(bench.command)
    app.command("calibrate", epilog=calibrate.EXAMPLES)(calibrate.command)
    app.command("check", epilog=check.EXAMPLES)(check.command)
    app.command("compare", epilog=compare.EXAMPLES)(compare.command)
    app.command("optimize", epilog=optimize.EXAMPLES)(optimize.command)
    app.command("prune", epilog=prune.EXAMPLES)(prune.command)
    app.command("quantize", epilog=quantize.EXAMPLES)(quantize.command)
    app.command("share", epilog=share.EXAMPLES)(share.command)
    app.command("sensitivity", epilog=sensitivity.EXAMPLES)(sensitivity.command)
    app.command("pack", epilog=pack.EXAMPLES)(pack.command)
    app.command("unpack", epilog=unpack.EXAMPLES)(unpack.command)
    app.command("inspect", epilog=inspect.EXAMPLES)(inspect.command)
    app.command("report", epilog=report.EXAMPLES)(report.command)
    app.command("passes", epilog=passes.EXAMPLES)(passes.command)
    app.command("doctor", epilog=doctor.EXAMPLES)(doctor.command)
    return app


def run(app: typer.Typer, arguments: list[str]) -> int:
    """Run one command line; return its exit code. No error but a bug of ours shows a traceback."""
    try:
        code = _call(app, arguments)
    except OnnxCompError as err:
        _complain(str(err), err.hint)
        code = err.exit_code
        if code == UsageError.exit_code and (file := used_file.get()) is not None and sys.stderr is not None:
            print(f"note: options were also taken from {file}", file=sys.stderr)
    except KeyboardInterrupt:
        code = _interrupted()
    except BrokenPipeError:  # the reader has left, for example `| head`: no error
        code = 0
        discard_stdout()
    except Exception as err:
        if not isinstance(err, OSError) or stdout_failure() is None:
            traceback.print_exc()
            _complain("this is a bug of onnxcomp", "please report it with the lines above")
            return _BUG
        code = 0  # what failed is the printing: told below
    match stdout_failure():
        case BrokenPipeError():
            discard_stdout()
        case OSError() as failure:
            discard_stdout()
            _complain(f"cannot write to standard output: {failure.strerror or failure}", None)
            return code or 2
    return code


def _call(app: typer.Typer, arguments: list[str]) -> int:
    """Call typer; return the code."""
    try:
        code = app(args=arguments, prog_name="onnxcomp", standalone_mode=False, obj=arguments)
    except _ParseError as err:
        if not arguments:
            err.show()  # the help
        else:
            _complain(_wrong_usage(err), f"{_command_path(err)} -h lists what it takes")
        return err.exit_code
    except SystemExit as stop:
        if isinstance(stop.__context__, BrokenPipeError):  # typer turns it into 1, which says that a gate failed
            raise stop.__context__ from None
        return stop.code if isinstance(stop.code, int) else 0 if stop.code is None else 2
    if code == _INTERRUPTED:  # typer's, for Ctrl-C
        return _interrupted()
    return code if isinstance(code, int) else 0


def _wrong_usage(err: typer.BadParameter) -> str:
    """Return what is wrong with a command line, in the form of our own messages."""
    text = err.format_message().replace("Value error, ", "").strip().removesuffix(".")
    return text[:1].lower() + text[1:]


def _command_path(err: typer.BadParameter) -> str:
    return err.ctx.command_path if err.ctx is not None else "onnxcomp"


def _interrupted() -> int:
    _complain("interrupted; no file is half written", None)
    return _INTERRUPTED


def _complain(message: str, hint: str | None) -> None:
    if sys.stderr is None:  # closed; print would take stdout instead
        return
    print(f"error: {_shown(message)}", file=sys.stderr)
    if hint:
        print(f"hint: {_shown(hint)}", file=sys.stderr)


def _shown(text: str) -> str:
    """Return a text as a terminal may have it: names in models can hold line breaks and control characters."""
    lines = text.splitlines()
    return "\n  ".join("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in lines)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"onnxcomp {__version__}")
        raise typer.Exit


def _options(
    ctx: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
    no_config: Annotated[
        bool, typer.Option("--no-config", help="Read no configuration file.", envvar="ONNXCOMP_NO_CONFIG")
    ] = False,
) -> None:
    used_file.set(None)
    command_line.set(shlex.join(["onnxcomp", *map(str, ctx.obj or ())]))
    file_values.set({})
    if no_config or ctx.resilient_parsing or {"-h", "--help"} & set(ctx.obj or ()):
        return
    found = read_configuration(Path.cwd(), commands(build_app()))
    if found is not None and found.values.get(str(ctx.invoked_subcommand)):
        ctx.default_map = {name: dict(values) for name, values in found.values.items()}
        used_file.set(found.path)
        file_values.set(found.values[str(ctx.invoked_subcommand)])
