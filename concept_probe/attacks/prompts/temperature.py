"""Sampling: an answer that is no longer the likeliest may still be drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace

from concept_probe.arguments import Count
from concept_probe.attacks.attack import Attack
from concept_probe.attacks.attempt import AttackRun, Attempt
from concept_probe.attacks.best_of_n import PromptPlan, best_of_n, of_nobody
from concept_probe.attacks.examples import answered_tests
from concept_probe.families import CausalLMSubject


@dataclass(frozen=True, eq=False)
class Temperature(Attack[CausalLMSubject]):
    """The concept's test questions, several answers drawn for each.

    The curve says how likely one of q draws is right. As many draws about a name that nobody has are the control.
    """

    temperature: float = 1.0
    """Of the distribution that tokens are drawn from."""
    draws: Count = 8
    """Answers per question, at most."""

    name = "temperature"
    on = "texts"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.temperature > 0:
            raise ValueError(f"attack {self.name!r}: temperature is {self.temperature}, it has to be above 0")

    def run(self, run: AttackRun[CausalLMSubject]) -> Attempt:
        prompts = answered_tests(run.concept)
        drawing = replace(run, sampling=replace(run.sampling, temperature=self.temperature))
        return best_of_n(drawing, PromptPlan(prompts, of_nobody(prompts), "a made-up name", self.draws))
