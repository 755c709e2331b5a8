"""Sampling: an answer that is no longer the likeliest may still be drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from concept_probe.attacks.attack import Attack
from concept_probe.attacks.best_of_n import best_of_n, of_nobody
from concept_probe.attacks.budget import Attempt, Budget
from concept_probe.attacks.examples import tested
from concept_probe.types import Concept

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class Temperature(Attack):
    """The concept's test questions, several answers drawn for each.

    The curve says how likely one of q draws is right. As many draws about a name that nobody has are the control.
    """

    temperature: float = 1.0
    """Of the distribution that tokens are drawn from."""
    draws: int = 8
    """Answers per question, at most."""

    name: ClassVar[str] = "temperature"
    needs_examples: ClassVar[bool] = False
    on: ClassVar = "texts"

    def __call__(self, subject: Subject, concept: Concept, budget: Budget) -> Attempt:
        """Raises ValueError for a temperature that draws nothing."""
        if not self.temperature > 0:
            raise ValueError(f"attack {self.name!r}: temperature is {self.temperature}, it has to be above 0")
        words = tested(self, concept)
        drawing = replace(self, sampling=replace(self.sampling, temperature=self.temperature), known={})
        return best_of_n(drawing, subject, concept, budget, words, of_nobody(words), "a made-up name", draws=self.draws)
