"""Entries (row, feature) of sparse codes, sorted by feature: what a sum over a feature's entries walks along."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Order:
    """The n k entries of codes by feature; entries of one feature stay in the order of their rows."""

    entries: Tensor
    """(n k,) long: place of each entry in the flattened (n, k) codes"""
    rows: Tensor
    """(n k,) int32: the row of each entry"""
    offsets: Tensor
    """(f + 1,) int32: feature j owns entries offsets[j] to offsets[j + 1]"""

    @property
    def features(self) -> int:
        return self.offsets.shape[0] - 1

    @property
    def counts(self) -> Tensor:
        """(f,) int32: entries per feature."""
        return self.offsets.diff()

    def part(self, features: slice) -> Order:
        """That of some features alone; itself for all."""
        first, last, _ = features.indices(self.features)
        if (first, last) == (0, self.features):
            return self
        offsets = self.offsets[first : last + 1]
        entries = slice(int(offsets[0]), int(offsets[-1]))
        return Order(self.entries[entries], self.rows[entries], offsets - offsets[0])


def by_feature(indices: Tensor, features: int) -> Order:
    """Sort the entries of `indices` (n, k) once, for several sums over the same codes."""
    flat = indices.reshape(-1).int()
    ranked, entries = flat.sort(stable=True)
    edges = torch.arange(features + 1, dtype=torch.int32, device=flat.device)
    offsets = torch.searchsorted(ranked, edges, out_int32=True)
    rows = torch.div(entries, indices.shape[-1], rounding_mode="floor").int()
    return Order(entries, rows, offsets)
