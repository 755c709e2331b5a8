"""Mix the erased weights with those before the erasure (model soups, arXiv 2203.05482): how far back is far enough?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from torch import Tensor, nn

from concept_probe.attacks.weights.originals import NO_EDIT, OriginalWeights, originals
from concept_probe.attacks.weights.weight_attack import WeightAttack
from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class Merging(WeightAttack):
    """Puts a share of the difference to the original weights back into the erased ones, and asks again.

    The original weights are those that the edits which are on put aside, or `original`. A guard changes no weight: there is
    nothing to merge back, it stays on at its full strength, and the attempt's note says so.
    """

    percent: tuple[int, ...] = (25, 50)
    """Shares of the way back to the original, rising."""
    original: OriginalWeights | None = None
    """The weights before the erasure; None: those that edits have put aside."""

    name = "merging"
    brings = True
    x_name = "percent of the way back"

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(not 0 < p <= 100 for p in self.percent) or list(self.percent) != sorted(self.percent):
            raise ValueError(f"attack {self.name!r}: percent is {self.percent}; give rising numbers up to 100")

    def holding(self, copy: Subject) -> Self:
        return replace(self, original=OriginalWeights.of(copy))

    def levels(self, subject: Subject) -> Sequence[int]:
        return (0, *self.percent) if self.parameters(subject) else (0,)

    def parameters(self, subject: Subject) -> list[tuple[nn.Parameter, Tensor]]:
        return originals(subject, self.original, self.name)

    def changed(self, weight: Tensor, original: Tensor, level: int) -> Tensor:
        now = weight.float()
        return (now + (original.to(now) - now) * (level / 100)).to(weight.dtype)

    def note(self, subject: Subject) -> str:
        return "" if self.parameters(subject) else NO_EDIT
