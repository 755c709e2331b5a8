"""Several processes on one sweep: each claims cells of the same store, so none is measured twice."""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import TYPE_CHECKING

from concept_probe.bench.sweep.grid import Grid
from concept_probe.bench.sweep.store import RowStore, SweepRow
from concept_probe.bench.sweep.sweep import Sweep
from concept_probe.learn import named_saes
from concept_probe.threads import use_threads

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True)
class SweepOrder:
    """What a process needs to know to take part in a sweep; every value can be sent to it."""

    grid: Grid
    subject: str | Callable[[], Subject]
    """A name for `families.load`, or a function of a module that makes it."""
    twin: str | Callable[[], Subject] | None
    folder: Path
    rows: Path
    retry: bool = False
    threads: int | None = None
    """Of torch, per process; None leaves it as it is."""
    copy: bool = False
    """Whether the subject is loaded twice, for attackers who hold a copy."""
    recogniser: str | None = None
    """A name for `detect.recogniser`; None takes who belongs to the subject, or a concept's gold answers."""
    saes: tuple[str, ...] = ()
    """Names for `learn.named_saes`; empty: those that are shipped for the subject, if any."""
    clip_skip: int = 0
    """Of models that are loaded by name, see `families.load`."""
    picture_size: tuple[int, int] | None = None
    """Of the same."""

    def sweep(self) -> Sweep:
        """The sweep with its models loaded."""
        from concept_probe.families import load

        def made(source: str | Callable[[], Subject] | None) -> Subject | None:
            if not isinstance(source, str):
                return source and source()
            return load(source, clip_skip=self.clip_skip, picture_size=self.picture_size)

        subject = made(self.subject)
        assert subject is not None  # for the type checker: only the twin may be None
        copy = made(self.subject) if self.copy else None
        saes = named_saes(self.saes, subject) if self.saes else ()
        return Sweep(
            self.grid, subject, self.folder, RowStore(self.rows), made(self.twin), copy=copy,
            recogniser=self.recogniser, saes=saes,
        )  # fmt: skip


def work(order: SweepOrder, tell: Callable[[SweepRow], None] | None = None) -> None:
    """Take part until no unclaimed cell is left. An interruption ends it quietly: finished rows are on disk."""
    use_threads(order.threads)
    try:
        for row in order.sweep().run(retry=order.retry):
            if tell is not None:
                tell(row)
    except KeyboardInterrupt:
        if tell is not None:
            raise


@contextmanager
def helpers(order: SweepOrder, count: int) -> Iterator[list[BaseProcess]]:
    """`count` processes that work beside this one; on leaving the block they are waited for, after an error ended."""
    context = multiprocessing.get_context("spawn")
    started: list[BaseProcess] = [context.Process(target=work, args=(order,), daemon=True) for _ in range(count)]
    with _deaf_to_interruptions():
        for process in started:
            process.start()
    try:
        yield started
        for process in started:
            process.join()
    finally:
        for process in started:
            if process.is_alive():
                process.terminate()
            process.join()


@contextmanager
def _deaf_to_interruptions() -> Iterator[None]:
    """Processes that are started inside leave an interruption to the one that started them, which ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    own = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, own)
