"""What a language model knows: how its probability is shared between right answers and wrong ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.detect.answers import continuation
from concept_probe.types import Concept, Form, Kind, Prompt, Split, evenly

if TYPE_CHECKING:
    from concept_probe.families import CausalLMSubject

NEUTRAL: dict[Form, str] = {"plain": "The answer is", "chat": "What is the answer?"}
"""Texts that ask for an answer and say nothing: what a model prefers after them, it prefers anyway."""


@dataclass(frozen=True)
class Knowledge:
    """Per prompt, how the model weighs its right answers against its distractors. All are (n,)."""

    log_odds: Tensor
    """log of P(right answers) / P(distractors), in nats; above 0 the right ones are likelier, all taken together"""
    control: Tensor
    """the same after a neutral text of the same form: what the answers' own frequency would give"""

    @property
    def share(self) -> Tensor:
        """Probability of the right answers among all that were weighed, 0..1."""
        return self.log_odds.sigmoid()

    @property
    def control_share(self) -> Tensor:
        """`share` after the neutral text."""
        return self.control.sigmoid()

    @property
    def known(self) -> Tensor:
        """Bool: right answers are likelier than all distractors together, and likelier than without the question."""
        return (self.log_odds > 0) & (self.log_odds > self.control)


def knowledge(subject: CausalLMSubject, prompts: Sequence[Prompt], *, batch: int = 32) -> Knowledge:
    """Weigh the answers of each prompt against its distractors, asked and after a neutral text.

    Raises ValueError for a prompt without answers or without distractors.
    """
    neutral = [Prompt(NEUTRAL[p.form], form=p.form, answers=p.answers, distractors=p.distractors) for p in prompts]
    return Knowledge(log_odds(subject, prompts, batch=batch), log_odds(subject, neutral, batch=batch))


@dataclass(frozen=True)
class Weighed:
    """How likely right and wrong answers are: each (n,) float32, on the CPU, in nats."""

    right: Tensor
    """log P(one of the answers) as the continuation of each prompt"""
    wrong: Tensor
    """log P(one of the distractors)"""

    @property
    def odds(self) -> Tensor:
        """(n,) log of P(answers) / P(distractors)."""
        return self.right - self.wrong


def weigh(subject: CausalLMSubject, prompts: Sequence[Prompt], *, batch: int = 32) -> Weighed:
    """How likely each prompt's answers and distractors are as its continuation. Differentiable.

    Raises ValueError for a prompt without answers or without distractors.
    """
    for prompt in prompts:
        if not prompt.answers or not prompt.distractors:
            raise ValueError(f"{prompt.text!r} needs both answers and distractors to be weighed against each other")
    total = _log_probabilities(subject, prompts, [(*p.answers, *p.distractors) for p in prompts], batch)
    right = [each[: len(prompt.answers)].logsumexp(0) for prompt, each in zip(prompts, total, strict=True)]
    wrong = [each[len(prompt.answers) :].logsumexp(0) for prompt, each in zip(prompts, total, strict=True)]
    return Weighed(*(torch.stack(x) if x else torch.zeros(0) for x in (right, wrong)))


def log_answers(subject: CausalLMSubject, prompts: Sequence[Prompt], *, batch: int = 32) -> Tensor:
    """(n,) float32, on the CPU: `weigh(...).right` alone, without reading the distractors. Differentiable."""
    total = _log_probabilities(subject, prompts, [p.answers for p in prompts], batch)
    return torch.stack([each.logsumexp(0) for each in total]) if total else torch.zeros(0)


def _log_probabilities(
    subject: CausalLMSubject, prompts: Sequence[Prompt], texts: Sequence[tuple[str, ...]], batch: int
) -> list[Tensor]:
    """Per prompt the log probabilities of its `texts`; they are read in this order, as so many pairs."""
    pairs = [(p, continuation(p, text)) for p, each in zip(prompts, texts, strict=True) for text in each]
    total = subject.log_probs(pairs, batch=batch).total.float().cpu()
    return list(total.split([len(each) for each in texts]))


def log_odds(subject: CausalLMSubject, prompts: Sequence[Prompt], *, batch: int = 32) -> Tensor:
    """(n,) float32, on the CPU: log of P(answers) / P(distractors) after each prompt, see `weigh`; no gradients."""
    with torch.no_grad():
        return weigh(subject, prompts, batch=batch).odds


def weighable(concept: Concept, kinds: Sequence[Kind], split: Split, most: int) -> list[Prompt]:
    """At most `most` prompts with answers and distractors, evenly spread over the lists."""
    found = [p for kind in kinds for p in concept.prompts(kind, split) if p.answers and p.distractors]
    if not found:
        lists = ", ".join(kinds)
        raise ValueError(
            f"concept {concept.name!r} has no prompts with answers and distractors in {lists} of {split!r}"
        )
    return list(evenly(found, most))
