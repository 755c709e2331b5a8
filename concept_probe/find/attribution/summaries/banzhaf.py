"""Banzhaf's value: what a player adds, on average over all coalitions of the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.find.attribution.summaries.summary import Design, Drawn, distinct, every_coalition, flips, joinings


@dataclass(frozen=True)
class Banzhaf(Drawn):
    """β_i = 2^-(m-1) Σ_S [v(S and i) - v(S)] over S without i (Banzhaf 1965; for data, Wang & Jia, arXiv 2205.15466).

    Up to `MOST_EXACT` players by enumeration; beyond, over `samples` coalitions of half of the players on average and
    their complements, in each of which every player is put in and taken out once.
    """

    name = "banzhaf"

    def design(self, players: int) -> Design:
        if self.enumerates(players):
            return Design(every_coalition(players), joinings(players), 1)
        base = torch.randint(2, (self.samples, players), generator=self.generator()).double()
        masks, rows = distinct(flips(torch.stack([base, 1 - base], 1)))
        return Design(masks, rows, self.samples)

    def solve(self, design: Design, values: Tensor, weights: Tensor) -> Tensor:
        if design.rows.ndim == 3:
            return (values[design.rows[..., 0]] - values[design.rows[..., 1]]).mean(1)
        pairs = values[design.rows]  # replicate, coalition or complement, player, with or without, game
        return torch.einsum("rmg,rg->mg", (pairs[..., 0, :] - pairs[..., 1, :]).mean(1), weights)
