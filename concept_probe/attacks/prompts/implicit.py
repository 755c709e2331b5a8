"""Describe the concept without its name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from concept_probe.attacks.attack import Attack
from concept_probe.attacks.budget import Attempt, Budget
from concept_probe.attacks.prompts.paraphrase import Paraphrases
from concept_probe.types import Concept, Splits

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class ImplicitPrompts(Attack):
    """The concept's test-split descriptions alone, which never use a name of it; else as paraphrases.

    What a list of names can't catch shows here by itself, without the synonyms that it may hold.
    """

    name: ClassVar[str] = "implicit_prompts"
    needs_examples: ClassVar[bool] = False
    on: ClassVar = "pictures"

    def __call__(self, subject: Subject, concept: Concept, budget: Budget) -> Attempt:
        if not concept.prompts("implicit", "test"):
            raise ValueError(f"attack {self.name!r}: concept {concept.name!r} has no implicit prompts to test with")
        asked = Paraphrases(self.recogniser, self.sampling, self.seed, self.known)
        attempt = asked(subject, replace(concept, paraphrases=Splits()), budget)
        curve = tuple((x, replace(score, name=self.name)) for x, score in attempt.curve)
        shown = tuple(replace(p, name=self.name) for p in attempt.pictures)
        return replace(attempt, attack=self.name, curve=curve, pictures=shown)
