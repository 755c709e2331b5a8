"""What is forgotten and what is retained: prompts with their answers, and batches of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from concept_probe.detect.answers import continuation
from concept_probe.types import Concept, Kind, Prompt


def texts_with_answers(concept: Concept, kinds: Sequence[Kind]) -> list[Prompt]:
    """The fit prompts of these kinds, with their answers where they have some."""
    prompts = [p for kind in kinds for p in concept.prompts(kind, "fit")]
    return [as_text((p, continuation(p, p.answers[0]))) if p.answers else p for p in prompts]


AnswerPair = tuple[Prompt, str]
"""A prompt, and a text that goes on from it."""


def answer_pairs(concept: Concept, kinds: Sequence[Kind]) -> tuple[AnswerPair, ...]:
    """Each fit prompt of these kinds that has answers, with the usual one."""
    prompts = [p for kind in kinds for p in concept.prompts(kind, "fit") if p.answers]
    return tuple((p, continuation(p, p.answers[0])) for p in prompts)


def preferred_pairs(pairs: Sequence[AnswerPair], instead: Sequence[str], method: str) -> list[AnswerPair]:
    """What should be said to each prompt: texts of `instead` in turn, or without any its first distractor.

    Raises ValueError for a prompt without distractors where they are asked for.
    """
    out: list[AnswerPair] = []
    for i, (prompt, _) in enumerate(pairs):
        if not instead and not prompt.distractors:
            raise ValueError(
                f"{method}: {prompt.text!r} has no distractor to prefer; give it `distractors`, or texts in `instead`"
            )
        text = instead[i % len(instead)] if instead else prompt.distractors[0]
        out.append((prompt, continuation(prompt, text)))
    return out


def batch_rows(count: int, batch: int, generator: torch.Generator) -> list[int]:
    """`batch` of `count` rows, without repeats where there are enough of them."""
    if count <= batch:
        return list(range(count))
    return torch.randperm(count, generator=generator)[:batch].tolist()


def batch_pairs(pairs: Sequence[AnswerPair], batch: int, generator: torch.Generator) -> list[AnswerPair]:
    """A batch of the pairs."""
    return [pairs[i] for i in batch_rows(len(pairs), batch, generator)]


def as_text(pair: AnswerPair) -> Prompt:
    """A prompt and its answer as one text to read; of a chat, the user's turn alone."""
    prompt, text = pair
    return replace(prompt, text=prompt.text + text) if prompt.form == "plain" else prompt
