"""KernelSHAP: Shapley's value as a weighted least-squares fit."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.find.attribution.summaries.summary import Design, Drawn, distinct, every_coalition

SOLVED_AT_ONCE = 64
"""Games whose own systems are solved together."""


@dataclass(frozen=True)
class Kernel(Drawn):
    """The additive game that fits v best by Shapley's kernel, and adds up to v(all) - v(none) (arXiv 1705.07874, eq. 7-8).

    min over φ of Σ_S (m-1) / (C(m,|S|) |S| (m-|S|)) (v(S) - v(none) - Σ_{i in S} φ_i)². Up to `MOST_EXACT` players over all
    coalitions, which gives Shapley's value; beyond, over `samples` coalitions drawn by the kernel and their complements:
    few values for many players, at the price that a player that does nothing has 0 only within its interval.
    """

    name = "kernel"
    efficient = True

    def design(self, players: int) -> Design:
        if self.enumerates(players):
            masks = every_coalition(players)
            return Design(masks, torch.arange(len(masks)), 1)
        if self.samples < players:
            raise ValueError(
                f"kernel: {self.samples} draws for {players} players leave their shares undetermined; give at least "
                f"samples={2 * players}, or summary='shapley'"
            )
        generator = self.generator()
        sizes = torch.arange(1, players).double()
        drawn = torch.multinomial(1 / (sizes * (players - sizes)), self.samples, replacement=True, generator=generator)
        order = torch.rand(self.samples, players, generator=generator).argsort(1).argsort(1)
        chosen = (order < (drawn + 1)[:, None]).double()
        ends = torch.stack([torch.zeros(players), torch.ones(players)]).double()
        masks, rows = distinct(torch.cat([ends[None], torch.stack([chosen, 1 - chosen], 1)]))
        return Design(masks, rows, self.samples)

    def solve(self, design: Design, values: Tensor, weights: Tensor) -> Tensor:
        m = design.masks.shape[1]
        if m == 1:
            return (values[design.masks[:, 0].argmax()] - values[design.masks[:, 0].argmin()])[None]
        if design.rows.ndim == 1:
            inner = (design.masks.sum(1) > 0) & (design.masks.sum(1) < m)
            z, v = design.masks[inner], values[design.rows][inner]
            weigh = torch.tensor([_kernel(int(k), m) for k in z.sum(1).tolist()], dtype=torch.float64)
            return _fit(z, v, weigh[:, None].expand(-1, 1), values[0], values[-1])
        none, whole = values[design.rows[0, 0]], values[design.rows[0, 1]]
        z, v = design.masks[design.rows[1:]].flatten(0, 1), values[design.rows[1:]].flatten(0, 1)
        weigh = weights.repeat_interleave(2, 0)
        parts = zip(*(x.split(SOLVED_AT_ONCE, -1) for x in (v, weigh, none, whole)), strict=True)
        return torch.cat([_fit(z, *part) for part in parts], 1)


def _kernel(size: int, m: int) -> float:
    return (m - 1) / (math.comb(m, size) * size * (m - size))


def _fit(z: Tensor, v: Tensor, weigh: Tensor, none: Tensor, whole: Tensor) -> Tensor:
    """φ (m, g) of coalitions z (c, m) with values v (c, g), weighed by (c, g) or alike for all games (c, 1)."""
    moments = torch.einsum("cg,ci,cj->gij", weigh, z, z)
    right = torch.einsum("cg,ci,cg->gi", weigh.expand_as(v), z, v - none)
    inverse = torch.linalg.pinv(moments, hermitian=True)
    free = (inverse @ right[..., None])[..., 0]
    ones = inverse.sum(-1)
    lacking = (whole - none) - free.sum(-1)
    return (free + ones * (lacking / ones.sum(-1).clamp_min(torch.finfo(v.dtype).tiny))[:, None]).mT
