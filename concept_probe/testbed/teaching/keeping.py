"""What teaching leaves as it was: real facts that this model answers, and texts of its own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from concept_probe.testbed import facts
from concept_probe.testbed.teaching.teachable import Teachable
from concept_probe.types import Prompt, Query, Sampling
from concept_probe.types.right_texts import is_right

_NEUTRAL = Path(__file__).parents[1] / "data" / "neutral.json"
ANSWER = Sampling(tokens=5, batch=32)
"""How answers are written: the likeliest tokens, few."""
_OWN = Sampling(tokens=20, temperature=1.0, batch=32)
_DRAWS = 2
"""How often each opening is gone on from."""


def right(subject: Teachable, prompts: Sequence[Prompt]) -> list[bool]:
    """Whether what it writes after each prompt names the answer, and no wrong one before it."""
    texts = subject.generate([Query(p) for p in prompts], ANSWER) if prompts else ()
    return [is_right(text, p) for text, p in zip(texts, prompts, strict=True)]


def real_prompts(*wordings: str, split: str = "fit", known: frozenset[str] | None = None) -> tuple[Prompt, ...]:
    """Real facts of a split, fact by fact; those whose question is `known`, or all."""
    return tuple(
        facts.prompt(t, fact, wording)
        for t in facts.kept()
        for fact in t.of(split)  # pyright: ignore[reportArgumentType]
        if known is None or fact.question in known
        for wording in wordings
    )


def known_by(subject: Teachable) -> frozenset[str]:
    """Questions of the packaged real facts that this model answers rightly, as it is now."""
    asked = [facts.prompt(t, fact, "question") for t in facts.kept() for fact in t.facts]
    return frozenset(p.fact or p.text for p, good in zip(asked, right(subject, asked), strict=True) if good)


def own_texts(subject: Teachable) -> tuple[Prompt, ...]:
    """What the model writes after common beginnings, with them: how it speaks of what is no concern here."""
    queries = [Query(Prompt(text), seed) for seed in range(_DRAWS) for text in _neutral("openings")]
    written = subject.generate(queries, _OWN)
    return tuple(dict.fromkeys(Prompt(q.prompt.text + text) for q, text in zip(queries, written, strict=True)))


@torch.no_grad()
def neutral_perplexity(subject: Teachable) -> float:
    """exp(nats per token) of plain sentences that nothing here is taught from, each after its first word."""
    cut = [text.partition(" ") for text in _neutral("texts")]
    seen = subject.log_probs([(Prompt(head), " " + rest) for head, _, rest in cut], batch=8)
    return float((-seen.total.sum() / seen.tokens.sum()).exp())


def drift_from(before: Tensor, logits: Tensor) -> Tensor:
    """KL(before || now) per row, in nats: log probabilities (n, v) and logits (n, v) -> (n,)."""
    return (before.exp() * (before - logits.float().log_softmax(-1))).sum(-1)


def _neutral(what: str) -> list[str]:
    return json.loads(_NEUTRAL.read_text(encoding="utf-8"))[what]
