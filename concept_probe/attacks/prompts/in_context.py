"""In-context facts: the attacker states some facts of the concept, and asks for the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from concept_probe.attacks.attack import Attack
from concept_probe.attacks.attempt import AttackRun, Attempt
from concept_probe.attacks.best_of_n import PromptPlan, best_of_n, of_nobody
from concept_probe.attacks.examples import answered_tests, answers_of, of_other_facts
from concept_probe.families import CausalLMSubject
from concept_probe.types import Prompt


@dataclass(frozen=True, eq=False)
class InContext(Attack[CausalLMSubject]):
    """The concept's test questions behind facts of its fit split, stated with their answers.

    Only other facts are asked for, so that nothing is read off. The same facts and questions about a name that
    nobody has are the control: what is answered there follows from the context alone.
    """

    name = "in_context"
    on = "texts"
    needs_examples = True

    def run(self, run: AttackRun[CausalLMSubject]) -> Attempt:
        stated = answers_of(run.concept, run.budget)
        prompts = behind(stated, of_other_facts(answered_tests(run.concept), stated))
        run.meter.use_examples(len(stated))
        return best_of_n(run, PromptPlan(prompts, of_nobody(prompts), "a made-up name"))


def behind(stated: Sequence[tuple[Prompt, str]], prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """The prompts behind sentences that end in their answers."""
    context = "".join(f"{p.text}{'' if answer.startswith(' ') else ' '}{answer}. " for p, answer in stated)
    return tuple(replace(p, text=context + p.text) for p in prompts)
