"""One player at a time: taken out of all, or alone with none."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.find.attribution.summaries.summary import Design, Summary, distinct, flips


@dataclass(frozen=True)
class LeaveOneOut(Summary):
    """v(all) - v(all but i): what is lost without it. Of two players that stand in for one another, neither is missed."""

    name = "leave_one_out"

    def design(self, players: int) -> Design:
        masks, rows = distinct(flips(torch.ones(players, dtype=torch.float64)))
        return Design(masks, rows, 1)

    def solve(self, design: Design, values: Tensor, weights: Tensor) -> Tensor:
        pairs = values[design.rows]
        return pairs[:, 0] - pairs[:, 1]


@dataclass(frozen=True)
class Alone(Summary):
    """v(i alone) - v(none): what it does by itself. Of players that work only together, none does anything."""

    name = "alone"

    def design(self, players: int) -> Design:
        masks, rows = distinct(flips(torch.zeros(players, dtype=torch.float64)))
        return Design(masks, rows, 1)

    def solve(self, design: Design, values: Tensor, weights: Tensor) -> Tensor:
        pairs = values[design.rows]
        return pairs[:, 0] - pairs[:, 1]
