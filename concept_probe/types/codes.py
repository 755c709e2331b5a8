"""Sparse codes, and what makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from torch import Tensor

from concept_probe.types.places import Site


@dataclass(frozen=True)
class RowUnits:
    """Rows were encoded in units of their own: x = size y + mean, with y what was encoded."""

    size: Tensor
    """(n, 1), positive"""
    mean: Tensor | None = None
    """(n, 1); None where nothing was taken away"""


@dataclass(frozen=True)
class Codes:
    """Sparse codes: for each of n rows the k active features. Padding has value 0."""

    values: Tensor
    """(n, k)"""
    indices: Tensor
    """(n, k), long"""
    units: RowUnits | None = None
    """Of autoencoders that normalise each row; None where codes are in the units of the activations."""

    def dense(self, width: int) -> Tensor:
        """(n, width), zero where a feature does not fire."""
        out = self.values.new_zeros(*self.values.shape[:-1], width)
        return out.scatter_add(-1, self.indices, self.values)

    def in_row_units(self, written: Tensor) -> Tensor:
        """What decoder rows add up to (n, d), in the units of each row: a change of codes is written so."""
        return written if self.units is None else written * self.units.size.to(written)


@runtime_checkable
class SparseCoder(Protocol):
    """What `find` and `erase` ask of a sparse autoencoder."""

    site: Site
    width: int
    """Number of features f."""

    @property
    def decoder(self) -> Tensor:
        """(f, d): row j is the direction that feature j writes, in the units of the activations."""
        ...

    def encode(self, x: Tensor) -> Codes: ...
    def decode(self, codes: Codes) -> Tensor: ...
