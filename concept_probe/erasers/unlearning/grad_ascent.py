"""Gradient ascent: make the concept's answers less likely, and nothing else (as in arXiv 2401.06121)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from concept_probe.erasers.finetune.trainable import Student
from concept_probe.erasers.unlearning.losses import nll
from concept_probe.erasers.unlearning.trainer import Keeper, Pair, Term, Unlearner, named_modules, pick
from concept_probe.types import Concept, Site

if TYPE_CHECKING:
    from concept_probe.families import CausalLMSubject


@dataclass(frozen=True)
class GradAscent(Unlearner):
    """Minimise the log likelihood of the concept's answers. It has no bound and keeps nothing else.

    >>> edit = GradAscent(steps=20)(subject, concept)
    """

    name: ClassVar[str] = "grad_ascent"

    def sites(self, model: CausalLMSubject) -> tuple[Site, ...]:
        return named_modules(model, self.modules, self.name)

    def terms(
        self, model: CausalLMSubject, student: Student, concept: Concept, forget: Sequence[Pair]
    ) -> tuple[Term, ...]:
        return (ascent(model, forget, self.batch),)


@dataclass(frozen=True)
class GradDiff(Keeper):
    """Gradient ascent on the concept's answers, and descent on those that are kept (arXiv 2401.06121).

    >>> edit = GradDiff(retain=2.0)(subject, concept)
    """

    name: ClassVar[str] = "grad_diff"

    def sites(self, model: CausalLMSubject) -> tuple[Site, ...]:
        return named_modules(model, self.modules, self.name)

    def terms(
        self, model: CausalLMSubject, student: Student, concept: Concept, forget: Sequence[Pair]
    ) -> tuple[Term, ...]:
        return (ascent(model, forget, self.batch), *self.kept(model, concept))


def ascent(model: CausalLMSubject, forget: Sequence[Pair], batch: int) -> Term:
    """The mean log likelihood per token of answers, which descending makes smaller."""
    return lambda generator: -nll(model.log_probs(pick(forget, batch, generator), batch=batch).mean)
