"""Gradient ascent: make the concept's answers less likely, and nothing else (as in arXiv 2401.06121)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from concept_probe.erasers.published import Published
from concept_probe.erasers.training.loop import DrawnLoss
from concept_probe.erasers.training.trainable import Student
from concept_probe.erasers.unlearning.answer_sets import AnswerPair, batch_pairs
from concept_probe.erasers.unlearning.losses import nll
from concept_probe.erasers.unlearning.trainer import EVERY_MATRIX, RetainingUnlearner, Unlearner, block_matrices
from concept_probe.families import CausalLMSubject
from concept_probe.types import Concept, Site


@dataclass(frozen=True)
class GradAscent(Unlearner):
    """Minimise the log likelihood of the concept's answers. It has no bound and keeps nothing else.

    >>> edit = GradAscent(steps=20)(subject, concept)
    """

    name = "grad_ascent"
    aims = "prompts"
    origin = "published"
    authors = Published({"rank": None}, apart=EVERY_MATRIX)

    @classmethod
    def tiny(cls) -> Self:
        return cls(steps=12, batch=4, rate=0.05)

    def sites(self, model: CausalLMSubject) -> tuple[Site, ...]:
        return block_matrices(model, self.modules, self.name)

    def terms(
        self, model: CausalLMSubject, student: Student, concept: Concept, forget: Sequence[AnswerPair]
    ) -> tuple[DrawnLoss, ...]:
        return (ascent(model, forget, self.batch),)


@dataclass(frozen=True)
class GradDiff(RetainingUnlearner):
    """Gradient ascent on the concept's answers, and descent on those that are kept (arXiv 2401.06121).

    >>> edit = GradDiff(retain=2.0)(subject, concept)
    """

    name = "grad_diff"
    aims = "prompts"
    origin = "published"
    authors = Published({"rank": None}, apart=EVERY_MATRIX)

    @classmethod
    def tiny(cls) -> Self:
        return cls(steps=12, batch=4, rate=0.05)

    def forget_term(self, model: CausalLMSubject, forget: Sequence[AnswerPair]) -> DrawnLoss:
        return ascent(model, forget, self.batch)


def ascent(model: CausalLMSubject, forget: Sequence[AnswerPair], batch: int) -> DrawnLoss:
    """The mean log likelihood per token of answers, which descending makes smaller."""
    return lambda generator: -nll(model.log_probs(batch_pairs(forget, batch, generator), batch=batch).mean)
