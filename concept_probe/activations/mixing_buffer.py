"""How chunks of rows that come one after the other are mixed in a buffer of twice a chunk."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class MixingSchedule:
    """Each chunk leaves the buffer by thirds: with the chunk before it, with itself, with the one after it.

    A draw gives as many rows as one chunk and mixes three of them evenly. That is as many as a buffer reaches that
    is refilled by halves and drawn from at random (half of the last, a quarter of the one before, and so on: the
    squares of the shares add up to 1/3 in both), but what the buffer holds is known without what came before.
    """

    rows_before: Callable[[int], int]
    """Chunk number to the rows of all chunks before it; also for the number after the last."""
    count: int | None
    """Chunks in all; None where there is no end."""

    def draw_of(self, chunk: int, third: int) -> int:
        """The number of the draw with which a third of a chunk leaves; the first and the last draw have no neighbour."""
        draw = max(chunk - 1 + third, 0)
        return draw if self.count is None else min(draw, self.count - 1)

    def span(self, chunk: int, third: int) -> tuple[int, int]:
        """Which rows of a shuffled chunk (first, end) are its third number 0, 1 or 2."""
        n = self.rows_before(chunk + 1) - self.rows_before(chunk)
        return third * n // 3, (third + 1) * n // 3

    def members(self, draw: int) -> list[tuple[int, int]]:
        """The thirds (chunk, third) that leave with a draw."""
        near = [c for c in range(max(0, draw - 1), draw + 2) if self.count is None or c < self.count]
        return [(c, third) for c in near for third in range(3) if self.draw_of(c, third) == draw]

    def before(self, draw: int) -> int:
        """Rows of all draws before this one."""
        gone = max(0, draw - 1)  # every chunk before this one has left
        rows = self.rows_before(gone)
        for chunk in range(gone, draw + 1 if self.count is None else min(draw + 1, self.count)):
            for third in range(3):
                if self.draw_of(chunk, third) < draw:
                    first, end = self.span(chunk, third)
                    rows += end - first
        return rows

    def at(self, row: int) -> int:
        """The draw that holds row number `row` of the stream; past the end, the number after the last."""
        high = 1
        if self.count is None:
            while self.before(high) <= row:
                high *= 2
        else:
            high = self.count
        return bisect.bisect_right(range(high + 1), row, key=self.before) - 1
