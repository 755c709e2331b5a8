"""Noise in place of columns."""

from __future__ import annotations

import zlib

import torch
from torch import Tensor

from concept_probe.types import Site, unit


def column_noise(site: Site, columns: Tensor, factor: float, seed: int) -> Tensor:
    """Random directions (d, m), `factor` times as long as the columns (d, m) of `site`, which names them with `seed`."""
    generator = torch.Generator().manual_seed(zlib.crc32(f"{seed}/{site}".encode()))
    drawn = torch.randn(columns.shape, generator=generator).to(columns)
    return factor * unit(drawn) * torch.linalg.vector_norm(columns, dim=0)
