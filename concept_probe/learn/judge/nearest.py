"""The largest cosine between each row of one dictionary and the rows of another, a block at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from concept_probe.types import unit

_BLOCK = 1024


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
