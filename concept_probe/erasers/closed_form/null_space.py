"""Directions that rows which are to stay hardly have: what is changed along these, they don't see."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def null_projector(moment: Float[Tensor, "d d"], null: float) -> Float[Tensor, "d d"]:
    """P onto the eigenvectors of `moment` that hold, from the smallest up, at most the share `null` of its trace."""
    values, vectors = torch.linalg.eigh(moment)
    held = values.clamp_min(0).cumsum(0)
    inside = vectors[:, held <= null * held[-1]]
    return inside @ inside.mT


def small_projector(moment: Float[Tensor, "d d"], below: float) -> Float[Tensor, "d d"]:
    """P onto the eigenvectors of `moment` whose eigenvalues lie below a number."""
    values, vectors = torch.linalg.eigh(moment)
    inside = vectors[:, values < below]
    return inside @ inside.mT
