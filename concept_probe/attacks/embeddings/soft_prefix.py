"""Soft prefix: vectors before the question, learned where no token need stand (arXiv 2402.09063)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from concept_probe.attacks.budget import Meter
from concept_probe.attacks.embeddings.learned import Go, LearnedPrefix, Vectors
from concept_probe.attacks.embeddings.vectors import random_like
from concept_probe.attacks.optimise import BudgetedAdam

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class SoftPrefix(LearnedPrefix):
    """Descends the negative log likelihood of answers to some facts, in the embeddings of a filler before the question.

    Tested on other facts. Random vectors of the same norms are the control.
    """

    rate: float = 0.3
    """Adam's step, as a multiple of the root mean square of the embeddings' entries."""

    name: ClassVar[str] = "soft_prefix"
    control_name: ClassVar[str] = "random vectors"

    def learner(
        self, subject: Subject, learned: Vectors, loss: Callable[[torch.Generator], Tensor] | None,
        generator: torch.Generator, meter: Meter,
    ) -> Go:  # fmt: skip
        return BudgetedAdam(loss, list(learned.values()), self.rate, generator, meter).run

    def random(self, subject: Subject, learned: Vectors, generator: torch.Generator) -> Vectors:
        return random_like(learned, generator)
