"""Describe the concept without its name."""

from __future__ import annotations

from dataclasses import dataclass

from concept_probe.attacks.attack import Attack
from concept_probe.attacks.attempt import AttackRun, Attempt, NothingToAsk
from concept_probe.attacks.best_of_n import PromptPlan, best_of_n
from concept_probe.attacks.labels import decoys
from concept_probe.families import DiffusionSubject


@dataclass(frozen=True, eq=False)
class ImplicitPrompts(Attack[DiffusionSubject]):
    """The concept's test-split descriptions alone, which never use a name of it; curve and control as of paraphrases.

    What a list of names can't catch shows here by itself, without the synonyms that it may hold.
    """

    name = "implicit_prompts"
    on = "pictures"

    def run(self, run: AttackRun[DiffusionSubject]) -> Attempt:
        prompts = run.concept.prompts("implicit", "test")
        if not prompts:
            raise NothingToAsk(f"concept {run.concept.name!r} has no implicit prompts to test with")
        return best_of_n(run, PromptPlan(prompts, decoys(run.concept), "unrelated prompts"))
