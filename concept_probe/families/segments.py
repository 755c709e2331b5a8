"""Tensors that hold more than one sequence in a row, and sites that name one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Which rows of a tensor (n, m, d) make a sequence (n, k, d)."""

    index: Tensor
    """(n, k) long, 0..m - 1 where there is such a row"""
    there: Tensor | None = None
    """(n, k) bool, False where the tensor has no such row, so that the sequence has zeros; None: all there"""

    def read(self, x: Tensor) -> Tensor:
        """The sequence, a tensor of its own through which gradients pass."""
        held = torch.take_along_dim(x, self._places(x), 1)
        return held if self.there is None else held * self.there[..., None].to(held)

    def write(self, x: Tensor, new: Tensor) -> Tensor:
        """`x` with `new` (n, k, d) in place of the sequence; what is no row of it is left out."""
        if self.there is None:
            return x.scatter(1, self._places(x).expand(-1, -1, x.shape[2]), new)
        batch, row = self.there.nonzero(as_tuple=True)
        return x.index_put((batch, self.index[batch, row]), new[batch, row])

    def _places(self, x: Tensor) -> Tensor:
        """(n, k, 1), in range also where there is no row."""
        return (self.index if self.there is None else self.index * self.there)[..., None]


@dataclass(frozen=True)
class Segment:
    """What a site names of a module's output, or of its input, where that is not all of it."""

    item: int | None
    """Which item of the output it is in; None where the output is that one tensor."""
    rows: Callable[[], Rows]
    """Its rows in the pass under way."""
