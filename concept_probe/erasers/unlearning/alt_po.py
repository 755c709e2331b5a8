"""Alternate preference optimisation: the model prefers other answers of its own to the concept's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from concept_probe.arguments import Count, Nonnegative
from concept_probe.detect.answers import continuation, is_right
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.loop import DrawnLoss
from concept_probe.erasers.unlearning.answer_sets import AnswerPair, batch_rows
from concept_probe.erasers.unlearning.losses import dpo
from concept_probe.erasers.unlearning.trainer import EVERY_MATRIX, RetainingUnlearner
from concept_probe.families import CausalLMSubject
from concept_probe.types import Prompt, Query, Sampling

TRIES = 8
"""Texts that are written for each alternative that is wanted, at most."""
MORE_TOKENS = 4
"""How many tokens longer than the right answer an alternative may be."""


@dataclass(frozen=True)
class AltPo(RetainingUnlearner):
    """What the model itself writes in the place of an answer, where it is not right, is preferred to it (arXiv 2409.13474).

    >>> edit = AltPo(alternatives=5)(subject, concept)
    """

    name = "alt_po"
    aims = "prompts"
    origin = "published"
    authors = Published(
        {
            "rank": None,
            "retain": 0.05,
            "ask": "{prompt}{answer}. Made up: {prompt}",
        },
        apart=f"the wording of `ask`, which is theirs for each chat model; {EVERY_MATRIX}",
    )
    beta: float = 0.1
    """β: how soon the preference counts as learned."""
    alternatives: Count = 5
    """Other answers per prompt; those that differ are used in turn."""
    temperature: Nonnegative = 1.0
    """Of the distribution that they are drawn from."""
    ask: str = "{prompt}"
    """What the model goes on from when it writes them, with the prompt's text and its `{answer}` put in; a chat prompt's
    turns before stay."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(steps=12, batch=4, rate=0.05, alternatives=2)

    def forget_term(self, model: CausalLMSubject, forget: Sequence[AnswerPair]) -> DrawnLoss:
        others = self.others(model, forget)
        flat = [(prompt, text) for (prompt, _), texts in zip(forget, others, strict=True) for text in texts]
        starts = [sum(len(texts) for texts in others[:i]) for i in range(len(others))]
        before, preferred_before = model.log_probs(forget).total, model.log_probs(flat).total

        def prefer(generator: torch.Generator) -> Tensor:
            rows = batch_rows(len(forget), self.batch, generator)
            draws = torch.rand(len(rows), generator=generator).tolist()
            chosen = [starts[i] + int(u * len(others[i])) for i, u in zip(rows, draws, strict=True)]
            pairs = [flat[i] for i in chosen] + [forget[i] for i in rows]
            preferred, other = model.log_probs(pairs, batch=self.batch).total.chunk(2)
            return dpo(preferred, preferred_before[chosen], other, before[rows], self.beta)

        return prefer

    def others(self, model: CausalLMSubject, forget: Sequence[AnswerPair]) -> list[tuple[str, ...]]:
        """For each pair at most `alternatives` texts that go on from its prompt, no two alike and none of them right.

        Raises ValueError where the model writes nothing else in `TRIES` texts for each that is wanted.
        """
        longest = max(len(model.spelled_after(*pair)) for pair in forget) + MORE_TOKENS
        sampling = Sampling(tokens=longest, temperature=self.temperature)
        count = self.alternatives * TRIES
        asked = [Query(self.asked_of(*pair), self.seed + k) for pair in forget for k in range(count)]
        written = model.generate(asked, sampling)
        found = []
        for i, (prompt, _) in enumerate(forget):
            texts = (said_first(text) for text in written[i * count : (i + 1) * count])
            other = dict.fromkeys(continuation(prompt, t) for t in texts if t and not is_right(t, prompt))
            if not other:
                raise ValueError(
                    f"{self.name}: {model.name} writes nothing but the right answer to {prompt.text!r} in {count} texts; raise "
                    "`temperature`, or use dpo, which takes what you give it"
                )
            found.append(tuple(other)[: self.alternatives])
        return found

    def asked_of(self, prompt: Prompt, answer: str) -> Prompt:
        """What the model goes on from when it writes an alternative."""
        text = self.ask.replace("{prompt}", prompt.text).replace("{answer}", answer)
        return prompt if text == prompt.text else replace(prompt, text=text, subject=None)


def said_first(text: str) -> str:
    """The first line of a text, as far as its first full stop."""
    line = next((part.strip() for part in text.splitlines() if part.strip()), "")
    return line.split(". ")[0].rstrip(".").strip()
