"""Direct preference optimisation for unlearning: another answer is preferred to the concept's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from concept_probe.erasers.published import Published
from concept_probe.erasers.training.loop import DrawnLoss
from concept_probe.erasers.unlearning.answer_sets import AnswerPair, batch_rows, preferred_pairs
from concept_probe.erasers.unlearning.losses import dpo
from concept_probe.erasers.unlearning.trainer import EVERY_MATRIX, RetainingUnlearner
from concept_probe.families import CausalLMSubject


@dataclass(frozen=True)
class Dpo(RetainingUnlearner):
    """A refusal, or a wrong answer, is preferred to the right one (arXiv 2305.18290; for unlearning, 2401.06121).

    >>> edit = Dpo(instead=())(subject, concept)      # a distractor of each prompt in place of a refusal
    """

    name = "dpo"
    aims = "prompts"
    origin = "published"
    authors = Published({"rank": None, "retain": 0.05}, apart=EVERY_MATRIX)
    beta: float = 0.1
    """β: how soon the preference counts as learned."""
    instead: tuple[str, ...] = ("unknown.", "not known.", "a secret.")
    """What should be said, taken in turn; nothing: each prompt's first distractor."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(steps=12, batch=4, rate=0.05)

    def forget_term(self, model: CausalLMSubject, forget: Sequence[AnswerPair]) -> DrawnLoss:
        wanted = preferred_pairs(forget, self.instead, self.name)
        before, wanted_before = model.log_probs(forget).total, model.log_probs(wanted).total

        def prefer(generator: torch.Generator) -> Tensor:
            rows = batch_rows(len(forget), self.batch, generator)
            pairs = [wanted[i] for i in rows] + [forget[i] for i in rows]
            preferred, other = model.log_probs(pairs, batch=self.batch).total.chunk(2)
            return dpo(preferred, wanted_before[rows], other, before[rows], self.beta)

        return prefer
