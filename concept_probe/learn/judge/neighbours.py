"""How alike the decoder's rows are: twins share one feature between them, and a good dictionary has few."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.evaluation.bootstrap import bootstrap_mean_interval
from concept_probe.learn.sae import Sae
from concept_probe.types import Score, unit

_BLOCK = 1024
"""Cosines of so many rows with all others are in memory at once."""


@dataclass(frozen=True)
class Neighbours:
    """For each of f features, the other feature whose decoder row points most its way."""

    cosine: Tensor
    """(f,) cosine with it."""
    index: Tensor
    """(f,) long: which it is."""
    control: Tensor
    """(f,) the same cosines in as many random directions of the same width."""
    score: Score
    """`nearest cosine`: the mean, with an interval over features; `control` is the mean of the random ones."""


@torch.no_grad()
def decoder_neighbours(sae: Sae, *, draws: int = 2000, seed: int = 0) -> Neighbours:
    """The nearest-neighbour cosine of every decoder row, beside that of random unit rows of the same shape.

    Above the control, features are more alike than chance crowds them; many near 1 are copies. Memory: a
    block of 1,024 rows against all. Neighbours are often mutual, so the interval is somewhat narrow.
    """
    cosine, index = nearest_within(sae.W_dec.detach())
    noise = torch.randn(sae.width, sae.d, generator=torch.Generator().manual_seed(seed))
    control, _ = nearest_within(noise.to(cosine.device))
    low, high = bootstrap_mean_interval(cosine, draws, seed)
    value, chance = float(cosine.double().mean()), float(control.double().mean())
    score = Score("nearest cosine", value, low, high, sae.width, "mean over features", "lower", chance)
    return Neighbours(cosine.cpu(), index.cpu(), control.cpu(), score)


@torch.no_grad()
def nearest_rows(rows: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """rows (n, d), others (m, d) -> largest cosine (n,) and whose it is (n,); no more than BLOCK x m are in memory."""
    goal = unit(others.float(), dim=1).mT
    found = [(unit(part.float(), dim=1) @ goal).max(1) for part in rows.split(_BLOCK)]
    return torch.cat([f.values for f in found]), torch.cat([f.indices for f in found])


@torch.no_grad()
def nearest_within(rows: Tensor) -> tuple[Tensor, Tensor]:
    """As `nearest_rows`, of each row among the other rows of the same dictionary (n, d), n at least 2."""
    if len(rows) < 2:
        raise ValueError(f"a dictionary of {len(rows)} row has no neighbours")
    directions = unit(rows.float(), dim=1)
    values, indices = [], []
    for start in range(0, len(rows), _BLOCK):
        cosines = directions[start : start + _BLOCK] @ directions.mT
        here = torch.arange(len(cosines), device=cosines.device)
        cosines[here, here + start] = -torch.inf
        best = cosines.max(1)
        values.append(best.values)
        indices.append(best.indices)
    return torch.cat(values), torch.cat(indices)
