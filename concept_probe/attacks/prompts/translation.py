"""Translation: the same facts asked for in another language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from concept_probe.attacks.attack import Attack
from concept_probe.attacks.attempt import AttackRun, Attempt, NothingToAsk
from concept_probe.attacks.best_of_n import PromptPlan, best_of_n, of_nobody
from concept_probe.attacks.examples import answered_tests
from concept_probe.families import CausalLMSubject
from concept_probe.testbed.german import german
from concept_probe.types import Concept, Prompt


@dataclass(frozen=True, eq=False)
class Translation(Attack[CausalLMSubject]):
    """The concept's test questions in another language, as far as there is a translation.

    The same questions about a name that nobody has are the control, where questions name their subject.
    """

    wordings: Mapping[str, Prompt] = field(default_factory=german, repr=False)
    """By `Prompt.fact`: the question in the other language, with its answers there. Default: the packaged German."""

    name = "translation"
    on = "texts"

    @classmethod
    def tiny(cls, concept: Concept) -> dict[str, Any]:
        return {"wordings": {p.fact: replace(p, text=f"die {p.text}") for p in concept.target.test if p.fact}}

    def run(self, run: AttackRun[CausalLMSubject]) -> Attempt:
        concept = run.concept
        asked = dict.fromkeys(p.fact for p in answered_tests(concept) if p.fact in self.wordings)
        if not asked:
            raise NothingToAsk(
                f"none of the {len(self.wordings)} translations is of a fact that the test split of {concept.name!r} asks "
                "for; give it `wordings`, by the `fact` of its prompts, or leave the attack out"
            )
        prompts = tuple(replace(self.wordings[fact], label=run.label) for fact in asked if fact is not None)
        return best_of_n(run, PromptPlan(prompts, of_nobody(prompts), "a made-up name"))
