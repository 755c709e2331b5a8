"""Rows made of known features: what a sparse autoencoder should find."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.types import Site, unit

SITE = Site("synthetic", "planted")


@dataclass(frozen=True)
class Planted:
    """Sums of `active` of `features` unit directions, with weights in 0.5..1.5, an offset and a little noise."""

    features: int = 64
    d: int = 32
    active: int = 3
    noise: float = 0.02
    offset: float = 3.0
    scale: float = 1.0
    seed: int = 0
    dtype: torch.dtype = torch.float32

    def _generator(self, number: int) -> torch.Generator:
        """Far from the small seeds of a training run, whose random start would otherwise be the answer.

        A generator on the CPU reads the low 32 bits of its seed and no others.
        """
        return torch.Generator().manual_seed((2_654_435_761 * (self.seed + 1) + number) % 2**32)

    @property
    def directions(self) -> Tensor:
        """(features, d), unit rows."""
        return unit(torch.randn(self.features, self.d, generator=self._generator(0)), dim=1)

    @property
    def bias(self) -> Tensor:
        return self.offset * torch.randn(self.d, generator=self._generator(1))

    def batch(self, size: int, number: int) -> Tensor:
        """Rows (size, d), a function of `number`."""
        generator = self._generator(number + 2)
        which = torch.rand(size, self.features, generator=generator).topk(self.active, dim=1).indices
        weights = 0.5 + torch.rand(size, self.active, generator=generator)
        codes = torch.zeros(size, self.features).scatter_(1, which, weights)
        rows = codes @ self.directions + self.bias + self.noise * torch.randn(size, self.d, generator=generator)
        return (rows * self.scale).to(self.dtype)

    def batches(self, size: int = 512) -> Iterator[Tensor]:
        number = 0
        while True:
            yield self.batch(size, number)
            number += 1


def recovery(decoder: Tensor, directions: Tensor) -> float:
    """Mean over true directions of the largest cosine with any decoder row."""
    return float((unit(directions, dim=1) @ unit(decoder, dim=1).mT).max(1).values.mean())
