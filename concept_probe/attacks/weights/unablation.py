"""Take back the strongest directions of an edit, one after the other: how much of it was a patch?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from concept_probe.attacks.weights.originals import NO_EDIT, OriginalWeights, originals
from concept_probe.attacks.weights.weight_attack import WeightAttack
from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class UnAblation(WeightAttack):
    """Removes the strongest components of what an edit did to each matrix, and asks again.

    The edit's change W0 - W of each parameter is split by its singular values; level r adds the first r terms back.
    A bias comes back with the first. A guard changes no weight: it stays on at its full strength, and the attempt's
    note says so.
    """

    components: tuple[int, ...] = (1, 4)
    """How many components are taken back, rising."""
    original: OriginalWeights | None = None
    """The weights before the erasure; None: those that edits have put aside."""

    name = "unablation"
    brings = True
    x_name = "components"

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(r < 1 for r in self.components) or list(self.components) != sorted(self.components):
            raise ValueError(f"attack {self.name!r}: components is {self.components}; give rising numbers from 1")

    def holding(self, copy: Subject) -> Self:
        return replace(self, original=OriginalWeights.of(copy))

    def levels(self, subject: Subject) -> Sequence[int]:
        return (0, *self.components) if self.parameters(subject) else (0,)

    def parameters(self, subject: Subject) -> list[tuple[nn.Parameter, Tensor]]:
        return originals(subject, self.original, self.name)

    def changed(self, weight: Tensor, original: Tensor, level: int) -> Tensor:
        now = weight.float()
        return (now + leading_terms(original.to(now) - now, level)).to(weight.dtype)

    def note(self, subject: Subject) -> str:
        return "" if self.parameters(subject) else NO_EDIT


def leading_terms(change: Tensor, rank: int) -> Tensor:
    """The `rank` leading terms of the singular value decomposition of `change` (d_out, ...); a vector as it is."""
    if change.ndim < 2:
        return change
    u, s, v = torch.linalg.svd(change.flatten(1), full_matrices=False)
    return ((u[:, :rank] * s[:rank]) @ v[:rank]).reshape(change.shape)
