"""Seeded orders of n rows that are never written down: constant memory, any position at once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_ROUNDS = 6
_MASK = (1 << 31) - 1


def permuted(positions: Tensor, n: int, seed: int) -> Tensor:
    """Where each of `positions` (m,) long in 0..n-1 goes under the permutation of n rows that `seed` names.

    A balanced Feistel network over the smallest even number of bits that covers n; a value outside 0..n-1 is
    sent through again until it falls inside (cycle walking), so the map is one to one.
    """
    half = max(1, ((n - 1).bit_length() + 1) // 2)
    generator = cpu_generator(seed)
    keys = torch.randint(1, _MASK, (_ROUNDS,), generator=generator).tolist()
    out = _feistel(positions, half, keys)
    while bool((outside := out >= n).any()):
        out[outside] = _feistel(out[outside], half, keys)
    return out


@dataclass(frozen=True)
class Windows:
    """An order of n rows in which runs of rows stay together on disk and are taken apart in memory.

    The rows, as a ring that is entered at a random place, are cut into blocks; blocks are put in random order and
    dealt to windows of about equal size; the rows of one window are mixed. Whoever holds one window can draw from
    all over the store, and reads whole blocks only.
    """

    n: int
    """Rows in all."""
    window: int
    """Rows of a window, at most; a window holds one block at least."""
    block: int
    """Rows that are read together."""
    seed: int

    @property
    def _blocks(self) -> int:
        return -(-self.n // self.block)

    @property
    def count(self) -> int:
        """Windows in all."""
        return 1 if self.n <= self.window else -(-self._blocks // max(1, self.window // self.block))

    def bounds(self, w: int) -> tuple[int, int]:
        """The positions of the order that window `w` covers, the second excluded."""
        first, end = self._of(w)
        return min(self.n, first * self.block), min(self.n, end * self.block)

    def _of(self, w: int) -> tuple[int, int]:
        """The blocks of window `w`, by their place in the order."""
        return w * self._blocks // self.count, (w + 1) * self._blocks // self.count

    def at(self, position: int) -> int:
        """The window that covers a position of the order."""
        w = min(self.count - 1, position * self.count // self.n)
        while position < self.bounds(w)[0]:
            w -= 1
        while position >= self.bounds(w)[1]:
            w += 1
        return w

    def spans(self, w: int) -> list[tuple[int, int]]:
        """Runs of rows (first, end) that make up window `w`, in ascending order."""
        a, b = self._of(w)
        whole = self.n // self.block
        ring = torch.arange(a, min(b, whole))
        if len(ring):
            ring = permuted(ring, whole, self.seed)
        # What is left over when the ring is cut comes last; the entry differs from seed to seed, so it does too.
        starts = [i * self.block for i in ring.tolist()] + [whole * self.block] * (b > whole)
        entry = int(torch.randint(self.n, (), generator=cpu_generator(self.seed)))
        spans = []
        for start in starts:
            first = (start + entry) % self.n
            end = first + min(self.block, self.n - start)
            spans += [(first, min(end, self.n))] + [(0, end - self.n)] * (end > self.n)
        return sorted(spans)

    def mixed(self, w: int) -> Tensor:
        """In which order the rows of window `w`, laid end to end as `spans` has them, are drawn: long (n_w,)."""
        first, end = self.bounds(w)
        return torch.randperm(end - first, generator=cpu_generator(self.seed * 1_000_003 + w + 1))


def cpu_generator(seed: int) -> torch.Generator:
    """A random source on the CPU, where every device draws the same; any whole number is a seed."""
    return torch.Generator("cpu").manual_seed(seed % (1 << 63))


def _feistel(x: Tensor, half: int, keys: list[int]) -> Tensor:
    low = (1 << half) - 1
    left, right = x >> half, x & low
    for key in keys:
        mixed = ((right + key) * 0x9E3779B1) & _MASK
        mixed = ((mixed ^ (mixed >> 15)) * 0x2C1B3C6D) & _MASK
        mixed = ((mixed ^ (mixed >> 12)) * 0x297A2D39) & _MASK
        left, right = right, left ^ ((mixed ^ (mixed >> 15)) & low)
    return (left << half) | right
