"""Words in the place of the concept's name, by projected gradient descent on embeddings (PEZ, arXiv 2302.03668)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from concept_probe.arguments import Count
from concept_probe.attacks.search.objective import Goal, denoised
from concept_probe.attacks.search.search import HardPrompt
from concept_probe.attacks.search.slots import Slot, in_place
from concept_probe.attacks.search.steps import SearchStep, projected_adam
from concept_probe.attacks.search.vocabulary import Vocabulary
from concept_probe.families import DiffusionSubject
from concept_probe.types import Prompt


@dataclass(frozen=True, eq=False)
class TokenSearch(HardPrompt):
    """Replaces the concept's name by words under which the erased model denoises pictures of it well.

    Vectors descend along gradients that are taken at the words nearest to them, as if words could be moved.
    """

    words: Count = 8
    """Words that are searched for."""
    rate: float = 0.3
    """Adam's step, as a multiple of the root mean square of the embeddings' entries."""

    name = "token_search"

    def slot(self, prompt: Prompt) -> Slot:
        return in_place(prompt)

    def goal(self, subject: DiffusionSubject, slots: Sequence[Slot]) -> Goal:
        return denoised(subject)

    def stepper(self, vocabulary: Vocabulary) -> SearchStep:
        return projected_adam(vocabulary, self.rate)
