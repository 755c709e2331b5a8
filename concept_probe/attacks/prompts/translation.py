"""Translation: the same facts asked for in another language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, ClassVar

from concept_probe.attacks.attack import Attack
from concept_probe.attacks.best_of_n import best_of_n, of_nobody
from concept_probe.attacks.budget import Attempt, Budget
from concept_probe.attacks.examples import tested
from concept_probe.attacks.labels import NothingToAsk, label_of
from concept_probe.testbed.german import german
from concept_probe.types import Concept, Prompt

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class Translation(Attack):
    """The concept's test questions in another language, as far as there is a translation.

    The same questions about a name that nobody has are the control, where questions name their subject.
    """

    wordings: Mapping[str, Prompt] = field(default_factory=german, repr=False)
    """By `Prompt.fact`: the question in the other language, with its answers there. Default: the packaged German."""

    name: ClassVar[str] = "translation"
    needs_examples: ClassVar[bool] = False
    on: ClassVar = "texts"

    def __call__(self, subject: Subject, concept: Concept, budget: Budget) -> Attempt:
        """Raises NothingToAsk where no test prompt has a translation."""
        asked = dict.fromkeys(p.fact for p in tested(self, concept) if p.fact in self.wordings)
        if not asked:
            raise NothingToAsk(
                f"attack {self.name!r}: none of the {len(self.wordings)} translations is of a fact that the test split of "
                f"{concept.name!r} asks for; give it `wordings`, by the `fact` of its prompts, or leave the attack out"
            )
        words = tuple(replace(self.wordings[fact], label=label_of(concept)) for fact in asked if fact is not None)
        return best_of_n(self, subject, concept, budget, words, of_nobody(words), "a made-up name")
