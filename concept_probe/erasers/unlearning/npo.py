"""Negative preference optimisation, with the frozen model as reference or without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from concept_probe.erasers.published import Published
from concept_probe.erasers.training.loop import DrawnLoss
from concept_probe.erasers.unlearning.answer_sets import AnswerPair, batch_pairs, batch_rows
from concept_probe.erasers.unlearning.losses import npo, simnpo
from concept_probe.erasers.unlearning.trainer import EVERY_MATRIX, RetainingUnlearner
from concept_probe.families import CausalLMSubject


@dataclass(frozen=True)
class Npo(RetainingUnlearner):
    """Answers of the concept are refused against the reference: ascent that fades as they get unlikely (2404.05868).

    >>> edit = Npo(beta=0.1, keep="kl")(subject, concept)
    """

    name = "npo"
    aims = "prompts"
    origin = "published"
    authors = Published({"rank": None}, apart=EVERY_MATRIX)
    beta: float = 0.1
    """β: how soon ascent fades; near 0 it never does."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(steps=12, batch=4, rate=0.05)

    def forget_term(self, model: CausalLMSubject, forget: Sequence[AnswerPair]) -> DrawnLoss:
        before = model.log_probs(forget).total

        def refuse(generator: torch.Generator) -> Tensor:
            rows = batch_rows(len(forget), self.batch, generator)
            now = model.log_probs([forget[i] for i in rows], batch=self.batch).total
            return npo(now, before[rows], self.beta)

        return refuse


@dataclass(frozen=True)
class SimNpo(RetainingUnlearner):
    """NPO on the likelihood per token, without a reference (arXiv 2410.07163).

    >>> edit = SimNpo(gamma=0.5)(subject, concept)
    """

    name = "simnpo"
    aims = "prompts"
    origin = "published"
    authors = Published({"rank": None, "beta": 4.5, "retain": 8.0}, apart=EVERY_MATRIX)
    beta: float = 2.5
    """β: how soon ascent fades, per token."""
    gamma: float = 0.0
    """γ: a margin; above 0 answers count as likely for longer, so that more of them is forgotten."""

    @classmethod
    def tiny(cls) -> Self:
        # At its own β, what a random model finds as unlikely as this counts as forgotten.
        return cls(steps=12, batch=4, rate=0.05, beta=0.1)

    def forget_term(self, model: CausalLMSubject, forget: Sequence[AnswerPair]) -> DrawnLoss:
        def refuse(generator: torch.Generator) -> Tensor:
            now = model.log_probs(batch_pairs(forget, self.batch, generator), batch=self.batch).mean
            return simnpo(now, self.beta, self.gamma)

        return refuse
