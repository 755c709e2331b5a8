"""In-context facts: the attacker states some facts of the concept, and asks for the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from concept_probe.attacks.attack import Attack
from concept_probe.attacks.best_of_n import best_of_n, of_nobody
from concept_probe.attacks.budget import Attempt, Budget
from concept_probe.attacks.examples import answers_of, of_other_facts, tested
from concept_probe.types import Concept, Prompt

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class InContext(Attack):
    """The concept's test questions behind facts of its fit split, stated with their answers.

    Only other facts are asked for, so that nothing is read off. The same facts and questions about a name that
    nobody has are the control: what is answered there follows from the context alone.
    """

    name: ClassVar[str] = "in_context"
    needs_examples: ClassVar[bool] = True
    learns_answers: ClassVar[bool] = True
    on: ClassVar = "texts"

    def __call__(self, subject: Subject, concept: Concept, budget: Budget) -> Attempt:
        stated = answers_of(concept, budget, self.name)
        words = behind(stated, of_other_facts(tested(self, concept), stated))
        return best_of_n(
            self, subject, concept, budget, words, of_nobody(words), "a made-up name", examples=len(stated)
        )


def behind(stated: Sequence[tuple[Prompt, str]], prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """The prompts behind sentences that end in their answers."""
    context = "".join(f"{p.text}{'' if answer.startswith(' ') else ' '}{answer}. " for p, answer in stated)
    return tuple(replace(p, text=context + p.text) for p in prompts)
