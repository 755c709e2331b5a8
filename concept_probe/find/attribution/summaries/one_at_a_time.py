"""One player at a time: taken out of all, or alone with none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from concept_probe.find.attribution.summaries.summary import Design, Summary, distinct, flips


@dataclass(frozen=True)
class OneAtATime(Summary):
    """v with a player minus v without it, the others all there or all out."""

    others: ClassVar[float]
    """1 where the others are there, 0 where they are out."""

    def design(self, players: int) -> Design:
        masks, rows = distinct(flips(torch.full((players,), self.others, dtype=torch.float64)))
        return Design(masks, rows, 1)

    def solve(self, design: Design, values: Tensor, weights: Tensor) -> Tensor:
        pairs = values[design.rows]
        return pairs[:, 0] - pairs[:, 1]


@dataclass(frozen=True)
class LeaveOneOut(OneAtATime):
    """v(all) - v(all but i): what is lost without it. Of two players that stand in for one another, neither is missed."""

    name = "leave_one_out"

    others = 1.0


@dataclass(frozen=True)
class Alone(OneAtATime):
    """v(i alone) - v(none): what it does by itself. Of players that work only together, none does anything."""

    name = "alone"

    others = 0.0
