"""Ask in other words: synonyms, and descriptions that never use the name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from concept_probe.attacks.attack import Attack
from concept_probe.attacks.best_of_n import best_of_n
from concept_probe.attacks.budget import Attempt, Budget
from concept_probe.attacks.labels import NothingToAsk, decoys
from concept_probe.types import Concept

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class Paraphrases(Attack):
    """The concept's test-split paraphrases and implicit prompts, asked one after the other.

    The curve is the chance that at least one of q queries, drawn at random from those asked, shows the
    concept: 1 − C(N − h, q) / C(N, q) for h hits among N. Half as many unrelated prompts, labelled with
    the concept, are the control: what is seen in them is a mistake of the recogniser.
    """

    name: ClassVar[str] = "paraphrases"
    needs_examples: ClassVar[bool] = False

    def __call__(self, subject: Subject, concept: Concept, budget: Budget) -> Attempt:
        words = (*concept.prompts("paraphrases", "test"), *concept.prompts("implicit", "test"))
        if not words:
            raise NothingToAsk(
                f"attack {self.name!r}: concept {concept.name!r} has no paraphrases or implicit prompts to test with"
            )
        return best_of_n(self, subject, concept, budget, words, decoys(concept), "unrelated prompts")
