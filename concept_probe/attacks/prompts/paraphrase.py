"""Ask in other words: synonyms, and descriptions that never use the name."""

from __future__ import annotations

from dataclasses import dataclass

from concept_probe.attacks.attack import Attack
from concept_probe.attacks.attempt import AttackRun, Attempt, NothingToAsk
from concept_probe.attacks.best_of_n import PromptPlan, best_of_n
from concept_probe.attacks.labels import decoys
from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class Paraphrases(Attack[Subject]):
    """The concept's test-split paraphrases and implicit prompts, asked one after the other.

    The curve is the chance that at least one of q queries, drawn at random from those asked, shows the
    concept: 1 − C(N − h, q) / C(N, q) for h hits among N. Half as many unrelated prompts, labelled with
    the concept, are the control: what is seen in them is a mistake of the recogniser.
    """

    name = "paraphrases"
    on = "both"

    def run(self, run: AttackRun[Subject]) -> Attempt:
        concept = run.concept
        prompts = (*concept.prompts("paraphrases", "test"), *concept.prompts("implicit", "test"))
        if not prompts:
            raise NothingToAsk(f"concept {concept.name!r} has no paraphrases or implicit prompts to test with")
        return best_of_n(run, PromptPlan(prompts, decoys(concept), "unrelated prompts"))
