"""Set the smallest weights to zero (arXiv 1506.02626): small entries that an erasure wrote go first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from concept_probe.attacks.weights.parameters import matrices
from concept_probe.attacks.weights.weight_attack import WeightAttack
from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class Pruning(WeightAttack):
    """Sets the given share of every matrix to zero, smallest entries first, and asks again.

    A guard stays on: it is no weight.
    """

    percent: tuple[int, ...] = (10, 30)
    """Share of each matrix that is set to zero, rising."""

    name = "pruning"
    x_name = "percent of weights"

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(not 0 < p < 100 for p in self.percent) or list(self.percent) != sorted(self.percent):
            raise ValueError(f"attack {self.name!r}: percent is {self.percent}; give rising numbers between 0 and 100")

    def levels(self, subject: Subject) -> Sequence[int]:
        return (0, *self.percent)

    def parameters(self, subject: Subject) -> list[tuple[nn.Parameter, Tensor]]:
        return [(p, p.detach()) for p in matrices(subject)]

    def changed(self, weight: Tensor, original: Tensor, level: int) -> Tensor:
        return pruned(weight, level / 100)

    def note(self, subject: Subject) -> str:
        return ""


def pruned(weight: Tensor, share: float) -> Tensor:
    """`weight` with the `share` of its entries that are smallest in size set to zero."""
    count = int(share * weight.numel())
    if count == 0:
        return weight.clone()
    smallest = weight.abs().flatten().float().topk(count, largest=False).indices
    out = weight.flatten().clone()
    out[smallest] = 0
    return out.reshape(weight.shape)
