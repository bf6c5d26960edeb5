"""How far a long measurement has come: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

PLAIN_LINES = 10  # of a measurement whose progress goes to a file


@contextmanager
def progress_bar(stream: TextIO | None = None) -> Iterator[Callable[[str, int, int], None]]:
    """Yield what `tv.measure(..., progress=...)` and `LandscapeJob.result(progress=...)` call.

    Args:
        stream: where it is shown; standard error unless told.

    Example:
        >>> import io
        >>> lines = io.StringIO()
        >>> with progress_bar(lines) as show:
        ...     for done in range(1, 21):
        ...         show("landscape", done, 20)
        >>> lines.getvalue().splitlines()[-1]
        'landscape 20/20'
    """
    where: TextIO = stream or sys.stderr
    if not where.isatty():
        yield lambda name, done, total: _say_sometimes(where, name, done, total)
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=where)) as bar:
        tasks = {}

        def show(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(name, total=total)
            bar.update(tasks[name], completed=done, total=total)

        yield show


def _say_sometimes(stream: TextIO, name: str, done: int, total: int) -> None:
    if done % max(total // PLAIN_LINES, 1) == 0 or done == total:
        print(f"{name} {done}/{total}", file=stream, flush=True)
