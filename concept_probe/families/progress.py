"""A progress bar on standard error that leaves nothing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Yield a function that counts `n` more as done; a total of 0 shows nothing."""
    if not total:
        yield lambda n: None
        return
    with bars() as several:
        task = several.add_task(what, total=total, completed=done)
        yield lambda n: several.advance(task, n)


def bars() -> Progress:
    """A place for bars on standard error that leaves nothing behind; a log or a pipe gets nothing at all."""
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
