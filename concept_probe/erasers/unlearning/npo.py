"""Negative preference optimisation, with the frozen model as reference or without one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from concept_probe.erasers.finetune.trainable import Student
from concept_probe.erasers.unlearning.losses import npo, simnpo
from concept_probe.erasers.unlearning.trainer import Keeper, Pair, Term, draw, named_modules, pick
from concept_probe.types import Concept, Site

if TYPE_CHECKING:
    from concept_probe.families import CausalLMSubject


@dataclass(frozen=True)
class Npo(Keeper):
    """Answers of the concept are refused against the reference: ascent that fades as they get unlikely (2404.05868).

    >>> edit = Npo(beta=0.1, keep="kl")(subject, concept)
    """

    name: ClassVar[str] = "npo"
    beta: float = 0.1
    """β: how soon ascent fades; near 0 it never does."""

    def sites(self, model: CausalLMSubject) -> tuple[Site, ...]:
        return named_modules(model, self.modules, self.name)

    def terms(
        self, model: CausalLMSubject, student: Student, concept: Concept, forget: Sequence[Pair]
    ) -> tuple[Term, ...]:
        before = model.log_probs(forget).total

        def refuse(generator: torch.Generator) -> Tensor:
            rows = draw(len(forget), self.batch, generator)
            said = model.log_probs([forget[i] for i in rows], batch=self.batch).total
            return npo(said, before[rows], self.beta)

        return (refuse, *self.kept(model, concept))


@dataclass(frozen=True)
class SimNpo(Keeper):
    """NPO on the likelihood per token, without a reference (arXiv 2410.07163).

    >>> edit = SimNpo(gamma=0.5)(subject, concept)
    """

    name: ClassVar[str] = "simnpo"
    beta: float = 2.5
    """β: how soon ascent fades, per token."""
    gamma: float = 0.0
    """γ: a margin; above 0 answers count as likely for longer, so that more of them is forgotten."""

    def sites(self, model: CausalLMSubject) -> tuple[Site, ...]:
        return named_modules(model, self.modules, self.name)

    def terms(
        self, model: CausalLMSubject, student: Student, concept: Concept, forget: Sequence[Pair]
    ) -> tuple[Term, ...]:
        def refuse(generator: torch.Generator) -> Tensor:
            said = model.log_probs(pick(forget, self.batch, generator), batch=self.batch).mean
            return simnpo(said, self.beta, self.gamma)

        return (refuse, *self.kept(model, concept))
