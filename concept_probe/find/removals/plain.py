"""Removals that need to know nothing but the coefficient at hand: zero, reflect, and out of the span."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.find.removals.removal import Elsewhere, Removal


@dataclass(frozen=True)
class Zero(Removal):
    """Nothing stands in its place."""

    name = "zero"
    on = ("columns", "directions")

    def coefficients(self, c: Tensor, elsewhere: Elsewhere) -> Tensor:
        return torch.zeros_like(c)


@dataclass(frozen=True)
class Reflect(Removal):
    """The same with its sign turned."""

    name = "reflect"
    on = ("columns", "directions")
    factor: float = 1.0
    """How much of it is put in with the sign turned."""

    def coefficients(self, c: Tensor, elsewhere: Elsewhere) -> Tensor:
        return -self.factor * c

    @property
    def times(self) -> float:
        return 1 + self.factor


@dataclass(frozen=True)
class Project(Removal):
    """All of the tensor along what it writes goes, whoever wrote it; `joint_change` says how much of several."""

    name = "project"
    joint = True

    def coefficients(self, c: Tensor, elsewhere: Elsewhere) -> Tensor:
        return torch.zeros_like(c)


def joint_change(x: Tensor, vectors: Tensor, taken: Tensor) -> Tensor:
    """What is added to x (..., d) to take a share `taken` (m,), 0..1 each, of the directions `vectors` (m, d) out of it.

    Where all are taken whole, x loses its orthogonal projection on their span; one alone of unit length loses its share.
    In between it is -x Bᵀ (S B Bᵀ + 1 - S)⁺ S B, with B the unit vectors and S the shares on a diagonal: a direction of
    share 0 is as if it were not there, and directions that depend on one another are taken once.
    """
    length = torch.linalg.vector_norm(vectors, dim=1, keepdim=True)
    axes = vectors / length.clamp_min(torch.finfo(vectors.dtype).tiny)
    gram = (axes @ axes.mT).double()
    share = taken.double()
    inner = share[:, None] * gram + torch.diag(1 - share)
    mixed = torch.linalg.pinv(inner) @ torch.diag(share)
    return -((x @ axes.mT) @ mixed.to(x)) @ axes
