"""Integrated gradients: a cheap first pass where what the model does has a slope."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from concept_probe.arguments import Count, check_arguments
from concept_probe.find.attribution.summaries.summary import Design, Summary


@dataclass(frozen=True)
class IntegratedGradients(Summary):
    """φ_i = ∫ ∂v/∂m_i (α, ..., α) dα over 0..1, m_i being how much of player i stays (Sundararajan et al., arXiv 1703.01365).

    All players come in together, along a straight line, by Gauss-Legendre points. It costs a few passes forwards and backwards
    however many players there are, and sees no detour: the sum of its numbers less v(all) - v(none) is its error.
    """

    name = "gradients"
    of = "gradients"
    efficient = True
    points: Count = 8
    """On the line."""

    def __post_init__(self) -> None:
        check_arguments(self, self.name)

    def design(self, players: int) -> Design:
        where = torch.from_numpy(np.polynomial.legendre.leggauss(self.points)[0]) / 2 + 0.5
        return Design(where[:, None].expand(-1, players).clone(), torch.arange(self.points), 1)

    def solve(self, design: Design, values: Tensor, weights: Tensor) -> Tensor:
        share = torch.from_numpy(np.polynomial.legendre.leggauss(len(design.masks))[1]) / 2
        return torch.einsum("cmg,c->mg", values.double(), share)
