"""The rows of one site, end to end over the shards of a store, and drawn from there in a seeded order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.activations.shard import ShardContents
from concept_probe.activations.shuffle import Windows, permuted

READ_TOGETHER = 128
"""Rows that are read together; at a width of 768 in float16, 200 kB: long enough for a disk, short beside a window."""


@dataclass(frozen=True)
class StoredRows:
    """Where the rows of one site are."""

    name: str
    """Of the rows' tensor in every shard."""
    shards: Sequence[Callable[[], ShardContents]]
    """One call per shard that holds rows of the site; the first checks the file."""
    ends: Tensor
    """Rows up to the end of each shard, long (shards,)."""
    width: int
    dtype: torch.dtype

    @property
    def rows(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def gather(self, rows: Tensor) -> Tensor:
        """The rows with these numbers (m,), one by one: (m, d)."""
        out = torch.empty(len(rows), self.width, dtype=self.dtype)
        owners = torch.searchsorted(self.ends, rows, right=True)
        for i in owners.unique().tolist():
            here = owners == i
            first = int(self.ends[i - 1]) if i else 0
            out[here] = self.shards[i]().tensors[self.name][rows[here] - first]
        return out

    def read(self, spans: Sequence[tuple[int, int]]) -> Tensor:
        """The rows of ascending runs (first, end), end to end: (n, d)."""
        out = torch.empty(sum(end - first for first, end in spans), self.width, dtype=self.dtype)
        at = 0
        for first, end in spans:
            while first < end:
                i = int(torch.searchsorted(self.ends, first, right=True))
                take = min(end, int(self.ends[i])) - first
                before = int(self.ends[i - 1]) if i else 0
                self.shards[i]().read_into(self.name, first - before, out[at : at + take])
                first, at = first + take, at + take
        return out


@dataclass(frozen=True)
class ChosenRows:
    """Some rows of one site, drawn from as if there were no others."""

    stored: StoredRows
    numbers: Tensor
    """Of the rows that are there, long (rows,), rising."""

    @property
    def rows(self) -> int:
        return len(self.numbers)

    @property
    def width(self) -> int:
        return self.stored.width

    @property
    def dtype(self) -> torch.dtype:
        return self.stored.dtype

    def gather(self, rows: Tensor) -> Tensor:
        """The rows with these numbers (m,), one by one: (m, d)."""
        return self.stored.gather(self.numbers[rows])

    def read(self, spans: Sequence[tuple[int, int]]) -> Tensor:
        """The rows of ascending runs (first, end), end to end: (n, d)."""
        return self.gather(torch.cat([torch.arange(first, end) for first, end in spans]))


def draw_batches(
    stored: Sequence[StoredRows | ChosenRows],
    size: int,
    *,
    seed: int,
    epochs: int | None,
    start: int,
    window: int | None,
) -> Iterator[tuple[Tensor, ...]]:
    """Batches (size, d) of the same rows of every site, without return within an epoch.

    Each epoch has its own order; what does not fill a batch waits for the next. `window` None draws every row
    from the whole store.
    """
    total = stored[0].rows
    held = _Held(stored, window or total)
    per_epoch = total // size
    number = start
    while epochs is None or number < epochs * per_epoch:
        epoch, place = divmod(number, per_epoch)
        key, first = seed * 1_000_003 + epoch, place * size
        if window is None:
            rows = permuted(torch.arange(first, first + size), total, key)
            yield tuple(of_site.gather(rows) for of_site in stored)
        else:
            yield held.take(key, first, size)
        number += 1


class _Held:
    """One window of every site in memory."""

    def __init__(self, stored: Sequence[StoredRows | ChosenRows], window: int) -> None:
        self.stored = stored
        self.window = window
        self.total = stored[0].rows
        self.what: tuple[Windows, int] | None = None
        self.rows: tuple[Tensor, ...] = ()
        self.order = torch.empty(0, dtype=torch.long)

    def take(self, seed: int, first: int, size: int) -> tuple[Tensor, ...]:
        """The rows at positions first..first + size of the order that `seed` names."""
        windows = Windows(self.total, self.window, READ_TOGETHER, seed)
        out = tuple(torch.empty(size, s.width, dtype=s.dtype) for s in self.stored)
        filled = 0
        while filled < size:
            w = windows.at(first + filled)
            self._hold(windows, w)
            begin, end = windows.bounds(w)
            here = self.order[first + filled - begin : min(first + size, end) - begin]
            for rows, batch in zip(self.rows, out, strict=True):
                torch.index_select(rows, 0, here, out=batch[filled : filled + len(here)])
            filled += len(here)
        return out

    def _hold(self, windows: Windows, w: int) -> None:
        if self.what == (windows, w):
            return
        self.rows, self.what = (), None  # the old window goes before the new one comes
        spans = windows.spans(w)
        self.rows = tuple(of_site.read(spans) for of_site in self.stored)
        self.order = windows.mixed(w)
        self.what = windows, w
