"""What an attacker teaches, and what it is tested on: shared by every attack that learns from a few examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.attacks.attack import (
    Attack,
    Loss,
    NothingToAsk,
    denoising,
    distinct,
    examples_of,
    label_of,
    lay_out,
    relabelled,
    spread,
)
from concept_probe.attacks.budget import Budget, Meter
from concept_probe.detect.answers import Continues, continuation
from concept_probe.types import Concept, Prompt, Query

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True, eq=False)
class Lessons:
    """A loss to descend, where to stop on the way, and the queries of each stop."""

    loss: Loss | None
    """None where the budget holds no example."""
    steps: tuple[int, ...]
    queries: tuple[Query, ...]


def lessons_for(
    attack: Attack, subject: Subject, concept: Concept, meter: Meter, *, points: int, pictures: int, batch: int
) -> Lessons:
    """Examples of the fit split, and the test prompts; of a language model those of facts that are not taught.

    Raises ValueError where the concept has no fit prompts or no examples, NothingToAsk where nothing is left to ask.
    """
    budget, fit = meter.budget, concept.prompts("target", "fit")
    if not fit:
        raise ValueError(f"attack {attack.name!r}: concept {concept.name!r} has no target prompts in its fit split")
    test = relabelled(concept.prompts("target", "test"), label_of(concept))
    steps, each = lay_out(budget, points, pictures)
    if isinstance(subject, Continues):
        examples = answers_of(concept, budget, attack.name)
        test = of_other_facts(test, examples)
        loss = likelihood(subject, examples, batch) if examples else None
    else:
        examples = examples_of(concept, budget, attack.name)
        loss = denoising(subject, examples, fit, batch)
    meter.use_examples(len(examples))
    return Lessons(loss, steps, spread(test, distinct(attack, test, each), attack.seed))


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


def likelihood(subject: Continues, pairs: Sequence[tuple[Prompt, str]], batch: int) -> Loss:
    """Negative log likelihood per token of answers, a batch of them drawn each time."""

    def loss(generator: torch.Generator) -> Tensor:
        rows = torch.randint(len(pairs), (batch,), generator=generator).tolist()
        return -subject.log_probs([pairs[i] for i in rows], batch=batch).mean.mean()

    return loss
