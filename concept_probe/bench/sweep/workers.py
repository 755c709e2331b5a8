"""Several processes on one sweep: each claims cells of the same store, so none is measured twice."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from concept_probe.bench.sweep.grid import Grid
from concept_probe.bench.sweep.store import Row, Store
from concept_probe.bench.sweep.sweep import Sweep


@dataclass(frozen=True)
class Order:
    """What a process needs to know to take part in a sweep; every value can be sent to it."""

    grid: Grid
    subject: str
    """For `families.load`."""
    twin: str | None
    folder: Path
    rows: Path
    retry: bool = False
    threads: int | None = None
    """Of torch, per process; None leaves it as it is."""

    def sweep(self) -> Sweep:
        """The sweep with its models loaded."""
        from concept_probe.families import load

        twin = load(self.twin) if self.twin is not None else None
        return Sweep(self.grid, load(self.subject), self.folder, Store(self.rows), twin)


def work(order: Order, tell: Callable[[Row], None] | None = None) -> None:
    """Take part until no unclaimed cell is left. An interruption ends it quietly: finished rows are on disk."""
    import torch

    if order.threads is not None:
        torch.set_num_threads(order.threads)
    try:
        for row in order.sweep().run(retry=order.retry):
            if tell is not None:
                tell(row)
    except KeyboardInterrupt:
        if tell is not None:
            raise


@contextmanager
def helpers(order: Order, count: int) -> Iterator[list[BaseProcess]]:
    """`count` processes that work beside this one; on leaving the block they are waited for, after an error ended."""
    context = multiprocessing.get_context("spawn")
    started: list[BaseProcess] = [context.Process(target=work, args=(order,), daemon=True) for _ in range(count)]
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
