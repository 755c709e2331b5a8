"""Large sums in a few parts, which the threads of a processor take one after the other.

torch shares each single operation among its threads, and all of them wait at its end for the slowest. A training step is
some hundred operations, so on a machine with other work it waits a hundred times. Here a thread takes a part through
many operations on its own, and whoever is done first takes the next part. Where the parts begin depends on the shapes
alone: with any number of threads the bits are the same.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Part = TypeVar("Part")
PARTS = 8
"""Fewest parts of what is large enough, so that a thread that was held up leaves some to the others."""
_LEAST = 1 << 14
"""Numbers of a part, below which a thread spends its time on taking it up."""
_MOST = 1 << 19
"""Numbers of a part, above which it no longer stays in the cache of a core."""
_pools: dict[int, ThreadPoolExecutor] = {}
_inside = threading.local()


def part_size(count: int, width: int) -> int:
    """How many of `count` rows of `width` numbers make a part."""
    few = max(1, min(count, -(-count // PARTS)))
    return max(min(few, max(1, _MOST // max(1, width))), min(count, max(1, _LEAST // max(1, width))), 1)


def in_parts(count: int, size: int, work: Callable[[slice], Part], device: torch.device) -> list[Part]:
    """What `work` returns for each run of `size` of `count` things, in their order.

    On a processor as many at a time as torch has threads (`torch.set_num_threads`), with one thread for each, and with
    gradients on or off as they are here. Elsewhere, where one call fills the device, everything is one part. What
    `work` raises is raised; parts that nobody has begun are then left.
    """
    if device.type != "cpu":
        return [work(slice(0, count))]
    parts = [slice(start, min(start + size, count)) for start in range(0, count, size)]
    threads = min(torch.get_num_threads(), len(parts))
    if threads <= 1 or getattr(_inside, "part", False):
        return [work(part) for part in parts]
    graded = torch.is_grad_enabled()

    def alone(part: slice) -> Part:
        with torch.set_grad_enabled(graded):
            return work(part)

    futures: list[Future[Part]] = [_pool().submit(alone, part) for part in parts]
    try:
        return [future.result() for future in futures]
    except BaseException:
        for future in futures:
            future.cancel()
        for future in futures:
            if not future.cancelled():
                future.exception()  # a part that has begun may still write; wait until it is over
        raise


def _pool() -> ThreadPoolExecutor:
    """Threads that each compute with one: as many as torch has here."""
    count = torch.get_num_threads()
    if count not in _pools:
        ready = threading.Barrier(count + 1)
        pool = ThreadPoolExecutor(count, "concept_probe-part", initializer=_alone)
        for _ in range(count):
            pool.submit(ready.wait)
        ready.wait()
        torch.set_num_threads(count)  # what a thread sets is also what threads that begin later find
        _pools[count] = pool
    return _pools[count]


def _alone() -> None:
    _inside.part = True
    torch.get_num_threads()  # a thread takes over the common number when it first asks: it must not do so later
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_pools.clear)  # the child has no threads but its own
