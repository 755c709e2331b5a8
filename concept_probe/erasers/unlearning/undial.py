"""Unlearning by distillation from oneself, with less of each answer's token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from concept_probe.arguments import Nonnegative
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.loop import DrawnLoss
from concept_probe.erasers.unlearning.answer_sets import AnswerPair, batch_rows
from concept_probe.erasers.unlearning.losses import less_of_token
from concept_probe.erasers.unlearning.trainer import EVERY_MATRIX, RetainingUnlearner
from concept_probe.families import CausalLMSubject


@dataclass(frozen=True)
class Undial(RetainingUnlearner):
    """The model learns to say what it would say if the logit of every token of an answer were β lower (arXiv 2402.10052).

    The goal is fixed, so training comes to rest; nothing else is kept unless asked for.

    >>> edit = Undial(beta=10.0)(subject, concept)
    """

    name = "undial"
    aims = "prompts"
    origin = "published"
    authors = Published({"rank": None}, apart=EVERY_MATRIX)
    retain: float = 0.0
    beta: Nonnegative = 10.0
    """β: how much lower the logits of the answers' tokens become; at 0 nothing is learned."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(steps=40, batch=8, rate=0.01)

    def forget_term(self, model: CausalLMSubject, forget: Sequence[AnswerPair]) -> DrawnLoss:
        read = model.token_log_probs(forget)
        before = read.every.split(read.pair.bincount().tolist())

        def refuse(generator: torch.Generator) -> Tensor:
            rows = batch_rows(len(forget), self.batch, generator)
            now = model.token_log_probs([forget[i] for i in rows], batch=self.batch)
            return less_of_token(now.every, torch.cat([before[i] for i in rows]), now.ids, self.beta)

        return refuse
