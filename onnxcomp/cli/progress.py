"""Progress on stderr: a live line on a terminal, one line per stage elsewhere."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Show", "shown_progress"]

Show = Callable[[str, float | None], None]


@contextmanager
def shown_progress(*, quiet: bool) -> Iterator[Show | None]:
    """Give a callback that shows stage and share done, or None where nobody would see it."""
    if quiet or sys.stderr is None:
        yield None
    elif not sys.stderr.isatty() or os.environ.get("CI"):
        yield _stage_printer()
    else:
        with _live_line() as show:
            yield show


def _stage_printer() -> Show:
    """Return a callback that prints each stage once, for logs."""
    last = ""

    def show(stage: str, _share: float | None) -> None:
        nonlocal last
        heading = stage.partition(":")[0]
        if heading != last:
            print(f"{heading} ...", file=sys.stderr, flush=True)
        last = heading

    return show


@contextmanager
def _live_line() -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("start", total=None)

        def show(stage: str, share: float | None) -> None:
            bar.update(task, description=stage, total=None if share is None else 1.0, completed=share or 0.0)

        yield show
