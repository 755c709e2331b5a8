"""Shapley's value: what a player adds, on average over all orders in which players come in."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.find.attribution.summaries.summary import Design, Drawn, distinct, every_coalition, joinings

AT_ONCE_VALUES = 2**25
"""Largest number of values in memory while permutations are read."""


@dataclass(frozen=True)
class Shapley(Drawn):
    """φ_i = E_π[v(those before i in π, and i) - v(those before i)] (Shapley 1953; Lundberg & Lee, arXiv 1705.07874).

    Up to `MOST_EXACT` players by enumeration. Beyond, over `samples` pairs of a random order and its reverse, whose errors
    partly cancel; each order asks for as many coalitions as there are players, and adds up to v(all) - v(none) by itself.
    """

    name = "shapley"
    efficient = True

    def design(self, players: int) -> Design:
        if self.enumerates(players):
            return Design(every_coalition(players), joinings(players), 1)
        generator = self.generator()
        first = torch.stack([torch.randperm(players, generator=generator) for _ in range(self.samples)])
        orders = torch.stack([first, first.flip(-1)], 1)
        place = torch.zeros_like(orders).scatter_(-1, orders, torch.arange(players).expand_as(orders))
        masks, rows = distinct((place[..., None, :] < torch.arange(players + 1)[:, None]).double())
        return Design(masks, rows, self.samples, orders)

    def solve(self, design: Design, values: Tensor, weights: Tensor) -> Tensor:
        m = design.masks.shape[1]
        if design.orders is None:
            added = values[design.rows[..., 0]] - values[design.rows[..., 1]]  # player, coalition, game
            sizes = design.masks[design.rows[..., 1]].sum(-1).long()
            share = torch.tensor([1 / (m * math.comb(m - 1, k)) for k in range(m)], dtype=torch.float64)
            return (added * share[sizes][..., None]).sum(1)
        size = max(1, AT_ONCE_VALUES // design.rows.numel())
        return torch.cat(
            [
                self._over_orders(design, design.orders, v, w, m)
                for v, w in zip(values.split(size, 1), weights.split(size, 1), strict=True)
            ],
            1,
        )

    @staticmethod
    def _over_orders(design: Design, orders: Tensor, values: Tensor, weights: Tensor, m: int) -> Tensor:
        walked = values[design.rows]  # replicate, order or its reverse, how many are in, game
        added = walked[:, :, 1:] - walked[:, :, :-1]
        place = orders[..., None].expand_as(added)
        own = torch.zeros_like(added).scatter_(2, place, added).mean(1)
        return torch.einsum("rmg,rg->mg", own, weights)
