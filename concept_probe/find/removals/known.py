"""Removals that put in what coefficients are in other rows: a mean, another prompt's, noise, or a share of the usual."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.arguments import SeedNumber
from concept_probe.find.removals.removal import Elsewhere, Removal
from concept_probe.types import Site, unit


@dataclass(frozen=True)
class Mean(Removal):
    """Its mean on other prompts; in weights, what columns add on average goes into the bias."""

    name = "mean"
    reads = "others"
    on = ("columns",)
    shifts = True

    def coefficients(self, c: Tensor, elsewhere: Elsewhere) -> Tensor:
        return elsewhere.mean()


@dataclass(frozen=True)
class Resample(Removal):
    """What it is in one other prompt, drawn for each prompt."""

    name = "resample"
    reads = "others"
    draws = True

    def coefficients(self, c: Tensor, elsewhere: Elsewhere) -> Tensor:
        return elsewhere.another()


@dataclass(frozen=True)
class Noise(Removal):
    """A draw with the mean, and `factor` times the spread, that it has on other prompts.

    In weights, where no activation is known, a random direction of `factor` times the column's length is added to it.
    """

    name = "noise"
    reads = "others"
    draws = True
    on = ("columns",)
    factor: float = 1.0
    """How strong the noise is."""
    seed: SeedNumber = 0
    """In weights, what names the random directions."""

    def coefficients(self, c: Tensor, elsewhere: Elsewhere) -> Tensor:
        return elsewhere.mean() + self.factor * elsewhere.spread() * elsewhere.normal()

    def change(self, site: Site, columns: Tensor) -> Tensor:
        return column_noise(site, columns, self.factor, self.seed)


@dataclass(frozen=True)
class Clamp(Removal):
    """`gamma` times what it usually is on the concept's own prompts, as in SAeUron (arXiv 2501.18052)."""

    name = "clamp"
    reads = "own"
    gamma: float = -1.0
    """Negative pushes away from the concept."""

    def coefficients(self, c: Tensor, elsewhere: Elsewhere) -> Tensor:
        return elsewhere.typical() * self.gamma


def column_noise(site: Site, columns: Tensor, factor: float, seed: int) -> Tensor:
    """Random directions (d, m), `factor` times as long as the columns (d, m) of `site`, which names them with `seed`."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{site}".encode()))
    drawn = torch.randn(columns.shape, generator=generator).to(columns)
    return factor * unit(drawn) * torch.linalg.vector_norm(columns, dim=0)
