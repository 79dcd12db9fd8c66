"""The command line: one module per command. Parses, calls the API, prints; holds no logic of its own."""

import signal
import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit with its code."""
    for name in ("SIGTERM", "SIGHUP"):  # a job that is cancelled, a terminal that is closed: like Ctrl-C
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, signal.default_int_handler)
    try:  # Ctrl-C may come while modules are being loaded
        from onnxcomp.cli.streams import prepare_streams

        prepare_streams()
        from onnxcomp.cli.app import build_app, run

        code = run(build_app(), sys.argv[1:])
    except KeyboardInterrupt:
        print("error: interrupted; no file is half written", file=sys.stderr)
        code = 130
    sys.exit(code)
