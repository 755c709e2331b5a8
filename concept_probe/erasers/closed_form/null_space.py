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


def left_to_edit(rows: Float[Tensor, "m d"], null: float, eigenvalue: float | None, whose: str) -> Float[Tensor, "d d"]:
    """P onto the directions that `rows` leave: by the share `null` of their moment, or by an eigenvalue of its mean.

    `whose` begins the message and says what the rows are: ValueError where none is left.
    """
    moment = rows.mT @ rows
    if eigenvalue is None:
        projector, asked = null_projector(moment, null), f"null={null}"
    else:
        projector, asked = small_projector(moment / max(len(rows), 1), eigenvalue), f"eigenvalue={eigenvalue}"
    if not round(float(projector.trace())):
        raise ValueError(
            f"{whose} fill all {rows.shape[1]} directions, so {asked} leaves none to edit; make it larger, or keep fewer"
        )
    return projector
