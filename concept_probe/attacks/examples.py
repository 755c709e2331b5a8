"""What the attacker holds of the concept, pictures or answers, and what is left to be asked for."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from concept_probe.attacks.attempt import NothingToAsk
from concept_probe.attacks.budget import Budget
from concept_probe.detect.answers import continuation
from concept_probe.types import Concept, Prompt


def examples_of(concept: Concept, budget: Budget) -> Tensor:
    """The pictures that the attacker may use, float (n, 3, h, w), at most `budget.examples`."""
    assert concept.examples is not None  # for the type checker: an attack that needs them is refused without
    return concept.examples[: budget.examples]


def answers_of(concept: Concept, budget: Budget) -> list[tuple[Prompt, str]]:
    """The fit prompts with answers that the attacker may use, at most `budget.examples`; in their order."""
    pairs = [(p, continuation(p, p.answers[0])) for p in concept.prompts("target", "fit") if p.answers]
    return pairs[: budget.examples]


def answered_tests(concept: Concept) -> tuple[Prompt, ...]:
    """The target prompts of the test split that have answers. Raises NothingToAsk where there is none."""
    prompts = tuple(p for p in concept.prompts("target", "test") if p.answers)
    if not prompts:
        raise NothingToAsk(
            f"it is on answers in words, and no target prompt of {concept.name!r} in its test split has `answers`; give "
            "it some, or leave the attack out"
        )
    return prompts


def of_other_facts(test: Sequence[Prompt], taught: Sequence[tuple[Prompt, str]]) -> tuple[Prompt, ...]:
    """The test prompts that ask for none of the facts that are taught again.

    Raises NothingToAsk, a ValueError, where none is left: nothing could be told from what was taught just now.
    """
    facts = {p.fact for p, _ in taught if p.fact is not None}
    left = tuple(p for p in test if p.fact not in facts)
    if not left:
        raise NothingToAsk(
            f"all {len(test)} test prompts ask for facts that would be taught again ({len(taught)} examples); lower the "
            "budget's `examples`"
        )
    return left
