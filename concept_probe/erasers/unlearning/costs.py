"""How much likelihood an edit takes from a concept's answers and from its neighbours', on prompts that it was not made from."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from concept_probe.detect.answers import continuation
from concept_probe.types import Concept, Kind, Prompt, evenly

if TYPE_CHECKING:
    from concept_probe.erasers.erasure.edit import Edit
    from concept_probe.families import CausalLMSubject

MOST = 16
"""Prompts of each list that are asked."""
WORTH_TELLING = 0.05
"""Nats per token below which a fall of neighbours is none."""


@dataclass(frozen=True)
class AnswersFell:
    """How far log likelihood per token of right answers fell, in nats, in the mean over prompts of the select split."""

    target: float
    neighbours: float

    @property
    def backwards(self) -> bool:
        """Whether neighbours fell further than the target."""
        return self.neighbours > max(self.target, WORTH_TELLING)


@torch.no_grad()
def answers_fell(
    subject: CausalLMSubject, edit: Edit, concept: Concept, others: Sequence[Kind] = ("neighbours",)
) -> AnswersFell | None:
    """What `edit` costs answers to the concept's target, and to `others`; None where either has no select prompt with answers.

    Two passes over at most `MOST` prompts of each list.
    """
    asked = [_answered(concept, ["target"]), _answered(concept, others)]
    if not all(asked):
        return None
    pairs = [(p, continuation(p, p.answers[0])) for prompts in asked for p in prompts]
    before = subject.log_probs(pairs).mean
    with edit.on(subject):
        fell = (before - subject.log_probs(pairs).mean).float()
    return AnswersFell(*(float(part.mean()) for part in fell.split([len(prompts) for prompts in asked])))


def _answered(concept: Concept, kinds: Sequence[Kind]) -> list[Prompt]:
    return list(evenly([p for kind in kinds for p in concept.prompts(kind, "select") if p.answers], MOST))


def told(subject: CausalLMSubject, edit: Edit, concept: Concept, mend: str) -> dict[str, float]:
    """`answers_fell` for an edit's `made_by`, {} where it can't be measured; warns where neighbours fall further."""
    fell = answers_fell(subject, edit, concept)
    if fell is None:
        return {}
    if fell.backwards:
        warnings.warn(
            f"{edit.name}: on select prompts right answers about neighbours fell further than those about "
            f"{concept.name!r}, by {fell.neighbours:.2f} nats per token against {fell.target:.2f}; {mend}",
            stacklevel=2,
        )
    return {"target_fell": fell.target, "neighbours_fell": fell.neighbours}
