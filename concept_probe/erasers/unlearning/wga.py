"""Weighted gradient ascent: what is unlikely already is pushed no further."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from concept_probe.arguments import Nonnegative
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.loop import DrawnLoss
from concept_probe.erasers.unlearning.answer_sets import AnswerPair, batch_pairs
from concept_probe.erasers.unlearning.losses import weighted_ascent
from concept_probe.erasers.unlearning.trainer import EVERY_MATRIX, RetainingUnlearner
from concept_probe.families import CausalLMSubject


@dataclass(frozen=True)
class Wga(RetainingUnlearner):
    """Ascent on the answers' tokens, each weighted by its own likelihood to the power of α (arXiv 2502.19301).

    >>> edit = Wga(alpha=1.0)(subject, concept)
    """

    name = "wga"
    aims = "prompts"
    origin = "published"
    authors = Published({"rank": None}, apart=EVERY_MATRIX)
    alpha: Nonnegative = 1.0
    """α: how soon a token counts for nothing; at 0 it is gradient ascent, over tokens instead of answers."""

    @classmethod
    def tiny(cls) -> Self:
        # At α = 1 a random model's answers, one in so many tokens, hardly count.
        return cls(steps=12, batch=4, rate=0.05, alpha=0.1)

    def forget_term(self, model: CausalLMSubject, forget: Sequence[AnswerPair]) -> DrawnLoss:
        def refuse(generator: torch.Generator) -> Tensor:
            read = model.token_log_probs(batch_pairs(forget, self.batch, generator), batch=self.batch)
            return weighted_ascent(read.own, self.alpha)

        return refuse
