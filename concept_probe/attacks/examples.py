"""What the attacker holds of the concept, pictures or answers, and what is left to be asked for."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from concept_probe.attacks.attack import Attack
from concept_probe.attacks.budget import Budget
from concept_probe.attacks.labels import NothingToAsk
from concept_probe.detect.answers import continuation
from concept_probe.types import Concept, Prompt


def examples_of(concept: Concept, budget: Budget, attack: str) -> Tensor:
    """The pictures that the attacker may use, float (n, 3, h, w), at most `budget.examples`.

    Raises ValueError where the concept has none.
    """
    if concept.examples is None or len(concept.examples) == 0:
        raise ValueError(
            f"attack {attack!r} needs pictures of concept {concept.name!r}: give it `examples` "
            "(n, 3, h, w) in 0..1, or leave the attack out"
        )
    return concept.examples[: budget.examples]


def answers_of(concept: Concept, budget: Budget, attack: str) -> list[tuple[Prompt, str]]:
    """The fit prompts with answers that the attacker may use, at most `budget.examples`; in their order.

    Raises ValueError where there are none.
    """
    pairs = [(p, continuation(p, p.answers[0])) for p in concept.prompts("target", "fit") if p.answers]
    if not pairs:
        raise ValueError(
            f"attack {attack!r} needs answers to fit prompts of {concept.name!r}: give its prompts `answers`, or leave "
            "the attack out"
        )
    return pairs[: budget.examples]


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


def tested(attack: Attack, concept: Concept) -> tuple[Prompt, ...]:
    """The target prompts of the test split that have answers. Raises NothingToAsk where there is none."""
    prompts = tuple(p for p in concept.prompts("target", "test") if p.answers)
    if not prompts:
        raise NothingToAsk(
            f"attack {attack.name!r} is on answers in words, and no target prompt of {concept.name!r} in its test split "
            "has `answers`; give it some, or leave the attack out"
        )
    return prompts
