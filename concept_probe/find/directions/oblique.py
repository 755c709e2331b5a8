"""The oblique projection along given directions that disturbs given rows least."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.find.directions.projection import Projection


def fit_oblique(directions: Float[Tensor, "d k"], others: Float[Tensor, "n d"], *, ridge: float = 1e-3) -> Projection:
    """x -> x - D Eᵀ x, where Eᵀ D = 1 and E reads as little as possible from the rows of `others`.

    E = M⁻¹ D (Dᵀ M⁻¹ D)⁻¹ with M = mean(x xᵀ) over `others` plus `ridge` of its mean diagonal.
    No mean is needed, so it can be put into a matrix without a bias.
    """
    d = directions.double()
    x = others.double()
    moment = x.mT @ x / len(x)
    moment.diagonal().add_(ridge * moment.diagonal().mean())
    solved = torch.cholesky_solve(d, torch.linalg.cholesky(moment))
    return Projection(d, torch.linalg.solve(d.mT @ solved, solved, left=False), None)
