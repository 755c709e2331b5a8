"""Sobol's total index: how much of the spread of what the model does is a player's, alone or with others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.arguments import Count, SeedNumber, check_arguments
from concept_probe.find.attribution.summaries.summary import Design, Summary, distinct


@dataclass(frozen=True)
class Sobol(Summary):
    """S_i = Σ (v(A) - v(A with i from B))² / (2 n Var v(A)) (Jansen 1999), with shares of players drawn from 0..1.

    Players are not in or out, but stay in part, as in CRAFT (arXiv 2211.10154): A and B are n = `samples` points of a scrambled Sobol
    sequence in 2 m dimensions. An index has no sign, and indices do not add up to 1: what two players do only together
    counts for both. Where nothing moves v, every index is 0.
    """

    name = "sobol"
    signed = False
    samples: Count = 32
    """Points; each asks for one value more than there are players."""
    seed: SeedNumber = 0

    def __post_init__(self) -> None:
        check_arguments(self, self.name)

    def design(self, players: int) -> Design:
        if 2 * players > torch.quasirandom.SobolEngine.MAXDIM:
            most = torch.quasirandom.SobolEngine.MAXDIM // 2
            raise ValueError(
                f"sobol: {players} players, and its points have at most {most}; join players, or use 'shapley'"
            )
        engine = torch.quasirandom.SobolEngine(2 * players, scramble=True, seed=self.seed)
        drawn = engine.draw(self.samples, dtype=torch.float64)
        a, b = drawn[:, :players], drawn[:, players:]
        changed = a[:, None].expand(-1, players, -1).clone()
        each = torch.arange(players)
        changed[:, each, each] = b
        masks, rows = distinct(torch.cat([a[:, None], changed], 1))
        return Design(masks, rows, self.samples)

    def solve(self, design: Design, values: Tensor, weights: Tensor) -> Tensor:
        read = values[design.rows]  # point, itself and then each player's, game
        own, changed = read[:, 0], read[:, 1:]
        moved = torch.einsum("rmg,rg->mg", (own[:, None] - changed).square(), weights) / 2
        mean = (own * weights).sum(0)
        spread = ((own - mean).square() * weights).sum(0) * len(own) / max(len(own) - 1, 1)
        # What moves nothing has a spread of rounding alone.
        return torch.where(spread > 0, moved / spread.clamp_min(torch.finfo(spread.dtype).tiny), 0.0)
