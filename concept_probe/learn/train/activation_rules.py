"""Which features may fire on a batch: TopK row by row, or BatchTopK over all rows together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from concept_probe.learn.train.parallel import Team
from concept_probe.learn.train.topk_search import CandidateCount, Precision, largest_preactivations

Rule = Literal["topk", "batchtopk"]
WIDE = 4
"""BatchTopK looks at so many times k features per row at first; a row that may have more is looked at again."""


@dataclass(frozen=True)
class Fired:
    """Codes of n rows over the features that this process holds."""

    values: Tensor
    """(n, m), none negative; 0 where a feature does not fire, or is held by another process"""
    indices: Tensor
    """(n, m) int32, places among the features held here"""
    least: Tensor
    """() smallest value that fires in the batch, over all processes; infinity where nothing fires."""


def fire(
    u: Tensor,
    rows: Tensor,
    bias: Tensor,
    k: int,
    rule: Rule,
    precision: Precision,
    candidates: CandidateCount,
    team: Team,
) -> Fired:
    """Codes of u (n, d), with encoder rows (f, d) and bias (f,) of the features that this process holds."""
    if rule == "batchtopk":
        values, indices = _over_batch(u, rows, bias, k, precision, candidates, team)
    else:
        values, indices = largest_preactivations(u, rows, bias, k, precision, candidates)
        if team.split == "features" and team.size > 1:
            values = _kept(values, team.gather_features(values, 1).topk(k, dim=1).values[:, -1:])
    values = values.relu()
    least = torch.where(values > 0, values, torch.inf).amin() if values.numel() else values.new_tensor(torch.inf)
    return Fired(values, indices, team.gather_features(team.gather_rows(least[None])).min())


def _kept(values: Tensor, least: Tensor | float) -> Tensor:
    return torch.where(values >= least, values, 0.0)


def _over_batch(
    u: Tensor, rows: Tensor, bias: Tensor, k: int, precision: Precision, candidates: CandidateCount, team: Team
) -> tuple[Tensor, Tensor]:
    """The n k largest positive pre-activations of the whole batch (arXiv 2412.06410, section 3)."""
    f, count = rows.shape[0], k * len(u) * (team.size if team.split == "rows" else 1)
    width = min(f, WIDE * k)
    values, indices = largest_preactivations(u, rows, bias, width, precision, candidates)
    while True:
        least = _nth(values, count, team)
        more = (values[:, -1] > least).nonzero().flatten() if width < f else values.new_zeros(0, dtype=torch.long)
        # Every process goes round as often as the one that needs most: `_nth` is a common step.
        if not int(team.sum_features(team.sum_rows(torch.tensor(len(more), device=u.device)))):
            break
        width = min(f, 2 * width)
        wide = values.new_full((len(u), width), -torch.inf)
        places = indices[:, :1].expand(-1, width).clone()
        wide[:, : values.shape[1]], places[:, : values.shape[1]] = values, indices
        if len(more):
            wide[more], places[more] = largest_preactivations(u[more], rows, bias, width, precision)
        values, indices = wide, places
    values = torch.where((values >= least) & (values > 0), values, 0.0)
    busiest = max(1, int((values > 0).sum(1).max())) if len(values) else 1
    return values[:, :busiest], indices[:, :busiest]


def _nth(values: Tensor, count: int, team: Team) -> Tensor:
    """The `count`-th largest of `values` over all processes."""
    flat = values.reshape(-1)
    everywhere = team.gather_features(team.gather_rows(flat.topk(min(count, len(flat))).values))
    return everywhere.topk(min(count, len(everywhere))).values[-1]
