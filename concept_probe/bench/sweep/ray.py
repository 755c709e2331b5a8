"""A sweep over several machines, on Ray: workers measure cells, and one process keeps the rows."""

from __future__ import annotations

import contextlib
import importlib
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

from concept_probe.bench.sweep.grid import Cell
from concept_probe.bench.sweep.store import SweepRow
from concept_probe.bench.sweep.sweep import Sweep
from concept_probe.bench.sweep.workers import SweepOrder
from concept_probe.threads import use_threads

LOCAL = "local"
"""The address that means: start Ray on this machine, and end it afterwards."""
LIVES = 2
"""Workers that one cell may take with it before it counts as failed."""


LOST = "worker lost: "
"""How the error of such a cell begins."""


class NoRay(ImportError):
    """Ray is not installed."""


def over_ray(
    order: SweepOrder, address: str = LOCAL, *, workers: int = 2, gpus: float = 0.0, sweep: Sweep | None = None
) -> Iterator[SweepRow]:
    """Measure what has no row yet on `workers` processes of a Ray cluster, and yield each row once it is on disk here.

    `address` is that of the cluster, `auto` for the one that this machine belongs to, `local` to start one. Each worker
    asks for one processor, or `order.threads`, and `gpus` GPUs, loads the models itself, and gets all cells of one
    eraser on one concept and seed; fits are kept in `order.folder` of its machine. Cells are claimed here while a
    worker has them, so other processes may work on the same rows. `sweep` is the order's, where it is loaded already.

    A cell whose worker died is given to another once, then it is a failed row. Raises NoRay where Ray is not installed,
    and what a worker raised where it could not even begin: load the models, or find the cell.
    """
    ray = _ray()
    sweep = order.sweep() if sweep is None else sweep
    mine = not ray.is_initialized()
    if mine:
        where = {"num_cpus": workers * (order.threads or 1)} if address == LOCAL else {"address": address}
        ray.init(**where, include_dashboard=False, log_to_driver=False)
    try:
        yield from _handed_out(ray, order, sweep, workers, gpus)
    finally:
        if mine:
            ray.shutdown()


def _ray() -> Any:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise NoRay(
            "working over machines needs Ray, which is not installed; run `pip install 'concept-probe[ray]'`, or share "
            "the folder of the rows between machines and run the same command on each"
        ) from None


class Measurer:
    """One worker: the sweep with its models, and one cell after the other."""

    def __init__(self, order: SweepOrder) -> None:
        use_threads(order.threads)
        self.sweep = order.sweep()
        self.cells = self.sweep.keys()

    def measure(self, key: str) -> SweepRow:
        """The row of a cell; nothing is written. Raises KeyError where this machine has other weights or prompts."""
        if key not in self.cells:
            raise KeyError(f"no cell {key} here: this machine loads other weights, or another version of the concepts")
        return self.sweep.measured(key, self.cells[key])


def groups(cells: Mapping[str, Cell]) -> deque[deque[str]]:
    """Keys of cells that need the same fit and come together, in the order of the sweep."""

    def place(item):
        return (item[1].seed, item[1].concept.name, item[1].method)

    return deque(deque(key for key, _ in of) for _, of in groupby(cells.items(), key=place))


def _handed_out(ray: Any, order: SweepOrder, sweep: Sweep, workers: int, gpus: float) -> Iterator[SweepRow]:
    finished, cells = sweep.store.rows(), sweep.keys()
    todo = {k: c for k, c in cells.items() if k not in finished or (order.retry and finished[k].status == "failed")}
    waiting, died = groups(todo), dict.fromkeys(todo, 0)
    options = {"num_cpus": order.threads or 1, "num_gpus": gpus}
    make = ray.remote(Measurer).options(**options)
    own: dict[Any, deque[str]] = {make.remote(order): deque() for _ in range(min(workers, max(1, len(waiting))))}
    out: dict[Any, tuple[Any, str, contextlib.ExitStack]] = {}

    def give(worker: Any) -> None:
        """The next cell that nobody has claimed, if any is left."""
        while own[worker] or waiting:
            if not own[worker]:
                own[worker] = waiting.popleft()
            key, claim = own[worker].popleft(), contextlib.ExitStack()
            now = sweep.store.rows().get(key)  # another process may have been quicker
            if claim.enter_context(sweep.store.claim(key)) and (now is None or now == finished.get(key)):
                out[worker.measure.remote(key)] = (worker, key, claim)
                return
            claim.close()

    try:
        for worker in list(own):
            give(worker)
        while out:
            (ready, *_), _ = ray.wait(list(out), num_returns=1)
            worker, key, claim = out.pop(ready)
            with claim:
                row = _row(ray, ready, key, cells[key], died)
                if row is not None:
                    sweep.store.append(row)
            if row is None or row.error.startswith(LOST):
                left = own.pop(worker)
                worker = make.remote(order)
                own[worker] = left
                if row is None:
                    left.appendleft(key)
            if row is not None:
                yield row
            give(worker)
    finally:
        for _, _, claim in out.values():
            claim.close()
        for worker in own:
            ray.kill(worker)


def _row(ray: Any, ready: Any, key: str, cell: Cell, died: dict[str, int]) -> SweepRow | None:
    """What a worker answered; None where it died and the cell is given to another, a failed row where too many did.

    Raises what Ray says of a worker that could not load its models: another one could not either.
    """
    try:
        return ray.get(ready)
    except ray.exceptions.RayActorError as error:
        if error.actor_init_failed:
            raise
        died[key] += 1
        if died[key] < LIVES:
            return None
        said = f"{LOST}{LIVES} workers ended while they measured it: {error}"
        return SweepRow(key, cell.method, cell.concept.name, cell.attack_name, cell.seed, "failed", {}, said)
